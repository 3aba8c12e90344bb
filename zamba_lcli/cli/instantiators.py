"""How the classes of a configuration are built: ours in place of some of Lightning's."""

import traceback
from typing import Any

from pytorch_lightning.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    EMAWeightAveraging,
    LearningRateFinder,
    ModelCheckpoint,
    WeightAveraging,
)
from pytorch_lightning.cli import LightningArgumentParser, instantiate_class
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from zamba_lcli.callbacks import (
    ZambaBackboneFinetuning,
    ZambaBatchSizeFinder,
    ZambaEMAWeightAveraging,
    ZambaLearningRateFinder,
    ZambaModelCheckpoint,
    ZambaWeightAveraging,
)
from zamba_lcli.cli.trainer import ZambaTrainer
from zamba_lcli.errors import InputError
from zamba_lcli.loggers import ZambaCSVLogger, ZambaTensorBoardLogger
from zamba_lcli.schedulers import stated_name

REPLACEMENTS = {
    BackboneFinetuning: ZambaBackboneFinetuning,
    BatchSizeFinder: ZambaBatchSizeFinder,
    CSVLogger: ZambaCSVLogger,
    LearningRateFinder: ZambaLearningRateFinder,
    ModelCheckpoint: ZambaModelCheckpoint,
    TensorBoardLogger: ZambaTensorBoardLogger,
}
NAMES = {ZambaTrainer: "trainer", ZambaModelCheckpoint: ModelCheckpoint.__name__}  # as a configuration has them


def add_instantiators(parser: LightningArgumentParser) -> None:
    """Builds our callbacks and loggers where a configuration names Lightning's."""
    for theirs in REPLACEMENTS:
        parser.add_instantiator(_build_replacement, theirs, subclasses=False)
    parser.add_instantiator(_build_moving_average, EMAWeightAveraging, subclasses=False)
    parser.add_instantiator(_build_average, WeightAveraging, subclasses=False)


def _build_replacement(class_type: type, *args: Any, **kwargs: Any) -> Any:
    return REPLACEMENTS[class_type](*args, **kwargs)


def _build_moving_average(
    class_type: type, *args: Any, multi_avg_fn: Any = None, **kwargs: Any
) -> ZambaEMAWeightAveraging:
    if multi_avg_fn is not None:  # Lightning passes it on to torch, which uses it in place of the moving average
        raise InputError("EMAWeightAveraging: multi_avg_fn: leave it out; decay sets the average.")
    return ZambaEMAWeightAveraging(*args, **kwargs)


def _build_average(class_type: type, *args: Any, multi_avg_fn: Any = None, **kwargs: Any) -> ZambaWeightAveraging:
    if multi_avg_fn is not None:  # its effect on frozen layers is unknown
        raise InputError(
            "WeightAveraging: multi_avg_fn: leave it out for the mean over all steps, or give avg_fn, which takes one tensor "
            "at a time."
        )
    return ZambaWeightAveraging(*args, **kwargs)


def build(key: str, args: Any, stated: dict[str, Any]) -> Any:
    """Builds an optimizer or scheduler.

    Args:
        key: Its key in the configuration.
        args: Its first argument: parameter groups, or the optimizer.
        stated: ``class_path`` and ``init_args``.

    Raises:
        InputError: If torch refuses a value.
    """
    try:
        return instantiate_class(args, stated)
    except ValueError as error:
        raise InputError(f"{key}: {stated_name(stated['class_path'])}: {error}") from error


def constructor_of(error: BaseException) -> str:
    """Returns the name of the class whose constructor raised an error, as the beginning of a message."""
    while error.__cause__ is not None:  # jsonargparse wraps what a constructor raises
        error = error.__cause__
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "__init__"]
    classes = [type(frame.f_locals["self"]) for frame in frames if "self" in frame.f_locals]
    return f"{NAMES.get(classes[0], classes[0].__name__)}: " if classes else ""
