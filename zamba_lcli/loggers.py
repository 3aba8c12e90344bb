"""Lightning's loggers, where they would delete what is there."""

import os

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import rank_zero_only

from zamba_lcli._lightning import AppendingWriter


class ZambaCSVLogger(CSVLogger):
    """Logs to ``metrics.csv``, and appends to the one that is in a run folder.

    The arguments are those of Lightning's ``CSVLogger``: a YAML that names that one gets this one. Lightning's deletes the
    file, of a resumed run and even where ``zamba test`` is given the same version.
    """

    _writer: AppendingWriter | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> AppendingWriter:
        """What writes the file."""
        if self._writer is None:
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
