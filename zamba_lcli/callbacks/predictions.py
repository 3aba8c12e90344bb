"""Predictions to files."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter
from pytorch_lightning.utilities import rank_zero_info

from zamba_lcli import __version__
from zamba_lcli.callbacks.attached import datamodule_of
from zamba_lcli.checksum import fingerprint
from zamba_lcli.data import ZambaVideoDataModule
from zamba_lcli.data.listing import folder_beside
from zamba_lcli.errors import InputError
from zamba_lcli.files import remove_partial, replacing
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.predictions import (
    CSVPredictions,
    HTMLReport,
    PredictedClip,
    PredictedPart,
    PredictedRow,
    PredictionFormat,
    PredictionRun,
)
from zamba_lcli.predictions.shards import AUTO, MergedSpool, fingerprint_of_list, parse_shard
from zamba_lcli.predictions.spool import FoundRows, Spool, append
from zamba_lcli.run_folder import is_dry_run
from zamba_lcli.types import Batch, Prediction

SPOOL = "predictions.partial"
SHARDS = "predictions.shards"
SIGTERM_CODE = 143
DEFAULT_FORMATS = (CSVPredictions, HTMLReport)
PATIENCE = timedelta(days=365)  # torch ends a run whose processes are half an hour apart, or ten minutes on GPUs
NOT_FINITE = "the model's output is not a number"


class WritePredictions(BasePredictionWriter):
    """Writes the predictions of all clips, also of those that could not be read, in one format or several.

    Each process appends its rows to a file in ``predictions.partial`` in the output folder as they are made. At the end they
    are merged, in the order in which the clips were found, and the files are moved into place. A run that is killed at any
    moment continues when it is started again with the same arguments: it predicts the clips without a row and those that could
    not be read. Clips are identified by name, not by content.

    Several processes, on one machine or many, are dealt the clips in turn before the first is read; those that are done first
    wait for the others, however long that takes. With several machines the output folder must be on a disk that all of them
    share.

    Args:
        output_dir: Folder to write to; null for one beside the input: ``clips_predictions`` for the folder ``clips``,
            ``list_predictions`` for the table ``list.csv``, ``a_predictions`` for the clip ``a.mp4``.
        formats: Formats to write; null for ``CSVPredictions`` and ``HTMLReport``.
        overwrite: Whether to replace files of an earlier run, and to delete the rows of an unfinished run with other arguments.
        shard: The share of the clips to predict, for jobs that know nothing of each other: ``3/100`` is the third of a hundred;
            ``auto`` takes it from the environment of a task of a job array (SLURM, Grid Engine, AWS Batch, Google Cloud Batch,
            Cloud Run); null for all clips. Rows of shards stay in ``predictions.shards`` in the output folder until
            ``zamba merge``, with the same arguments, writes the formats.
    """

    def __init__(
        self,
        output_dir: str | None = None,
        formats: list[PredictionFormat] | None = None,
        overwrite: bool = False,
        shard: str | None = None,
    ) -> None:
        """Keeps the arguments; see the class."""
        super().__init__(write_interval="batch")
        self.output_dir = output_dir
        self.formats = [kind() for kind in DEFAULT_FORMATS] if formats is None else formats
        self.overwrite = overwrite
        self.shard = shard
        self.merging = False  # whether the rows of shards are written, and none is predicted
        self.nothing_predicted = False  # known at the end, to the first process
        if shard not in (None, AUTO):
            parse_shard(shard)
        names = [f.filename for f in self.formats]
        if not names or len(set(names)) < len(names):
            raise InputError(
                f"WritePredictions: formats must write at least one file and each another one, not {names}."
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the output folder, and has the data leave out clips that are done."""
        if stage != "predict":
            return
        data, module = (
            datamodule_of(trainer, "WritePredictions"),
            cast(ZambaVideoClassificationLightningModule, pl_module),
        )
        self.folder = folder_beside(str(data.videos)) if self.output_dir is None else Path(self.output_dir)
        if is_dry_run(trainer):  # a run of which nothing is kept
            self._dry = TemporaryDirectory()
            self.folder = Path(trainer.strategy.broadcast(self._dry.name))
        self._share = None if self.shard is None or self.merging else parse_shard(self.shard)
        if self.merging:
            self.spool: Spool = MergedSpool(self.folder / SHARDS)
        else:
            self.spool = Spool(
                self.folder / SPOOL if self._share is None else self.folder / SHARDS / self._share.folder
            )
        # not before the weights are loaded: rows depend on them
        data.leave_out(lambda: self._done_already(trainer, module, data))

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens this process's file, and the group in which processes wait for each other at the end."""
        self._all: Any = None
        if torch.distributed.is_initialized():
            self._all = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
        self._file = self.spool.open(self._start, trainer.global_rank)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Writes the rows of a ``Batch`` and its ``Prediction``."""
        append(self._file, _rows(batch, prediction))
        if trainer.received_sigterm:  # all rows so far are written
            raise SystemExit(SIGTERM_CODE)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merges the rows of all processes and writes the formats."""
        self._file.close()
        if self._all is not None:
            torch.distributed.barrier(self._all)  # ends with an error where a process has gone
        if trainer.is_global_zero:
            self._finish(trainer, datamodule_of(trainer, "WritePredictions"))

    def _done_already(
        self, trainer: Trainer, module: ZambaVideoClassificationLightningModule, data: ZambaVideoDataModule
    ) -> NDArray[np.bool_]:
        """Returns which clips are not to be predicted, bool (clips,), in every process; refuses runs that cannot be written."""
        self.run = _run(trainer, module, data, self.folder)
        begun: tuple[int, NDArray[np.bool_]] | str = ""
        if trainer.is_global_zero:  # others that are ahead may be writing
            try:
                begun = self._begin(trainer, module, data)
            except InputError as error:
                begun = str(error)
        begun = trainer.strategy.broadcast(begun)
        if isinstance(begun, str):
            raise InputError(begun)
        self._start, self._done_before = begun
        held = self._held()
        if self._done_before.any():
            rank_zero_info(f"{self._done_before.sum()} of {held.sum()} clips are done; continuing with the others.")
        return np.ones(len(held), np.bool_) if self.merging else self._done_before | ~held

    def _held(self) -> NDArray[np.bool_]:
        """Returns which clips this run has, bool (clips,)."""
        clips = len(self.run.filepaths)
        return np.ones(clips, np.bool_) if self._share is None else self._share.holds(clips)

    def _begin(
        self, trainer: Trainer, module: ZambaVideoClassificationLightningModule, data: ZambaVideoDataModule
    ) -> tuple[int, NDArray[np.bool_]]:
        """Returns the number of this start, and which clips are done, bool (clips,)."""
        self.spool.remove_done()
        there = [path for f in self.formats if (path := self.folder / f.filename).exists()]
        # a run that was killed when it was nearly done leaves files beside its rows
        if there and not self.overwrite and not (self.spool.folder.exists() and self._share is None):
            raise InputError(
                f"{there[0]} exists already. Move it away; or give WritePredictions another output_dir, or overwrite: true."
            )
        for prediction_format in self.formats:
            prediction_format.check(self.run)
        for path in there:
            self._spare_input(path, str(data.videos))
        header = _header(trainer, module, data)
        if self._share is not None or self.merging:
            header["list of clips"] = fingerprint_of_list(self.run.filepaths)
        if isinstance(self.spool, MergedSpool):
            self.spool.check(header, self.run.filepaths)
            return 0, np.zeros(len(self.run.filepaths), np.bool_)
        try:
            start = self.spool.begin(header, discard=self.overwrite)
        except OSError as error:
            raise InputError(
                f"{self.folder.absolute()} cannot be written: {error.strerror}. Give WritePredictions an output_dir."
            ) from None
        found = self.spool.find(self.run.filepaths)
        return start, found.there & ~found.failed

    def _spare_input(self, path: Path, videos: str) -> None:
        """Refuses to write over the clips or their table."""
        target = os.path.abspath(path)
        for place in chain([videos], map(str, self.run.paths)):
            if f"{os.path.abspath(place)}{os.sep}".startswith(f"{target}{os.sep}"):
                raise InputError(
                    f"{target} would be written over, and {place} with it. Give WritePredictions another output_dir."
                )

    def _finish(self, trainer: Trainer, data: ZambaVideoDataModule) -> None:
        """Writes the formats and deletes the rows; of a shard, says what comes next."""
        found, held = self.spool.find(self.run.filepaths), self._held()
        missing = int((held & ~found.there).sum())
        whole = (
            isinstance(trainer.limit_predict_batches, float) and trainer.limit_predict_batches == 1.0
        )  # 1 is one batch
        if missing and whole:
            raise InputError(
                f"{missing} of {held.sum()} clips have no row in {self.spool.folder.absolute()}. It must be on a disk "
                "that all machines share: give WritePredictions such an output_dir. What is there is kept."
            )
        ok = int((found.there & ~found.failed).sum())
        self.nothing_predicted = ok == 0 and bool(held.any())
        blank = 0
        if self._share is None:
            for prediction_format in self.formats:
                blank = self._write(prediction_format, found, data)
            self.spool.remove()
            paths = ", ".join(str(self.folder / f.filename) for f in self.formats)
        else:
            paths = f"{self.spool.folder} (shard {self._share}; zamba merge with the same arguments joins all shards)"
        before = int(self._done_before.sum())
        by_earlier_run = f", {before} of them by the run before" if before else ""
        called_blank = f", {blank} called blank without a box" if blank else ""
        paths = "a dry run writes nothing" if is_dry_run(trainer) else paths
        in_part = f"{int(found.in_part.sum())} only in part, " if found.in_part.any() else ""
        failed = f"{in_part}{int(found.failed.sum())} failed"
        trainer.print(f"{ok} clips predicted{by_earlier_run}{called_blank}, {failed}: {paths}")

    def _write(self, prediction_format: PredictionFormat, found: FoundRows, data: ZambaVideoDataModule) -> int:
        """Writes one format; returns how many clips were called blank without being looked at."""
        path = self.folder / prediction_format.filename
        remove_partial(path)
        crops: Counter[str] = Counter()

        def counted() -> Iterator[PredictedClip]:
            for clip in self.spool.read(found, self.run.filepaths, self.run.paths, data.sites):
                crops[clip.crop] += 1
                yield clip

        with replacing(path) as partial:
            prediction_format.write(partial, counted(), self.run)
        return crops["blank"]


