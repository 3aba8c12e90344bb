"""Every private name of Lightning, torchmetrics and torch that is used, to be reviewed at each upgrade.

Each function says what the library lacks or does wrong, where that is reported, and when to delete the function. Where no issue
is named, none was reported as of Lightning 2.6.
"""

import os
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, WeightAveraging
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torchmetrics import Metric

T = TypeVar("T")


def trainer_callbacks(trainer: Trainer) -> list[Callback]:
    """Returns the trainer's callbacks; delete when Lightning declares ``Trainer.callbacks``, which it sets."""
    return cast(list[Callback], trainer.callbacks)  # type: ignore[attr-defined]


def attached_trainer(module: LightningModule) -> Trainer | None:
    """Returns the trainer of a model, None where it has none: ``LightningModule.trainer`` raises an error then.

    Reads ``_trainer``; delete when Lightning can be asked.
    """
    return module._trainer


def pop_class_path(hyper_parameters: dict[str, Any]) -> str | None:
    """Takes the class path of the model out of what a checkpoint keeps of its arguments, and returns it; None if there is none.

    Lightning's command line adds it as ``_class_path``; delete when checkpoints have it under a public name.
    """
    hyper_parameters.pop("_instantiator", None)
    return cast(str | None, hyper_parameters.pop("_class_path", None))


def is_fitting(module: LightningModule) -> bool:
    """Returns whether the model has a trainer, and this one fits it; delete together with :func:`attached_trainer`."""
    trainer = attached_trainer(module)
    return trainer is not None and trainer.state.fn == TrainerFn.FITTING


def restore_metric(metric: Metric, state: Mapping[str, Tensor]) -> None:
    """Lets a metric go on from a state as :attr:`Metric.metric_state` returns it, which torchmetrics can read, not set.

    Sets ``_update_count``, else the metric takes itself for empty; delete when torchmetrics restores a state.
    """
    metric._update_count = 1
    for name, value in state.items():
        setattr(metric, name, value.to(metric.device))


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


def average_in_small_checkpoint(module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Puts the average of the weights into a checkpoint of weights only.

    Lightning asks no callback then, so that the current weights are saved and not those that were validated (the callback came
    with Lightning#20545). Delete when ``Trainer.save_checkpoint(weights_only=True)`` calls WeightAveraging.

    Args:
        module: The model.
        checkpoint: Changed in place; one with all in it stays as it is.
    """
    trainer = attached_trainer(module)
    if "callbacks" in checkpoint or trainer is None:
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
    """Returns whether a callback numbers checkpoints of equal names instead of replacing them.

    Delete when ModelCheckpoint has ``enable_version_counter`` as a public attribute, as it has its other arguments.
    """
    return bool(getattr(callback, "_enable_version_counter", False))


def forget_loaders(trainer: Trainer) -> None:
    """Lets the fit loop make its loaders anew, as Lightning's LearningRateFinder does.

    Sets ``_combined_loader``; delete when the loop's number of batches is known without loaders.
    """
    trainer.fit_loop._combined_loader = None


def average_model(callback: WeightAveraging) -> AveragedModel | None:
    """Returns the average of the weights, None outside a fit.

    Reads ``_average_model``; delete when WeightAveraging has it as a public attribute.
    """
    return callback._average_model


def swap_average(callback: WeightAveraging, module: LightningModule) -> None:
    """Exchanges the weights of the model and of the average.

    Calls ``_swap_models``; delete when WeightAveraging can be told to.
    """
    callback._swap_models(module)


def average_epoch(callback: WeightAveraging) -> int:
    """Returns the last epoch with an update of its own, which WeightAveraging does not save.

    Reads ``_latest_update_epoch``; delete when WeightAveraging's ``state_dict`` has it.
    """
    return callback._latest_update_epoch


def set_average_epoch(callback: WeightAveraging, epoch: int) -> None:
    """Sets what :func:`average_epoch` returned; delete together with it."""
    callback._latest_update_epoch = epoch


class HoldingModelCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that saves nothing while :meth:`holds` says so, until :meth:`save_held` or the next time.

    Lightning's has no hook for that (Lightning#20919, #20185). Overrides ``_save_topk_checkpoint`` and
    ``_save_last_checkpoint``; delete when ModelCheckpoint files no scores of other weights.
    """

    held_at: int | None = None  # steps of the optimizer at which a checkpoint was not saved

    def holds(self, trainer: Trainer) -> bool:
        """Returns whether a checkpoint must not be saved yet."""
        raise NotImplementedError

    @property
    def is_holding(self) -> bool:
        """Whether a checkpoint waits; Lightning's own callback has the same mark, and looks at it."""
        return self._defer_save_until_validation

    @is_holding.setter
    def is_holding(self, value: bool) -> None:
        self._defer_save_until_validation = value

    def save_held(self, trainer: Trainer) -> None:
        """Saves what waits, if it need not wait any longer."""
        if self.is_holding and not self._should_skip_saving_checkpoint(trainer):
            candidates = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, candidates)
            self._save_last_checkpoint(trainer, candidates)

    def save_last_alone(self, trainer: Trainer) -> None:
        """Saves ``last.ckpt``, which goes by no score."""
        self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_topk_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        self.is_holding = self.save_top_k != 0 and self.holds(trainer)
        self.held_at = trainer.global_step if self.is_holding else None
        if self.held_at is None:
            super()._save_topk_checkpoint(trainer, monitor_candidates)

    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        if self.held_at != trainer.global_step:
            super()._save_last_checkpoint(trainer, monitor_candidates)


def version_of(tensor: Tensor) -> int:
    """Returns how often a tensor was changed in place; delete when torch has ``_version`` as a public attribute."""
    return tensor._version


def is_within_batch(loop: Any) -> bool:
    """Returns whether a batch of the fit loop is begun and not done; delete when Lightning can be asked."""
    batches = loop.epoch_loop.batch_progress.total
    return bool(batches.started > batches.processed)


def accumulates(trainer: Trainer) -> bool:
    """Returns whether the batch in work is one of those that only add to the gradients, so that no step follows it.

    The fit loop's ``_should_accumulate``, in public names; delete when Lightning can be asked.
    """
    together = trainer.fit_loop.epoch_loop.batch_progress.current.ready % trainer.accumulate_grad_batches != 0
    return together and (trainer.strategy.handles_gradient_accumulation or not _is_last_batch(trainer))


def _is_last_batch(trainer: Trainer) -> bool:
    batches = trainer.fit_loop.epoch_loop.batch_progress
    return batches.is_last_batch or batches.current.ready == trainer.num_training_batches


def resume_within_batch(trainer: Trainer) -> None:
    """Lets a run that was saved within a batch go on with that batch.

    Lightning counts it once more, in all batches of the run and in the steps of what is logged, and takes the epoch for done
    if it is the last one. Not reported as of Lightning 2.6. Sets ``_batches_that_stepped``; delete when Lightning saves nothing
    within a batch.
    """
    loop: Any = trainer.fit_loop
    epoch_loop, optimizer = loop.epoch_loop, loop.epoch_loop.automatic_optimization.optim_progress.optimizer
    batches = epoch_loop.batch_progress.total
    if not (loop.restarted_mid_epoch and batches.ready > batches.processed):
        return
    epoch_loop.batch_progress.is_last_batch = False
    if not accumulates(trainer):
        epoch_loop._batches_that_stepped -= 1
    for progress in (epoch_loop.batch_progress, optimizer.step, optimizer.zero_grad):
        progress.total.reset_on_restart()


def resume_before_validation(loop: Any, validating: bool, fit_loop: dict[str, Any]) -> None:
    """Lets a run that is saved after a batch that a validation or the epoch's end follows go on with the whole of them.

    Lightning leaves out the validation if it was saved at the end of that batch, continues with the next val batch if it was
    saved in the validation, and after an epoch's last batch leaves out the epoch's end as well (Lightning#19549, #20288):
    metrics, and steps of schedulers that depend on them, are lost or wrong. Delete when these two are mended.

    Args:
        loop: Lightning's fit loop.
        validating: Whether the checkpoint is saved in the validation.
        fit_loop: The loop's progress, as in the checkpoint; changed in place.
    """
    batches, val_batches = fit_loop["epoch_loop.batch_progress"], fit_loop["epoch_loop.val_loop.batch_progress"]
    at_batch_end = batches["total"]["completed"] < batches["total"]["processed"]
    if (
        validating
        and val_batches["is_last_batch"]
        and val_batches["current"]["completed"] == val_batches["current"]["ready"]
    ):
        val_batches["total"] = dict(val_batches["current"])  # at its end: those who monitor it must not see it twice
    elif validating or (at_batch_end and (batches["is_last_batch"] or validation_is_next(loop))):
        for counts in ("total", "current"):
            batches[counts] = {**batches[counts], "completed": batches[counts]["processed"]}
            val_batches[counts] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}  # within the first one


