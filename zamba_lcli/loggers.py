"""Lightning's loggers, without deleting or mixing what is in a run folder."""

import csv
import os
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from zamba_lcli._lightning import KeepingWriter, claim_version
from zamba_lcli.files import replacing
from zamba_lcli.run_folder import free_name


class AppendingWriter(KeepingWriter):
    """Appends to the ``metrics.csv`` of a run folder and keeps its ``hparams.yaml``; Lightning's writer overwrites both.

    Files are replaced atomically: a killed run leaves the old file or the new one.

    Args:
        log_dir: The run folder.
    """

    def __init__(self, log_dir: str) -> None:
        """Reads the columns; drops a last line that a kill left incomplete."""
        super().__init__(log_dir)
        self._path = Path(self.metrics_file_path)
        self._again: set[int] = set()  # steps whose rows are replaced when they are logged again
        if self._path.exists():
            rows = self._rows()
            if not self._path.read_bytes().endswith(b"\n"):
                self._replace(rows[:-1])
        self._before = len(self._rows())  # rows of earlier processes

    def log_hparams(self, params: dict[str, Any]) -> None:
        """Saves hyperparameters in ``hparams.yaml``, unless there is one: those of a resume are in ``config.yaml``."""
        if not (Path(self.log_dir) / self.NAME_HPARAMS_FILE).exists():
            super().log_hparams(params)

    def go_back(self, step: int) -> None:
        """Removes rows of steps that a resumed run repeats; the previous file is kept beside it.

        Args:
            step: The next step. Rows from the end of the step before are replaced if they are logged again.
        """
        rows = self._rows()
        past = [row for row in rows if _step_of(row) < step]
        if len(past) < len(rows):
            free_name(self._path).write_bytes(self._path.read_bytes())
            self._replace(past)
        self._again, self._before = {step - 1}, len(past)

    def save(self) -> None:
        """Appends what was logged; rewrites the file if there are new columns."""
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
        """Returns all rows, and remembers their columns."""
        if not self._path.exists():
            return []
        with self._path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            self.metrics_keys = list(reader.fieldnames or [])
            return list(reader)

    def _replace(self, rows: list[dict[str, Any]]) -> None:
        """Rewrites the file with the columns of the rows."""
        self.metrics_keys = sorted({*self.metrics_keys, *(key for row in rows for key in row)})
        with replacing(self._path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, self.metrics_keys)
            table.writeheader()
            table.writerows(rows)


class ZambaTensorBoardLogger(TensorBoardLogger):
    """Logs to TensorBoard, each run in its own folder.

    The arguments are those of Lightning's ``TensorBoardLogger``: a YAML that names that one gets this one. Lightning's gives
    two runs that begin together the same folder; and it takes ``~`` and variables in ``save_dir`` for what they stand for where
    events are written, but not where checkpoints are.
    """

    def __init__(self, save_dir: str | Path, *, version: int | str | None = None, **more: Any) -> None:
        """Keeps the arguments; the folder is made when the run begins."""
        super().__init__(_expanded(save_dir), version=version, **more)
        self._claimed = version is not None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of TensorBoard."""
        if not self._claimed:
            claim_version(self)
            self._claimed = True
        return super().experiment


class ZambaCSVLogger(CSVLogger):
    """Logs to ``metrics.csv``, and appends to the one that is in a run folder.

    The arguments are those of Lightning's ``CSVLogger``: a YAML that names that one gets this one. Lightning's deletes the
    file, of a resumed run and even where ``zamba test`` is given the same version.
    """

    def __init__(self, save_dir: str | Path, *, version: int | str | None = None, **more: Any) -> None:
        """Keeps the arguments; the folder is made when the run begins."""
        super().__init__(_expanded(save_dir), version=version, **more)
        self._claimed = version is not None
        self._writer: AppendingWriter | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> AppendingWriter:
        """What writes the file."""
        if self._writer is None:
            if not self._claimed:
                claim_version(self)
                self._claimed = True
            os.makedirs(self.log_dir, exist_ok=True)
            self._writer = AppendingWriter(self.log_dir)
        return self._writer

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Saves what was logged."""
        if self._writer is not None:
            self.save()

    @rank_zero_only
    def go_back(self, step: int) -> None:
        """Removes rows from ``step`` on, which a resumed run repeats."""
        self.experiment.go_back(step)


def _expanded(save_dir: str | Path) -> str:
    return os.path.expanduser(os.path.expandvars(save_dir))


def _told(row: dict[str, Any]) -> set[str]:
    return {name for name, value in row.items() if value not in ("", None)}


def _step_of(row: dict[str, Any]) -> int:
    return int(row.get("step") or 0)
