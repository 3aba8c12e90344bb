"""A run that is resumed goes on as if it had not been interrupted: what Lightning neither saves nor restores.

The repairs of Lightning's own loops are in ``_lightning.py``; the position in the data is the data module's, optimizer and
schedule are in ``schedule_states.py``.
"""

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, GradientAccumulationScheduler, OnExceptionCheckpoint
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torchmetrics import Metric

from zamba_lcli._lightning import (
    accumulates,
    attached_trainer,
    begin_next_epoch,
    is_within_batch,
    resume_before_validation,
    resume_within_batch,
    resume_without_validation,
    trainer_callbacks,
    validation_is_next,
    version_of,
)
from zamba_lcli.metrics import state_of

LEFT_OPEN = "left_open"  # key of the checkpoint
CRITERIA = ("patience", "min_delta", "check_finite", "stopping_threshold", "divergence_threshold")


class BeforeBatch:
    """What a batch changes before its step is done: the statistics of layers that train, metrics and gradients.

    An error within a batch may lead to a checkpoint (OnExceptionCheckpoint, ``save_on_exception``), and a run resumed from it
    begins with that batch again: Lightning then counts it twice. Not reported as of Lightning 2.6. Delete when Lightning saves
    nothing within a batch.

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
        return sum(map(version_of, self.module.parameters()))

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


def saves_on_exception(module: LightningModule) -> bool:
    """Returns whether a checkpoint may be saved within a batch."""
    trainer = attached_trainer(module)
    callbacks = [] if trainer is None else trainer_callbacks(trainer)
    return any(isinstance(c, OnExceptionCheckpoint) or getattr(c, "save_on_exception", False) for c in callbacks)


def save_progress(
    module: LightningModule, before: BeforeBatch | None, checkpoint: dict[str, Any]
) -> BeforeBatch | None:
    """Adds what is begun and not done to a checkpoint, and sets the progress of loops that Lightning would resume wrongly.

    Args:
        module: The model, in a fit.
        before: What was before the last batch, if it is kept.
        checkpoint: Changed in place.

    Returns:
        ``before``, if the checkpoint is saved within that batch; what it says is to be put into the checkpoint at the end.
    """
    trainer = module.trainer
    loop: Any = trainer.fit_loop
    within = before if is_within_batch(loop) else None
    if "callbacks" in checkpoint:  # else it is of weights only
        checkpoint[LEFT_OPEN] = left_open(trainer, module, within)
    resume_before_validation(loop, trainer.validating, checkpoint["loops"]["fit_loop"])
    checkpoint["callback_metrics"] = dict(trainer.callback_metrics)
    return within


def left_open(trainer: Trainer, module: LightningModule, before: BeforeBatch | None) -> dict[str, Any]:
    """Returns what Lightning does not save of a run and :func:`_resume_what_is_due` needs.

    Args:
        trainer: The run.
        module: The model.
        before: What was before the batch within which the checkpoint is saved, if it is.

    Returns:
        ``at_batch_end``, whether what follows a batch is still to come; ``gradients``, float, by the names of their parameters,
        of a step of which some batches are done; and ``stopped_by``, the criteria of each EarlyStopping that has ended the run.
    """
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    gradients: dict[str, Tensor] = {}
    if before is not None:
        gradients = before.gradients
    elif not is_within_batch(trainer.fit_loop) and progress.current.ready and accumulates(trainer):
        gradients = {name: _mean_over_processes(trainer, gradient) for name, gradient in _gradients(module).items()}
    stopped = [c for c in trainer_callbacks(trainer) if trainer.should_stop and isinstance(c, EarlyStopping)]
    return {
        "at_batch_end": progress.total.completed < progress.total.processed,
        "gradients": gradients,
        "stopped_by": {
            c.state_key: _criteria(c) for c in stopped if c.stopping_reason is not EarlyStoppingReason.NOT_STOPPED
        },
    }


def unfinished(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Returns what :func:`resume` needs of a checkpoint."""
    return {key: checkpoint[key] for key in ("callback_metrics", LEFT_OPEN) if key in checkpoint}


def resume(module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Goes on where a run was saved, with what was logged last for those who monitor it.

    Args:
        module: The model, when the training starts.
        checkpoint: What :func:`unfinished` returned; nothing in a new run.
    """
    trainer = module.trainer
    loop = trainer.fit_loop
    begin_next_epoch(loop)
    _resume_accumulation(trainer)
    resume_within_batch(trainer)
    resume_without_validation(trainer)
    trainer.callback_metrics.update(checkpoint.get("callback_metrics", {}))
    _resume_what_is_due(trainer, module, checkpoint.get(LEFT_OPEN, {}))


def end_epoch(trainer: Trainer) -> None:
    """Ends an epoch that was resumed at its end as one that was not: Lightning takes back the mark only after a batch."""
    epoch_loop = trainer.fit_loop.epoch_loop
    if epoch_loop.restarting:
        epoch_loop.on_iteration_done()


def _resume_what_is_due(trainer: Trainer, module: LightningModule, left: dict[str, Any]) -> None:
    """Does what followed when the checkpoint was saved, of which Lightning leaves out three things.

    A ReduceLROnPlateau that counts steps looks at the value after a batch's checkpoint is saved; gradients of a step of which
    some batches are done are lost; and that EarlyStopping has ended a run (it may be waiting for ``min_epochs``) is forgotten,
    so that it goes on for another epoch. Not reported as of Lightning 2.6. Delete each when a run resumed after any batch is
    the same without it.

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
    if left.get("at_batch_end") and not validation_is_next(loop):
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


def _resume_accumulation(trainer: Trainer) -> None:
    """Lets GradientAccumulationScheduler do in the middle of an epoch what it does at its start.

    Lightning does not call ``on_train_epoch_start`` then, so that each batch is a step for the rest of the epoch. Not reported
    as of Lightning 2.6. Delete when the callback itself does so in ``on_train_start``.
    """
    for callback in trainer_callbacks(trainer):
        if isinstance(callback, GradientAccumulationScheduler) and trainer.fit_loop.restarted_mid_epoch:
            callback.on_train_epoch_start(trainer)


def _criteria(callback: EarlyStopping) -> dict[str, Any]:
    return {name: getattr(callback, name) for name in CRITERIA}


def _gradients(module: LightningModule) -> dict[str, Tensor]:
    return {name: p.grad.detach().clone() for name, p in module.named_parameters() if p.grad is not None}


def _mean_over_processes(trainer: Trainer, gradient: Tensor) -> Tensor:
    if trainer.world_size == 1:
        return gradient
    mean: Tensor = trainer.strategy.reduce(gradient, reduce_op="mean")  # type: ignore[assignment]
    return mean
