"""What a sampling strategy is: which times of a clip are looked at, chosen by class path in the YAML.

Strategies work on presentation times in seconds, from 0.0 at the first frame. A new one is a frozen dataclass that derives from
``FrameSampling``, or from ``ContentSampling`` if it has to see the pictures; its arguments travel in checkpoints.
"""

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zamba_lcli.errors import InputError

TooShort: TypeAlias = Literal["repeat_last", "refuse"]
Times: TypeAlias = NDArray[np.float64]
Frames: TypeAlias = NDArray[np.uint8]  # (N, H, W, 3) RGB

KEPT_BYTES = 1 << 28  # at most, of the small pictures kept of a clip until the choice is made


class TooShortError(Exception):
    """A clip shorter than the strategy allows."""


class TooLongError(Exception):
    """A clip with more pictures to choose from than may be kept in memory."""


@dataclass(frozen=True)
class Timeline:
    """Times and key frames of a clip, known before any frame is decoded."""

    times: Times  # (N,) presentation times in seconds, ascending, from 0.0
    keyframes: NDArray[np.bool_]  # (N,) whether decoding can start there

    @property
    def duration(self) -> float:
        """Time of the last frame in seconds; 0.0 for a single frame."""
        return float(self.times[-1])

    @property
    def end(self) -> float:
        """End of the last frame in seconds; it is shown for as long as the one before it."""
        return self.duration + (float(np.diff(self.times[-2:])[0]) if len(self.times) > 1 else 0.0)

    @property
    def frame_rate(self) -> float:
        """Frames a second, on average; 0.0 for a single frame."""
        return (len(self.times) - 1) / self.duration if self.duration else 0.0


class FrameSampling(ABC):
    """Base of all strategies: chooses times; the reader delivers the frames shown then."""

    num_frames: int  # in each of the num_clips
    num_clips: int = 1  # parts of a clip that the model looks at separately

    @abstractmethod
    def times(self, timeline: Timeline) -> Times:
        """Returns the times to look at: (num_clips x num_frames,) seconds, ascending in each of the parts.

        Raises:
            TooShortError: If the clip is too short and ``too_short`` is ``refuse``.
        """

    def stated(self) -> dict[str, Any]:
        """Returns ``class_path`` and ``init_args`` as plain values, as in a YAML."""
        stated: dict[str, Any] = plain_value(self)
        return stated


class Watcher(ABC):
    """Sees the small pictures of a clip one by one as they are decoded, then chooses among their times."""

    @abstractmethod
    def see(self, picture: Frames) -> None:
        """Takes the next picture, uint8 (preview_height, preview_width, 3)."""

    @abstractmethod
    def choose(self, times: Times, seen: NDArray[np.int64]) -> Times:
        """Chooses among the times looked at.

        Args:
            times: (N,) seconds.
            seen: (N,) the picture shown then, 0 for the first one seen; one that replaces damaged ones comes several times.

        Returns:
            (num_frames,) seconds, ascending.
        """


class ContentSampling(FrameSampling):
    """Base of the strategies that see the pictures of a clip, scaled down, before they choose.

    All frames are decoded, at most ``preview_fps`` of them a second. A strategy without a ``watch`` of its own keeps all
    pictures until it chooses, 256 MiB at most; a clip with more fails.
    """

    preview_fps: float
    preview_height: int
    preview_width: int

    def times(self, timeline: Timeline) -> Times:
        """Returns the times of the frames to see: (N,) seconds, at most ``preview_fps`` a second."""
        return timeline.times[at_most(self.preview_fps, timeline)]

    def watch(self, pictures: int) -> Watcher:
        """Returns the watcher of one clip.

        Args:
            pictures: Number of pictures that it will see, at most.

        Raises:
            TooLongError: If they take more than 256 MiB.
        """
        size = pictures * self.preview_height * self.preview_width * 3
        if size > KEPT_BYTES:
            raise TooLongError(
                f"{pictures} pictures of {self.preview_height} x {self.preview_width} pixels would be kept to choose from, "
                f"{size >> 20} MiB, but {KEPT_BYTES >> 20} MiB is the most. Lower preview_fps"
            )
        return _AllKept(self)

    @abstractmethod
    def choose(self, times: Times, frames: Frames) -> Times:
        """Chooses among the frames seen.

        Args:
            times: (N,) seconds.
            frames: uint8 (N, preview_height, preview_width, 3).

        Returns:
            (num_frames,) seconds, ascending.

        Raises:
            TooShortError: If there are too few to choose from and ``too_short`` is ``refuse``.
        """


class _AllKept(Watcher):
    """Keeps all pictures for ``ContentSampling.choose``."""

    def __init__(self, sampling: ContentSampling) -> None:
        self.sampling = sampling
        self.pictures: list[Frames] = []

    def see(self, picture: Frames) -> None:
        self.pictures.append(picture)

    def choose(self, times: Times, seen: NDArray[np.int64]) -> Times:
        return self.sampling.choose(times, np.stack([self.pictures[i] for i in seen]))


def at_most(fps: float, timeline: Timeline) -> NDArray[np.int64]:
    """Returns the positions, ascending, of the frames that are seen at a rate of at most ``fps`` a second."""
    # the first frame of each interval; a small amount keeps rates that are equal up to rounding from losing frames
    interval = np.floor(timeline.times * fps + 1e-3).astype(np.int64)
    return np.unique(interval, return_index=True)[1].astype(np.int64)


def check_at_least(least: int, **arguments: float) -> None:
    """Refuses arguments of a sampling below a minimum."""
    for name, value in arguments.items():
        if value < least:
            raise InputError(f"data.sampling.init_args.{name}: {value} is less than {least}.")


def check_positive(**arguments: float) -> None:
    """Refuses arguments of a sampling that are not finite numbers above 0."""
    for name, value in arguments.items():
        if not 0 < value < float("inf"):
            raise InputError(f"data.sampling.init_args.{name}: {value} is not a number above 0.")


def fill_up(times: Times, num_frames: int, too_short: TooShort, what: str) -> Times:
    """Returns ``num_frames`` times: repeats the last one, or raises ``TooShortError``."""
    if too_short == "refuse" and len(times) < num_frames:
        raise TooShortError(f"{len(times)} {what}, but {num_frames} are asked for")
    return np.concatenate([times, np.repeat(times[-1:], num_frames - len(times))])


def plain_value(value: Any, key: str = "data.sampling") -> Any:
    """Returns a value as a YAML has it.

    Args:
        value: The value.
        key: Where it is stated, for the message.

    Raises:
        InputError: If it is an object whose arguments are unknown.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain_value(item, key) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        init_args = {field.name: plain_value(getattr(value, field.name), key) for field in fields(value)}
        return {"class_path": _class_path(type(value)), "init_args": init_args}
    name = getattr(value, "__qualname__", "<locals>")
    if "<" in name:  # an object of some class, a lambda, a function within another
        raise InputError(
            f"{key}: {value!r} cannot be named in a checkpoint. Give the import path of a function or of a class, or "
            "make its class a dataclass."
        )
    return f"{value.__module__}.{name}"


def _class_path(kind: type) -> str:
    """Returns the import path of a class: its package's where that exports it, so that checkpoints outlive moved files."""
    package = sys.modules.get(kind.__module__.rpartition(".")[0])
    exported = getattr(package, kind.__qualname__, None) is kind
    return f"{package.__name__ if package and exported else kind.__module__}.{kind.__qualname__}"
