"""What optimizer and schedule of a resumed run take from the checkpoint, and what from the configuration.

Lightning restores all of them, and with them the learning rates, momenta and arguments of the run that the checkpoint is of,
whatever is stated now (Lightning#12118, #20552). Here a checkpoint keeps what was stated, apart from what schedules made of it.
What is stated otherwise on a resume is used; the rest is restored as it was.
"""

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, cast

from pytorch_lightning.utilities.types import LRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from zamba_lcli.console import tell_difference
from zamba_lcli.models.optimizer_states import class_name
from zamba_lcli.run_length import progress_of
from zamba_lcli.schedulers import stated_name
from zamba_lcli.types import Interval

STATED = "stated"  # key of the checkpoint
# what a scheduler counts, or derives from the optimizer; all else in its state are its arguments
COUNTERS = ("last_epoch", "T_cur", "T_i", "best", "num_bad_epochs", "cooldown_counter", "base_lrs", "verbose")
PLATEAU_COUNTERS = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
CYCLE = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum")  # which OneCycleLR keeps in the groups
OPTIMIZER = "optimizer.init_args."
CYCLED = {OPTIMIZER + "momentum", OPTIMIZER + "betas"}  # by OneCycleLR and CyclicLR
PEAKS = {"lr_scheduler.init_args.max_lr", "lr_scheduler.init_args.base_lr"}


@dataclass(frozen=True)
class Stated:
    """Builds an optimizer or a scheduler, and knows what the configuration states of it.

    Attributes:
        build: Builds it.
        init_args: Returns the arguments, not built, with the lengths that are left out as they are at the time.
        left_out: Names of these.
    """

    build: Callable[[Any], Any]
    init_args: Callable[[], dict[str, Any]]
    left_out: tuple[str, ...] = ()

    def __call__(self, on: Any) -> Any:
        """Builds it on parameter groups or an optimizer."""
        return self.build(on)


def plain(value: Any) -> Any:
    """Returns a value as plain numbers, texts, lists and dicts, which a checkpoint may hold; of objects their names.

    Those without attributes of their own, such as a device, a time or a path, become their text.
    """
    if isinstance(value, Enum):  # also one that is a text, such as a Timer's interval: no checkpoint may name its class
        return plain(value.value)
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if value is None:
        return value
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    if isinstance(value, list):
        return list(map(plain, value))
    if isinstance(value, partial):
        return {
            "class_path": class_name(value.func),
            "init_args": plain({**dict(enumerate(value.args)), **value.keywords}),
        }
    if hasattr(value, "as_dict"):  # jsonargparse's
        value = value.as_dict()
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if hasattr(value, "__qualname__"):
        return class_name(value)
    if not hasattr(value, "__dict__"):
        return str(value)
    arguments = {k: plain(v) for k, v in vars(value).items() if v is None or isinstance(v, bool | int | float | str)}
    return {"class_path": class_name(type(value)), "init_args": arguments}


def stated_optimizer(optimizer: Optimizer) -> dict[str, Any]:
    """Returns class and numbers of an optimizer that was just built, before a scheduler is built on it."""
    groups = [{key: plain(value) for key, value in g.items() if key != "params"} for g in optimizer.param_groups]
    return {"class_path": class_name(type(optimizer)), "groups": groups}


def stated_scheduler(build: Any, built: LRScheduler, interval: Interval) -> dict[str, Any]:
    """Returns class, arguments and interval of a scheduler that was just built.

    Args:
        build: What built it: if that is a function of which nothing is known, its state says what the arguments were.
        built: The scheduler.
        interval: What it counts.
    """
    if isinstance(build, Stated):
        init_args = build.init_args()
    elif isinstance(build, partial):
        init_args = {**{str(i): value for i, value in enumerate(build.args)}, **build.keywords}
    else:
        init_args = _arguments_in(built.state_dict(), built.optimizer.param_groups)
    stated = {"class_path": class_name(type(built)), "interval": interval, "init_args": plain(init_args)}
    stated["left_out"] = getattr(build, "left_out", ())
    return stated | ({"monitor": _monitor(built)} if isinstance(built, ReduceLROnPlateau) else {})


def _monitor(scheduler: ReduceLROnPlateau) -> str:
    return str(getattr(scheduler, "monitor", "val_loss"))  # torch's own cannot state it


