"""What predictions of a run are, and the base of the formats that write them to files.

A format is a small class, chosen by class path in the YAML. It derives from ``PredictionFormat``, gets the clips one by one,
so that memory stays flat, and writes to a path that ``WritePredictions`` moves into place once all clips are written.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from zamba_lcli.data.video.reading import TIME_LIMIT
from zamba_lcli.errors import InputError
from zamba_lcli.types import BLANK as BLANK
from zamba_lcli.types import Task

# usual names of classes that are no animals, in any case
PEOPLE = ("human", "person")
VEHICLES = ("vehicle",)


@dataclass(frozen=True)
class PredictedPart:
    """The prediction for a part of a clip; most clips have one part."""

    probabilities: list[float]  # (classes,)
    times: list[float]  # (T,) seconds from the first frame of the file at which the frames are shown
    frame_numbers: list[int]  # (T,) indices of the frames in the file, 0 is the first


@dataclass(frozen=True)
class PredictedRow:
    """The prediction for a clip, as a process of the run knows it."""

    filepath: str  # as found, or as written in the table
    predicted_at: str  # UTC, as in 2020-05-30T04:57:37Z
    probabilities: list[float] = field(default_factory=list)  # (classes,); empty if the clip could not be read
    parts: list[PredictedPart] = field(default_factory=list)
    frame_rate: float = 0.0  # mean, frames per second; 0 if unknown
    duration: float = 0.0  # seconds
    error: str = ""  # why the clip could not be read
    note: str = ""  # how much of a clip that is damaged or cut off could be read
    crop: str = ""  # animal (cut out), whole (nothing found), blank (nothing found, not looked at); empty without crops
    windows: list[list[float]] = field(default_factory=list)  # of each frame looked at: its number, x, y, width, height
    boxes: list[list[float]] = field(default_factory=list)  # of each: frame of the file, x, y, width, height, score

    @property
    def status(self) -> str:
        """``ok`` or ``failed``."""
        return "failed" if self.error else "ok"


@dataclass(frozen=True)
class PredictedClip(PredictedRow):
    """The prediction for a clip with the clip's place, as a format gets it."""

    _: KW_ONLY
    path: Path  # of the file
    site: str | None = None  # as in the table


@dataclass(frozen=True)
class PredictionRun:
    """What all clips of a run have in common."""

    class_names: Sequence[str]
    task: Task
    classifier: str  # program and version, model and checkpoint
    has_sites: bool  # whether the table of the clips has a column `site`
    filepaths: Sequence[str]  # of all clips, in order
    paths: Sequence[Path]  # of their files
    folder: Path  # output folder of all formats
    root: Path | None = None  # absolute; a folder that holds all clips; None where filepaths are relative to one
    time_limit: float = TIME_LIMIT  # seconds for reading a clip again
    has_crops: bool = False  # whether clips are looked at in windows


class PredictionFormat(ABC):
    """Base of all formats."""

    filename: str  # of the file or folder in the output folder

    def check(self, run: PredictionRun) -> None:  # noqa: B027  (most formats can write any run)
        """Refuses, before anything is predicted, a run that this format cannot write.

        Raises:
            InputError: With the remedy.
        """

    @abstractmethod
    def write(self, path: Path, clips: Iterable[PredictedClip], run: PredictionRun) -> None:
        """Writes all clips, in order, to the file or folder ``path``, which does not exist."""


def boxes_of(clip: PredictedClip, part: PredictedPart) -> list[list[float]]:
    """Returns the boxes in a part of a clip, in the order of their frames; a single part is the whole clip."""
    first, last = part.frame_numbers[0], part.frame_numbers[-1]
    return [box for box in clip.boxes if len(clip.parts) == 1 or first <= box[0] <= last]


def top_class(probabilities: Sequence[float]) -> int:
    """Returns the position of the highest probability; of equal ones, the first."""
    return probabilities.index(max(probabilities))


def is_called(class_name: str, names: Sequence[str]) -> bool:
    """Returns whether a class has one of the names, in any case."""
    return class_name.casefold() in {name.casefold() for name in names}


def printable(filepath: str) -> str:
    """Returns a name as text, bytes that are not text as Python's escapes."""
    return filepath.encode("utf-8", "backslashreplace").decode()


def check_text(filename: str, run: PredictionRun) -> None:
    """Refuses clips whose names are not text.

    Raises:
        InputError: With the first such name.
    """
    for filepath in run.filepaths:
        try:
            filepath.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"{filename}: the name of the file {filepath!r} is not text. Rename it, or use CSVPredictions."
            ) from None


def check_thresholds(threshold: float | dict[str, float] | None, run: PredictionRun) -> None:
    """Refuses thresholds that are no probabilities, or not those of the run's classes.

    Raises:
        InputError: With the names of the classes.
    """
    given = threshold if isinstance(threshold, dict) else {} if threshold is None else {"": threshold}
    if wrong := {name: value for name, value in given.items() if not 0 <= value <= 1}:
        raise InputError(f"threshold: {sorted(wrong.values())} is not between 0 and 1.")
    if isinstance(threshold, dict) and set(threshold) != set(run.class_names):
        missing, unknown = sorted(set(run.class_names) - set(threshold)), sorted(set(threshold) - set(run.class_names))
        raise InputError(
            f"threshold: the classes {missing} have none, and there are no classes {unknown}. Give each class one, or one "
            "number for all."
        )
