"""How long a run is in all, and how much of it a checkpoint has done: what schedules go by that leave out their length."""

import math
import pydoc
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import GradientAccumulationScheduler, Timer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from zamba_lcli._lightning import forget_loaders, trainer_callbacks
from zamba_lcli.errors import InputError
from zamba_lcli.schedulers import Chained, CosineAnnealing, Sequential, parts_of
from zamba_lcli.types import POSITION, Interval, KnowsTrainLabels


class Progress(NamedTuple):
    """How far a run has come."""

    epochs: int = 0  # those of which the last batch is trained on
    batches: int = 0  # of the epoch after them
    steps: int = 0  # of the optimizer, in all

    def count(self, interval: Interval) -> int:
        """Returns how often a scheduler has been stepped that counts epochs, or steps."""
        return self.epochs if interval == "epoch" else self.steps


def progress_of(checkpoint: dict[str, Any] | None) -> Progress:
    """Returns how far the run of a checkpoint has come; nowhere if there is none."""
    if checkpoint is None:
        return Progress()
    loop = checkpoint["loops"]["fit_loop"]
    epochs, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]
    begun, last = epochs["started"] > epochs["processed"], batches["is_last_batch"]
    return Progress(
        epochs["processed"] + int(begun and last),
        batches["current"]["processed"] if begun and not last else 0,
        checkpoint["global_step"],
    )


def run_length(trainer: Trainer, interval: Interval, resumed: dict[str, Any] | None) -> int | None:
    """Returns how many epochs, or steps of the optimizer, a run has in all; None if it has no end.

    What ends first counts, ``max_epochs`` or ``max_steps``; of ``max_time`` nobody knows how many steps it is. Of a resumed
    run it is what was done, and what is to come with the batches and the accumulation stated now.

    Args:
        trainer: The trainer, with its data.
        interval: What to count.
        resumed: The checkpoint of a resumed run.
    """
    max_epochs, max_steps = trainer.max_epochs, trainer.max_steps
    if max_epochs in (None, -1) and max_steps == -1:
        return None
    if max_steps == -1 and interval == "epoch":
        return max_epochs
    epochs, steps = progress_of(resumed).epochs, progress_of(resumed).steps
    for ahead in _epochs_ahead(trainer, resumed):
        if _is_over(trainer, ahead.number, steps):
            break
        epochs, steps = epochs + 1, steps + ahead.steps
    return epochs if interval == "epoch" else (steps if max_steps == -1 else min(steps, max_steps))


