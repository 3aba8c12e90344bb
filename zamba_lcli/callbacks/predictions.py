"""Predictions out."""

import csv
import heapq
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter

from zamba_lcli.errors import InputError
from zamba_lcli.module import ZambaVideoClassificationLightningModule


class PredictionsCSV(BasePredictionWriter):
    """Writes ``predictions.csv``: a row for each clip, in the order found, whether it could be read or not.

    Columns: ``filepath``, a probability for each class, ``status`` (``ok`` or ``failed``) and ``error`` (the reason). Each
    process writes its rows to a file of its own as they come; at the end they are merged.

    Args:
        path: Where to write; null for ``predictions.csv`` in the run folder. An existing file is not overwritten.
    """

    def __init__(self, path: str | None = None) -> None:
        """Keeps the path."""
        super().__init__(write_interval="batch")
        self.path = path

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds out where to write, and refuses to overwrite, before anything is computed."""
        if stage != "predict":
            return
        log_dir = trainer.log_dir  # the same in all processes: this is a broadcast
        self.output = Path(log_dir or ".") / "predictions.csv" if self.path is None else Path(self.path)
        if self.output.exists():
            raise InputError(f"{self.output} exists already. Move it away, or give another path to PredictionsCSV.")
        self.output.parent.mkdir(parents=True, exist_ok=True)

    def _part(self, rank: int) -> Path:
        return self.output.with_name(f"{self.output.name}.part{rank}")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens this process's file."""
        self._file = self._part(trainer.global_rank).open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file)

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
        """Writes the rows of a ``Batch`` and its ``prediction``, float (B, classes), each led by the clip's position."""
        blanks = [""] * len(cast(ZambaVideoClassificationLightningModule, pl_module).class_names)
        rows: list[list[Any]] = [
            [index, filepath, *[f"{p:.6g}" for p in probabilities], "ok", ""]
            for index, filepath, probabilities in zip(
                batch["index"], batch["filepath"], prediction.tolist(), strict=True
            )
        ]
        rows += [[index, filepath, *blanks, "failed", reason] for index, filepath, reason in batch["failed"]]
        rows.sort(key=lambda row: int(row[0]))
        self._rows.writerows(rows)
        self._file.flush()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merges the processes' rows into the one table."""
        self._file.close()
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return
        parts = [self._part(rank) for rank in range(trainer.world_size)]
        counts = {"ok": 0, "failed": 0}
        partial = self.output.with_name(f"{self.output.name}.part")
        with ExitStack() as files, partial.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            class_names = cast(ZambaVideoClassificationLightningModule, pl_module).class_names
            table.writerow(["filepath", *class_names, "status", "error"])
            readers: list[Iterator[list[str]]] = [
                csv.reader(files.enter_context(part.open(newline="", encoding="utf-8"))) for part in parts
            ]
            for row in heapq.merge(*readers, key=lambda row: int(row[0])):
                table.writerow(row[1:])
                counts[row[-2]] += 1
        partial.replace(self.output)
        for part in parts:
            part.unlink()
        print(f"{counts['ok']} clips predicted, {counts['failed']} failed: {self.output}")
