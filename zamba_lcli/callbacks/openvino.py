"""Networks computed by OpenVINO, which is faster than torch on a CPU."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from zamba_lcli import __version__
from zamba_lcli._lightning import gather
from zamba_lcli.callbacks.attached import datamodule_of
from zamba_lcli.checksum import fingerprint
from zamba_lcli.data import ZambaVideoDataModule
from zamba_lcli.errors import InputError
from zamba_lcli.evaluation.results import SplitOutputs, scores_in_short
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.models.openvino import XML, CompiledNetwork, RuntimePrecision, lacking, versions, write_converted
from zamba_lcli.run_folder import is_dry_run
from zamba_lcli.types import Batch

FOLDER = "openvino"
KEPT = 16  # digits of the names of folders
CHANGED = 0.01  # share of top classes above which a test warns
FAILURES = (RuntimeError, ValueError)  # of torch's exporter and OpenVINO, where a network does not suit


class OpenVINORuntime(Callback):
    """Computes the network by OpenVINO on the CPU, in ``zamba predict``, ``test`` and ``validate``; ``fit`` is not changed.

    The network is exported and compiled, and quantized for ``int8``, once: the result is kept beside the checkpoint, by its
    weights, size of the clips, precision and versions. ``zamba test`` computes each batch by torch as well, and says for how
    many clips the top class is the same: compare scores before you rely on ``int8``. On a processor without instructions for
    ``bfloat16`` or ``int8`` the result is as right, and the log says what is missing.

    Args:
        precision: In which the network computes. ``float32`` equals torch's to about 1e-6.
        calibration_clips: For ``int8``: number of clips, of val where there are labels, else the first of the input, by which
            the ranges of values are found.
        cache_dir: Folder for what is compiled; null for ``openvino`` in the checkpoint's folder.
        fallback: Whether torch computes a network that OpenVINO cannot take; false to refuse it.
    """

    def __init__(
        self,
        precision: RuntimePrecision = "float32",
        calibration_clips: int = 64,
        cache_dir: str | None = None,
        fallback: bool = False,
    ) -> None:
        """Keeps the arguments; see the class."""
        if calibration_clips < 1:
            raise InputError(
                f"OpenVINORuntime: calibration_clips is {calibration_clips}. int8 needs 1 clip at the least."
            )
        self.precision = precision
        self.calibration_clips = calibration_clips
        self.cache_dir = cache_dir
        self.fallback = fallback
        self._torch: dict[int, NDArray[np.float64]] = {}  # logits of a test's clips

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses what does not go together, before anything is read."""
        if stage == "fit":
            return
        versions()
        device = trainer.strategy.root_device.type
        if device != "cpu":
            raise InputError(
                f"OpenVINORuntime computes on the CPU, and the trainer on {device}. Set trainer.accelerator: cpu, or leave "
                "the callback out."
            )
        if str(trainer.precision).endswith("-true") and trainer.precision != "32-true":
            raise InputError(
                f"OpenVINORuntime: trainer.precision is {trainer.precision}. Leave it at 32-true, and set the precision of "
                "OpenVINORuntime."
            )
        if missing := lacking(self.precision):
            rank_zero_warn(
                f"OpenVINORuntime: this processor has no instructions for {self.precision} ({', '.join(missing)}): the result "
                "is right, but not sooner there."
            )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replaces the forward."""
        self._replace(trainer, pl_module, "predict")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replaces the forward."""
        self._torch = {}
        self._replace(trainer, pl_module, "test")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replaces the forward."""
        if trainer.state.fn == "validate":
            self._replace(trainer, pl_module, "validate")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes the replacement back."""
        pl_module.__dict__.pop("forward", None)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Computes the holdout's batch by torch as well."""
        if dataloader_idx or not batch["index"] or "forward" not in pl_module.__dict__:
            return
        module = cast(ZambaVideoClassificationLightningModule, pl_module)
        with _without_replacement(module):
            by_torch = module.mean_logits(batch)
        self._torch |= dict(zip(batch["index"], by_torch.double().numpy(), strict=True))

    def logits_by_torch(self) -> dict[int, NDArray[np.float64]]:
        """Returns the logits that torch computed in a test, (classes,), by the position of the clip; of all processes."""
        return {index: logits for part in gather(self._torch) for index, logits in part.items()}

    def compare(self, outputs: SplitOutputs, by_torch: NDArray[np.float64]) -> dict[str, Any]:
        """Returns what the runtime costs, for ``metrics.json``, and says for how many clips the top class is torch's.

        Args:
            outputs: Of the holdout, as the runtime computed them.
            by_torch: Logits of the same clips, (N, classes).
        """
        same = int((outputs.logits.argmax(axis=1) == by_torch.argmax(axis=1)).sum())
        clips = len(by_torch)
        text = f"OpenVINORuntime, {self.precision}: the top class is torch's for {same} of {clips} clips"
        if same < (1 - CHANGED) * clips:
            rank_zero_warn(f"{text}. metrics.json has the scores of both; take another precision if they matter.")
        else:
            rank_zero_info(f"{text}.")
        scores = scores_in_short(replace(outputs, logits=by_torch))
        return {"precision": self.precision, "clips": clips, "same_top_class": same, "by_torch": scores}

    def _replace(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Has the module's forward computed by OpenVINO."""
        module = cast(ZambaVideoClassificationLightningModule, pl_module)
        data = datamodule_of(trainer, "OpenVINORuntime")
        folder = self._folder(trainer, module, data)
        try:
            if trainer.is_global_zero and not (folder / XML).exists():
                rank_zero_info(f"OpenVINORuntime: {type(module).__name__} is converted to {self.precision}: {folder}")
                calibration = self._calibration(data, stage) if self.precision == "int8" else None
                write_converted(module, folder, shape=_shape(data), calibration=calibration)
            trainer.strategy.barrier()
            compiled = CompiledNetwork(folder, self.precision, torch.get_num_threads())
        except FAILURES as error:
            if isinstance(error, InputError):
                raise
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            told = f"OpenVINORuntime cannot take {type(module).__name__}: {reason}"
            if not self.fallback:
                raise InputError(
                    f"{told}. Leave the callback out, or set its fallback: true to let torch compute."
                ) from error
            rank_zero_warn(f"{told}. torch computes.")
            return
        module.__dict__["forward"] = compiled

    def _folder(
        self, trainer: Trainer, module: ZambaVideoClassificationLightningModule, data: ZambaVideoDataModule
    ) -> Path:
        """Returns where the converted network is kept, by what it depends on.

        Not by the clips that it was calibrated on: predictions are to come from the network that was tested.
        """
        calibrated = self.calibration_clips if self.precision == "int8" else None
        depends = [fingerprint(module), type(module).__qualname__, _shape(data), calibrated, versions(), __version__]
        key = hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:KEPT]
        if is_dry_run(trainer):  # a run of which nothing is kept
            self._dry = TemporaryDirectory()
            place = Path(trainer.strategy.broadcast(self._dry.name))
        elif self.cache_dir is not None:
            place = Path(self.cache_dir).expanduser()
        else:
            place = Path(trainer.ckpt_path or trainer.default_root_dir)
            place = (place.parent if trainer.ckpt_path else place) / FOLDER
        return place / key

    def _calibration(self, data: ZambaVideoDataModule, stage: str) -> Iterator[NDArray[np.uint8]]:
        """Yields the clips to calibrate on, uint8 (1, 3, T, H, W)."""
        found = 0
        for split in {"test": ("val", "holdout"), "validate": ("val",)}.get(stage, ("predict",)):
            dataset = data.dataset(split)
            for batch in data.loader(dataset, range(min(self.calibration_clips, len(dataset)))):
                for clip in batch["video"]:
                    found += 1
                    yield clip[None].numpy()
            if found:
                return
        raise InputError(
            "OpenVINORuntime: int8 needs clips to calibrate on, and none could be read. Take another precision."
        )


@contextmanager
def _without_replacement(module: LightningModule) -> Iterator[None]:
    """Has torch compute the forward for a moment."""
    replacement = module.__dict__.pop("forward")
    try:
        with torch.inference_mode():
            yield
    finally:
        module.__dict__["forward"] = replacement


def _shape(data: ZambaVideoDataModule) -> tuple[int, int, int]:
    return (data.reader.sampling.num_frames, *data.input_size)
