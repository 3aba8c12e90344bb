"""Whether a run is ever validated: told before anything is trained."""

import math
from collections.abc import Iterable

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn

from zamba_lcli.errors import InputError


class Validated(Callback):
    """Refuses a run that waits for what validation finds out, and is never validated; without one that waits, warns.

    Args:
        waiting: Who waits for which value, as in ``checks.monitored``.
    """

    def __init__(self, waiting: Iterable[tuple[str, str]]) -> None:
        """Keeps the argument; see the class."""
        super().__init__()
        self.waiting = [(who, name) for who, name in waiting if name.startswith(("val_", "species/val_"))]
        self._told = False

    def check_stated(self, trainer: Trainer) -> None:
        """Checks what needs no data.

        Raises:
            InputError: Names the key.
        """
        every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
        if trainer.limit_val_batches == 0:
            self._tell("trainer.limit_val_batches: 0", "Leave it out")
        elif every is not None and epochs is not None and 0 < epochs < every:
            self._tell(
                f"trainer.check_val_every_n_epoch: {every} is more than trainer.max_epochs: {epochs}",
                f"Give at most {epochs}",
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks again with the number of batches, which is known by now."""
        if self._told:
            return
        batches, end = trainer.num_training_batches, last_batch(trainer)
        if not math.isfinite(batches) or end is None:
            return
        every, interval = trainer.check_val_every_n_epoch, trainer.val_check_batch  # type: ignore[attr-defined]
        if trainer.num_val_batches == [] or sum(trainer.num_val_batches) == 0:
            self._tell("there are no val batches", "Check data.labels and trainer.limit_val_batches")
        elif not isinstance(interval, int | float) or not math.isfinite(interval):
            return  # by the clock
        elif every is None and interval > end:
            self._tell(f"trainer.val_check_interval: {interval:.0f} batches; the run has {end}", f"Give at most {end}")
        elif every is not None and (every - 1) * batches + min(interval, batches) > end:
            self._tell(
                f"the first validation is after {(every - 1) * batches + min(interval, batches):.0f} batches "
                f"(trainer.check_val_every_n_epoch: {every}), and the run ends after {end} (trainer.max_steps)",
                "Validate earlier with trainer.val_check_interval, or train longer",
            )

    def _tell(self, why: str, remedy: str) -> None:
        self._told = True
        if not self.waiting:
            rank_zero_warn(f"{why}: this run is never validated, so nothing says how good the model is. {remedy}.")
            return
        who, name = self.waiting[0]
        raise InputError(
            f"{why}: this run is never validated, and {who} waits for {name}. {remedy}, or let nothing wait for a val value."
        )


def last_batch(trainer: Trainer) -> int | None:
    """Returns how many batches a run has in all; None if it has no end that is known."""
    batches = int(trainer.num_training_batches)
    ends = []
    if trainer.max_epochs not in (None, -1):
        ends.append(int(trainer.max_epochs or 0) * batches)
    if trainer.max_steps != -1:
        together = trainer.accumulate_grad_batches
        epochs, steps = divmod(trainer.max_steps, math.ceil(batches / together))
        ends.append(epochs * batches + steps * together)
    return min(ends, default=None)
