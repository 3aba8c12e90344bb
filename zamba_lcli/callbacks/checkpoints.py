"""Checkpoints under scores of their own weights."""

import re
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from zamba_lcli._lightning import HoldingModelCheckpoint, accumulates


class ZambaModelCheckpoint(HoldingModelCheckpoint):
    """Files checkpoints under scores of the very weights that they have.

    The arguments are those of Lightning's ``ModelCheckpoint``, and a YAML that names that one gets this one. Where ``monitor``
    or ``filename`` name a value of the validation, and the weights have changed since the last one, nothing is saved until
    they are validated; Lightning files the score of earlier weights (Lightning#20919, #20185: mended for the first validation
    and for an epoch's last batch only). Values of a whole epoch of training are waited for until its end. Nothing is saved
    while gradients are accumulated. Delete when Lightning's callback does so.
    """

    _validated_step: int | None = -1  # steps of the optimizer that were validated last; None if not known
    _at_epoch_end = False

    @property
    def state_key(self) -> str:
        """The name of Lightning's callback, which the YAML names."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def holds(self, trainer: Trainer) -> bool:
        """Returns whether a value in the file's name, or the one monitored, is not known of these weights yet."""
        named = [*re.findall(r"\{([^}:!]+)", self.filename or ""), *([self.monitor] if self.monitor else [])]
        if not self._at_epoch_end and any(name.startswith("train_") and name != "train_loss" for name in named):
            return True
        of_validation = trainer.enable_validation and any(name.startswith(("val_", "species/val_")) for name in named)
        return of_validation and self._validated_step not in (None, trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves after a step of the optimizer, if the time has come."""
        if not accumulates(trainer):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes which weights have been validated."""
        if not trainer.sanity_checking:
            self._validated_step = trainer.global_step

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves what was waiting for the validation, or what is saved after each."""
        if self.is_holding:
            self.save_held(trainer)
        else:
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves what was waiting for the epoch's end, or what is saved after each epoch."""
        self._at_epoch_end = True
        super().on_train_epoch_end(trainer, pl_module)
        self.save_held(trainer)
        self._at_epoch_end = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves last.ckpt, which goes by no score, if the last step's checkpoint is still waiting."""
        waiting, self.held_at = self.held_at == trainer.global_step, None
        if waiting and self.save_last:
            self.save_last_alone(trainer)
        else:
            super().on_train_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Saves under a name without scores if the known ones belong to other weights."""
        filename, self.held_at = self.filename, None
        if self.holds(trainer):
            self.filename = None
        super().on_exception(trainer, pl_module, exception)
        self.filename = filename

    def state_dict(self) -> dict[str, Any]:
        """Returns Lightning's state, which weights have been validated, and whether a checkpoint waits."""
        more = {"validated_step": self._validated_step, "waits": self.is_holding}
        return {**super().state_dict(), **more}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the state; one of Lightning's own callback says nothing of the validation."""
        super().load_state_dict(state_dict)
        self._validated_step = state_dict.get("validated_step")
        self.is_holding = state_dict.get("waits", False)
