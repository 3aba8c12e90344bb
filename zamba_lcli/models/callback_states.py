"""What callbacks of a resumed run take from the checkpoint, which is what they counted, and what from the configuration."""

from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning import Callback
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from zamba_lcli.console import tell_difference
from zamba_lcli.models.schedule_states import STATED


def keep_stated_arguments(callbacks: Sequence[Callback], stated: Mapping[str, Any], checkpoint: dict[str, Any]) -> None:
    """Changes the callbacks' states that Lightning restores next to what is stated now, and prints the differences.

    Args:
        callbacks: Those of the trainer.
        stated: What the configuration states of them, by their state keys: class path and arguments.
        checkpoint: The checkpoint, as loaded; changed in place.
    """
    then = checkpoint.get(STATED, {}).get("callbacks", {})
    for callback in callbacks:
        name, key = type(callback).__name__.removeprefix("Zamba"), callback.state_key
        ours, theirs = (of.get(key, {}).get("init_args") or {} for of in (stated, then))
        for argument in ours.keys() & theirs.keys():
            if ours[argument] != theirs[argument]:
                tell_difference(f"{name}.{argument}", ours[argument], theirs[argument])
        state = checkpoint.get("callbacks", {}).get(key)
        if isinstance(callback, EarlyStopping) and state is not None:
            before = state.get("patience", callback.patience)
            if before != callback.patience and "patience" not in theirs:
                tell_difference(f"{name}.patience", callback.patience, before)
            state["patience"] = callback.patience
        if isinstance(callback, ModelCheckpoint) and state is not None and callback.monitor is not None:
            _keep_top_k(callback, state)


def _keep_top_k(callback: ModelCheckpoint, state: dict[str, Any]) -> None:
    """Lets the best ``save_top_k`` count of what was kept when that was more: Lightning would never delete one again.

    The files of the others stay.
    """
    kept = state["best_k_models"]
    if callback.save_top_k < 0 or len(kept) <= callback.save_top_k:
        return
    best_first = sorted(kept, key=lambda path: float(kept[path]), reverse=callback.mode == "max")
    state["best_k_models"] = {path: kept[path] for path in best_first[: callback.save_top_k]}
    if state["best_k_models"]:
        state["kth_best_model_path"] = best_first[callback.save_top_k - 1]
        state["kth_value"] = kept[state["kth_best_model_path"]]
