"""Files that predictions are written to: one small class for each format, chosen by class path in the YAML.

A new format derives from ``PredictionFormat``. It gets the clips one by one, so that memory stays flat, and writes to a name
that ``WritePredictions`` moves into place when all is well.
"""

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zamba_lcli.errors import InputError
from zamba_lcli.types import Task


@dataclass(frozen=True)
class PredictedPart:
    """A part of a clip that was looked at by itself; most clips have one."""

    probabilities: list[float]  # (classes,)
    times: list[float]  # (T,) seconds from the first frame of the file: when the frames looked at are shown
    frame_numbers: list[int]  # (T,) which frames of the file they are, 0 is the first


@dataclass(frozen=True)
class PredictedClip:
    """What a run has found out about a clip."""

    filepath: str  # as found, or as written in the table
    path: Path  # where it is
    site: str | None  # as in the table
    predicted_at: str  # time with its zone, as in 2020-05-30T04:57:37Z
    probabilities: list[float] = field(default_factory=list)  # (classes,); empty if the clip could not be read
    parts: list[PredictedPart] = field(default_factory=list)
    frame_rate: float = 0.0  # frames a second on average; 0 if not known
    duration: float = 0.0  # seconds
    error: str = ""  # why it could not be read

    @property
    def status(self) -> str:
        """``ok`` or ``failed``."""
        return "failed" if self.error else "ok"


@dataclass(frozen=True)
class PredictionRun:
    """What all clips of a run have in common."""

    class_names: Sequence[str]
    task: Task
    classifier: str  # program and version, model and checkpoint
    has_sites: bool  # whether the table that names the clips has a column `site`
    filepaths: Sequence[str]  # of all clips, in order
    paths: Sequence[Path]  # where they are


class PredictionFormat(ABC):
    """Base of all formats."""

    filename: str  # of the file or folder in the output folder

    def check(self, run: PredictionRun) -> None:  # noqa: B027  (most formats can write whatever comes)
        """Refuses, before anything is computed, what could not be written.

        Raises:
            InputError: Says what to do about it.
        """

    @abstractmethod
    def write(self, path: Path, clips: Iterable[PredictedClip], run: PredictionRun) -> None:
        """Writes all clips, in order, to the file or folder ``path``, which does not exist."""


@dataclass(frozen=True)
class CSVPredictions(PredictionFormat):
    """``predictions.csv``: a row for each clip, in the order found, whether it could be read or not.

    Columns: ``filepath``; ``site``, if the table that names the clips has it; a probability for each class; ``top_class``, the
    one with the highest; ``status`` (``ok`` or ``failed``) and ``error`` (the reason).

    Args:
        threshold: From which probability on a clip counts as having the class: one number, or one for each class by name. The
            columns ``has_<class>`` then say so with 1 and 0. Null for no such columns.
    """

    threshold: float | dict[str, float] | None = None
    filename = "predictions.csv"

    def check(self, run: PredictionRun) -> None:
        """Refuses thresholds that do not fit the classes, and classes that are called like a column."""
        _check_thresholds(self.threshold, run)
        columns = _columns(self.threshold, run)
        if twice := sorted({name for name in columns if columns.count(name) > 1}):
            raise InputError(
                f"{self.filename}: the classes {twice} have the names of other columns. Use another format."
            )

    def write(self, path: Path, clips: Iterable[PredictedClip], run: PredictionRun) -> None:
        """Writes the table."""
        # names of files need not be text in any encoding: what is not is written as it is
        with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            table = csv.writer(file)
            table.writerow(_columns(self.threshold, run))
            for clip in clips:
                cells = _cells(clip, self.threshold, run)
                table.writerow(f"{cell:.6g}" if isinstance(cell, float) else cell for cell in cells)


# ---- tables ----------------------------------------------------------------------------------------------------------


def _check_thresholds(threshold: float | dict[str, float] | None, run: PredictionRun) -> None:
    given = threshold if isinstance(threshold, dict) else {} if threshold is None else {"": threshold}
    if wrong := {name: value for name, value in given.items() if not 0 <= value <= 1}:
        raise InputError(f"threshold: {sorted(wrong.values())} is not between 0 and 1.")
    if isinstance(threshold, dict) and set(threshold) != set(run.class_names):
        missing, unknown = sorted(set(run.class_names) - set(threshold)), sorted(set(threshold) - set(run.class_names))
        raise InputError(
            f"threshold: the classes {missing} have none, and there are no classes {unknown}. Give each class one, or one "
            "number for all."
        )


def _columns(threshold: float | dict[str, float] | None, run: PredictionRun) -> list[str]:
    has = [] if threshold is None else [f"has_{name}" for name in run.class_names]
    site = ["site"] if run.has_sites else []
    return ["filepath", *site, *run.class_names, *has, "top_class", "status", "error"]


def _cells(
    clip: PredictedClip, threshold: float | dict[str, float] | None, run: PredictionRun
) -> list[str | float | int | None]:
    """Returns the values of a row; None where there is none."""
    site = [clip.site] if run.has_sites else []
    if clip.error:
        blanks = len(_columns(threshold, run)) - len(site) - 3
        return [clip.filepath, *site, *[None] * blanks, clip.status, clip.error]
    has: list[int] = []
    if threshold is not None:
        of = threshold if isinstance(threshold, dict) else dict.fromkeys(run.class_names, threshold)
        has = [int(p >= of[name]) for name, p in zip(run.class_names, clip.probabilities, strict=True)]
    return [clip.filepath, *site, *clip.probabilities, *has, top_class(clip, run), clip.status, None]


def top_class(clip: PredictedClip, run: PredictionRun) -> str:
    """Returns the class with the highest probability; of equal ones, the first."""
    return run.class_names[clip.probabilities.index(max(clip.probabilities))]
