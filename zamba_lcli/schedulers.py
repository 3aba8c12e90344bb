"""Torch's learning rate schedulers where a YAML cannot state them: those made of others, and one that needs a length.

All others are used as they are, e.g. ``class_path: torch.optim.lr_scheduler.MultiStepLR``. Torch's own names of these three
stand for the classes here.
"""

from collections.abc import Callable
from typing import Any

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


STATABLE = {"SequentialLR": Sequential, "ChainedScheduler": Chained, "CosineAnnealingLR": CosineAnnealing}


def statable_name(name: str) -> str:
    """Returns the class path of the class here that stands for a scheduler of torch; any other name as it is."""
    module, _, plain = name.rpartition(".")
    ours = STATABLE.get(plain) if module in ("", "torch.optim.lr_scheduler") else None
    return name if ours is None else f"{ours.__module__}.{ours.__qualname__}"


def with_statable_names(stated: Any) -> Any:
    """Returns what a YAML states as ``lr_scheduler``, with the class paths of the classes here, at any depth."""
    if isinstance(stated, list):
        return [with_statable_names(item) for item in stated]
    if not isinstance(stated, dict):
        return stated
    return {
        key: statable_name(value) if key == "class_path" and isinstance(value, str) else with_statable_names(value)
        for key, value in stated.items()
    }
