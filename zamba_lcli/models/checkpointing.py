"""Whether a checkpoint fits a model, and how one of the same classes in another order is made to fit."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import BackboneFinetuning
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer

from zamba_lcli._lightning import trainer_callbacks
from zamba_lcli.errors import InputError
from zamba_lcli.models.callback_states import keep_stated_arguments
from zamba_lcli.models.exact_resume import LEFT_OPEN
from zamba_lcli.models.optimization import Optimization
from zamba_lcli.models.optimizer_states import builder_like, fit_state
from zamba_lcli.models.schedule_states import STATED
from zamba_lcli.run_length import check_not_done


def check_has_weights(checkpoint: Mapping[str, Any]) -> None:
    """Refuses a file that is no checkpoint of a model."""
    if not isinstance(checkpoint.get("state_dict"), dict):
        raise InputError("ckpt_path: there are no weights (state_dict) in the checkpoint. Give another one.")


def load_run(
    checkpoint: dict[str, Any],
    trainer: Trainer,
    groups: list[dict[str, Any]],
    optimization: Optimization | None,
    stated_callbacks: Mapping[str, Any],
) -> bool:
    """Prepares a checkpoint for the run that resumes it, in place.

    Args:
        checkpoint: As loaded.
        trainer: The run.
        groups: The model's parameter groups.
        optimization: Builds the optimizer; None where the model does it.
        stated_callbacks: What is stated of the callbacks, by state key.

    Returns:
        Whether it is the checkpoint of a resumed run, and not one that a callback restores after a trial.

    Raises:
        InputError: If the run cannot go on.
    """
    if trainer.optimizers:  # are set up already: a callback restores what was before its trial
        return False
    _tell_what_is_frozen(checkpoint, trainer)
    _check_resumable(checkpoint, groups, None if optimization is None else optimization.optimizer)
    check_not_done(trainer, checkpoint)
    keep_stated_arguments(trainer_callbacks(trainer), stated_callbacks, checkpoint)
    return True


def _check_resumable(
    checkpoint: dict[str, Any], groups: list[dict[str, Any]], optimizer: Callable[..., Optimizer] | None
) -> None:
    """Refuses to resume from a checkpoint without a training state, or with optimizers whose states are ambiguous.

    Args:
        checkpoint: As loaded; the optimizer's state is made to fit what is stated, in place.
        groups: The model's parameter groups.
        optimizer: Builds the optimizer; None where the model does it.

    Raises:
        InputError: Says what does not fit.
    """
    if missing := [key for key in ("loops", "optimizer_states") if key not in checkpoint]:
        raise InputError(
            f"ckpt_path: the checkpoint was made to pass on and cannot be resumed: it has no {missing[0]}. To begin a "
            "new run from its weights, set model.init_args.weights to it instead."
        )
    ours = [group["name"] for group in groups]
    then = checkpoint.get(STATED, {}).get("optimizer", {}).get("class_path")
    for state in checkpoint["optimizer_states"]:
        if optimizer is not None:
            fit_state(state, then, optimizer)
        theirs = [group.get("name") for group in state["param_groups"]]
        if None in theirs:
            continue
        if theirs != ours:
            raise InputError(
                f"The checkpoint's optimizer has the parameter groups {theirs}, but here they are {ours}. Go on with its "
                "backbone_lr_decay, decay_norm_and_bias and backbone_blocks, or begin a new run from its weights with "
                "model.init_args.weights."
            )
        for saved, group in zip(state["param_groups"], groups, strict=True):  # torch takes the groups of the state
            saved.update({key: group[key] for key in ("lr_scale",) if key in group})


def check_optimizers(checkpoint: Mapping[str, Any] | None, optimizers: Sequence[Optimizer]) -> None:
    """Refuses to go on with a checkpoint of other optimizers than those that a user's model has built.

    Args:
        checkpoint: As loaded, or None; the optimizers' states are made to fit, in place.
        optimizers: As built.

    Raises:
        InputError: Says what is lacking.
    """
    for state, optimizer in zip((checkpoint or {}).get("optimizer_states", []), optimizers, strict=False):
        fit_state(state, None, builder_like(optimizer))


def _tell_what_is_frozen(checkpoint: dict[str, Any], trainer: Trainer) -> None:
    """Prints that a resumed run no longer trains the backbone."""
    goes_on = any(isinstance(callback, BackboneFinetuning) for callback in trainer_callbacks(trainer))
    for name in (BackboneFinetuning.__qualname__, "GradualUnfreezing"):
        state = checkpoint.get("callbacks", {}).get(name, {})
        if state.get("unfrozen_at_epoch") is not None and not goes_on:
            rank_zero_info(f"The checkpoint's run trained the backbone; without {name} it is frozen from here on.")


def order_of_classes(checkpoint: Mapping[str, Any], class_names: list[str]) -> list[int] | None:
    """Returns for each class its position in the checkpoint; None where the order is the same or not known.

    Raises:
        InputError: Names the classes that are only in the checkpoint and only here.
    """
    theirs = list(checkpoint.get("hyper_parameters", {}).get("class_names") or class_names)
    if theirs == class_names:
        return None
    only_theirs, only_ours = sorted(set(theirs) - set(class_names)), sorted(set(class_names) - set(theirs))
    if only_theirs or only_ours:
        raise InputError(
            f"The checkpoint was made for other classes; only in the checkpoint: {only_theirs}; only in the labels or "
            f"the model: {only_ours}. Use the labels it was trained with."
        )
    rank_zero_info(f"The checkpoint has the classes in another order; they are matched by name: {class_names}.")
    return [theirs.index(name) for name in class_names]


def reorder_classes(
    checkpoint: dict[str, Any],
    order: Sequence[int],
    output: nn.Module,
    named: Mapping[str, nn.Parameter],
    groups: Sequence[Mapping[str, Any]],
) -> None:
    """Brings a checkpoint's classes into another order, in place: weights, optimizer, gradients and metrics.

    Args:
        checkpoint: As loaded.
        order: For each class its position in the checkpoint.
        output: The model's layer whose parameters have a row for each class.
        named: All parameters of the model by their names, each of which may have several.
        groups: The model's parameter groups.
    """
    rows = {id(parameter) for parameter in output.parameters()}
    names = [name for name, parameter in named.items() if id(parameter) in rows]
    weights = [checkpoint[key] for key in ("state_dict", "current_model_state") if key in checkpoint]
    for state in [*weights, checkpoint.get(LEFT_OPEN, {}).get("gradients", {})]:
        for name in names:
            if name in state:
                state[name] = state[name][order]
    positions = {id(p): i for i, p in enumerate(p for group in groups for p in group["params"])}
    for optimizer in checkpoint.get("optimizer_states", []):
        for parameter in output.parameters():
            kept = optimizer["state"].get(positions[id(parameter)], {})
            for key, value in kept.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    kept[key] = value[order]
    for counts in checkpoint.get("train_metrics", {}).values():
        for key, value in counts.items():
            if value.shape == (len(order),):
                counts[key] = value[order]


def check_weights(checkpoint: dict[str, Any], ours: Mapping[str, Tensor]) -> None:
    """Refuses a checkpoint without all weights of the model, or with others.

    Args:
        checkpoint: As loaded.
        ours: The model's own.
    """
    for name, weight in ours.items():
        theirs = checkpoint["state_dict"].get(name)
        if theirs is None:
            missing = [name for name in ours if name not in checkpoint["state_dict"]]
            raise InputError(
                f"ckpt_path: the checkpoint lacks {len(missing)} of the model's weights, such as {missing[0]}. To start from "
                "those that it has, set model.init_args.weights to it."
            )
        if theirs.shape != weight.shape:
            raise InputError(
                f"ckpt_path: the checkpoint is of a network of another size: {name} is {list(theirs.shape)} there and "
                f"{list(weight.shape)} here. Leave out the arguments of the model that differ from those it was made with."
            )
    if others := [name for name in checkpoint["state_dict"] if name not in ours]:
        raise InputError(
            f"ckpt_path: the checkpoint is of another network: it has {len(others)} weights that the model has not, such as "
            f"{others[0]}. Leave out the arguments of the model that differ from those it was made with."
        )
