"""The optimizer and the schedule of a run, as they are stated: built, and built anew where the run has become another."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateFinder
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, LRScheduler, ReduceLROnPlateau, SequentialLR

from zamba_lcli._lightning import trainer_callbacks
from zamba_lcli.models.schedule_states import (
    STATED,
    Resumption,
    build_at,
    fast_forward,
    set_numbers,
    stated_optimizer,
    stated_scheduler,
)
from zamba_lcli.run_length import check_cycles, has_cycle, never_begins, run_length
from zamba_lcli.schedulers import PER_BATCH
from zamba_lcli.types import Interval

OptimizerBuilder: TypeAlias = Callable[[Iterable[dict[str, Any]]], Optimizer]
LRSchedulerBuilder: TypeAlias = Callable[[Optimizer], LRScheduler]
MISSING = (
    "No optimizer is given. Add one to the YAML, for example\n"
    "  optimizer:\n    class_path: torch.optim.Adam\n    init_args:\n      lr: 0.001\n"
    "or call `model.set_optimizer(...)` when the Trainer is used from Python."
)


@dataclass
class Optimization:
    """Builds optimizer and scheduler, and knows what is stated of them.

    Attributes:
        optimizer: Builds the optimizer from parameter groups.
        lr_scheduler: Builds the scheduler from the optimizer; None for none.
        interval: What the scheduler counts; None for what it is made for.
        stated: Optimizer and schedule in the words of a checkpoint, once they are built.
        schedule_is_restated: Whether the schedule of a resumed run is another one than that of the checkpoint's run.
    """

    optimizer: OptimizerBuilder
    lr_scheduler: LRSchedulerBuilder | None = None
    interval: Interval | None = None
    stated: dict[str, Any] | None = None
    schedule_is_restated: bool = False

    def configure(self, groups: list[dict[str, Any]], trainer: Trainer | None) -> OptimizerLRScheduler:
        """Builds the optimizer on the groups and the scheduler on the optimizer, as ``configure_optimizers`` returns them."""
        optimizer = self.optimizer(groups)
        self.stated = {"optimizer": stated_optimizer(optimizer), "lr_scheduler": None, "found_lr": None}
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer)
        interval: Interval = self.interval or ("step" if isinstance(scheduler, PER_BATCH) else "epoch")
        self._note_schedule(scheduler, interval)
        config: dict[str, Any] = {
            "scheduler": scheduler,
            "interval": interval,
            "name": f"lr-{type(optimizer).__name__}",  # what LearningRateMonitor calls it in any case
        }
        if isinstance(scheduler, ReduceLROnPlateau):  # torch's own cannot state what to monitor, Lightning's can
            config["monitor"] = getattr(scheduler, "monitor", "val_loss")
            if interval == "epoch" and not config["monitor"].startswith("train_") and trainer is not None:
                every = trainer.check_val_every_n_epoch  # None: by batches, an epoch may have no validation
                config |= {"frequency": every or 1, "strict": every is not None}
        return cast(OptimizerLRScheduler, {"optimizer": optimizer, "lr_scheduler": config})

    def save(self, checkpoint: dict[str, Any], callbacks: dict[str, Any]) -> None:
        """Adds to a checkpoint what is stated of optimizer, schedule and callbacks."""
        if self.stated is not None:
            checkpoint[STATED] = {**self.stated, "callbacks": callbacks}

    def restart_schedule(
        self, groups: list[dict[str, Any]], trainer: Trainer, found_lr: float | None
    ) -> LRScheduler | None:
        """Gives the trainer's optimizer what is stated, and builds its scheduler anew, with the length of the run by now.

        Args:
            groups: The model's parameter groups.
            trainer: Has the optimizer.
            found_lr: The head's learning rate (the peak, for OneCycleLR and CyclicLR) in place of the one stated; None for
                that.

        Returns:
            The scheduler, which is the trainer's by now; None where none is stated.
        """
        optimizer, stated = trainer.optimizers[0], self._stated()
        set_numbers(optimizer, self.optimizer(groups))
        stated["found_lr"] = found_lr
        scheduler = build_at(found_lr, optimizer, self.lr_scheduler)
        for config in trainer.lr_scheduler_configs:
            config.scheduler = scheduler
            self._note_schedule(scheduler, cast(Interval, config.interval))
        return cast(LRScheduler | None, scheduler)

    def head_lr_at(self, groups: list[dict[str, Any]], epochs: int, steps: int) -> float:
        """Returns the head's learning rate of the stated schedule after ``epochs`` or ``steps``.

        What a ReduceLROnPlateau did is not known; before it reduces it, the learning rate is as stated.
        """
        optimizer, stated = self.optimizer(groups), self._stated()
        scheduler = build_at(stated["found_lr"], optimizer, self.lr_scheduler)
        if scheduler is not None and not isinstance(scheduler, ReduceLROnPlateau):
            fast_forward(scheduler, epochs if stated["lr_scheduler"]["interval"] == "epoch" else steps)
        head = optimizer.param_groups[0]
        return float(head["lr"] or head["initial_lr"])  # a warm-up may start at 0

    def restate(self, groups: list[dict[str, Any]], trainer: Trainer, resumed: dict[str, Any] | None) -> None:
        """Lets optimizer and schedule be as stated, for the run as it is by now: callbacks may have changed its batches.

        Args:
            groups: The model's parameter groups.
            trainer: Has optimizer and scheduler.
            resumed: The checkpoint of a resumed run, from which Lightning restores them next; changed in place.
        """
        stated, configs = self._stated(), trainer.lr_scheduler_configs
        for config in configs if self.lr_scheduler is not None else ():
            interval = cast(Interval, config.interval)
            if stated_scheduler(self.lr_scheduler, config.scheduler, interval) != stated["lr_scheduler"]:
                self.restart_schedule(groups, trainer, stated["found_lr"])
            if isinstance(config.scheduler, SequentialLR | ChainedScheduler):
                _warn_of_what_never_begins(config.scheduler, interval, trainer, resumed)
            if has_cycle(config.scheduler):
                check_cycles(config.scheduler, run_length(trainer, interval, resumed))
        if resumed is not None:
            keeps_found_lr = any(isinstance(callback, LearningRateFinder) for callback in trainer_callbacks(trainer))
            self.schedule_is_restated = Resumption(resumed, stated, keeps_found_lr).apply(
                trainer.optimizers[0],
                next(iter(configs), None),
                lambda lr: self.restart_schedule(groups, trainer, lr),
            )

    def _stated(self) -> dict[str, Any]:
        assert self.stated is not None, "the optimizer is not built yet"
        return self.stated

    def _note_schedule(self, scheduler: LRScheduler, interval: Interval) -> None:
        self._stated()["lr_scheduler"] = stated_scheduler(self.lr_scheduler, scheduler, interval)


def is_built_by_user(model: LightningModule) -> bool:
    """Returns whether a user's subclass builds optimizer and scheduler itself, whatever is stated."""
    return not type(model).configure_optimizers.__module__.startswith("zamba_lcli.")


