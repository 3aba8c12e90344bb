"""Refuses runs that are never validated, before anything is trained."""

from collections.abc import Iterable
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn

from zamba_lcli.errors import InputError
from zamba_lcli.run_length import ends_unvalidated, progress_of, validation_is_due


class Validated(Callback):
    """Refuses a run that is never validated if a callback or scheduler waits for a metric of the validation; else warns.

    A resumed run has the metrics of its checkpoint; who waits for one of these is named in the warning.

    Args:
        waiting: Who waits for which metric, as in ``checks.monitored``.
        resumed: The checkpoint that is resumed, if there is one.
    """

    def __init__(self, waiting: Iterable[tuple[str, str]], resumed: dict[str, Any] | None = None) -> None:
        """Keeps the arguments; see the class."""
        super().__init__()
        self.waiting = [(who, name) for who, name in waiting if name.startswith(("val_", "species/val_"))]
        self.resumed = resumed if resumed is not None and "loops" in resumed else None
        self._told = False

    def check_stated(self, trainer: Trainer) -> None:
        """Checks what needs no data.

        Raises:
            InputError: Names the key.
        """
        every, end = trainer.check_val_every_n_epoch, trainer.max_epochs
        done = progress_of(self.resumed).epochs
        if trainer.limit_val_batches == 0:
            self._tell("trainer.limit_val_batches: 0", "Leave it out")
        elif validation_is_due(trainer, self.resumed):
            return
        elif every is not None and end is not None and done < end < (done // every + 1) * every:
            if done:
                why = f"trainer.check_val_every_n_epoch: {every} is not within epochs {done + 1} to {end} of the resumed run"
                remedy = f"Give {end}, or train to trainer.max_epochs: {(done // every + 1) * every}"
            else:
                why = f"trainer.check_val_every_n_epoch: {every} is more than trainer.max_epochs: {end}"
                remedy = f"Give at most {end}"
            self._tell(why, remedy)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks again with the number of batches, which is known by now."""
        if not self._told:
            self._check_batches(trainer)
        self.resumed = None

    def _check_batches(self, trainer: Trainer) -> None:
        self._set_up_val_batches(trainer)
        if sum(trainer.num_val_batches) == 0:
            self._tell("there are no val batches", "Check data.labels and trainer.limit_val_batches")
        elif (end := ends_unvalidated(trainer, self.resumed)) is not None:
            every, interval = trainer.check_val_every_n_epoch, trainer.val_check_batch  # type: ignore[attr-defined]
            if every is None:
                why, remedy = (
                    f"trainer.val_check_interval: {interval} batches; the run has {end}",
                    f"Give at most {end}",
                )
            else:
                why = (
                    f"the run ends after {end} batches (trainer.max_steps), before its first validation "
                    f"(trainer.check_val_every_n_epoch: {every}, trainer.val_check_interval: {interval} batches)"
                )
                remedy = "Validate earlier with trainer.val_check_interval, or train longer"
            self._tell(why, remedy)

    def _set_up_val_batches(self, trainer: Trainer) -> None:
        """Counts the val batches, as Lightning does at this time only if the first epoch is validated."""
        if trainer.enable_validation and trainer.val_dataloaders is None:
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.setup_data()
            trainer.training = True

    def _tell(self, why: str, remedy: str) -> None:
        self._told = True
        known = (self.resumed or {}).get("callback_metrics", {})
        lacking = [(who, name) for who, name in self.waiting if name not in known]
        if lacking:
            who, name = lacking[0]
            raise InputError(
                f"{why}: this run is never validated, and {who} waits for {name}. {remedy}, or let nothing wait for it."
            )
        waiting = [f"{who} goes on with the checkpoint's {name}." for who, name in self.waiting]
        rank_zero_warn(
            " ".join(
                [f"{why}: this run is never validated, so nothing says how good the model is. {remedy}.", *waiting]
            )
        )
