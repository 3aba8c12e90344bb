"""What Lightning does otherwise than it says, mended with its own parts, private ones too: to be reviewed at each upgrade.

Each function says what is wrong, where that is reported, and when the function may be deleted.
"""

import os
from typing import Any, TypeVar, cast

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, WeightAveraging
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.profilers import Profiler

T = TypeVar("T")


def trainer_callbacks(trainer: Trainer) -> list[Callback]:
    """Returns the trainer's callbacks; delete when Lightning declares ``Trainer.callbacks``, which it sets."""
    return cast(list[Callback], trainer.callbacks)  # type: ignore[attr-defined]


def gather(value: T) -> list[T]:
    """Returns the value of each process, in the order of their ranks; every process must call this.

    Values may be any objects; Lightning gathers tensors of one shape alone (``Strategy.all_gather``). Delete when Lightning's
    strategies gather objects, as they broadcast them.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


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
    for callback in trainer_callbacks(trainer):
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


class KeepingWriter(ExperimentWriter):
    """Writes to the files of a run folder that has some already.

    Overrides ``_check_log_dir_exists``, which deletes ``metrics.csv``; delete this class when Lightning's CSVLogger appends.
    """

    def _check_log_dir_exists(self) -> None:
        """Deletes nothing."""


def numbers_equal_names(callback: Callback) -> bool:
    """Returns whether a callback gives a checkpoint whose name is taken another one, and takes the place of none.

    Delete when ModelCheckpoint has ``enable_version_counter`` as a public attribute, as it has its other arguments.
    """
    return bool(getattr(callback, "_enable_version_counter", False))


def epoch_in_progress(trainer: Trainer | None) -> tuple[int, int]:
    """Returns the epoch that begins or goes on, and how many of its batches are done.

    ``Trainer.current_epoch`` is the last one still where that is done, and Lightning counts batches alone. Not reported as of
    Lightning 2.6. Delete when a run resumed with another batch size or number of processes goes on with the next clip.
    """
    if trainer is None:
        return 0, 0
    loop: Any = trainer.fit_loop
    epochs, batches = loop.epoch_progress.current, loop.epoch_loop.batch_progress
    last_is_done = batches.is_last_batch and batches.current.processed == batches.current.ready
    if epochs.started == epochs.processed or last_is_done:  # what was begun is done
        return epochs.started, 0
    return epochs.started - 1, int(batches.current.processed)


def is_in_last_validation(trainer: Trainer, next_epoch: int) -> bool:
    """Returns whether all batches before an epoch are done, and the validation of the epoch before it is not.

    Delete together with ``epoch_in_progress``.
    """
    epochs: Any = trainer.fit_loop.epoch_progress.current
    return bool(epochs.started > epochs.processed == next_epoch - 1)


def set_batches_done(trainer: Trainer, batches: int) -> None:
    """Sets how many batches of an epoch are done; whether the last one is completed stays as it is.

    Delete together with ``epoch_in_progress``.
    """
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    open_batches = progress.processed - progress.completed
    progress.ready = progress.started = progress.processed = batches
    progress.completed = batches - open_batches
