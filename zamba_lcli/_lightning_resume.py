"""A run that is resumed goes on as if it had not been interrupted, where Lightning forgets something.

Private names of Lightning are used, as in ``_lightning.py``: to be reviewed at each upgrade.
Each function says what is wrong, where that is reported, and when it may be deleted.
"""

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import (
    EarlyStopping,
    GradientAccumulationScheduler,
    OnExceptionCheckpoint,
)
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torchmetrics import Metric

from zamba_lcli._lightning import trainer_callbacks

LEFT_OPEN = "left_open"  # key of the checkpoint
CRITERIA = ("patience", "min_delta", "check_finite", "stopping_threshold", "divergence_threshold")


def left_open(trainer: Trainer, module: LightningModule, before: "BeforeBatch | None") -> dict[str, Any]:
    """Returns what Lightning does not save of a run and :func:`resume_what_is_due` needs.

    Args:
        trainer: The run.
        module: The model.
        before: What was before the batch within which the checkpoint is saved, if it is.

    Returns:
        ``at_batch_end``, whether what follows a batch is still to come; ``gradients``, float, by the names of their parameters,
        of a step of which some batches are done; and ``stopped_by``, the criteria of each EarlyStopping that has ended the run.
    """
    loop: Any = trainer.fit_loop.epoch_loop
    progress = loop.batch_progress
    gradients: dict[str, Tensor] = {}
    if before is not None:
        gradients = before.gradients
    elif not is_within_batch(trainer.fit_loop) and progress.current.ready and loop._should_accumulate():
        gradients = {name: _mean_over_processes(trainer, gradient) for name, gradient in _gradients(module).items()}
    stopped = [c for c in trainer_callbacks(trainer) if trainer.should_stop and isinstance(c, EarlyStopping)]
    return {
        "at_batch_end": progress.total.completed < progress.total.processed,
        "gradients": gradients,
        "stopped_by": {
            c.state_key: _criteria(c) for c in stopped if c.stopping_reason is not EarlyStoppingReason.NOT_STOPPED
        },
    }


def resume_what_is_due(trainer: Trainer, module: LightningModule, left: dict[str, Any]) -> None:
    """Does what followed when the checkpoint was saved, of which Lightning leaves out three things.

    A ReduceLROnPlateau that counts steps looks at the value after a batch's checkpoint is saved; gradients of a step of which
    some batches are done are lost; and that EarlyStopping has ended a run (it may be waiting for ``min_epochs``) is forgotten,
    so that it goes on for another epoch. Not reported as of Lightning 2.6. Delete each when a run resumed after any batch is
    the same without it (tests/runs/test_exact_resume.py).

    Args:
        trainer: The run, of which loops and callbacks are restored.
        module: The model.
        left: What :func:`left_open` returned.
    """
    gradients = left.get("gradients", {})
    for name, parameter in module.named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter.device)
    loop: Any = trainer.fit_loop
    if left.get("at_batch_end") and not _validation_is_next(loop):
        loop.epoch_loop.update_lr_schedulers("step", update_plateau_schedulers=True)
    for callback in trainer_callbacks(trainer):
        if not isinstance(callback, EarlyStopping):
            continue
        if left.get("stopped_by", {}).get(callback.state_key) == _criteria(callback):
            trainer.should_stop = True
            rank_zero_info(
                f"EarlyStopping has ended the checkpoint's run: {callback.stopping_reason_message} To go on, state a higher "
                "patience, or leave EarlyStopping out."
            )


def _criteria(callback: EarlyStopping) -> dict[str, Any]:
    return {name: getattr(callback, name) for name in CRITERIA}


def _gradients(module: LightningModule) -> dict[str, Tensor]:
    return {name: p.grad.detach().clone() for name, p in module.named_parameters() if p.grad is not None}


def _mean_over_processes(trainer: Trainer, gradient: Tensor) -> Tensor:
    if trainer.world_size == 1:
        return gradient
    mean: Tensor = trainer.strategy.reduce(gradient, reduce_op="mean")  # type: ignore[assignment]
    return mean


def resume_accumulation(trainer: Trainer) -> None:
    """Lets GradientAccumulationScheduler do in the middle of an epoch what it does at its start.

    Lightning does not call ``on_train_epoch_start`` then, so that each batch is a step for the rest of the epoch. Not reported
    as of Lightning 2.6. Delete when the callback itself does so in ``on_train_start``.
    """
    for callback in trainer_callbacks(trainer):
        if isinstance(callback, GradientAccumulationScheduler) and trainer.fit_loop.restarted_mid_epoch:
            callback.on_train_epoch_start(trainer)


