"""Find the largest batch size that fits, in a new run only."""

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BatchSizeFinder
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.parsing import lightning_getattr, lightning_setattr

from zamba_lcli.errors import InputError
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule


class ZambaBatchSizeFinder(BatchSizeFinder):
    """Tries larger and larger batches, and trains with the largest that fits.

    The arguments are those of Lightning's ``BatchSizeFinder``: a YAML that names that one gets this one. Here a resumed run
    goes on, with the batch size that was found, unless another one than before is stated. Lightning's callback loads what it
    saved before its trials in place of the checkpoint, and so lets a resumed run start over, as its LearningRateFinder does.

    Args:
        mode: ``power`` doubles the batch size; ``binsearch`` then looks between the last two.
        steps_per_trial: Batches of each size that are tried.
        init_val: Size to begin with.
        max_trials: Number of sizes tried.
        batch_arg_name: Name of the attribute of model or data.
        margin: Share by which ``binsearch`` lowers what it found.
        max_val: Largest size tried.
    """

    def __init__(
        self,
        mode: str = "power",
        steps_per_trial: int = 3,
        init_val: int = 2,
        max_trials: int = 25,
        batch_arg_name: str = "batch_size",
        margin: float = 0.05,
        max_val: int = 8192,
    ) -> None:
        """Keeps the arguments; see the class."""
        super().__init__(mode, steps_per_trial, init_val, max_trials, batch_arg_name, margin, max_val)
        self.batch_arg_name = batch_arg_name
        self.stated: int | None = None
        self.found: int | None = None

    @property
    def state_key(self) -> str:
        """The name of Lightning's callback, which the YAML names."""
        return BatchSizeFinder.__qualname__

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str | None = None) -> None:
        """Notes the batch size that is stated."""
        super().setup(trainer, pl_module, stage)
        self.stated = lightning_getattr(pl_module, self.batch_arg_name)

    def state_dict(self) -> dict[str, Any]:
        """Returns the batch size that was stated and that which was found."""
        return {"stated": self.stated, "found": self.found}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Sets the batch size that the run found which is resumed."""
        state = checkpoint.get("callbacks", {}).get(self.state_key, {})
        if self._is_resumed(pl_module) and state.get("stated") == self.stated and state.get("found") is not None:
            self.found = self.optimal_batch_size = state["found"]
            lightning_setattr(pl_module, self.batch_arg_name, self.found)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks for the batch size, in a new run only."""
        if self._is_resumed(pl_module):
            size = lightning_getattr(pl_module, self.batch_arg_name)
            rank_zero_info(f"BatchSizeFinder: a resumed run keeps its batch size, {size}.")
            return
        super().on_fit_start(trainer, pl_module)
        self.found = self.optimal_batch_size

    @staticmethod
    def _is_resumed(pl_module: LightningModule) -> bool:
        if not isinstance(pl_module, ZambaVideoClassificationLightningModule):
            raise InputError(f"ZambaBatchSizeFinder needs a model of zamba_lcli, not {type(pl_module).__name__}.")
        return pl_module.resumed is not None