def is_stepped_by_model(scheduler: Any, interval: str) -> bool:
    """Returns whether the model steps a scheduler at the end of an epoch, and not Lightning.

    Lightning steps a ReduceLROnPlateau after the epoch's checkpoint is saved, and not at all at the end of an epoch in which a
    run was resumed: the resumed run would have other learning rates. Not reported as of Lightning 2.6.
    """
    return isinstance(scheduler, ReduceLROnPlateau) and interval == "epoch"


def step_plateaus(trainer: Trainer) -> None:
    """Steps those schedulers that :func:`is_stepped_by_model`, at the end of an epoch, if what they monitor is known."""
    for config in trainer.lr_scheduler_configs:
        is_due = (trainer.current_epoch + 1) % config.frequency == 0
        if is_stepped_by_model(config.scheduler, config.interval) and is_due:
            value = trainer.callback_metrics.get(cast(str, config.monitor))
            if value is not None:
                cast(Any, config.scheduler).step(value)


def _warn_of_what_never_begins(
    scheduler: LRScheduler, interval: Interval, trainer: Trainer, resumed: dict[str, Any] | None
) -> None:
    length = run_length(trainer, interval, resumed)
    late = [] if length is None or trainer.fast_dev_run else never_begins(scheduler, length)  # type: ignore[attr-defined]
    if late:
        other = "step" if interval == "epoch" else "epoch"
        rank_zero_warn(
            f"lr_scheduler: milestones: {late} are not within the run, of {length} {interval}s: the schedulers after them "
            f"never begin. Do they count {other}s? Then state lr_scheduler_interval: {other}."
        )
