"""What makes no sense together, told before anything is trained: Lightning and torch find it out in the midst of a run."""

import inspect
import pydoc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import (
    BackboneFinetuning,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
)
from torch.optim.lr_scheduler import ChainedScheduler, ReduceLROnPlateau, SequentialLR

from zamba_lcli._lightning import trainer_callbacks
from zamba_lcli.cli.messages import did_you_mean
from zamba_lcli.cli.validated import Validated
from zamba_lcli.errors import InputError
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule

MINIMA = {"num_nodes": 1, "accumulate_grad_batches": 1, "gradient_clip_val": 0}  # of the trainer
UNFIT = {  # by name: not every torch has them all
    "torch.optim.LBFGS": "takes no parameter groups, and head and backbone are two",
    "torch.optim.Muon": "takes matrices only, and convolutions are none",
    "torch.optim.SparseAdam": "takes sparse gradients only, and those of networks here are dense",
}
NEVER = {
    "maximize": "trains towards the largest loss, away from the labels",
    "differentiable": "is for gradients of the steps themselves, and fails at the first one here",
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
COUNTED = ("epoch", "step")  # Lightning's own, which ModelCheckpoint may monitor to keep the newest
MODES = ("min", "max")
OF_A_DEVICE = ("single_xla", "single_tpu")  # strategies that Lightning registers without the device that they need
LIGHTNINGS = ("pytorch_lightning.", "lightning_fabric.")


def check_seed(seed: Any) -> None:
    """Refuses a seed that no random generator takes."""
    if type(seed) is int and not 0 <= seed < 2**32:
        raise InputError(f"seed_everything: {seed} is not between 0 and {2**32 - 1}.")


def check_trainer(built: Namespace, strategy: Any) -> None:
    """Refuses arguments of the trainer that Lightning takes and that make no sense.

    Args:
        built: The arguments, with callbacks built.
        strategy: As stated, a name or class.

    Raises:
        InputError: Names the key.
    """
    for key, low in MINIMA.items():
        if isinstance(value := built[key], int | float) and value < low:
            raise InputError(f"trainer.{key}: {value} is less than {low}.")
    if built.val_check_interval == 0:
        raise InputError(
            "trainer.val_check_interval: 0 is never. Turn validation off with trainer.limit_val_batches: 0."
        )
    check_strategy(strategy)
    _check_distinct(built.callbacks or [])


def _check_distinct(callbacks: list[Callback] | Callback) -> None:
    """Refuses callbacks that a checkpoint could not tell apart, which Lightning finds out when it saves the first one."""
    seen = set()
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        if isinstance(callback, BackboneFinetuning) and callback.state_key in seen:
            raise InputError("trainer.callbacks: there are two BackboneFinetuning. Take one of them out.")
        if isinstance(callback, ModelCheckpoint) and callback.state_key in seen:
            raise InputError(
                "trainer.callbacks: two ModelCheckpoint have the same monitor, mode, every_n_train_steps, every_n_epochs and "
                "train_time_interval. Let them differ in one of these, or take one of them out."
            )
        seen.add(callback.state_key)


def check_untrained(model: ZambaVideoClassificationLightningModule, subcommand: str, ckpt_path: str | None) -> None:
    """Refuses to use a model whose weights file has no weights for some of its layers.

    Raises:
        InputError: Names a layer.
    """
    if subcommand != "fit" and model.untrained and ckpt_path is None:
        raise InputError(
            f"model.init_args.weights: the file has no weights for {len(model.untrained)} of the model's, such as "
            f"{model.untrained[0]}: {subcommand} would use random ones. State the classes (data.class_names) and arguments "
            "that it was trained with; or fit first, and give ckpt_path."
        )


def check_optimization(optimizer: Any, lr_scheduler: Any, callbacks: list[Callback]) -> None:
    """Refuses an optimizer or scheduler that cannot train the networks here.

    Args:
        optimizer: As stated, with ``class_path`` and ``init_args``; or None.
        lr_scheduler: The same, in which those inside others are not built.
        callbacks: Those of the trainer.

    Raises:
        InputError: Says why.
    """
    if optimizer is not None:
        check_optimizer(optimizer["class_path"], optimizer.get("init_args", {}))
        check_logged_decay(callbacks, optimizer["class_path"])
    check_scheduler(lr_scheduler)


def check_before_fit(
    trainer: Trainer, model: ZambaVideoClassificationLightningModule, lr_scheduler: Any, resumed: bool
) -> None:
    """Refuses a run that trains nothing, breaks what is frozen, or waits for what is never logged.

    Args:
        trainer: Gets a callback that looks whether the run is ever validated.
        model: Knows what is logged.
        lr_scheduler: As stated, in which those inside others are not built.
        resumed: Whether the run goes on from a checkpoint: it has been validated before.

    Raises:
        InputError: Names the key.
    """
    callbacks = trainer_callbacks(trainer)
    check_something_trains(trainer.max_epochs, trainer.max_steps, trainer.limit_train_batches)
    check_frozen_stays(callbacks)
    check_monitors(callbacks, model, lr_scheduler)
    waiting = [(who, name) for who, name, _ in monitored(callbacks, lr_scheduler)]
    validated = Validated([] if resumed else waiting)
    validated.check_stated(trainer)
    callbacks.append(validated)


def check_optimizer(class_path: str, init_args: dict[str, Any]) -> None:
    """Refuses an optimizer that cannot train the networks here.

    Args:
        class_path: Of the optimizer.
        init_args: Its arguments.

    Raises:
        InputError: Says why.
    """
    if class_path in UNFIT:
        why = UNFIT[class_path]
        raise InputError(
            f"optimizer: {class_path} {why}. Take another one, such as torch.optim.AdamW or torch.optim.SGD."
        )

    for name, why in NEVER.items():
        if init_args.get(name) is True:
            raise InputError(f"optimizer: {name}: true {why}. Leave it out.")
    if init_args.get("capturable") is True and not torch.cuda.is_available():
        raise InputError("optimizer: capturable: true is for a GPU, and there is none here. Leave it out.")


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
    """Refuses what torch takes for a schedule and is none, at any depth of what is stated as ``lr_scheduler``.

    Torch divides by lengths of zero; and with a learning rate below zero it trains away from the labels, without a word.

    Raises:
        InputError: Names the key.
    """
    for class_path, init_args in _classes(stated):
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
                    f"lr_scheduler: {path} is not the first scheduler of {class_path}, and torch cannot begin it later: "
                    "only the first one may be made of others. Name its schedulers in this list themselves, with milestones "
                    "between them; or chain the whole: a ChainedScheduler whose first scheduler is the SequentialLR."
                )
    for key, value in _items(stated):
        name = key.rpartition(".")[2]  # jsonargparse's namespaces give the keys of all that they hold
        if name in LENGTHS and isinstance(value, int | float) and value <= 0:
            raise InputError(f"lr_scheduler: {name}: {value} is no length. Give at least 1.")
        numbers = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, int | float)]
        if name in FACTORS_AND_RATES and any(number < 0 for number in numbers):
            raise InputError(f"lr_scheduler: {name}: {value} would make the learning rate negative. Give 0 or more.")


