"""Files of earlier runs: the checkpoint that a fit resumes from, and what it must not overwrite."""

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from pytorch_lightning.loggers import Logger

from zamba_lcli._lightning import numbers_equal_names
from zamba_lcli.errors import InputError
from zamba_lcli.models.weights import load_checkpoint
from zamba_lcli.run_folder import CHECKPOINTS, checkpoint_folders, folder_of, is_dry_run, model_checkpoints, run_folder

CONFIG = "config.yaml"


def last_checkpoint(trainer: Trainer, stated: Any) -> Path:
    """Returns the newest checkpoint in the run folder that a fit can resume from.

    It is the newest ``last*.ckpt``, unless another one is newer and of a later step, as after an interruption and a resume
    without ``save_last``.

    Args:
        trainer: Knows the callbacks.
        stated: What is stated as ``trainer.logger``, built: a dry run has no loggers of its own.

    Raises:
        InputError: If there is none: Lightning would start over in silence.
    """
    stated = (stated if isinstance(stated, list) else [stated]) if is_dry_run(trainer) else trainer.loggers
    loggers = [logger for logger in stated if isinstance(logger, Logger)]
    folders = checkpoint_folders(trainer, loggers)
    found = sorted(_checkpoints(trainer, folders), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    steps = {path: step for path in found if (step := _resumable_step(path)) is not None}
    lasts = [path for path in steps if path.name.startswith(ModelCheckpoint.CHECKPOINT_NAME_LAST)]
    if not steps:
        where = ", ".join(map(str, folders))
        raise InputError(
            f"ckpt_path: last: no checkpoint in {where}. Leave out ckpt_path to start from the beginning, or name the run "
            f"folder to resume, e.g. --trainer.logger.init_args.version {_an_earlier_version(folder_of(trainer, loggers))}."
        )
    if not lasts:
        return next(iter(steps))
    newer = list(steps)[: list(steps).index(lasts[0])]
    return next((path for path in newer if steps[path] > steps[lasts[0]]), lasts[0])


def refuse_to_write_over(trainer: Trainer, ckpt_path: str | None, config: str) -> None:
    """Refuses a fit in the folders of another run that it does not resume.

    Args:
        trainer: Knows loggers and checkpoints.
        ckpt_path: The checkpoint that the fit resumes from, if any.
        config: What ``config.yaml`` will hold. A run that was killed before its first checkpoint begins again.

    Raises:
        InputError: Names what is there.
    """
    if is_dry_run(trainer):
        return
    folders = checkpoint_folders(trainer)
    known = None if ckpt_path is None or not Path(ckpt_path).is_file() else _folders_of(Path(ckpt_path))
    if known is None and (ckpt_path is not None or any(Path(trainer.default_root_dir).glob("hpc_ckpt_*.ckpt"))):
        return  # Lightning knows where that is
    if known is not None and known & {_real(folder) for folder in folders}:
        return
    if run_folder(trainer) is None and all(map(numbers_equal_names, trainer.checkpoint_callbacks)):
        return  # without a logger, checkpoints of one name are numbered, in a folder that has no other files of a run
    there = [path for path in _checkpoints(trainer, folders) if ckpt_path is None or _real(path) != _real(ckpt_path)]
    if there:
        newest = max(there, key=lambda path: path.stat().st_mtime_ns)
        raise InputError(
            f"{newest.parent} holds checkpoints of an earlier run, such as {newest.name}, that might be overwritten. To resume "
            f"that run, give --ckpt_path {newest}; for a new one leave out trainer.logger.init_args.version (id of "
            "WandbLogger, run_id of MLFlowLogger) or state another, and give no ModelCheckpoint the same dirpath; or move "
            "that folder away."
        )
    folder = run_folder(trainer)
    if folder is not None and (folder / CONFIG).is_file() and (folder / CONFIG).read_text(encoding="utf-8") != config:
        raise InputError(
            f"{folder} is the folder of an earlier run: its {CONFIG} differs. Leave out "
            "trainer.logger.init_args.version or state another, or move that folder away."
        )


def _checkpoints(trainer: Trainer, folders: Iterable[Path]) -> list[Path]:
    """Returns the checkpoints in a run's folders; in a stated dirpath only those that a callback of the run would write."""
    found: dict[Path, None] = {}
    for folder in folders:
        stated = [c for c in model_checkpoints(trainer) if c.dirpath is not None and Path(c.dirpath) == folder]
        names = [name for callback in stated for name in _patterns(callback)] if stated else ["**/*.ckpt"]
        found |= dict.fromkeys(path for name in names for path in folder.glob(name) if not path.name.startswith("."))
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, OnExceptionCheckpoint) and Path(callback.ckpt_path).exists():
            found[Path(callback.ckpt_path)] = None
    return list(found)


def _patterns(callback: ModelCheckpoint) -> list[str]:
    """Returns glob patterns of the files that a callback writes, with its metrics and version numbers."""
    join, ending, equals = callback.CHECKPOINT_JOIN_CHAR, callback.FILE_EXTENSION, callback.CHECKPOINT_EQUALS_CHAR
    parts = re.split(r"\{(.*?)(?::.*?)?\}", callback.filename or f"{{epoch}}{join}{{step}}")  # text, metric, text, ...
    parts[1::2] = [f"{metric}{equals}" if callback.auto_insert_metric_name else "" for metric in parts[1::2]]
    texts = [text + metric for text, metric in zip(parts[::2], [*parts[1::2], ""], strict=True)]
    names = ["*".join(map(glob.escape, texts)), glob.escape(callback.CHECKPOINT_NAME_LAST)]
    return [pattern for name in names for pattern in (f"{name}{ending}", f"{name}{join}v[0-9]*{ending}")]


def _folders_of(checkpoint: Path) -> set[str]:
    """Returns the folders of a checkpoint's run: its own, and the absolute ones stated for callbacks."""
    states: dict[str, Any] = load_checkpoint(checkpoint, mmap=True).get("callbacks", {})
    stated = [str(state.get("dirpath")) for state in states.values() if isinstance(state, dict)]
    return {_real(checkpoint.parent), *(_real(path) for path in stated if os.path.isabs(path))}


def _resumable_step(checkpoint: Path) -> int | None:
    """Returns the step of a checkpoint; None if it holds weights only."""
    found = load_checkpoint(checkpoint, mmap=True)
    return int(found["global_step"]) if "optimizer_states" in found else None


def _an_earlier_version(folder: Path | None) -> str:
    """Returns the version of the newest run beside a run folder, as an example."""
    runs = [] if folder is None else [path.parent for path in folder.parent.glob(f"*/{CHECKPOINTS}")]
    newest = max(runs, key=lambda path: path.stat().st_mtime_ns, default=None)
    return "0" if newest is None else newest.name.removeprefix("version_")


def _real(path: str | Path) -> str:
    return os.path.realpath(path)
