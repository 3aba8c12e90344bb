"""The entry point ``zamba``: settings of the process, and errors as one message with an exit code."""

import ctypes
import errno
import linecache
import logging
import os
import pydoc
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.cli import ArgsType

from zamba_lcli.cli._jsonargparse import replaced
from zamba_lcli.cli.checks import LIGHTNINGS
from zamba_lcli.cli.cli import ZambaCLI
from zamba_lcli.cli.interruption import ending_when_interrupted
from zamba_lcli.cli.messages import describe_lightning_error, find_input_error
from zamba_lcli.cli.parser import command_line
from zamba_lcli.console import print_once
from zamba_lcli.data.video.deadline import NoAnswerError

IGNORED_WARNINGS = (  # that no user of this program can act on
    r"Found \d+ module\(s\) in eval mode",  # frozen layers are meant to be
    r"You're resuming from a checkpoint that ended before the epoch ended",  # the sampler goes on where it ended
    r"LightningCLI's args parameter is intended to run from within Python",  # it is
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's call
    r"It is recommended to use `self\.log\(.*sync_dist=True\)`",  # what is logged is summed over the processes already
    r"torch\.distributed\.nn\.functional\.all_gather is deprecated",  # Lightning's call
)
INPUT_ERRORS = (ValueError, TypeError, ImportError, MisconfigurationException)
SYSTEM_ERRORS = (RuntimeError, MemoryError, OSError)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)
DISK_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def main(args: ArgsType = None) -> None:
    """Runs ``zamba``.

    Args:
        args: The command line, e.g. ``["fit", "--config", "demo.yaml"]``; that of the process if None.

    Raises:
        SystemExit: With a message on stderr: with code 2 if something given is wrong, with 1 if the machine fails the run
            (memory, disk, a worker that is killed), with 130 or 143 if it is interrupted.
    """
    keep_freed_memory()
    with program_settings(), ending_when_interrupted(command_line(args)):
        try:
            ZambaCLI(args)
        except (pydoc.ErrorDuringImport, *INPUT_ERRORS, *SYSTEM_ERRORS) as error:
            described = describe(error)
            if described is None:
                raise
            message, code = described
            print_once(f"error: {message}", file=sys.stderr)
            raise SystemExit(code) from error


@contextmanager
def program_settings() -> Iterator[None]:
    """Sets what the program needs of warnings, logging and imports, and takes it back: others may run in the process too."""
    advertising = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    folder = os.getcwd()
    known = folder in sys.path
    with warnings.catch_warnings(), replaced(warnings, formatwarning=format_warning):
        for message in IGNORED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        advertising.addFilter(_is_no_advertisement)
        if not known:
            sys.path.append(folder)  # where a user's own classes are; last, so that no file there hides a package
        try:
            yield
        finally:
            advertising.removeFilter(_is_no_advertisement)
            if not known:
                sys.path.remove(folder)


def describe(error: Exception) -> tuple[str, int] | None:
    """Returns message and exit code of an error that is not a bug; None for any other error."""
    if isinstance(error, pydoc.ErrorDuringImport):  # jsonargparse imports what a class_path names with pydoc
        return describe_import_error(error), 2
    if isinstance(error, INPUT_ERRORS):
        deliberate = is_refusal_of_lightning(error) or is_refusal_in_setup(error)
        cause = find_input_error(error) or (error if deliberate else None)
        if cause is None:
            return None
        # torch puts the traceback of a worker in front of its error
        text = str(cause).rpartition("InputError: ")[2] if "DataLoader worker" in str(cause) else str(cause)
        return describe_lightning_error(text.strip()), 2
    refusal = (str(error).strip(), 2) if is_refusal_in_setup(error) else None
    return describe_system_error(error) or refusal


