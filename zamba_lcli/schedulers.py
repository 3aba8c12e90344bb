"""torch's learning rate schedulers that a YAML cannot state: those made of others, and one that needs a length.

All others are used as they are, e.g. ``class_path: torch.optim.lr_scheduler.MultiStepLR``. torch's names of these three are
aliases of the classes here, whose names stay: checkpoints and configurations have them.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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
        bases = base_rates(optimizer)
        super().__init__(optimizer, build_each(optimizer, schedulers[over:], bases), milestones[over:])
        set_rates(optimizer, bases)
        self._initial_step()
        set_length(self, length)

    def _initial_step(self) -> None:
        """Sets the rates of the first scheduler, from the rates that there are.

        Torch takes the first step in its place where this one is itself the first of another one, so that all rates come one
        step too early (all torch versions that this program takes). Delete when a SequentialLR leaves the
        parts of its first scheduler as they are.
        """
        self.last_epoch = 0
        begin(self._schedulers[0])
        self._last_lr = self._schedulers[0].get_last_lr()


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
        bases = base_rates(optimizer)
        super().__init__(build_each(optimizer, schedulers, bases), optimizer)
        self._bases: list[float] | None = bases
        self._multiply()
        set_length(self, length)

    def _initial_step(self) -> None:
        """Sets the rates of the first step, in which torch takes the second one; see ``SequentialLR`` above."""
        assert self._bases is not None
        for part in self._schedulers:
            set_rates(self.optimizer, self._bases)
            begin(part)
        self._multiply()

    def step(self) -> None:  # type: ignore[override]
        """Steps each scheduler on rates of its own, and sets their product.

        Torch lets each go on from the rates that the one before it has just set. The factors of others are lost then wherever a
        scheduler sets rates and does not multiply them, as a SequentialLR does at its milestones.
        """
        if self._bases is None:  # resumed from a checkpoint of before
            super().step()
            return
        for part in self._schedulers:
            set_rates(self.optimizer, part.get_last_lr())
            part.step()
        self._multiply()

    def _multiply(self) -> None:
        """Sets the product of the schedulers' factors."""
        assert self._bases is not None
        rates = list(self._bases)
        for part in self._schedulers:
            own = zip(rates, part.get_last_lr(), self._bases, strict=True)
            rates = [float(mine) if rate == base else rate * float(mine) / (base or 1.0) for rate, mine, base in own]
        set_rates(self.optimizer, rates)
        self._last_lr = list(rates)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the state; one that torch's own class has saved goes on as that one does."""
        super().load_state_dict(state_dict)
        if "_bases" not in state_dict:
            self._bases = None


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


def base_rates(optimizer: Optimizer) -> list[float]:
    """Returns the learning rate of each group that schedulers begin from."""
    return [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]


def set_rates(optimizer: Optimizer, rates: Sequence[float | Tensor]) -> None:
    """Sets the learning rate of each group."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def build_each(
    optimizer: Optimizer, schedulers: Sequence[Callable[[Optimizer], LRScheduler]], bases: Sequence[float]
) -> list[LRScheduler]:
    """Builds schedulers on the same rates; a OneCycleLR keeps its own in the groups and would change them for the others."""
    built, changed = [], None
    for build in schedulers:
        set_rates(optimizer, bases)
        for group, base in zip(optimizer.param_groups, bases, strict=True):
            group["initial_lr"] = base
        built.append(build(optimizer))
        if (after := base_rates(optimizer)) != list(bases):
            changed = after
    for group, rate in zip(optimizer.param_groups, changed or bases, strict=True):
        group["initial_lr"] = rate
    return built


def begin(scheduler: LRScheduler) -> None:
    """Lets a scheduler that was built set the rates of its first step again."""
    if not isinstance(scheduler, SequentialLR | ChainedScheduler):
        scheduler.last_epoch = -1
    scheduler._initial_step()


class Part(NamedTuple):
    """A scheduler within another one, and when its turn is, in epochs (or batches, if stepped per batch)."""

    scheduler: LRScheduler
    begin: int
    end: int | None  # when the next one takes over; None at the end


def parts_of(scheduler: Any) -> list[Part]:
    """Returns the schedulers that a SequentialLR or ChainedScheduler is made of; none of any other one.

    torch keeps them under private names only.
    """
    parts = getattr(scheduler, "_schedulers", [])
    milestones = getattr(scheduler, "_milestones", None)
    if milestones is None:
        return [Part(part, 0, None) for part in parts]
    return [Part(*part) for part in zip(parts, [0, *milestones], [*milestones, None], strict=True)]


def set_length(scheduler: LRScheduler, length: int | None) -> None:
    """Gives a scheduler, and those it is made of at any depth, the length that they were not given.

    Args:
        scheduler: The scheduler.
        length: Its length in epochs (or batches, if stepped per batch); None leaves open what depends on it.
    """
    if isinstance(scheduler, CosineAnnealing) and scheduler.T_max is None:
        scheduler.T_max = length
    for part, begin, end in parts_of(scheduler):
        last = length if end is None else end
        set_length(part, None if last is None else last - begin)


# torch's names, by which a YAML states the classes here
ALIASES = {"SequentialLR": Sequential, "ChainedScheduler": Chained, "CosineAnnealingLR": CosineAnnealing}


def resolve_alias(name: str) -> str:
    """Returns the class path of the class here that torch's name is an alias of; any other name unchanged."""
    module, _, plain = name.rpartition(".")
    ours = ALIASES.get(plain) if module in ("", "torch.optim.lr_scheduler") else None
    return name if ours is None else f"{ours.__module__}.{ours.__qualname__}"


def stated_name(class_path: str) -> str:
    """Returns torch's name of a class here that replaces a scheduler of torch; any other class path unchanged."""
    names = {f"{ours.__module__}.{ours.__qualname__}": name for name, ours in ALIASES.items()}
    return names.get(class_path, class_path)
