"""Combinations of arguments that make no sense, refused before anything is trained: Lightning and torch fail midway."""

import inspect
import pydoc
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import (
    BackboneFinetuning,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
)
from pytorch_lightning.profilers import XLAProfiler
from torch.optim.lr_scheduler import ReduceLROnPlateau

from zamba_lcli._lightning import trainer_callbacks
from zamba_lcli.cli.names import did_you_mean
from zamba_lcli.cli.optimization import classes_in_stated
from zamba_lcli.cli.validated import Validated
from zamba_lcli.errors import InputError
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.models.weights import load_checkpoint

MINIMA = {"num_nodes": 1, "accumulate_grad_batches": 1, "gradient_clip_val": 0}  # of the trainer
COUNTED = ("epoch", "step")  # Lightning's own, which ModelCheckpoint may monitor to keep the newest
MODES = ("min", "max")
OF_A_DEVICE = ("single_xla", "single_tpu")  # strategies that Lightning registers without the device they need
LIGHTNINGS = ("pytorch_lightning.", "lightning_fabric.")


def check_seed(seed: Any) -> None:
    """Refuses a seed that no random generator accepts."""
    if type(seed) is int and not 0 <= seed < 2**32:
        raise InputError(f"seed_everything: {seed} is not between 0 and {2**32 - 1}.")


def check_profiler(stated: Any) -> None:
    """Refuses XLAProfiler without its package: Lightning's message is followed by a traceback of the half-built profiler.

    Args:
        stated: A name, or a class with ``class_path``; or None.

    Raises:
        InputError: Names the package.
    """
    name = stated if isinstance(stated, str) or stated is None else stated["class_path"].rpartition(".")[2]
    if name in ("xla", XLAProfiler.__name__) and find_spec("torch_xla") is None:
        raise InputError("trainer.profiler: XLAProfiler needs torch_xla, which is not installed here. Leave it out.")


def check_trainer(built: Namespace, strategy: Any) -> None:
    """Refuses arguments of the trainer that Lightning accepts although they make no sense.

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
            "trainer.val_check_interval: 0 would never validate. To turn validation off, set trainer.limit_val_batches: 0."
        )
    check_strategy(strategy)
    check_barebones(built)
    _check_distinct(built.callbacks or [])


def _check_distinct(callbacks: list[Callback] | Callback) -> None:
    """Refuses callbacks with the same state key; Lightning notices when it saves the first checkpoint."""
    seen: set[str] = set()
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        if isinstance(callback, BackboneFinetuning) and callback.state_key in seen:
            raise InputError(f"trainer.callbacks: {callback.state_key} is listed twice. Remove one of them.")
        if isinstance(callback, BackboneFinetuning) and {"BackboneFinetuning", "GradualUnfreezing"} & seen:
            raise InputError(
                "trainer.callbacks: BackboneFinetuning and GradualUnfreezing both unfreeze the backbone. Remove one of them."
            )
        if isinstance(callback, ModelCheckpoint) and callback.state_key in seen:
            raise InputError(
                "trainer.callbacks: two ModelCheckpoint have the same monitor, mode, every_n_train_steps, every_n_epochs and "
                "train_time_interval. Change one of these arguments, or remove one of the callbacks."
            )
        seen.add(callback.state_key)


def check_untrained(model: ZambaVideoClassificationLightningModule, subcommand: str, ckpt_path: str | None) -> None:
    """Refuses to use a model whose weights file lacks weights of some layers.

    Raises:
        InputError: Names a layer.
    """
    if subcommand != "fit" and model.untrained and ckpt_path is None:
        raise InputError(
            f"model.init_args.weights: the file lacks {len(model.untrained)} of the model's weights, such as "
            f"{model.untrained[0]}: {subcommand} would use random ones. Set the classes (data.class_names) and arguments "
            "that they were trained with; or run fit first, and set ckpt_path."
        )


def check_before_fit(
    trainer: Trainer, model: ZambaVideoClassificationLightningModule, lr_scheduler: Any, ckpt_path: str | None
) -> None:
    """Refuses a run that trains nothing, changes frozen layers, or monitors what is never logged.

    Args:
        trainer: Gets a callback that checks whether the run is ever validated.
        model: Knows what is logged.
        lr_scheduler: As stated, in which those inside others are not built.
        ckpt_path: The checkpoint that is resumed, if there is one.

    Raises:
        InputError: Names the key.
    """
    callbacks = trainer_callbacks(trainer)
    check_something_trains(trainer.max_epochs, trainer.max_steps, trainer.limit_train_batches)
    check_frozen_stays(callbacks)
    check_monitors(callbacks, model, lr_scheduler)
    waiting = [(who, name) for who, name, _ in monitored(callbacks, lr_scheduler)]
    resumed = (
        load_checkpoint(Path(ckpt_path), mmap=True) if ckpt_path is not None and Path(ckpt_path).is_file() else None
    )
    validated = Validated([] if ckpt_path is not None and resumed is None else waiting, resumed)
    validated.check_stated(trainer)
    callbacks.append(validated)


def check_something_trains(max_epochs: int | None, max_steps: int, limit_train_batches: int | float | None) -> None:
    """Refuses a ``fit`` without steps, which Lightning ends at once as a success, without a checkpoint.

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
                f"trainer.{name}: 0 trains nothing. To inspect a configuration use --print_config; for scores, zamba validate."
            )


