"""The results of a test."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from zamba_lcli._lightning import gather, trainer_callbacks
from zamba_lcli.callbacks.attached import datamodule_of
from zamba_lcli.callbacks.openvino import OpenVINORuntime
from zamba_lcli.data import ZambaVideoDataModule
from zamba_lcli.data.csv_tables import counted
from zamba_lcli.errors import InputError
from zamba_lcli.evaluation.results import FILES, SplitOutputs, TestResults
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.predictions.formats import BLANK, printable
from zamba_lcli.run_folder import free_name, is_dry_run, run_folder
from zamba_lcli.types import Batch

MAX_NAMED = 20  # clips, in a note


class Evaluation(Callback):
    """Writes the results of ``zamba test`` to the run folder: scores, errors, thresholds and calibration.

    - ``metrics.json``: the scores of all clips, with 95 % intervals for new sites like these (without sites: by clips, which
      are too narrow); the expected calibration error of the top class, beside that of a calibrated model of as many clips; and
      the temperature fitted on the val clips. ``macro_f1`` is scikit-learn's ``f1_score(average="macro",
      zero_division=np.nan)``: a class that no clip has and that is never predicted does not count. ``rule`` says which
      classes are predicted. Those of a multilabel model are those above one half, as in ``fit`` and ``validate``; beside it,
      ``macro_f1_at_thresholds`` is by a threshold for each class, that of the highest F1 on the val clips
      (``fitted_thresholds``).
    - ``per_class.csv``, ``per_site.csv``, ``confusion_matrix.csv`` (clips with one label; rows are labels). Columns that end
      with ``_at_threshold`` or ``_at_thresholds`` go by the thresholds, the others by one half.
    - ``predictions.csv``: each clip of the holdout with its labels and probabilities; those that could not be read, with why.
    - ``operating_points.csv``: thresholds by which clips are sorted out at a miss rate (1 - sensitivity, ``may_lose``) of 1 to
      15 %, with the specificity (``removed``) and the miss rate of these clips (``lost``), of other clips of the same sites
      (``expected_lost``), and of each site by the threshold of all other sites (``lost_at_new_sites``). No threshold where
      there are too few clips. Of ``blank`` classes, clips with a higher probability are sorted out, and all that are not blank
      are positive; of other classes, clips with a lower probability are, and those with the class are positive.
    - ``calibration.csv``: accuracy of the top class by confidence.
    - ``calibrated.yaml``: the temperature, for ``zamba predict --config``; ``thresholds.yaml``: the thresholds of a multilabel
      model, which go with the temperature that it was tested with.

    - ``report.html``: all of this to look at, with animated previews of clips, errors first; a single file that needs no
      network.

    Where the files of an earlier test are, those of the next one go to the folder ``test_1`` beside them, then ``test_2``.

    Args:
        blank: Names of the classes of blank clips, in any case; the model need not have them.
        previews: Number of clips with a preview in the report.
    """

    def __init__(self, blank: tuple[str, ...] = BLANK, previews: int = 100) -> None:
        """Keeps the arguments; see the class."""
        self.blank = blank
        self.previews = previews

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Adds the val clips to the test, for the temperature."""
        if stage != "test":
            return
        self._data = datamodule_of(trainer, "Evaluation")
        self._data.test_val_too()
        self._seen: dict[str, list[tuple[int, NDArray[np.float64]]]] = {"holdout": [], "val": []}
        self._failed: dict[str, dict[int, str]] = {"holdout": {}, "val": {}}
        self._notes: dict[str, dict[int, str]] = {"holdout": {}, "val": {}}

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the logits of the batch's clips."""
        split = "val" if dataloader_idx else "holdout"
        logits = cast(Tensor, outputs).double().cpu().numpy()
        self._seen[split] += list(zip(batch["index"], logits, strict=True))
        self._failed[split] |= {index: reason for index, _, reason in batch["failed"]}
        self._notes[split] |= {index: note for index, note in zip(batch["index"], batch["note"], strict=True) if note}

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gathers the outputs of all processes and writes the files."""
        of_processes = gather((self._seen, self._failed, self._notes))
        folder = run_folder(trainer) or Path(trainer.default_root_dir)  # the same in all processes: this is a broadcast
        runtime = next((c for c in trainer_callbacks(trainer) if isinstance(c, OpenVINORuntime)), None)
        by_torch = {} if runtime is None else runtime.logits_by_torch()
        if not trainer.is_global_zero:
            return
        module = cast(ZambaVideoClassificationLightningModule, pl_module)
        holdout, val = (_outputs(module, self._data, split, of_processes) for split in ("holdout", "val"))
        if holdout is None or not len(holdout.targets):
            raise InputError("No clip of the holdout could be read: there is nothing to evaluate. failed.csv says why.")
        for split, outputs in (("holdout", holdout), ("val", val)):
            if outputs is not None:
                _check_finite(outputs, split)
        compared = None
        if runtime is not None and by_torch:
            compared = runtime.compare(holdout, np.array([by_torch[i] for i in sorted(by_torch)]))
        checkpoint = "" if trainer.ckpt_path is None else str(trainer.ckpt_path)
        results = TestResults(holdout, val, checkpoint, type(module), self.blank, self.previews, compared)
        with TemporaryDirectory() as nowhere:  # of a dry run, which keeps nothing
            folder = Path(nowhere) if is_dry_run(trainer) else _without_results(folder)
            metrics = results.write(folder)
        if doubt := metrics.get("fitted_temperature", {}).get("doubt"):
            rank_zero_warn(f"calibrated.yaml: {doubt}")
        names = ("accuracy", "macro_f1", "macro_f1_at_thresholds", "expected_calibration_error")
        shown = {name: metrics[name] for name in names if name in metrics}
        where = "a dry run writes nothing" if is_dry_run(trainer) else folder / "report.html"
        trainer.print(", ".join(f"{name} {value:.4f}" for name, value in shown.items()) + f": {where}")


def _check_finite(outputs: SplitOutputs, split: str) -> None:
    """Refuses outputs that are not finite, which comparisons would count as predictions."""
    wrong = np.flatnonzero(~np.isfinite(outputs.logits).all(axis=1))
    if len(wrong):
        raise InputError(
            f"The model's output is not finite (NaN or infinite) for {len(wrong)} of the {len(outputs.logits)} {split} clips, "
            f"such as {outputs.filepaths[int(wrong[0])]}: there is nothing to evaluate. Its training diverged: take an earlier "
            "checkpoint, or train again with a lower learning rate."
        )


def _outputs(
    module: ZambaVideoClassificationLightningModule, data: ZambaVideoDataModule, split: str, of_processes: Sequence[Any]
) -> SplitOutputs | None:
    """Returns the outputs of all processes for a split, or None if it was not tested."""
    seen = {index: logits for logits_of, _, _ in of_processes for index, logits in logits_of[split]}
    failed = {index: reason for _, failed_of, _ in of_processes for index, reason in failed_of[split].items()}
    notes = {index: note for _, _, notes_of in of_processes for index, note in notes_of[split].items()}
    if not seen and not failed:
        return None
    dataset, clips = data.dataset(split), data.table.split(split)
    order = sorted(seen)
    sites = [clips[i].site for i in order]
    shape = (len(order), len(module.class_names))
    return SplitOutputs(
        class_names=list(module.class_names),
        task=module.task,
        temperature=module.temperature,
        filepaths=[dataset.filepaths[i] for i in order],
        paths=[dataset.paths[i] for i in order],
        sites=None if all(site is None for site in sites) else sites,
        targets=dataset.targets[order].astype(np.bool_).reshape(shape),
        logits=np.array([seen[i] for i in order], np.float64).reshape(shape),
        failed={dataset.filepaths[i]: failed[i] for i in sorted(failed)},
        notes={dataset.filepaths[i]: notes[i] for i in sorted(notes)},
        time_limit=data.reader.time_limit,
        doubts=_doubts_of_clips(data) if split == "holdout" else [],
    )


def _doubts_of_clips(data: ZambaVideoDataModule) -> list[str]:
    """Returns which clips of the holdout the model has learned from, or may have."""
    doubts = [f"{data.table.leaks}: the scores may promise too much."] if data.table.leaks else []
    if known := data.label_set.known_in_holdout:
        kept = data.trained_clips == "keep"
        what = "Scored though the model knows them, which promises too much" if kept else "Left out"
        more = f"; and {len(known) - MAX_NAMED} more" if len(known) > MAX_NAMED else ""
        doubts.append(f"{what}: {counted(len(known), 'clip')}: {'; '.join(known[:MAX_NAMED])}{more}.")
    return [printable(doubt) for doubt in doubts]


def _without_results(folder: Path) -> Path:
    """Returns ``folder``; if it has the files of an earlier test, a new folder ``test_1``, ``test_2`` and so on in it."""
    if not any((folder / name).exists() for name in FILES):
        return folder
    while True:
        beside = free_name(folder / "test")
        try:
            beside.mkdir()
        except FileExistsError:  # another test was quicker
            continue
        return beside
