"""Torch's learning rate schedulers where a YAML cannot state them: those made of others, and one that needs a length.

All others are used as they are, e.g. ``class_path: torch.optim.lr_scheduler.MultiStepLR``.
"""

from collections.abc import Callable

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
        milestones: Epochs (or batches, if stepped per batch) at which the next one takes over: one fewer than schedulers.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: list[Callable[[Optimizer], LRScheduler]], milestones: list[int]
    ) -> None:
        """Builds the schedulers on the optimizer."""
        super().__init__(optimizer, [build(optimizer) for build in schedulers], milestones)


class Chained(ChainedScheduler):
    """Schedulers whose factors multiply: ``torch.optim.lr_scheduler.ChainedScheduler``, stated in the YAML.

    Args:
        optimizer: The optimizer; not stated in the YAML.
        schedulers: The schedulers, each by ``class_path`` and ``init_args``.
    """

    def __init__(self, optimizer: Optimizer, schedulers: list[Callable[[Optimizer], LRScheduler]]) -> None:
        """Builds the schedulers on the optimizer."""
        super().__init__([build(optimizer) for build in schedulers], optimizer)


class CosineAnnealing(CosineAnnealingLR):
    """Half a cosine from the learning rate to ``eta_min`` over the whole run: ``CosineAnnealingLR`` without a length.

    Args:
        optimizer: The optimizer; not stated in the YAML.
        T_max: Length in epochs (or batches, if stepped per batch); null for that of the run.
        eta_min: Learning rate at the end.
    """

    def __init__(self, optimizer: Optimizer, T_max: int | None = None, eta_min: float = 0.0) -> None:  # noqa: N803
        """Builds the scheduler; the run's length must have been filled in by now."""
        if T_max is None:
            raise ValueError("T_max is not known: give it, or let the command line fill it in.")
        super().__init__(optimizer, T_max, eta_min)
