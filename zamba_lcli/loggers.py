"""Lightning's loggers, where they would delete or mix what is in run folders."""

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
    """Goes on with the ``metrics.csv`` and ``hparams.yaml`` of a run folder, which Lightning's writer deletes and writes over.

    A changed file takes the place of the old one, so that a run that is killed leaves either.

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
        with replacing(self._path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, self.metrics_keys)
            table.writeheader()
            table.writerows(rows)


class ZambaTensorBoardLogger(TensorBoardLogger):
    """Logs to TensorBoard, in a run folder of its own.

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
        """Takes back what was logged of the steps from ``step`` on, which a resumed run takes again."""
        self.experiment.go_back(step)


def _expanded(save_dir: str | Path) -> str:
    return os.path.expanduser(os.path.expandvars(save_dir))


def _told(row: dict[str, Any]) -> set[str]:
    return {name for name, value in row.items() if value not in ("", None)}


def _step_of(row: dict[str, Any]) -> int:
    return int(row.get("step") or 0)
