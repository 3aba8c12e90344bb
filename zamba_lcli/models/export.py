"""Models for use without this program: ONNX files."""

import gc
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from zamba_lcli.errors import InputError
from zamba_lcli.files import replacing
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule


class _Probabilities(nn.Module):
    """From frames to probabilities."""

    def __init__(self, model: ZambaVideoClassificationLightningModule) -> None:
        super().__init__()
        self.model = model

    def forward(self, video: Tensor) -> Tensor:
        return self.model.probabilities(self.model(video))


def export_onnx(
    model: ZambaVideoClassificationLightningModule,
    path: Path,
    *,
    num_frames: int,
    height: int,
    width: int,
    is_dry_run: bool = False,
) -> None:
    """Writes a model as ONNX, through ``torch.export``.

    Its input is ``video``, uint8 (B, 3, T, H, W) with any B, its output ``probabilities``, float32 (B, classes). The names of
    the classes are in the file's metadata, as JSON under ``class_names``.

    Args:
        model: With its weights.
        path: File to write; must not exist.
        num_frames: T.
        height: H, in pixels.
        width: W, in pixels.
        is_dry_run: Do all but write the file.

    Raises:
        InputError: If the packages for it are missing, the file exists, or the model cannot take clips of this size.
    """
    if path.exists():
        raise InputError(f"output: {path.absolute()} exists already. Move it away, or give another path.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"output: there is no folder {path.absolute().parent} to write to.")
    _export(
        model, _Probabilities(model).eval(), "probabilities", None if is_dry_run else path, (num_frames, height, width)
    )


def export_logits(
    model: ZambaVideoClassificationLightningModule, path: Path, *, num_frames: int, height: int, width: int
) -> None:
    """Writes a model as ONNX as ``export_onnx`` does, but from ``video`` to ``logits``, float32 (B, classes).

    Raises:
        InputError: If the package for it is missing, or the model cannot take clips of this size.
    """
    _export(model, model, "logits", path, (num_frames, height, width))


def _export(
    model: ZambaVideoClassificationLightningModule,
    network: nn.Module,
    output: str,
    path: Path | None,
    shape: tuple[int, ...],
) -> None:
    """Writes ``network``, which has ``model`` in it or is it, for clips of ``shape``, (T, H, W); None writes nothing."""
    try:
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ModuleNotFoundError:
        raise InputError("export needs onnxscript: pip install 'zamba-lcli[onnx]'.") from None
    model.eval()
    video = torch.randint(0, 256, (2, 3, *shape), dtype=torch.uint8)
    with torch.no_grad():
        model(video[:1])  # says what it cannot take, which the exporter would wrap in a report of its own
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            network,
            (video,),
            dynamo=True,
            dynamic_shapes={"video": {0: torch.export.Dim("batch")}},
            input_names=["video"],
            output_names=[output],
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props["class_names"] = json.dumps(model.class_names)
    if path is not None:
        with replacing(path) as partial:
            program.save(str(partial))
    # the exporter leaves subclasses of the model's class behind, by the same name: a later YAML could not name it shortly
    del program
    gc.collect()