def _check_milestones(milestones: list[int], schedulers: int) -> None:
    """Refuses milestones that do not go up: torch bisects them as if they did, and schedulers come at any time or never."""
    if len(milestones) != schedulers - 1:
        raise InputError(
            f"lr_scheduler: milestones: {milestones} has {len(milestones)} for {schedulers} schedulers. Give one fewer than "
            "schedulers: when each but the first takes over."
        )
    if milestones != sorted(milestones) or any(milestone < 0 for milestone in milestones):
        raise InputError(
            f"lr_scheduler: milestones: {milestones} do not go up from 0. They count from the beginning of the run, not from "
            "the milestone before."
        )


def check_something_trains(max_epochs: int | None, max_steps: int, limit_train_batches: int | float | None) -> None:
    """Refuses a ``fit`` of no steps, which Lightning ends at once as a success, without a checkpoint.

    Args:
        max_epochs: The trainer's.
        max_steps: The trainer's.
        limit_train_batches: The trainer's.

    Raises:
        InputError: Names the key.
    """
    stated = {"max_epochs": max_epochs, "max_steps": max_steps, "limit_train_batches": limit_train_batches}
    for name, value in stated.items():
        if value == 0:
            raise InputError(
                f"trainer.{name}: 0 trains nothing. To look at a configuration give --print_config, for scores zamba validate."
            )


