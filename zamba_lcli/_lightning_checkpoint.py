"""Lightning's ModelCheckpoint, whose scores are those of its weights.

Private names of Lightning are used, as in ``_lightning.py``: to be reviewed at each upgrade.
"""

import re
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor


class ZambaModelCheckpoint(ModelCheckpoint):
    """Files checkpoints under scores of the very weights that they have.

    The arguments are those of Lightning's ``ModelCheckpoint``, and a YAML that names that one gets this one. Where ``monitor``
    or ``filename`` name a value of the validation, and the weights have changed since the last one, nothing is saved until
    they are validated; Lightning files the score of earlier weights (Lightning#20919, #20185: mended for the first validation
    and for an epoch's last batch only). Values of a whole epoch of training are waited for until its end. Nothing is saved
    while gradients are accumulated. Delete when Lightning's callback does so.
    """

    _validated_step: int | None = -1  # steps of the optimizer that were validated last; None if not known
    _held_step: int | None = None  # those at which a checkpoint was not saved
    _at_epoch_end = False

    @property
    def state_key(self) -> str:
        """The name of Lightning's callback, so that checkpoints are told by what the YAML says."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def _waits(self, trainer: Trainer) -> bool:
        """Returns whether what is named is not known of these weights."""
        named = [*re.findall(r"\{([^}:!]+)", self.filename or ""), *([self.monitor] if self.monitor else [])]
        if not self._at_epoch_end and any(name.startswith("train_") and name != "train_loss" for name in named):
            return True
        of_validation = trainer.enable_validation and any(name.startswith(("val_", "species/val_")) for name in named)
        return of_validation and self._validated_step not in (None, trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves after a step of the optimizer, if the time has come."""
        if not trainer.fit_loop._should_accumulate():
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes which weights have been validated."""
        if not trainer.sanity_checking:
            self._validated_step = trainer.global_step

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves what was waiting for the validation, or what is saved after each."""
        if self._defer_save_until_validation:
            self._save_held(trainer)
        else:
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves what was waiting for the epoch's end, or what is saved after each epoch."""
        self._at_epoch_end = True
        super().on_train_epoch_end(trainer, pl_module)
        self._save_held(trainer)
        self._at_epoch_end = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves last.ckpt, which goes by no score, if the last step's checkpoint is still waiting."""
        waiting, self._held_step = self._held_step == trainer.global_step, None
        if waiting and self.save_last:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        else:
            super().on_train_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Saves under a name without scores if those that there are belong to other weights."""
        filename, self._held_step = self.filename, None
        if self._waits(trainer):
            self.filename = None
        super().on_exception(trainer, pl_module, exception)
        self.filename = filename

    def _save_held(self, trainer: Trainer) -> None:
        if self._defer_save_until_validation and not self._should_skip_saving_checkpoint(trainer):
            candidates = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, candidates)
            self._save_last_checkpoint(trainer, candidates)

    def _save_topk_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        self._defer_save_until_validation = self.save_top_k != 0 and self._waits(trainer)
        self._held_step = trainer.global_step if self._defer_save_until_validation else None
        if self._held_step is None:
            super()._save_topk_checkpoint(trainer, monitor_candidates)

    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        if self._held_step != trainer.global_step:
            super()._save_last_checkpoint(trainer, monitor_candidates)

    def state_dict(self) -> dict[str, Any]:
        """Returns Lightning's state, which weights have been validated, and whether a checkpoint waits."""
        more = {"validated_step": self._validated_step, "waits": self._defer_save_until_validation}
        return {**super().state_dict(), **more}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the state; one of Lightning's own callback says nothing of the validation."""
        super().load_state_dict(state_dict)
        self._validated_step = state_dict.get("validated_step")
        self._defer_save_until_validation = state_dict.get("waits", False)