class BeforeBatch:
    """What a batch changes before its step is done: the statistics of layers that train, metrics and gradients.

    An error within a batch may lead to a checkpoint (OnExceptionCheckpoint, ``save_on_exception``), and a run that is resumed
    from it begins with that batch again: Lightning then counts it twice. Not reported as of Lightning 2.6. Delete when
    Lightning saves nothing within a batch.

    Args:
        module: The model.
        metrics: The metrics of the training, by name.
        batch_idx: Which batch of the epoch it is.
    """

    def __init__(self, module: LightningModule, metrics: dict[str, Metric], batch_idx: int) -> None:
        """Copies it."""
        self.module = module
        self.buffers = {
            f"{prefix}.{name}": buffer.clone()
            for prefix, layer in module.named_modules(remove_duplicate=False)  # as in the state_dict
            if layer.training and not isinstance(layer, Metric)
            for name, buffer in layer.named_buffers(recurse=False)
        }
        self.metrics = {name: state_of(metric) for name, metric in metrics.items() if metric.update_called}
        self.gradients = _gradients(module) if batch_idx % module.trainer.accumulate_grad_batches else {}
        self.versions = self._versions()

    def _versions(self) -> int:
        return sum(parameter._version for parameter in self.module.parameters())

    def put_into(self, checkpoint: dict[str, Any]) -> None:
        """Puts it into a checkpoint that is saved within the batch, in the place of what is there."""
        if "callbacks" not in checkpoint:
            return  # of weights only, from which no run can be resumed
        current = checkpoint.get("current_model_state", checkpoint["state_dict"])  # besides an average, there are both
        current.update({name: buffer for name, buffer in self.buffers.items() if name in current})
        checkpoint["train_metrics"] = self.metrics
        if self._versions() != self.versions:
            rank_zero_warn(
                "The error came up while the optimizer was changing the weights: a run resumed from this checkpoint takes "
                "that step twice, in part. To go on exactly, resume from an earlier checkpoint."
            )


def state_of(metric: Metric) -> dict[str, Tensor]:
    """Returns what a metric has counted so far, in this process."""
    return {name: getattr(metric, name).detach().clone() for name in metric._defaults}


def saves_on_exception(trainer: Trainer) -> bool:
    """Returns whether a checkpoint may be saved within a batch."""
    callbacks = trainer_callbacks(trainer)
    return any(isinstance(c, OnExceptionCheckpoint) or getattr(c, "save_on_exception", False) for c in callbacks)


def is_within_batch(loop: Any) -> bool:
    """Returns whether a batch of the fit loop is begun and not done."""
    batches = loop.epoch_loop.batch_progress.total
    return bool(batches.started > batches.processed)


def resume_within_batch(loop: Any) -> None:
    """Lets a run that was saved within a batch go on with that batch.

    Lightning counts it once more, in all batches of the run and in the steps of what is logged, and takes the epoch for done
    if it is the last one. Not reported as of Lightning 2.6. Delete together with :class:`BeforeBatch`.
    """
    epoch_loop, optimizer = loop.epoch_loop, loop.epoch_loop.automatic_optimization.optim_progress.optimizer
    batches = epoch_loop.batch_progress.total
    if not (loop.restarted_mid_epoch and batches.ready > batches.processed):
        return
    epoch_loop.batch_progress.is_last_batch = False
    if not epoch_loop._should_accumulate():
        epoch_loop._batches_that_stepped -= 1
    for progress in (epoch_loop.batch_progress, optimizer.step, optimizer.zero_grad):
        progress.total.reset_on_restart()


def resume_before_validation(loop: Any, validating: bool, fit_loop: dict[str, Any]) -> None:
    """Lets a run that is saved after a batch that a validation or the epoch's end follows go on with the whole of them.

    Lightning leaves out the validation if it was saved at the end of that batch, goes on with the next val batch if it was
    saved in the validation, and after an epoch's last batch leaves out the epoch's end as well (Lightning#19549, #20288):
    metrics, and steps of schedulers that depend on them, are lost or wrong.

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
    elif validating or (at_batch_end and (batches["is_last_batch"] or _validation_is_next(loop))):
        for counts in ("total", "current"):
            batches[counts] = {**batches[counts], "completed": batches[counts]["processed"]}
            val_batches[counts] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}  # within the first one


def begin_next_epoch(loop: Any) -> None:
    """Lets a run that is saved at an epoch's end go on with the next epoch.

    Lightning does so, but with ``max_steps`` it ends the epoch again and does not begin the next one.
    """
    if loop.restarted_on_epoch_end:
        loop.epoch_progress.increment_completed()
        loop.reset_restart_stage()
        loop._restarting = loop.epoch_loop.restarting = False


def resume_without_validation(loop: Any) -> None:
    """Lets a run go on that is saved by :func:`resume_before_validation` if now no validation follows the batch.

    Lightning would train a batch too many in an epoch that has no more, and log on with the step before.
    """
    epoch_loop = loop.epoch_loop
    if not (loop.restarted_mid_epoch and epoch_loop.restarted_on_last) or _validation_is_next(loop):
        return
    if not epoch_loop._should_accumulate():
        epoch_loop._batches_that_stepped += 1
    if epoch_loop._num_ready_batches_reached():
        epoch_loop.val_loop._has_run = True  # lets the loop end at once, see `on_train_epoch_end`


def _validation_is_next(loop: Any) -> bool:
    return bool(loop.epoch_loop._should_check_val_fx(loop._data_fetcher))
