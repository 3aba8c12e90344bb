"""Optimizer and scheduler of the configuration: what is refused, and how they are handed to the model.

LightningCLI builds the optimizer on all parameters in one group, before anything is frozen, and the scheduler with it; so
backbone and head cannot have learning rates of their own (Lightning#20340). The model builds both itself, on its two groups,
when the Trainer calls ``configure_optimizers``. With ``add_optimizer_args(link_to=...)`` the
optimizer would be an argument of the model, among the hyperparameters of every checkpoint, and had to be stated for predict.
"""

import inspect
import pydoc
from collections.abc import Iterator
from typing import Any

import torch
from jsonargparse import Namespace
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor
from torch.optim.lr_scheduler import ChainedScheduler, SequentialLR

from zamba_lcli.cli.instantiators import build
from zamba_lcli.errors import InputError
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.models.schedule_states import Stated, plain
from zamba_lcli.run_length import left_out_length, with_length
from zamba_lcli.schedulers import stated_name

UNFIT = {  # by name: not every torch has them all
    "torch.optim.LBFGS": "takes a single parameter group, and head and backbone are two",
    "torch.optim.Muon": "takes matrices only, and weights of convolutions are none",
    "torch.optim.SparseAdam": "takes sparse gradients only, and those of these networks are dense",
}
NEVER = {
    "maximize": "maximizes the loss, away from the labels",
    "differentiable": "is for differentiating through the optimizer's steps, and fails at the first one here",
}
LENGTHS = (
    "step_size",
    "T_max",
    "T_0",
    "T_mult",
    "step_size_up",
    "step_size_down",
    "total_steps",
    "epochs",
    "steps_per_epoch",
)
FACTORS_AND_RATES = (
    "gamma",
    "factor",
    "start_factor",
    "end_factor",
    "base_lr",
    "max_lr",
    "eta_min",
    "min_lr",
    "div_factor",
    "final_div_factor",
)


def check_optimization(optimizer: Any, lr_scheduler: Any, callbacks: list[Callback]) -> None:
    """Refuses an optimizer or scheduler that cannot train the networks here.

    Args:
        optimizer: As stated, with ``class_path`` and ``init_args``; or None.
        lr_scheduler: The same, in which those inside others are not built.
        callbacks: Those of the trainer.

    Raises:
        InputError: Names the key and the reason.
    """
    if optimizer is not None:
        check_optimizer(optimizer["class_path"], optimizer.get("init_args", {}))
        check_logged_decay(callbacks, optimizer["class_path"])
    check_scheduler(lr_scheduler)


def check_optimizer(class_path: str, init_args: dict[str, Any]) -> None:
    """Refuses an optimizer that cannot train the networks here.

    Args:
        class_path: That of the optimizer.
        init_args: Its arguments.

    Raises:
        InputError: Names the key and the reason.
    """
    if class_path in UNFIT:
        why = UNFIT[class_path]
        raise InputError(
            f"optimizer: {class_path} {why}. Use another one, such as torch.optim.AdamW or torch.optim.SGD."
        )

    for name, why in NEVER.items():
        if init_args.get(name) is True:
            raise InputError(f"optimizer: {name}: true {why}. Leave it out.")
    if init_args.get("capturable") is True and not torch.cuda.is_available():
        raise InputError("optimizer: capturable: true needs a GPU, and there is none here. Leave it out.")


def check_logged_decay(callbacks: list[Callback], optimizer: str) -> None:
    """Refuses to log the weight decay of an optimizer that has none.

    Raises:
        InputError: Names callback and optimizer.
    """
    kind = pydoc.locate(optimizer)
    for callback in callbacks:
        if (
            isinstance(callback, LearningRateMonitor)
            and callback.log_weight_decay
            and inspect.isclass(kind)
            and "weight_decay" not in inspect.signature(kind).parameters
        ):
            raise InputError(
                f"LearningRateMonitor: log_weight_decay: {optimizer} has no weight_decay. Leave log_weight_decay out."
            )