def _arguments_in(state: Mapping[str, Any], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the arguments that follow from a scheduler's state and the optimizer's groups."""
    found = {k: plain(v) for k, v in state.items() if k not in COUNTERS and not k.startswith("_")}
    if "_schedulers" in state:
        found["schedulers"] = [_arguments_in(part, groups) for part in state["_schedulers"]]
    if "_milestones" in state:
        found["milestones"] = plain(state["_milestones"])
    if "max_lrs" in state:
        found["base_lrs"] = plain(state["base_lrs"])
    if "_schedule_phases" in state:
        found["phases"] = plain(state["_schedule_phases"])
        found |= {key: [group.get(key) for group in groups] for key in CYCLE}
    return found


def build_at(found_lr: float | None, optimizer: Optimizer, build: Callable[[Optimizer], LRScheduler] | None) -> Any:
    """Builds the scheduler, also at another learning rate than the one stated; the groups keep their ratio.

    Args:
        found_lr: The first group's learning rate (the peak, for OneCycleLR and CyclicLR); None for the one stated.
        optimizer: As just built; its learning rates are set.
        build: Builds the scheduler; None for none.

    Returns:
        The scheduler, or None.
    """
    groups = optimizer.param_groups
    if found_lr is None:
        return None if build is None else build(optimizer)
    first = groups[0]["lr"]
    for group in groups:
        group["lr"] *= found_lr / first
    scheduler: Any = None if build is None else build(optimizer)
    if isinstance(scheduler, OneCycleLR):
        _scale_cycle(groups, found_lr / groups[0]["max_lr"])
    elif isinstance(scheduler, CyclicLR):
        factor = found_lr / scheduler.max_lrs[0]
        scheduler.base_lrs = [lr * factor for lr in scheduler.base_lrs]
        scheduler.max_lrs = [lr * factor for lr in scheduler.max_lrs]
        _scale_cycle(groups, factor)
    return scheduler


def _scale_cycle(groups: list[dict[str, Any]], factor: float) -> None:
    for group in groups:
        for key in {"lr", "max_lr", "min_lr", "initial_lr"} & set(group):
            group[key] *= factor


def set_numbers(optimizer: Optimizer, fresh: Optimizer) -> None:
    """Gives the groups of an optimizer the numbers of another one, and takes away what schedulers left in them."""
    for group, stated in zip(optimizer.param_groups, fresh.param_groups, strict=True):
        for key in set(group) - set(stated):
            del group[key]
        group.update({key: value for key, value in stated.items() if key != "params"})


def fast_forward(scheduler: LRScheduler, count: int) -> list[float]:
    """Steps a scheduler that was just built as often as its run has; the reference for what was stated from the start.

    Returns:
        The first group's learning rates, of each count until now.
    """
    rates = [float(scheduler.optimizer.param_groups[0]["lr"])]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*(lr_scheduler\.step|optimizer\.step)\(\)")  # none was taken here
        for _ in range(count):
            scheduler.step()
            rates.append(float(scheduler.optimizer.param_groups[0]["lr"]))
    return rates


class Resumption:
    """Lets optimizer and schedule of a resumed run go on as it is stated now.

    Args:
        checkpoint: The checkpoint, as loaded; :meth:`apply` changes what Lightning restores from it.
        stated: What is stated now, as the model keeps it in checkpoints.
        keeps_found_lr: Whether a LearningRateFinder is stated: then the learning rate in a checkpoint that does not say what
            was stated is the one that was found.
    """

    def __init__(self, checkpoint: dict[str, Any], stated: dict[str, Any], keeps_found_lr: bool) -> None:
        """Keeps the arguments; see the class."""
        self.checkpoint = checkpoint
        self.now = stated
        self.groups: list[dict[str, Any]] = checkpoint["optimizer_states"][0]["param_groups"]
        self.state: dict[str, Any] | None = next(iter(checkpoint["lr_schedulers"]), None)
        self.keeps_found_lr = keeps_found_lr

    def apply(
        self, optimizer: Optimizer, config: LRSchedulerConfig | None, rebuild: Callable[[float | None], Any]
    ) -> bool:
        """Changes what Lightning restores next to what is stated, and prints the differences.

        Args:
            optimizer: The run's, as built.
            config: Lightning's of the run's scheduler, as built; None where there is none.
            rebuild: Gives the optimizer the numbers stated, at a learning rate that was found if there is one, and builds the
                scheduler of ``config`` on it.

        Returns:
            Whether the learning rates of the past would have been others.
        """
        scheduler: Any = None if config is None else config.scheduler
        now, then = self.now, self.checkpoint.get(STATED)
        if then is None:
            now, then = self._inferred(optimizer, scheduler)
        differing = [
            *_differing_optimizers(now["optimizer"], then["optimizer"]),
            *_differing_schedules(now["lr_scheduler"], then["lr_scheduler"]),
        ]
        arguments = inspect.signature(type(optimizer)).parameters
        left_out = (now["lr_scheduler"] or {}).get("left_out", ())
        for key, ours, theirs in differing:
            if key.startswith(OPTIMIZER) and key.removeprefix(OPTIMIZER) not in arguments:
                continue  # follows from the class
            why = ", the length of the run" if key.rpartition(".")[2] in left_out else " as you state"
            tell_difference(key, ours, theirs, why)
        keys = {key for key, _, _ in differing}
        moves_lr, moves_schedule = OPTIMIZER + "lr" in keys, any(key.startswith("lr_scheduler") for key in keys)
        states_peak = bool(keys & PEAKS) or ("lr_scheduler" in keys and isinstance(scheduler, OneCycleLR | CyclicLR))
        self.now["found_lr"] = None if moves_lr or states_peak else then.get("found_lr")
        self._set_numbers(then["optimizer"]["groups"])
        if isinstance(scheduler, ReduceLROnPlateau) and self.state is not None and "num_bad_epochs" in self.state:
            if moves_lr:
                self._move_reduced_lr(scheduler, then)
            if moves_lr or moves_schedule:
                self._restore_plateau(scheduler, now["lr_scheduler"], then["lr_scheduler"])
            return moves_lr
        if moves_lr or moves_schedule or (getattr(scheduler, "cycle_momentum", False) and keys & CYCLED):
            self._restart(optimizer, config, rebuild(self.now["found_lr"]))
            return True
        return False

    def _set_numbers(self, then: list[dict[str, Any]]) -> None:
        """Sets what is stated otherwise, but for the learning rate, which belongs to the schedule."""
        for saved, stated, before in zip(self.groups, self.now["optimizer"]["groups"], then, strict=True):
            changed = {k: v for k, v in stated.items() if k != "lr" and (k not in before or before[k] != v)}
            saved.update(changed)

    def _restart(self, optimizer: Optimizer, config: LRSchedulerConfig | None, scheduler: LRScheduler | None) -> None:
        """Takes over the schedule as if it had been stated from the start, with all numbers that are its own."""
        if scheduler is not None and not isinstance(scheduler, ReduceLROnPlateau):
            assert config is not None
            fast_forward(scheduler, progress_of(self.checkpoint).count(cast(Interval, config.interval)))
        for saved, live in zip(self.groups, optimizer.param_groups, strict=True):
            params = saved["params"]
            saved.clear()
            saved.update({**live, "params": params})
        self.checkpoint["lr_schedulers"] = []  # Lightning leaves the scheduler as it is

    def _move_reduced_lr(self, scheduler: Any, then: dict[str, Any]) -> None:
        """Sets the learning rate that is stated, by as much less as it was reduced before."""
        before = then["optimizer"]["groups"][0]["lr"] if then.get("found_lr") is None else then["found_lr"]
        reduced = self.groups[0]["lr"] / before
        for saved, stated, lowest in zip(self.groups, self.now["optimizer"]["groups"], scheduler.min_lrs, strict=True):
            saved["lr"] = min(stated["lr"], max(stated["lr"] * reduced, lowest))

    def _restore_plateau(self, scheduler: Any, now: dict[str, Any], then: dict[str, Any]) -> None:
        """Keeps what was counted, unless that was another metric, and takes the arguments stated."""
        assert self.state is not None
        watched = [(stated["monitor"], stated["interval"]) for stated in (now, then)]
        counts_on = watched[0] == watched[1] and scheduler.mode == self.state["mode"]
        kept = {key: self.state[key] for key in PLATEAU_COUNTERS} if counts_on else {}
        rates = [group["lr"] for group in self.groups]
        self.checkpoint["lr_schedulers"] = [{**scheduler.state_dict(), **kept, "_last_lr": rates}]

    def _inferred(self, optimizer: Optimizer, scheduler: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns what is stated now and what was stated then, inferred from the states of optimizer and scheduler."""
        state = self.state
        groups = [{k: plain(v) for k, v in g.items() if k not in ("params", *CYCLE)} for g in self.groups]
        base_lr = self._base_lr(scheduler)
        for group, stated in zip(groups, self.now["optimizer"]["groups"], strict=True):
            group["lr"] = stated["lr"] if base_lr is None or self.keeps_found_lr else base_lr
            for key in ("momentum", "betas") if state is not None and state.get("cycle_momentum") else ():
                if key in stated:
                    group[key] = stated[key]
        then: dict[str, Any] = {
            "optimizer": {**self.now["optimizer"], "groups": groups},
            "lr_scheduler": None,
            "found_lr": base_lr if self.keeps_found_lr else None,
        }
        now = {**self.now}
        if state is not None:
            then["lr_scheduler"] = {
                "class_path": "another one",
                "init_args": self._arguments(state, self.groups),
                "interval": None if scheduler is None else now["lr_scheduler"]["interval"],
                **({"monitor": state.get("monitor", "val_loss")} if "num_bad_epochs" in state else {}),
            }
        if scheduler is not None:
            stated = self._arguments(scheduler.state_dict(), optimizer.param_groups)
            now["lr_scheduler"] = {**now["lr_scheduler"], "init_args": stated}
            if state is not None and then["lr_scheduler"]["init_args"].keys() == stated.keys():
                then["lr_scheduler"]["class_path"] = now["lr_scheduler"]["class_path"]
        return now, then

    def _arguments(self, state: Mapping[str, Any], groups: list[dict[str, Any]]) -> dict[str, Any]:
        found = _arguments_in(state, groups)
        scaled = ("max_lrs", "base_lrs", *CYCLE) if self.keeps_found_lr else ()
        return {key: value for key, value in found.items() if key not in scaled}

    def _base_lr(self, scheduler: Any) -> float | None:
        """Returns the learning rate that the run began with; None where it is not known, or a matter of the schedule."""
        head, state = self.groups[0], self.state
        if state is None:
            return float(head["lr"])
        if "max_lrs" in state or "_schedule_phases" in state:
            return None
        if "num_bad_epochs" in state:
            stated = self.now["optimizer"]["groups"][0]["lr"]
            return None if _is_reduced(head["lr"], stated, state) else float(head["lr"])
        return float(head["initial_lr"])


def _is_reduced(lr: float, stated: float, plateau: Mapping[str, Any]) -> bool:
    """Returns whether a ReduceLROnPlateau may have made ``lr`` of what is stated."""
    while stated > lr and plateau["factor"] > 0:
        if lr == plateau["min_lrs"][0]:
            return True
        stated *= plateau["factor"]
    return math.isclose(lr, stated, rel_tol=1e-9)


def _differing_optimizers(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yields key, value here and value there of each of the optimizer's numbers; of several groups the first that differs."""
    if ours["class_path"] != theirs["class_path"]:
        yield "optimizer", ours["class_path"], theirs["class_path"]
    for key in ours["groups"][0]:
        pairs = [(a.get(key), b[key]) for a, b in zip(ours["groups"], theirs["groups"], strict=True) if key in b]
        differing = next(((a, b) for a, b in pairs if a != b), None)
        if differing is not None:
            yield (OPTIMIZER + key, *differing)


def _differing_schedules(ours: dict[str, Any] | None, theirs: dict[str, Any] | None) -> Iterator[tuple[str, Any, Any]]:
    """Yields key, value here and value there of each argument of the scheduler; of another one only its name."""
    if ours is None or theirs is None or ours["class_path"] != theirs["class_path"]:
        if ours is not theirs:
            here, there = (None if stated is None else stated_name(stated["class_path"]) for stated in (ours, theirs))
            yield "lr_scheduler", here, there
        return
    if ours["interval"] != theirs["interval"]:
        yield "lr_scheduler_interval", ours["interval"], theirs["interval"]
    for key in {**ours["init_args"], **theirs["init_args"]}:
        a, b = (stated["init_args"].get(key) for stated in (ours, theirs))
        if a != b:
            yield f"lr_scheduler.init_args.{key}", a, b
    if ours.get("monitor") != theirs.get("monitor") and "monitor" not in ours["init_args"]:
        yield "lr_scheduler.init_args.monitor", ours.get("monitor"), theirs.get("monitor")
