"""Lightning's loggers, where they would delete or mix what is in run folders."""

import os
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from zamba_lcli._lightning import AppendingWriter, claim_version


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
