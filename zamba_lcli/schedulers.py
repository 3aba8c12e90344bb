"""Torch's learning rate schedulers where a YAML cannot state them: those made of others, and one that needs a length.

All others are used as they are, e.g. ``class_path: torch.optim.lr_scheduler.MultiStepLR``. Torch's own names of these three
stand for the classes here.
"""

from bisect import bisect_right
from collections.abc import Callable

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    CyclicLR,
    LRScheduler,
    OneCycleLR,
    SequentialLR,
)

PER_BATCH = (CyclicLR, OneCycleLR)  # schedulers that count batches; all others count epochs


class Sequential(SequentialLR):
    """One scheduler after the other: ``torch.optim.lr_scheduler.SequentialLR``, with its schedulers stated in the YAML.

    Args:
        optimizer: The optimizer; not stated in the YAML.
        schedulers: The schedulers, each by ``class_path`` and ``init_args``.
        milestones: Epochs (or batches, if stepped per batch) at which the next one takes over, going up: one fewer than
            schedulers.
        length: Length in epochs (or batches) of all together, for a scheduler that leaves out its own; null for that of the
            run.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: list[Callable[[Optimizer], LRScheduler]],
        milestones: list[int],
        length: int | None = None,
    ) -> None:
        """Builds the schedulers on the optimizer."""
        over = bisect_right(milestones, 0)  # before the first step; up to torch 2.12 the first one would set its rate
        built = [build(optimizer) for build in schedulers[over:]]
        super().__init__(optimizer, built, milestones[over:])
        set_length(self, length)


class Chained(ChainedScheduler):
    """Schedulers whose factors multiply: ``torch.optim.lr_scheduler.ChainedScheduler``, stated in the YAML.

    Args:
        optimizer: The optimizer; not stated in the YAML.
        schedulers: The schedulers, each by ``class_path`` and ``init_args``.
        length: Length in epochs (or batches, if stepped per batch), for a scheduler that leaves out its own; null for that of
            the run.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: list[Callable[[Optimizer], LRScheduler]],
        length: int | None = None,
    ) -> None:
        """Builds the schedulers on the optimizer."""
        built = [build(optimizer) for build in schedulers]
        super().__init__(built, optimizer)
        set_length(self, length)


class CosineAnnealing(CosineAnnealingLR):
    """Half a cosine from the learning rate to ``eta_min``: ``CosineAnnealingLR``, whose length may be left out.

    Args:
        optimizer: The optimizer; not stated in the YAML.
        T_max: Length in epochs (or batches, if stepped per batch); null for that of the run, or of what the milestones of a
            ``Sequential`` leave to it.
        eta_min: Learning rate at the end.
    """

    T_max: int | None  # type: ignore[assignment]

    def __init__(self, optimizer: Optimizer, T_max: int | None = None, eta_min: float = 0.0) -> None:  # noqa: N803
        """Builds the scheduler; a length that is left out must be set before the first step."""
        super().__init__(optimizer, T_max, eta_min)  # type: ignore[arg-type]

    def get_lr(self) -> list[float | Tensor]:
        """Returns the groups' learning rates.

        Raises:
            ValueError: If the length is not known.
        """
        if self.T_max is None and self.last_epoch > 0:
            raise ValueError("T_max is not known: give it, or let the command line fill it in.")
        return super().get_lr()


def set_length(scheduler: LRScheduler, length: int | None) -> None:
    """Gives a scheduler, and those it is made of at any depth, the length that they were not given.

    Args:
        scheduler: The scheduler.
        length: Its length in epochs (or batches, if stepped per batch); None leaves open what depends on it.
    """
    if isinstance(scheduler, CosineAnnealing) and scheduler.T_max is None:
        scheduler.T_max = length
    elif isinstance(scheduler, Chained):
        for part in scheduler._schedulers:
            set_length(part, length)
    elif isinstance(scheduler, Sequential):
        begins = [0, *scheduler._milestones]
        for part, begin, end in zip(scheduler._schedulers, begins, [*scheduler._milestones, length], strict=True):
            set_length(part, None if end is None else end - begin)


STATABLE = {"SequentialLR": Sequential, "ChainedScheduler": Chained, "CosineAnnealingLR": CosineAnnealing}


def statable_name(name: str) -> str:
    """Returns the class path of the class here that stands for a scheduler of torch; any other name as it is."""
    module, _, plain = name.rpartition(".")
    ours = STATABLE.get(plain) if module in ("", "torch.optim.lr_scheduler") else None
    return name if ours is None else f"{ours.__module__}.{ours.__qualname__}"
