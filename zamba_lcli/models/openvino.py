"""Networks as OpenVINO computes them on a CPU: converted from ONNX, quantized if asked for, kept on disk."""

import logging
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zamba_lcli.errors import InputError
from zamba_lcli.files import replacing
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.models.export import export_logits

RuntimePrecision: TypeAlias = Literal["float32", "bfloat16", "int8"]
XML = "model.xml"
NEEDS = {"bfloat16": ("BF16",), "int8": ("INT8",)}  # capabilities of a processor, as OpenVINO calls them


def versions() -> str:
    """Returns the versions of the packages that what is kept depends on.

    Raises:
        InputError: If they are not installed.
    """
    openvino, nncf = _packages()
    return f"openvino {openvino.__version__}, nncf {nncf.__version__}"


def write_converted(
    model: ZambaVideoClassificationLightningModule,
    folder: Path,
    *,
    shape: tuple[int, int, int],
    calibration: Iterable[NDArray[np.uint8]] | None,
) -> None:
    """Writes a network from frames to logits in OpenVINO's format.

    Args:
        model: With its weights, in float32.
        folder: Gets ``model.xml`` and ``model.bin``, whole or not at all.
        shape: Frames, height and width of a clip.
        calibration: Batches of clips, uint8 (B, 3, T, H, W), by which the network is quantized to int8; None for float32.

    Raises:
        InputError: If the network cannot take clips of this size.
        RuntimeError: If it cannot be converted.
    """
    openvino, nncf = _packages()
    frames, height, width = shape
    with TemporaryDirectory() as temporary:
        file = Path(temporary) / "model.onnx"
        export_logits(model, file, num_frames=frames, height=height, width=width)
        converted = openvino.Core().read_model(file)
        if calibration is not None:
            logging.getLogger("nncf").setLevel(logging.ERROR)
            batches = list(calibration)
            converted = nncf.quantize(converted, nncf.Dataset(batches), subset_size=len(batches))
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder) as partial:
            partial.mkdir()
            openvino.save_model(converted, partial / XML, compress_to_fp16=False)


def lacking(precision: RuntimePrecision) -> list[str]:
    """Returns what this processor lacks for a precision, which is then computed in another way."""
    openvino, _ = _packages()
    there = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [name for name in NEEDS.get(precision, ()) if name not in there]


class CompiledNetwork:
    """A network compiled for this processor.

    Args:
        folder: As ``write_converted`` wrote it.
        precision: In which it computes; int8 leaves what is not quantized in float32.
        threads: That it may use.
    """

    def __init__(self, folder: Path, precision: RuntimePrecision, threads: int) -> None:
        """Compiles it."""
        openvino, _ = _packages()
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._compiled = openvino.Core().compile_model(folder / XML, "CPU", settings)

    def __call__(self, video: Tensor) -> Tensor:
        """Returns the logits, float32 (B, classes), of clips, uint8 (B, 3, T, H, W)."""
        return torch.from_numpy(self._compiled(video.numpy())[0].copy())


def _packages() -> tuple[Any, Any]:
    try:
        import nncf
        import openvino
    except ModuleNotFoundError as error:
        raise InputError(
            f"OpenVINORuntime: the package {error.name} is not installed: pip install 'zamba-lcli[openvino]'."
        ) from None
    return openvino, nncf