def _classes(stated: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields class paths and arguments of all classes in what is stated, at any depth."""
    stated = stated.as_dict() if isinstance(stated, Namespace) else stated
    if isinstance(stated, dict) and "class_path" in stated:
        yield stated["class_path"], {**(stated.get("dict_kwargs") or {}), **(stated.get("init_args") or {})}
    for value in stated.values() if isinstance(stated, dict) else stated if isinstance(stated, list) else ():
        yield from _classes(value)


def check_strategy(strategy: Any) -> None:
    """Refuses strategies that cannot be had by their names.

    Args:
        strategy: As stated, a name or class.

    Raises:
        InputError: Says what to state instead.
    """
    if "spawn" in str(strategy):
        raise InputError(
            "trainer.strategy: what a configuration names cannot be sent to processes that are spawned. Take ddp."
        )
    if strategy in OF_A_DEVICE:
        raise InputError(
            f"trainer.strategy: {strategy}: Lightning cannot make it of its name. Leave it out, and state "
            "trainer.accelerator: tpu and trainer.devices: 1, for which Lightning takes it."
        )


def check_frozen_stays(callbacks: list[Callback]) -> None:
    """Refuses callbacks that change frozen layers, or that leave no checkpoint with what they are there for.

    Raises:
        InputError: Names the callback and what to take instead.
    """
    for callback in callbacks:
        if isinstance(callback, StochasticWeightAveraging):
            raise InputError(
                "StochasticWeightAveraging: at the end of the training it sets the BatchNorm statistics of all layers anew, "
                "those of frozen ones too, and without BatchNorm no checkpoint has its average. Take EMAWeightAveraging "
                "instead (init_args: decay: 0.99), whose average is what is validated and saved, and the lr_scheduler of your "
                "choice."
            )
        if isinstance(callback, ModelPruning):
            raise InputError(
                "ModelPruning: it sets weights of frozen layers to zero too, and its masks are in no checkpoint, so that no "
                "run could be resumed. Leave it out."
            )


def _items(stated: Any) -> Iterator[tuple[str, Any]]:
    for value in stated if isinstance(stated, list) else []:
        yield from _items(value)
    for key, value in stated.items() if hasattr(stated, "items") else ():
        yield key, value
        yield from _items(value)


def check_monitors(
    callbacks: list[Callback], model: ZambaVideoClassificationLightningModule, lr_scheduler: Any
) -> None:
    """Refuses to wait for a value that is never logged, or to take the worst for the best.

    A user's own model or callbacks may log more; then names are not checked here, and Lightning does so after an epoch.

    Args:
        callbacks: Those of the trainer.
        model: Knows what is logged.
        lr_scheduler: As stated, with ``class_path`` and ``init_args``, in which those inside others are not built.

    Raises:
        InputError: Names the value, and those that there are.
    """
    own = all(type(part).__module__.startswith(("zamba_lcli.", *LIGHTNINGS)) for part in [*callbacks, model])
    for where, monitor, mode in monitored(callbacks, lr_scheduler):
        if own:
            _check_monitor(where, monitor, model)
        best = "min" if "loss" in monitor else "max"
        if mode in MODES and mode != best and monitor in model.logged_names():
            raise InputError(f"{where}: with mode {mode}, the worst {monitor} counts as the best. State mode: {best}.")


def monitored(callbacks: list[Callback], lr_scheduler: Any) -> Iterator[tuple[str, str, str | None]]:
    """Yields who waits for what: callback or scheduler, the value's name, and which of its values is the best.

    Args:
        callbacks: Those of the trainer.
        lr_scheduler: As stated, with ``class_path`` and ``init_args``, in which those inside others are not built.
    """
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if not isinstance(monitor, str) or (isinstance(callback, ModelCheckpoint) and monitor in COUNTED):
            continue
        yield type(callback).__name__.removeprefix("Zamba"), monitor, getattr(callback, "mode", None)
    for class_path, init_args in _classes(lr_scheduler):
        kind = pydoc.locate(class_path)
        if inspect.isclass(kind) and issubclass(kind, ReduceLROnPlateau):
            # torch's own cannot state what to monitor; Lightning's hands a mode on to it
            yield "lr_scheduler", init_args.get("monitor") or "val_loss", init_args.get("mode", "min")


def _check_monitor(where: str, monitor: str, model: ZambaVideoClassificationLightningModule) -> None:
    known = model.logged_names()
    if monitor in known or monitor.startswith("lr-"):  # LearningRateMonitor's
        return
    hint = did_you_mean(monitor, known, cutoff=0.5)
    overall = [name for name in known if "/" not in name]
    raise InputError(
        f"{where}: monitor: {monitor} is not logged.{hint} There are {', '.join(overall)}, and for each class "
        f"species/val_f1/{model.class_names[0]} and the like."
    )


def check_checkpoint_file(path: Path) -> None:
    """Refuses a file that is no checkpoint, of which torch says that mmap cannot be used with it.

    Raises:
        InputError: Names the file.
    """
    if path.stat().st_size == 0:
        raise InputError(f"ckpt_path: {path} is empty. Copy or download it again.")
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"ckpt_path: {path} is not a checkpoint, or it was cut off. Give a .ckpt file, or copy or download it again."
        )
