"""An average of the weights over the steps, to validate and predict with."""

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EMAWeightAveraging, WeightAveraging
from torch import Tensor

from zamba_lcli._lightning import average_epoch, average_model, set_average_epoch, swap_average
from zamba_lcli.errors import InputError


class ExponentialAverage:
    """The ``avg_fn`` of torch's ``AveragedModel``: decay * average + (1 - decay) * current, exact where the two are equal.

    Torch's own rounds, so that frozen weights and statistics wander off by a little at each step. Whole numbers (BatchNorm's
    count of batches) are taken as they are.

    Args:
        decay: Share that the average keeps at each update.

    Raises:
        InputError: If the share is not between 0 and 1.
    """

    def __init__(self, decay: float) -> None:
        """Keeps the decay."""
        if not 0 <= decay <= 1:
            raise InputError(f"EMAWeightAveraging: decay: {decay} is not between 0 and 1.")
        self.decay = decay

    def __call__(self, average: Tensor, current: Tensor, num_averaged: Any) -> Tensor:
        """Returns the new average."""
        return average.lerp(current, 1 - self.decay) if average.is_floating_point() else current


class ExactAverage:
    """An ``avg_fn`` of torch's ``AveragedModel`` that leaves numbers alone where average and current weights are equal.

    Whole numbers (BatchNorm's count of batches) are taken as they are.

    Args:
        avg_fn: Takes average, current weights and the number of updates so far, and returns the new average; None for the
            mean over all updates.
    """

    def __init__(self, avg_fn: Callable[[Tensor, Tensor, Any], Tensor] | None = None) -> None:
        """Keeps the function."""
        self.avg_fn = avg_fn

    def __call__(self, average: Tensor, current: Tensor, num_averaged: Any) -> Tensor:
        """Returns the new average."""
        if not average.is_floating_point():
            return current
        if self.avg_fn is None:
            return average.lerp(current, torch.as_tensor(1 / (num_averaged + 1)).to(average))
        return self.avg_fn(average, current, num_averaged).where(average != current, average)


class _ExactAveraging(WeightAveraging):
    """What Lightning's callbacks promise, kept: see :class:`ZambaEMAWeightAveraging`."""

    _model_has_average = False
    _validates = False  # with the average, by this callback
    _follows_model = True  # to its device

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Makes the average when a fit begins."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._model_has_average = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Moves the average to where the model is by now."""
        average = average_model(self)
        if self._follows_model and average is not None:
            average.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Updates the average; after an epoch's last batch also with the epoch's update, so that the validation sees it."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.is_last_batch:
            self.on_train_epoch_end(trainer, pl_module)  # which is done once an epoch

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the model the average, unless it has it from the training's end on."""
        self._validates = average_model(self) is not None and not self._model_has_average
        if self._validates:
            self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the model back its current weights."""
        if self._validates:
            self._swap(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the model the average, and keeps the current weights for checkpoints that are saved from here on."""
        if not self._model_has_average:
            self._swap(pl_module)

    def _swap(self, pl_module: LightningModule) -> None:
        swap_average(self, pl_module)
        self._model_has_average = not self._model_has_average

    def state_dict(self) -> dict[str, Any]:
        """Returns the last step and the last epoch with an update."""
        return {**super().state_dict(), "latest_update_epoch": average_epoch(self)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the last step and the last epoch with an update."""
        super().load_state_dict(state_dict)
        set_average_epoch(self, state_dict.get("latest_update_epoch", average_epoch(self)))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Puts the average at ``state_dict`` and the current weights at ``current_model_state``."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._model_has_average and "current_model_state" in checkpoint:
            average, current = checkpoint["current_model_state"], checkpoint["state_dict"]
            checkpoint["state_dict"], checkpoint["current_model_state"] = average, current

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes over average and current weights; to test or predict, the average is all that is needed."""
        if average_model(self) is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


class ZambaWeightAveraging(_ExactAveraging):
    """Averages the weights over all steps; validation, checkpoints and later tests and predictions use the average.

    A YAML that names Lightning's ``WeightAveraging`` gets this one, which differs as :class:`ZambaEMAWeightAveraging` does.

    Args:
        device: Where the average is kept; null for the model's device.
        use_buffers: Average BatchNorm's statistics too, rather than take the current ones.
        avg_fn: Takes average, current weights and the number of updates so far, and returns the new average; null for the
            mean over all steps.
    """

    def __init__(
        self,
        device: str | None = None,
        use_buffers: bool = True,
        avg_fn: Callable[[Tensor, Tensor, Any], Tensor] | None = None,
    ) -> None:
        """Keeps the arguments; see the class."""
        super().__init__(device=device, use_buffers=use_buffers, avg_fn=ExactAverage(avg_fn))
        self._follows_model = device is None

    @property
    def state_key(self) -> str:
        """The name of Lightning's callback, which the YAML names."""
        return WeightAveraging.__qualname__


class ZambaEMAWeightAveraging(_ExactAveraging, EMAWeightAveraging):
    """Averages the weights over the steps; validation, checkpoints and later tests and predictions use the average.

    The arguments are those of Lightning's ``EMAWeightAveraging``: a YAML that names that one gets this one. Here frozen layers
    stay as they are to the bit, a checkpoint that is saved in the middle of a validation or at the end of the training has
    average and current weights in their places, so that a resumed run goes on as if it had not been interrupted, an update at
    an epoch's end comes before its validation, so that checkpoints have what was validated, and the average is on the model's
    device from the start (Lightning makes it before the model is moved to the GPU, and copies all weights to the CPU at each
    step).

    Args:
        device: Where the average is kept; null for the model's device.
        use_buffers: Average BatchNorm's statistics too, rather than take the current ones.
        decay: Share that the average keeps at each update.
        update_every_n_steps: Steps of the optimizer between updates.
        update_starting_at_step: First step with an update; null for the first one.
        update_starting_at_epoch: Also update at the end of each epoch from this one on; null for no such updates.
    """

    def __init__(
        self,
        device: str | None = None,
        use_buffers: bool = True,
        decay: float = 0.999,
        update_every_n_steps: int = 1,
        update_starting_at_step: int | None = None,
        update_starting_at_epoch: int | None = None,
    ) -> None:
        """Keeps the arguments; see the class."""
        # Lightning's own sets its arguments and takes torch's avg_fn, no other one
        WeightAveraging.__init__(self, device=device, use_buffers=use_buffers, avg_fn=ExponentialAverage(decay))
        self._follows_model = device is None
        self.update_every_n_steps = update_every_n_steps
        self.update_starting_at_step = update_starting_at_step
        self.update_starting_at_epoch = update_starting_at_epoch

    @property
    def state_key(self) -> str:
        """The name of Lightning's callback, which the YAML names."""
        return EMAWeightAveraging.__qualname__
