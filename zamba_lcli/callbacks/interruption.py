"""Save a run when it is interrupted, and write checkpoints whole."""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_info

from zamba_lcli._lightning import accumulates
from zamba_lcli.files import replacing
from zamba_lcli.run_folder import checkpoint_folders, is_dry_run


class SaveOnInterrupt(Callback):
    """On SIGINT (Ctrl-C) and SIGTERM (SLURM's way) saves ``last.ckpt`` and ends the run with code 130 or 143.

    The batch in work is finished first, and those whose gradients are accumulated with its own. A second Ctrl-C ends the run
    at once. Lightning saves nothing, and ends with code 0 on SIGTERM; its OnExceptionCheckpoint and ModelCheckpoint's
    ``save_on_exception`` save within a batch, of which half may be done.
    """

    def __init__(self) -> None:
        """Waits for a signal."""
        self.received: signal.Signals | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listens to the signals."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._handlers[signum] = signal.signal(signum, self._receive)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restores the signal handlers."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restores the signal handlers."""
        self._restore()

    def _restore(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(signum)
        rank_zero_info(f"{self.received.name}: saving a checkpoint after this batch.")

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Saves and ends the run if a signal has come, to any of the processes; not before what is accumulated is used."""
        if not accumulates(trainer):
            self._save_and_exit(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Saves and ends the run if a signal has come; a resume begins with the validation."""
        if not trainer.sanity_checking and not accumulates(trainer):
            self._save_and_exit(trainer)

    def _save_and_exit(self, trainer: Trainer) -> None:
        number = torch.tensor(int(self.received or 0), device=trainer.strategy.root_device)
        if trainer.world_size > 1:  # a signal often reaches only one of the processes
            number = trainer.strategy.all_gather(number).max()
        if number == 0:
            return
        if is_dry_run(trainer):
            rank_zero_info("Interrupted; a dry run saves nothing.")
        else:
            path = checkpoint_folders(trainer)[0] / "last.ckpt"
            trainer.save_checkpoint(path)
            rank_zero_info(f"Interrupted. To go on: --ckpt_path {path}")
        raise SystemExit(128 + int(number))


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under another name and moves it into place when it is whole.

    Lightning writes to the system's folder for temporary files and moves from there, which copies if that is another disk: a
    run that is killed then leaves half a checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Saves ``checkpoint`` at ``path``; a path on a remote file system is left to Lightning."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(path) as partial, partial.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch's own writer reports a full disk as a RuntimeError
            cause = error if isinstance(error, OSError) else error.__context__
            if isinstance(cause, OSError) and cause.errno is not None:  # else its text says all
                raise OSError(cause.errno, cause.strerror, str(path)) from error
            raise


class NoCheckpointIO(TorchCheckpointIO):
    """Writes and deletes no checkpoint, for a dry run: with ``save_last``, ModelCheckpoint saves at the end of one, too."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Saves nothing."""

    def remove_checkpoint(self, path: str | Path) -> None:
        """Deletes nothing."""
