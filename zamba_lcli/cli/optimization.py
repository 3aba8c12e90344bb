"""Optimizer and scheduler as they are stated, handed to the model.

LightningCLI builds the optimizer on all parameters in one group, before anything is frozen, and the scheduler with it; so
backbone and head cannot have learning rates of their own (Lightning#20340). The model builds both itself, on its two groups,
when the Trainer asks for them.
"""

from typing import Any

from jsonargparse import Namespace
from pytorch_lightning import Trainer

from zamba_lcli.cli.instantiators import build
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.models.schedule_states import Stated, plain
from zamba_lcli.run_length import left_out_length, with_length


def set_optimizer(
    model: ZambaVideoClassificationLightningModule, trainer: Trainer, built: Namespace, stated: Namespace
) -> None:
    """Tells the model how to build optimizer and scheduler.

    Args:
        model: The model.
        trainer: Knows how long the run is, for a scheduler that leaves out its length.
        built: The configuration of the subcommand, with the classes inside a scheduler built.
        stated: The same as it is stated.
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
    """Returns what is stated of each callback, by its key in checkpoints.

    Args:
        built: The callbacks that were built of what is stated, and those that Lightning has put behind them.
        stated: What is stated as ``trainer.callbacks``.
    """
    callbacks, items = (part if isinstance(part, list) else [part] for part in (built or [], stated or []))
    return {callback.state_key: plain(item) for callback, item in zip(callbacks, items, strict=False)}