def is_refusal_of_lightning(error: BaseException) -> bool:
    """Returns whether Lightning raised an error deliberately, as it does for arguments that do not fit together."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    raised = linecache.getline(frame.f_code.co_filename, line).strip().startswith("raise ")
    return raised and str(frame.f_globals.get("__name__")).startswith(LIGHTNINGS)


def is_refusal_in_setup(error: BaseException) -> bool:
    """Returns whether Lightning or torch raised an error deliberately before anything was trained.

    As they do where the machine, or what is installed on it, cannot run the configuration.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    if any(str(frame.f_globals.get("__name__")).startswith("pytorch_lightning.loops.") for frame, _ in frames):
        return False
    frame, line = frames[-1]
    raised = linecache.getline(frame.f_code.co_filename, line).strip().startswith("raise ")
    return raised and str(frame.f_globals.get("__name__")).startswith((*LIGHTNINGS, "torch."))


def describe_import_error(error: pydoc.ErrorDuringImport) -> str:
    """Returns file, line and error of a user's module that a class path names."""
    cause = error.value
    if isinstance(cause, SyntaxError):
        file, line, text = cause.filename, cause.lineno, cause.msg
    else:
        installed = tuple(sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib", "platlib"))
        frames = traceback.extract_tb(error.tb)
        place = ([frame for frame in frames if not frame.filename.startswith(installed)] or frames)[-1]
        file, line, text = place.filename, place.lineno, str(cause)
    return (
        f"{file}, line {line}: {type(cause).__name__}: {text.rstrip('.')}. The module is imported because a class_path of the "
        "configuration names it."
    )


def describe_system_error(error: BaseException) -> tuple[str, int] | None:
    """Returns message and exit code if memory, disk or a worker failed; None for any other error."""
    text = str(error)
    if isinstance(error, NoAnswerError):  # a worker's has its traceback in front
        return text.rpartition(f"{NoAnswerError.__name__}: ")[2].strip(), 1
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return (
            "out of memory. Reduce data.batch_size and raise trainer.accumulate_grad_batches by the same factor, which trains "
            "alike; or reduce data.height and data.width; trainer.precision: bf16-mixed needs less memory, too. "
            f"({text.strip().splitlines()[-1] if text.strip() else type(error).__name__})",
            1,
        )
    if text.startswith("DataLoader timed out"):
        return (
            f"no clips came from the workers: {text}. Either a disk or a network drive does not answer, or batches were lost "
            "for lack of shared memory (docker run --shm-size), which data.num_workers: 0 does not need. To resume a fit, "
            "give --ckpt_path.",
            1,
        )
    if "DataLoader worker" in text:
        return (
            f"a worker that reads clips was killed: {text.splitlines()[0]}. Most often the machine is out of memory: "
            "reduce data.num_workers or data.batch_size. A container may also have too little shared memory (docker run "
            "--shm-size). To resume a fit, give --ckpt_path.",
            1,
        )
    if isinstance(error, NotImplementedError) and " not implemented for '" in text:
        return (
            f"trainer.precision: this machine cannot run the network in it: {text}. Use bf16-mixed or 32-true; or a GPU.",
            2,
        )
    if text.startswith("Early stopping conditioned on metric"):
        return text, 2
    if isinstance(error, OSError) and error.filename is not None and error.errno in UNWRITABLE:
        return f"{error.filename}: {error.strerror}. Choose a writable folder.", 2
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        where = "" if error.filename is None else f"{error.filename}: "
        return f"{where}{error.strerror}. The file being written was discarded. Free some space and run again.", 1
    return None


def keep_freed_memory() -> None:
    """Lets the C library keep the memory that is freed, for what is allocated next.

    By default glibc takes each large piece anew from the system, which clears it page by page; every layer of a network on
    frames of a clip makes such a piece. Measured on two cores: a forward of SlowFast takes a fifth less time in float32.
    Elsewhere than with glibc nothing is done.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Returns a warning as it is shown: the text of ours, the text and the place of others."""
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        return f"warning: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    """Returns False for a tip in Lightning's log to install another of its packages."""
    return not any(name in str(record.msg) for name in ("litlogger", "litmodels"))