def check_scheduler(stated: Any) -> None:
    """Refuses values of a scheduler, at any depth, that torch accepts although they make no schedule.

    torch divides by lengths of zero, and with a negative learning rate it silently trains away from the labels.

    Raises:
        InputError: Names the key.
    """
    for class_path, init_args in classes_in_stated(stated):
        kind = pydoc.locate(class_path)
        if not (inspect.isclass(kind) and issubclass(kind, SequentialLR)):
            continue
        schedulers, milestones = init_args.get("schedulers") or [], init_args.get("milestones") or []
        _check_milestones(milestones, len(schedulers))
        for later in schedulers[1:]:
            path = later if isinstance(later, str) else later["class_path"]
            made_of_others = pydoc.locate(path)
            if inspect.isclass(made_of_others) and issubclass(made_of_others, SequentialLR | ChainedScheduler):
                raise InputError(
                    f"lr_scheduler: {stated_name(path)} is not the first scheduler of {stated_name(class_path)}, and cannot "
                    "begin later: only the first one may be made of others. Name its schedulers in this list themselves, with "
                    "milestones between them; or chain the whole: a ChainedScheduler whose first scheduler is the SequentialLR."
                )
    for key, value in _items(stated):
        name = key.rpartition(".")[2]  # jsonargparse's namespaces give the keys of all that they hold
        if name in LENGTHS and isinstance(value, int | float) and value <= 0:
            raise InputError(f"lr_scheduler: {name}: {value} is not a length. Set at least 1.")
        numbers = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, int | float)]
        if name in FACTORS_AND_RATES and any(number < 0 for number in numbers):
            raise InputError(f"lr_scheduler: {name}: {value} would make the learning rate negative. Set 0 or more.")


def _check_milestones(milestones: list[int], schedulers: int) -> None:
    """Refuses milestones that do not increase: torch bisects them as if they did, and schedulers start at any time or never."""
    if len(milestones) != schedulers - 1:
        raise InputError(
            f"lr_scheduler: milestones: {milestones} has {len(milestones)} for {schedulers} schedulers. Give one fewer than "
            "there are schedulers: the start of each but the first."
        )
    if milestones != sorted(milestones) or any(milestone < 0 for milestone in milestones):
        raise InputError(
            f"lr_scheduler: milestones: {milestones} do not increase from 0. They count from the start of the run, not from "
            "the previous milestone."
        )


def classes_in_stated(stated: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields class path and arguments of each class in a configuration, at any depth."""
    stated = stated.as_dict() if isinstance(stated, Namespace) else stated
    if isinstance(stated, dict) and "class_path" in stated:
        yield stated["class_path"], {**(stated.get("dict_kwargs") or {}), **(stated.get("init_args") or {})}
    for value in stated.values() if isinstance(stated, dict) else stated if isinstance(stated, list) else ():
        yield from classes_in_stated(value)


def _items(stated: Any) -> Iterator[tuple[str, Any]]:
    for value in stated if isinstance(stated, list) else []:
        yield from _items(value)
    for key, value in stated.items() if hasattr(stated, "items") else ():
        yield key, value
        yield from _items(value)


def set_optimizer(
    model: ZambaVideoClassificationLightningModule, trainer: Trainer, built: Namespace, stated: Namespace
) -> None:
    """Hands the model the functions that build optimizer and scheduler.

    Args:
        model: The model.
        trainer: Knows the length of the run, for a scheduler that leaves out its own.
        built: The configuration of the subcommand, with the classes inside a scheduler built.
        stated: The same, not built.
    """
    optimizer, lr_scheduler = built.get("optimizer"), built.get("lr_scheduler")
    if optimizer is None:
        return
    interval = built.get("lr_scheduler_interval")
    as_stated = plain(stated.get("lr_scheduler"))
    left_out = None if as_stated is None else left_out_length(as_stated, interval)

    def complete(scheduler: Any) -> dict[str, Any]:
        return with_length(scheduler, left_out, trainer, model.resumed)

    schedule = None
    if lr_scheduler is not None:
        schedule = Stated(
            lambda optimizer: build("lr_scheduler", optimizer, complete(lr_scheduler)),
            lambda: {**(as_stated.get("dict_kwargs") or {}), **complete(as_stated)["init_args"]},
            () if left_out is None else left_out[:1],
        )
    model.set_optimizer(lambda groups: build("optimizer", groups, optimizer), schedule, interval)


def stated_callbacks(built: Any, stated: Any) -> dict[str, Any]:
    """Returns the configuration of each callback by its key in checkpoints.

    Args:
        built: The callbacks, built; those that Lightning has added come last.
        stated: ``trainer.callbacks`` of the configuration.
    """
    callbacks, items = (part if isinstance(part, list) else [part] for part in (built or [], stated or []))
    return {callback.state_key: plain(item) for callback, item in zip(callbacks, items, strict=False)}
