"""What Lightning does otherwise than it says, mended with its own parts, private ones too: to be reviewed at each upgrade.

Each function says what is wrong, where that is reported, and when the function may be deleted.
"""

import csv
import os
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, WeightAveraging
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.profilers import Profiler

from zamba_lcli.run_folder import free_name
from zamba_lcli.types import callbacks_of


def let_profilers_be_refused() -> None:
    """Lets a profiler go that was refused before it was set up, such as XLAProfiler where torch_xla is not installed.

    Lightning's looks then for what was never set, and Python prints a traceback behind the message. Sets defaults; delete when
    ``Profiler.__del__`` does without them.
    """
    Profiler._stage = Profiler._output_file = Profiler._write_stream = None


def average_in_small_checkpoint(trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Puts the average of the weights into a checkpoint of weights only.

    Lightning asks no callback then, so that the current weights are saved and not those that were validated (the callback came
    with Lightning#20545). Delete when ``Trainer.save_checkpoint(weights_only=True)`` calls WeightAveraging.

    Args:
        trainer: Knows the callbacks.
        module: The model.
        checkpoint: Changed in place; one with all in it stays as it is.
    """
    if "callbacks" in checkpoint:
        return
    for callback in callbacks_of(trainer):
        if isinstance(callback, WeightAveraging):
            callback.on_save_checkpoint(trainer, module, checkpoint)
            for key in ("current_model_state", "averaging_state"):
                checkpoint.pop(key, None)


def claim_version(logger: TensorBoardLogger | CSVLogger) -> None:
    """Makes the run folder of a logger that states no version, or that of the next one if another run has just made it.

    Lightning takes the number after the highest one there is and makes the folder later, so that runs that begin together share
    it. Sets ``_version``; delete when Lightning's loggers make the folder as they take the number.

    Args:
        logger: Has not written yet.
    """
    while True:
        try:
            os.makedirs(os.path.join(logger.root_dir, f"version_{logger.version}"))
        except FileExistsError:
            logger._version = None  # it looks again
        else:
            return


class AppendingWriter(ExperimentWriter):
    """Goes on with the ``metrics.csv`` and ``hparams.yaml`` of a run folder, which Lightning's writer deletes and writes over.

    Overrides ``_check_log_dir_exists``, which deletes; delete this class when Lightning's CSVLogger appends. A file is changed
    by one that takes its place, so that a run that is killed leaves either.

    Args:
        log_dir: The run folder.
    """

    def __init__(self, log_dir: str) -> None:
        """Reads which columns there are; a last line that was torn by a kill is left out."""
        super().__init__(log_dir)
        self._path = Path(self.metrics_file_path)
        self._again: set[int] = set()  # steps of which what is there is taken back by what is logged again
        if self._path.exists():
            rows = self._rows()
            if not self._path.read_bytes().endswith(b"\n"):
                self._replace(rows[:-1])
        self._before = len(self._rows())  # rows of earlier processes

    def _check_log_dir_exists(self) -> None:
        """Deletes nothing."""

    def log_hparams(self, params: dict[str, Any]) -> None:
        """Saves hyperparameters in ``hparams.yaml``, unless there is one: ``config.yaml`` tells those of a resume."""
        if not (Path(self.log_dir) / self.NAME_HPARAMS_FILE).exists():
            super().log_hparams(params)

    def go_back(self, step: int) -> None:
        """Takes back what was logged of steps that a resumed run takes again; the file as it was is kept beside.

        Args:
            step: The step that comes next. What was logged at the end of the one before is taken back if it is logged again.
        """
        rows = self._rows()
        past = [row for row in rows if _step_of(row) < step]
        if len(past) < len(rows):
            free_name(self._path).write_bytes(self._path.read_bytes())
            self._replace(past)
        self._again, self._before = {step - 1}, len(past)

    def save(self) -> None:
        """Appends what was logged; where there are new columns, to a file with these."""
        if not self.metrics:
            return
        rows = (
            self._rows()
            if self._again or not {key for row in self.metrics for key in row} <= set(self.metrics_keys)
            else None
        )
        again = [row for row in self.metrics if row["step"] in self._again]
        names = {name for row in again for name in row} - {"step", "epoch"}
        if rows is not None:
            past = [row for row in rows[: self._before] if _step_of(row) not in self._again or not names & _told(row)]
            self._before, rows = len(past), [*past, *rows[self._before :]]
            self._replace([*rows, *self.metrics])
        else:
            with self._path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.metrics_keys).writerows(self.metrics)
        if not again:
            self._again = set()
        self.metrics = []

    def _rows(self) -> list[dict[str, Any]]:
        """Reads all rows and keeps in mind their columns."""
        if not self._path.exists():
            return []
        with self._path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            self.metrics_keys = list(reader.fieldnames or [])
            return list(reader)

    def _replace(self, rows: list[dict[str, Any]]) -> None:
        """Writes the file anew, with the columns that rows have."""
        self.metrics_keys = sorted({*self.metrics_keys, *(key for row in rows for key in row)})
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        with partial.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, self.metrics_keys)
            table.writeheader()
            table.writerows(rows)
        partial.replace(self._path)


def _told(row: dict[str, Any]) -> set[str]:
    return {name for name, value in row.items() if value not in ("", None)}


def _step_of(row: dict[str, Any]) -> int:
    return int(row.get("step") or 0)


def numbers_equal_names(callback: Callback) -> bool:
    """Returns whether a callback gives a checkpoint whose name is taken another one, and takes the place of none.

    Delete when ModelCheckpoint has ``enable_version_counter`` as a public attribute, as it has its other arguments.
    """
    return bool(getattr(callback, "_enable_version_counter", False))
