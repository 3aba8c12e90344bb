"""Where a test or a validation writes, and what a fit says at its end: which checkpoints there are, and how to go on."""

import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace, dict_to_namespace
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger

from zamba_lcli.cli.earlier_runs import CONFIG
from zamba_lcli.run_folder import CHECKPOINTS, checkpoint_folders, is_dry_run, local_run_folder, model_checkpoints

OF_FILES = ("TensorBoardLogger", "CSVLogger")  # loggers that make a folder; all others name runs as their servers do
TENSORBOARD = "pytorch_lightning.loggers.TensorBoardLogger"


def place_results(config: Namespace, subcommand: str) -> Path | None:
    """Lets ``test`` and ``validate`` write to ``test_0``, ``test_1`` and so on in the run folder of their checkpoint.

    Not if a logger, a version or ``default_root_dir`` is stated that is not that of the checkpoint's run, which then wins.

    Args:
        config: That of the subcommand; the loggers in it that make folders are changed.
        subcommand: Its name.

    Returns:
        The folder, which is not made; None where what is stated says.
    """
    ckpt_path = config.get("ckpt_path")
    if subcommand not in ("test", "validate") or ckpt_path is None or not Path(ckpt_path).is_file():
        return None
    checkpoints = Path(ckpt_path).parent
    run = checkpoints.parent if checkpoints.name == CHECKPOINTS else checkpoints
    of_run, logger = _trainer_in(run / CONFIG), config.trainer.logger
    if logger is not None:
        with_its_config = any(_is_same(str(file), run / CONFIG) for file in config.get("config") or [])
        if _plain(logger) != of_run.get("logger") or not (with_its_config or _leads_to(logger, run)):
            return None
    if config.trainer.default_root_dir != of_run.get("default_root_dir"):
        config.trainer.logger = None
        return None
    if config.trainer.fast_dev_run or not os.access(run, os.W_OK):
        return None
    name = next(name for n in range(1_000_000) if not (run / (name := f"{subcommand}_{n}")).exists())
    if logger in (None, True):
        logger = config.trainer.logger = dict_to_namespace({"class_path": TENSORBOARD, "init_args": {}})
    for item in logger if isinstance(logger, list) else [logger]:
        if isinstance(item, Namespace) and item.class_path.rpartition(".")[2].removeprefix("Zamba") in OF_FILES:
            item.init_args.update(dict_to_namespace({"save_dir": str(run), "name": "", "version": name}))
    return run / name


def _leads_to(logger: Any, run: Path) -> bool:
    """Returns whether a logger, as stated, would put the next run beside ``run``."""
    first = logger[0] if isinstance(logger, list) and logger else logger
    if not isinstance(first, Namespace):
        return first is True
    stated = first.get("init_args") or {}
    place = os.path.expandvars(os.path.expanduser(str(stated.get("save_dir"))))
    return stated.get("version") is None and _is_same(Path(place, stated.get("name") or ""), run.parent)


def _is_same(path: str | Path, other: Path) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


def _trainer_in(file: Path) -> dict[str, Any]:
    """Returns the section trainer of the configuration in a run folder; empty if there is none."""
    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    trainer = read.get("trainer") if isinstance(read, dict) else None
    return trainer if isinstance(trainer, dict) else {}


def _plain(value: Any) -> Any:
    """Returns what is stated as a configuration file has it."""
    if isinstance(value, Namespace):
        return {key: _plain(item) for key, item in vars(value).items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def tell_new_folder(trainer: Trainer, ckpt_path: str | None) -> str | None:
    """Returns where a resumed run goes on, if that is not the folder of its checkpoint; None if it is.

    Lightning warns that the callback's ``dirpath`` has changed. All processes must call it together.
    """
    if ckpt_path is None or is_dry_run(trainer) or not Path(ckpt_path).is_file():
        return None
    folders, before = checkpoint_folders(trainer), Path(ckpt_path).parent
    if os.path.realpath(before) in map(os.path.realpath, folders):
        return None
    version = before.parent.name.removeprefix("version_")
    same = f" To go on in its folder: --trainer.logger.init_args.version {version}." if version.isdigit() else ""
    return f"The run goes on in a folder of its own, {folders[0].parent}, and looks for its best epochs anew.{same}"


def last_lines(trainer: Trainer) -> Iterable[str]:
    """Yields what is said at the end of a fit: checkpoints, which to test and how, and how to watch the run."""
    best: list[str] = []
    last: list[str] = []
    newest: list[str] = []
    for callback in [] if is_dry_run(trainer) else model_checkpoints(trainer):
        if callback.best_model_path and callback.monitor is not None:
            score = callback.best_model_score
            best.append(callback.best_model_path)
            yield f"best checkpoint: {best[-1]}" + (
                "" if score is None else f"  ({callback.monitor} {float(score):.4f})"
            )
        elif callback.best_model_path:
            yield f"checkpoint: {callback.best_model_path}"
            newest.append(callback.best_model_path)
        if callback.last_model_path:
            last.append(callback.last_model_path)
    yield from (f"last checkpoint: {path}" for path in dict.fromkeys(last))
    folder = local_run_folder(trainer)
    if best or last or newest:
        config = [] if folder is None else ["--config", str(folder / CONFIG)]
        command = ["zamba", "test", *config, "--ckpt_path", (best or last or newest)[0]]
        yield f"to test the {'best' if best else 'last'}: {shlex.join(command)}"
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            yield f"to watch it: tensorboard --logdir {logger.root_dir}"
