"""Where a run's files are, whatever its logger.

The run folder is the one that Lightning's ModelCheckpoint puts ``checkpoints`` in: ``save_dir/name/version`` of the first
logger. Lightning's ``Trainer.log_dir`` is that for TensorBoard and CSV alone; of other loggers it is ``save_dir``, which all
runs share.
"""

from collections.abc import Sequence
from pathlib import Path

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger

from zamba_lcli.files import write_text

CHECKPOINTS = "checkpoints"


def is_dry_run(trainer: Trainer) -> bool:
    """Returns whether ``fast_dev_run`` is set, which writes nothing."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def run_folder(trainer: Trainer) -> Path | None:
    """Returns the run's folder, the same in all processes, which must call it together; None without a logger or in a dry run.

    Of a logger that draws its version when the run begins (Weights & Biases, Comet) it is known from ``setup`` on.
    """
    return None if is_dry_run(trainer) else folder_of(trainer, trainer.loggers)


def local_run_folder(trainer: Trainer) -> Path | None:
    """Returns the run's folder without asking other processes, for the first process."""
    return None if is_dry_run(trainer) else _local_folder(trainer, trainer.loggers)


def folder_of(trainer: Trainer, loggers: Sequence[Logger]) -> Path | None:
    """Returns the run folder that ``loggers`` make, as ``run_folder`` does."""
    return trainer.strategy.broadcast(_local_folder(trainer, loggers)) if loggers or _results(trainer) else None


def _local_folder(trainer: Trainer, loggers: Sequence[Logger]) -> Path | None:
    if (results := _results(trainer)) is not None or not loggers:
        return results
    logger = loggers[0]
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(logger.save_dir or trainer.default_root_dir, str(logger.name), version)


def _results(trainer: Trainer) -> Path | None:
    """Returns the folder that the command line has chosen for a test's files; None if the logger says where they go."""
    return getattr(trainer, "results_folder", None)


def checkpoint_folders(trainer: Trainer, loggers: Sequence[Logger] | None = None) -> list[Path]:
    """Returns where the run's checkpoints are, first where ``last.ckpt`` is; processes must call it together.

    Args:
        trainer: Knows the callbacks.
        loggers: Those that were stated, of which a dry run has none; None for the trainer's.
    """
    folder = folder_of(trainer, trainer.loggers if loggers is None else loggers)
    default = (folder or Path(trainer.default_root_dir)) / CHECKPOINTS
    callbacks = sorted(model_checkpoints(trainer), key=lambda callback: not callback.save_last)
    folders = [default if callback.dirpath is None else Path(callback.dirpath) for callback in callbacks]
    return list(dict.fromkeys(folders or [default]))


def model_checkpoints(trainer: Trainer) -> list[ModelCheckpoint]:
    """Returns the callbacks that save checkpoints by rule."""
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]


def keep_earlier(path: Path, text: str) -> None:
    """Writes ``text`` to ``path``; an existing file with another text is kept as ``name_1``, ``name_2`` and so on."""
    if path.exists() and path.read_bytes() != text.encode("utf-8"):
        path.rename(free_name(path))
    write_text(path, text)


def free_name(path: Path) -> Path:
    """Returns the first of ``name_1``, ``name_2`` and so on, with the ending of ``path``, that does not exist."""
    return next(name for n in range(1, 1_000_000) if not (name := path.with_stem(f"{path.stem}_{n}")).exists())