def begin_next_epoch(loop: Any) -> None:
    """Lets a run that is saved at an epoch's end go on with the next epoch.

    Lightning does so, but with ``max_steps`` it ends the epoch again and does not begin the next one. Not reported as of
    Lightning 2.6. Sets ``_restarting``; delete when a run with ``max_steps`` resumed at an epoch's end takes its last steps.
    """
    if loop.restarted_on_epoch_end:
        loop.epoch_progress.increment_completed()
        loop.reset_restart_stage()
        loop._restarting = loop.epoch_loop.restarting = False


def resume_without_validation(trainer: Trainer) -> None:
    """Lets a run go on that is saved by :func:`resume_before_validation` if now no validation follows the batch.

    Lightning would train a batch too many in an epoch that has no more, and log on with the step before. Not reported as of
    Lightning 2.6. Sets ``_batches_that_stepped`` and ``_has_run``; delete together with :func:`resume_before_validation`.
    """
    loop: Any = trainer.fit_loop
    epoch_loop = loop.epoch_loop
    if not (loop.restarted_mid_epoch and epoch_loop.restarted_on_last) or validation_is_next(loop):
        return
    if not accumulates(trainer):
        epoch_loop._batches_that_stepped += 1
    if _is_last_batch(trainer):
        epoch_loop.val_loop._has_run = True  # lets the loop end at once, see the model's `on_train_epoch_end`


def validation_is_next(loop: Any) -> bool:
    """Returns whether the fit loop validates before the next batch.

    Calls ``_should_check_val_fx``; delete when Lightning can be asked.
    """
    return bool(loop.epoch_loop._should_check_val_fx(loop._data_fetcher))


def epoch_in_progress(trainer: Trainer | None) -> tuple[int, int]:
    """Returns the epoch that begins or goes on, and how many of its batches are done.

    ``Trainer.current_epoch`` is the last one still where that is done, and Lightning counts batches alone. Not reported as of
    Lightning 2.6. Delete when a run resumed with another batch size or number of processes continues with the next clip.
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


class StatedWinsOverCheckpoint:
    """A LightningCLI to which a checkpoint's hyperparameters say nothing that the user states otherwise.

    Lightning parses them over what is stated (Lightning#21455), in ``_parse_ckpt_path``. Delete when they are parsed below it.
    """

    def _parse_ckpt_path(self) -> None:
        """Takes nothing; see the class."""