def _run(
    trainer: Trainer, module: ZambaVideoClassificationLightningModule, data: ZambaVideoDataModule, folder: Path
) -> PredictionRun:
    dataset = data.dataset("predict")
    checkpoint = f", {Path(trainer.ckpt_path).name}" if trainer.ckpt_path else ""
    return PredictionRun(
        class_names=module.class_names,
        task=module.task,
        classifier=f"zamba-lcli {__version__} ({type(module).__name__}{checkpoint})",
        has_sites=data.sites is not None,
        filepaths=dataset.filepaths,
        paths=dataset.paths,
        folder=folder,
        root=_root(str(data.videos), data.data_dir, dataset.filepaths, dataset.paths),
        time_limit=data.reader.time_limit,
        has_crops=data.reader.crop is not None,
    )


def _root(videos: str, data_dir: str | None, filepaths: Sequence[str], paths: Sequence[Path]) -> Path:
    """Returns the folder, absolute, that the paths of clips for other programs are relative to.

    It is the folder of clips; of a table ``data_dir``, or the table's folder if all filepaths are relative; else the folder
    that all clips share.
    """
    root = os.path.abspath(videos if os.path.isdir(videos) else data_dir or os.path.dirname(videos))
    if os.path.isdir(videos):
        return Path(root)
    places = [os.path.abspath(path) for path in paths]
    if data_dir is None and any(os.path.isabs(name) for name in filepaths):
        return _shared(places)
    return Path(root) if all(Path(place).is_relative_to(root) for place in places) else _shared(places)