def check_barebones(built: Namespace) -> None:
    """Refuses what Lightning's barebones mode turns off; its own message prints objects as Python does.

    Args:
        built: The trainer's arguments, with loggers and profiler built.

    Raises:
        InputError: Names key and class.
    """
    for key in ("logger", "profiler"):
        value = built[key]
        if built.barebones and value not in (None, False):
            items = value if isinstance(value, list) else ["true" if value is True else value]
            names = [i if isinstance(i, str) else type(i).__name__.removeprefix("Zamba") for i in items]
            raise InputError(
                f"trainer.barebones: true runs without a {key}, and trainer.{key} states {', '.join(names)}. Leave out "
                f"trainer.{key}, or trainer.barebones."
            )


def check_strategy(strategy: Any) -> None:
    """Refuses strategies that Lightning cannot build by name, or that a configuration cannot use.

    Args:
        strategy: As stated, a name or class.

    Raises:
        InputError: Names the strategy to use instead.
    """
    if "spawn" in str(strategy):
        raise InputError("trainer.strategy: what a configuration builds cannot be sent to spawned processes. Use ddp.")
    if strategy in OF_A_DEVICE:
        raise InputError(
            f"trainer.strategy: {strategy}: Lightning cannot build it by name. Leave it out and set "
            "trainer.accelerator: tpu and trainer.devices: 1, for which Lightning chooses it."
        )


def check_frozen_stays(callbacks: list[Callback]) -> None:
    """Refuses callbacks that change frozen layers, or whose result is in no checkpoint.

    Raises:
        InputError: Names the callback and what to use instead.
    """
    for callback in callbacks:
        if isinstance(callback, StochasticWeightAveraging):
            raise InputError(
                "StochasticWeightAveraging: at the end of training it recomputes the BatchNorm statistics of all layers, "
                "frozen ones included, and without BatchNorm no checkpoint holds its average. Use EMAWeightAveraging instead "
                "(init_args: decay: 0.99), whose average is validated and saved, with the lr_scheduler of your choice."
            )
        if isinstance(callback, ModelPruning):
            raise InputError(
                "ModelPruning: it zeroes weights of frozen layers too, and checkpoints lack its masks, so that no run could be "
                "resumed. Leave it out."
            )


def check_monitors(
    callbacks: list[Callback], model: ZambaVideoClassificationLightningModule, lr_scheduler: Any
) -> None:
    """Refuses to monitor a value that is never logged, or to take its worst value for its best.

    A user's own model or callbacks may log more values; then Lightning checks the names, after an epoch.

    Args:
        callbacks: Those of the trainer.
        model: Knows what is logged.
        lr_scheduler: As stated, with ``class_path`` and ``init_args``, in which those inside others are not built.

    Raises:
        InputError: Names the value, and those that are logged.
    """
    own = all(type(part).__module__.startswith(("zamba_lcli.", *LIGHTNINGS)) for part in [*callbacks, model])
    for where, monitor, mode in monitored(callbacks, lr_scheduler):
        if own:
            _check_monitor(where, monitor, model)
        best = "min" if "loss" in monitor else "max"
        if mode in MODES and mode != best and monitor in model.logged_names():
            raise InputError(f"{where}: with mode {mode}, the worst {monitor} counts as the best. Set mode: {best}.")


def monitored(callbacks: list[Callback], lr_scheduler: Any) -> Iterator[tuple[str, str, str | None]]:
    """Yields callback or scheduler, the value that it monitors, and which of its values is the best.

    Args:
        callbacks: Those of the trainer.
        lr_scheduler: As stated, with ``class_path`` and ``init_args``, in which those inside others are not built.
    """
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if not isinstance(monitor, str) or (isinstance(callback, ModelCheckpoint) and monitor in COUNTED):
            continue
        yield type(callback).__name__.removeprefix("Zamba"), monitor, getattr(callback, "mode", None)
    for class_path, init_args in classes_in_stated(lr_scheduler):
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
        f"{where}: monitor: {monitor} is not logged.{hint} Logged are {', '.join(overall)}, and for each class "
        f"species/val_f1/{model.class_names[0]} and similar."
    )


def check_checkpoint_file(path: Path) -> None:
    """Refuses a file that is no checkpoint; torch's message is about mmap.

    Raises:
        InputError: Names the file.
    """
    if path.stat().st_size == 0:
        raise InputError(f"ckpt_path: {path} is empty. Copy or download it again.")
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"ckpt_path: {path} is not a checkpoint, or is cut off. Give a .ckpt file, or copy or download it again."
        )