class EpochAhead(NamedTuple):
    """What there is to come of an epoch."""

    number: int  # from 0
    begun: int  # batches of it that are done
    batches: int  # to come
    together: int  # batches of a step of the optimizer

    @property
    def steps(self) -> int:
        """Steps to come; the last one is of the batches that are left."""
        return math.ceil((self.begun + self.batches) / self.together) - self.begun // self.together

    def batches_of(self, steps: int) -> int:
        """Returns the number of batches that the given number of coming steps takes."""
        return min(self.batches, (self.begun // self.together + steps) * self.together - self.begun)


def _epochs_ahead(trainer: Trainer, resumed: dict[str, Any] | None) -> Iterator[EpochAhead]:
    """Yields the epochs to come, without end; the first is what is left of one that was begun."""
    done = progress_of(resumed)
    batches = batches_in_epoch(trainer, resumed is not None)
    schedules = [c for c in trainer_callbacks(trainer) if isinstance(c, GradientAccumulationScheduler)]
    epoch, begun, left = done.epochs, done.batches, _batches_left(trainer, batches, done, resumed)
    while True:
        together = schedules[0].get_accumulate_grad_batches(epoch) if schedules else trainer.accumulate_grad_batches
        yield EpochAhead(epoch, begun, left, together)
        epoch, begun, left = epoch + 1, 0, batches


def _is_over(trainer: Trainer, epochs: int, steps: int) -> bool:
    max_epochs, max_steps = trainer.max_epochs, trainer.max_steps
    return (max_epochs not in (None, -1) and epochs >= max_epochs) or steps >= max_steps != -1


def ends_unvalidated(trainer: Trainer, resumed: dict[str, Any] | None) -> int | None:
    """Returns after how many batches a run ends without a validation; None if it has one, or nothing to train.

    Args:
        trainer: The trainer, with its train batches.
        resumed: The checkpoint that is gone on with, if there is one.
    """
    every: int | None = trainer.check_val_every_n_epoch
    interval: int | float | None = trainer.val_check_batch  # type: ignore[attr-defined]
    if not isinstance(interval, int) or not isinstance(trainer.num_training_batches, int):
        return None  # by the clock, or of a length that is not known
    if trainer.num_training_batches == 0 or validation_is_due(trainer, resumed):
        return None
    before = 0 if resumed is None else _epoch_loop(resumed, "batch_progress")["total"]["processed"]
    batches, steps = 0, progress_of(resumed).steps
    for ahead in _epochs_ahead(trainer, resumed):
        if _is_over(trainer, ahead.number, steps):
            break
        trained = ahead.batches if trainer.max_steps == -1 else ahead.batches_of(trainer.max_steps - steps)
        counted = before + batches if every is None else ahead.begun
        is_due = every is None or (ahead.number + 1) % every == 0
        if is_due and interval - counted % interval <= trained:
            return None
        batches, steps = batches + trained, steps + ahead.steps
    return batches or None


def validation_is_due(trainer: Trainer, resumed: dict[str, Any] | None) -> bool:
    """Returns whether a run that is resumed begins with a validation: one was due, or not done, when it was saved."""
    if resumed is None:
        return False
    every, val = trainer.check_val_every_n_epoch, _epoch_loop(resumed, "val_loop.batch_progress")["current"]
    epoch = resumed["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    return val["started"] > val["processed"] and (every is None or (epoch + 1) % every == 0)


def _epoch_loop(checkpoint: dict[str, Any], name: str) -> dict[str, Any]:
    progress: dict[str, Any] = checkpoint["loops"]["fit_loop"][f"epoch_loop.{name}"]
    return progress


def _batches_left(trainer: Trainer, batches: int, done: Progress, resumed: dict[str, Any] | None) -> int:
    """Returns how many batches there are to come in the epoch that goes on, also if it was begun with other ones."""
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    position = None if resumed is None else resumed.get(type(datamodule).__qualname__, {}).get(POSITION)
    if not done.batches or position is None or position["epoch"] != done.epochs:
        return max(0, batches - done.batches)
    clips = min(_clips_in_epoch(trainer), batches * datamodule.batch_size)
    left: int = math.ceil((clips - position["clips"] // trainer.world_size) / datamodule.batch_size)
    return min(batches, max(0, left))


def _clips_in_epoch(trainer: Trainer) -> int:
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    sampler: Any = datamodule.train_dataloader().sampler
    return len(sampler)


def batches_in_epoch(trainer: Trainer, resumed: bool) -> int:
    """Returns the number of batches of a whole epoch in one process.

    When optimizers are built, the position in the epoch is not restored yet, and callbacks may still change how clips are
    read; so no workers may begin to read here, as they do when Lightning sets up its loop.

    Raises:
        InputError: If nobody knows the number.
    """
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    loop: Any = trainer.fit_loop
    if trainer.train_dataloader is None and isinstance(datamodule, KnowsTrainLabels):
        batches, limit = len(datamodule.train_dataloader()), trainer.limit_train_batches
        return batches if limit is None else min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    is_new = trainer.train_dataloader is None
    if is_new:
        loop.setup_data()
    known = trainer.num_training_batches
    if is_new and resumed:
        forget_loaders(trainer)
    if not isinstance(known, int):
        raise InputError(
            "lr_scheduler: the length of the run is not known, since the number of its batches is not. State the length."
        )
    return known


def left_out_length(stated: dict[str, Any], interval: Interval | None) -> tuple[str, Interval] | None:
    """Returns which length a scheduler leaves out that goes over the whole run, and what it counts; None if it needs none.

    Args:
        stated: ``class_path`` and ``init_args`` of the scheduler, those inside others not built.
        interval: What is stated that the scheduler counts; None for what it is made for.
    """
    init_args = stated.get("init_args") or {}
    if pydoc.locate(stated["class_path"]) is OneCycleLR:
        is_open = init_args.get("total_steps") is None and init_args.get("epochs") is None
        return ("total_steps", interval or "step") if is_open else None
    name = "T_max" if pydoc.locate(stated["class_path"]) is CosineAnnealing else "length"
    return (name, interval or "epoch") if _is_open(stated) else None


def _is_open(stated: Any) -> bool:
    """Returns whether a scheduler depends on a length that neither its arguments nor milestones give."""
    if isinstance(stated, str):  # a class without arguments
        stated = {"class_path": stated}
    kind, init_args = pydoc.locate(stated["class_path"]), stated.get("init_args") or {}
    if kind is CosineAnnealing:
        return init_args.get("T_max") is None
    if kind not in (Sequential, Chained) or init_args.get("length") is not None:
        return False
    parts = init_args.get("schedulers") or []
    return any(map(_is_open, parts[-1:] if kind is Sequential else parts))


def with_length(
    lr_scheduler: Any, left_out: tuple[str, Interval] | None, trainer: Trainer, resumed: dict[str, Any] | None
) -> dict[str, Any]:
    """Fills in the length of a scheduler that goes over the whole run.

    Args:
        lr_scheduler: ``class_path`` and ``init_args``, as in the YAML.
        left_out: Which length is left out, and what it counts; None if none is.
        trainer: Knows how long the run is.
        resumed: The checkpoint of a resumed run.

    Raises:
        InputError: If the run has no end.
    """
    complete = {**lr_scheduler, "init_args": dict(lr_scheduler.get("init_args", {}))}
    if left_out is not None:
        length = run_length(trainer, left_out[1], resumed)
        if length is None:
            raise InputError(
                f"lr_scheduler.init_args.{left_out[0]}: give it, or give the run an end with trainer.max_epochs."
            )
        complete["init_args"][left_out[0]] = length
    return complete


def has_cycle(scheduler: LRScheduler) -> bool:
    """Returns whether a scheduler is a OneCycleLR, or made of one."""
    return isinstance(scheduler, OneCycleLR) or any(has_cycle(part.scheduler) for part in parts_of(scheduler))


def check_cycles(scheduler: LRScheduler, length: int | None) -> None:
    """Refuses a OneCycleLR, at any depth, that is over before the run is: torch finds it out after its last step.

    Args:
        scheduler: As built.
        length: How often it is stepped in the run; None if nobody knows, as of a run that a max_time ends.

    Raises:
        InputError: Says how long it must be.
    """
    if isinstance(scheduler, OneCycleLR) and (length is None or scheduler.total_steps < length):
        over = f"lr_scheduler: OneCycleLR is over after {scheduler.total_steps} steps"
        stated = "(total_steps, or epochs times steps_per_epoch)"
        if length is None:
            raise InputError(
                f"{over} {stated}, and nobody knows whether the run ends before. Give it an end with trainer.max_epochs or "
                "trainer.max_steps, beside a trainer.max_time; or let another scheduler take over, in a SequentialLR."
            )
        raise InputError(
            f"{over} {stated}, and the run steps it {length} times. State at least {length}, or leave the length out for that "
            "of the run; or let the run end before, with trainer.max_epochs or trainer.max_steps."
        )
    for part, begin, end in parts_of(scheduler):
        last = length if end is None else end - 1 if length is None else min(length, end - 1)
        check_cycles(part, None if last is None else last - begin)


def never_begins(scheduler: LRScheduler, length: int) -> list[int]:
    """Returns the milestones of a SequentialLR, at any depth, that a run does not come to.

    Args:
        scheduler: As built.
        length: How often it is stepped in the run.
    """
    parts = parts_of(scheduler)
    late = [part.begin for part in parts if 0 < part.begin >= length]
    return late + [milestone for part in parts for milestone in never_begins(part.scheduler, length)]


def check_not_done(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Refuses to resume a run that is made shorter than it has become already.

    Raises:
        InputError: Names the key.
    """
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return  # whose ends are not stated
    done = progress_of(checkpoint)
    ends = (("max_epochs", trainer.max_epochs, done.epochs), ("max_steps", trainer.max_steps, done.steps))
    for key, end, count in ends:
        if end not in (None, -1) and count > end:
            raise InputError(
                f"trainer.{key}: {end} is less than the {count} {key.removeprefix('max_')} that the checkpoint's run has done. "
                "They count from its beginning; give more to go on."
            )
    for timer in (callback for callback in trainer_callbacks(trainer) if isinstance(callback, Timer)):
        allowed = timer.time_remaining()  # all of it: this run has not begun
        used = checkpoint.get("callbacks", {}).get(timer.state_key, {}).get("time_elapsed", {}).get("train", 0.0)
        if allowed is not None and used >= allowed:
            raise InputError(
                f"trainer.max_time, or the duration of Timer: the {timedelta(seconds=round(allowed))} are used up: the "
                f"checkpoint's run has trained for {timedelta(seconds=round(used))}, from its beginning. Give more to go on."
            )