def _shared(places: Sequence[str]) -> Path:
    return Path(os.path.commonpath([os.path.dirname(place) for place in places]))


def _header(
    trainer: Trainer, module: ZambaVideoClassificationLightningModule, data: ZambaVideoDataModule
) -> dict[str, Any]:
    """Returns all that a row depends on besides its clip, as plain values by names for messages."""
    hparams = {key: value for key, value in module.hparams.items() if key not in ("weights", "class_names")}
    header = {
        "weights": fingerprint(module),
        "classes": module.class_names,
        "model": {"class": type(module).__qualname__, "arguments": hparams},
        "clips": [None if place is None else os.path.abspath(place) for place in (data.videos, data.data_dir)],
        "frames": data.reader.stated(),
        "crops": data.num_crops,
        "precision": trainer.precision,
    }
    plain: dict[str, Any] = json.loads(json.dumps(header, default=str, sort_keys=True))
    return plain


def _rows(batch: Batch, prediction: Prediction) -> list[PredictedRow]:
    """Returns the rows of a batch, with numbers as short as they are exact."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    finite = prediction["probabilities"].isfinite().all(dim=1).tolist()  # (B,)
    probabilities = prediction["probabilities"].tolist()  # (B, classes)
    by_part = prediction["part_probabilities"].tolist()  # (B, clips, classes)
    times, numbers = batch["times"].tolist(), batch["frame_numbers"].tolist()  # (B, clips, T)
    rows = [
        PredictedRow(
            filepath=filepath,
            predicted_at=now,
            probabilities=_short(probabilities[i]),
            parts=[
                PredictedPart(_short(p), _short(t), n) for p, t, n in zip(by_part[i], times[i], numbers[i], strict=True)
            ],
            frame_rate=float(batch["frame_rate"][i]),
            duration=float(batch["duration"][i]),
            note=batch["note"][i],
            **_crop(batch, i),
        )
        for i, filepath in enumerate(batch["filepath"])
        if finite[i]
    ]
    reasons = [(filepath, reason) for _, filepath, reason in batch["failed"]]
    reasons += [(f, NOT_FINITE) for f, ok in zip(batch["filepath"], finite, strict=True) if not ok]
    return [*rows, *(PredictedRow(filepath, now, error=reason) for filepath, reason in reasons)]


def _crop(batch: Batch, i: int) -> dict[str, Any]:
    """Returns what was cut out of a clip, and the boxes in it, if it was cropped."""
    windows, boxes = batch["windows"][i], batch["boxes"][i]
    if boxes is None:
        return {}
    if windows is None:
        return {"crop": "blank"}
    numbers = batch["frame_numbers"][i].flatten().tolist()
    of_frames = [[number, *_short(window)] for number, window in zip(numbers, windows.tolist(), strict=True)]
    found = [[int(frame), *_short(rest)] for frame, *rest in boxes.tolist()]
    return {"crop": "animal" if found else "whole", "windows": of_frames, "boxes": found}


def _short(values: list[float]) -> list[float]:
    return [float(f"{value:.7g}") for value in values]
