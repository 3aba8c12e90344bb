"""Which times of a clip are looked at: one small class for each strategy, chosen by class path in the YAML.

All work on presentation times in seconds, from 0.0 at the first frame. A new strategy is a frozen dataclass that derives from
``FrameSampling``, or from ``ContentSampling`` if it has to see the pictures; its arguments travel in checkpoints.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zamba_lcli.errors import InputError

TooShort: TypeAlias = Literal["repeat_last", "refuse"]
Times: TypeAlias = NDArray[np.float64]
Frames: TypeAlias = NDArray[np.uint8]  # (N, H, W, 3) RGB

EARLY_FRAMES = (2, 8, 12, 18, 24, 36, 48, 60, 72, 84, 96, 108, 120, 132, 144, 156)  # at EARLY_FPS
EARLY_FPS = 24
KEPT_BYTES = 1 << 28  # of the small pictures that are kept of a clip before it is decided, at the most
SCORED_TOGETHER = 16  # pictures that a scorer is given at a time, at the most


class TooShortError(Exception):
    """A clip in which there is less to look at than asked for."""


class TooLongError(Exception):
    """A clip in which there is more to look at than the memory is meant for."""


@dataclass(frozen=True)
class Timeline:
    """What is known of a clip before any of its frames is decoded."""

    times: Times  # (N,) presentation times in seconds, ascending, from 0.0
    keyframes: NDArray[np.bool_]  # (N,) whether decoding can start there

    @property
    def duration(self) -> float:
        """Time of the last frame in seconds; 0.0 for a single frame."""
        return float(self.times[-1])

    @property
    def end(self) -> float:
        """Time in seconds when the last frame ends, which is shown for as long as the one before it."""
        return self.duration + (float(np.diff(self.times[-2:])[0]) if len(self.times) > 1 else 0.0)


class FrameSampling(ABC):
    """Base of all strategies: chooses times, and leaves it to the reader which frames are shown then."""

    num_frames: int  # in each of the num_clips
    num_clips: int = 1  # parts of a clip that are looked at apart from each other

    @abstractmethod
    def times(self, timeline: Timeline) -> Times:
        """Returns the times to look at: (num_clips x num_frames,) seconds, ascending in each of the parts.

        Raises:
            TooShortError: If the clip has less to look at and the strategy is told to refuse such clips.
        """

    def stated(self) -> dict[str, Any]:
        """Returns ``class_path`` and ``init_args``, plain values as in a YAML."""
        stated: dict[str, Any] = _plain(self)
        return stated


class Watcher(ABC):
    """Sees the small pictures of a clip one by one, as they are decoded, and chooses when it has seen all."""

    @abstractmethod
    def see(self, picture: Frames) -> None:
        """Takes the next picture, uint8 (preview_height, preview_width, 3)."""

    @abstractmethod
    def choose(self, times: Times, seen: NDArray[np.int64]) -> Times:
        """Chooses among the times looked at.

        Args:
            times: (N,) seconds.
            seen: (N,) which picture is shown then, 0 is the first one seen; one that stands for damaged ones several times.

        Returns:
            (num_frames,) seconds, ascending.
        """


class ContentSampling(FrameSampling):
    """Base of the strategies that have to see the pictures, small ones, before they choose.

    All frames are decoded, but for those that come faster than ``preview_fps``. Unless a strategy has a ``watch`` of its own,
    all pictures are kept until then, 256 MiB of them at the most; a clip with more fails.
    """

    preview_fps: float
    preview_height: int
    preview_width: int

    def times(self, timeline: Timeline) -> Times:
        """Returns the times of the frames to be seen: (N,) seconds, ``preview_fps`` of them a second at the most."""
        # the first frame of each interval; a small amount keeps rates that are equal up to rounding from losing frames
        interval = np.floor(timeline.times * self.preview_fps + 1e-3).astype(np.int64)
        return timeline.times[np.unique(interval, return_index=True)[1]]

    def watch(self, pictures: int) -> Watcher:
        """Returns what sees the pictures of a clip, so many at the most.

        Raises:
            TooLongError: If they are too many to be kept.
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
            TooShortError: If there are fewer to choose from and the strategy is told to refuse such clips.
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


# ---- by time ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EvenlySpaced(FrameSampling):
    """Times evenly spaced from the first frame to the last one, both included.

    A clip with fewer frames than asked for shows some of them several times in a row.

    Args:
        num_frames: How many times.
    """

    num_frames: int = 32

    def __post_init__(self) -> None:
        """Checks the arguments."""
        _check_at_least(1, num_frames=self.num_frames)

    def times(self, timeline: Timeline) -> Times:
        """Returns (num_frames,) seconds, from 0 to the time of the last frame."""
        return np.linspace(0.0, timeline.duration, self.num_frames)


@dataclass(frozen=True)
class FixedRate(FrameSampling):
    """So many frames a second, from a time on, until there are enough.

    Args:
        fps: Frames a second.
        num_frames: How many times.
        start: Where to begin, in seconds from the first frame.
        too_short: What to do with clips that end before: ``repeat_last`` repeats their last frame; ``refuse`` counts them as
            unreadable, with this reason.
    """

    fps: float = 8.0
    num_frames: int = 32
    start: float = 0.0
    too_short: TooShort = "repeat_last"

    def __post_init__(self) -> None:
        """Checks the arguments."""
        _check_at_least(1, num_frames=self.num_frames)
        _check_at_least(0, start=self.start)
        _check_positive(fps=self.fps)

    def times(self, timeline: Timeline) -> Times:
        """Returns (num_frames,) seconds: start, start + 1 / fps and so on, none after the last frame."""
        return _within(self.start + np.arange(self.num_frames) / self.fps, timeline, self.too_short)


@dataclass(frozen=True)
class SeveralClips(FrameSampling):
    """Several parts of a video, each with so many frames a second, evenly spread from its beginning to its end.

    The model looks at each part by itself; its logits are averaged. Where the video is shorter than the parts together, they
    overlap.

    Args:
        num_clips: How many parts.
        fps: Frames a second in each part.
        num_frames: Frames of each part.
        too_short: What to do with videos shorter than one part: ``repeat_last`` or ``refuse``.
    """

    num_clips: int = 3
    fps: float = 8.0
    num_frames: int = 32
    too_short: TooShort = "repeat_last"

    def __post_init__(self) -> None:
        """Checks the arguments."""
        _check_at_least(1, num_clips=self.num_clips, num_frames=self.num_frames)
        _check_positive(fps=self.fps)

    def times(self, timeline: Timeline) -> Times:
        """Returns (num_clips x num_frames,) seconds, ascending in each part."""
        part = np.arange(self.num_frames) / self.fps
        last_start = max(0.0, timeline.duration - part[-1])
        starts = [last_start / 2] if self.num_clips == 1 else np.linspace(0.0, last_start, self.num_clips)
        return np.concatenate([_within(start + part, timeline, self.too_short) for start in starts])


@dataclass(frozen=True)
class EarlyBias(FrameSampling):
    """Sixteen times, more of them early in the clip, when what set off the camera is most likely in the picture.

    The frames 2, 8, 12, 18, 24, 36, 48, ... 156 at 24 a second, as the winner of the Pri-matrix Factorization challenge chose
    them (https://www.drivendata.org/competitions/49).

    Args:
        too_short: What to do with clips of less than 6.5 seconds: ``repeat_last`` or ``refuse``.
    """

    too_short: TooShort = "repeat_last"

    @property
    def num_frames(self) -> int:  # type: ignore[override]
        """Number of frames."""
        return len(EARLY_FRAMES)

    def times(self, timeline: Timeline) -> Times:
        """Returns (16,) seconds."""
        return _within(np.array(EARLY_FRAMES) / EARLY_FPS, timeline, self.too_short)


@dataclass(frozen=True)
class GivenFrames(FrameSampling):
    """The frames with the given numbers.

    Args:
        indices: Numbers of frames, the first one is 0.
        too_short: What to do with clips that have no such frame: ``repeat_last`` or ``refuse``.
    """

    indices: list[int]
    too_short: TooShort = "repeat_last"

    def __post_init__(self) -> None:
        """Checks the arguments."""
        if not self.indices or min(self.indices) < 0 or sorted(self.indices) != list(self.indices):
            raise InputError(
                f"data.sampling.init_args.indices: {self.indices} is not an ascending list of frame numbers."
            )

    @property
    def num_frames(self) -> int:  # type: ignore[override]
        """Number of frames."""
        return len(self.indices)

    def times(self, timeline: Timeline) -> Times:
        """Returns (num_frames,) seconds."""
        frames = len(timeline.times)
        if self.too_short == "refuse" and frames <= self.indices[-1]:
            raise TooShortError(f"{frames} frames, but frame {self.indices[-1]} is asked for")
        return timeline.times[np.minimum(self.indices, frames - 1)]


@dataclass(frozen=True)
class KeyFrames(FrameSampling):
    """Frames that are stored whole: the cheapest to read. From more than asked for, evenly spaced ones.

    Args:
        num_frames: How many.
        too_short: What to do with clips that have fewer: ``repeat_last`` or ``refuse``.
    """

    num_frames: int = 16
    too_short: TooShort = "repeat_last"

    def __post_init__(self) -> None:
        """Checks the arguments."""
        _check_at_least(1, num_frames=self.num_frames)

    def times(self, timeline: Timeline) -> Times:
        """Returns (num_frames,) seconds."""
        keys = timeline.times[timeline.keyframes]
        if not len(keys):  # a stream may mark none
            keys = timeline.times[:1]
        if len(keys) > self.num_frames:
            keys = keys[np.linspace(0, len(keys) - 1, self.num_frames).round().astype(int)]
        return _filled(keys, self.num_frames, self.too_short, "key frames")


# ---- by content ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SceneChanges(ContentSampling):
    """The first frame of each scene: where the picture differs from the one before by more than a threshold.

    The first frame of the clip begins a scene. Of more scenes than asked for, those with the largest changes are taken.

    Args:
        threshold: Mean absolute difference of two pictures in a row, as a share of the range from black to white.
        num_frames: How many.
        too_short: What to do with clips that have fewer scenes: ``repeat_last`` or ``refuse``.
        preview_fps: Frames a second that are compared at the most.
        preview_height: Height in pixels at which they are compared.
        preview_width: Width in pixels at which they are compared.
    """

    threshold: float = 0.1
    num_frames: int = 16
    too_short: TooShort = "repeat_last"
    preview_fps: float = 30.0
    preview_height: int = 60
    preview_width: int = 80

    def __post_init__(self) -> None:
        """Checks the arguments."""
        _check_preview(self)
        _check_at_least(0, threshold=self.threshold)

    def choose(self, times: Times, frames: Frames) -> Times:
        """Returns (num_frames,) seconds."""
        change = np.array([np.inf, *(_change(a, b) for a, b in pairwise(frames))])
        return self._of(times, change)

    def watch(self, pictures: int) -> Watcher:
        """Returns what keeps no more than a picture."""
        return _Changes(self._of)

    def _of(self, times: Times, change: NDArray[np.float64]) -> Times:
        scenes = np.flatnonzero(change > self.threshold)
        chosen = np.sort(scenes[np.argsort(-change[scenes], kind="stable")][: self.num_frames])
        return _filled(times[chosen], self.num_frames, self.too_short, "scenes")


@dataclass(frozen=True)
class MostMotion(ContentSampling):
    """Frames that differ most from the clip's background, in order of time.

    The background is the median of the frames at low resolution; no weights are needed. All of these are kept until then,
    256 MiB at the most (18,000 pictures, or 38 minutes, with the values below); a longer clip fails.

    Args:
        num_frames: How many.
        too_short: What to do with clips that have fewer frames: ``repeat_last`` or ``refuse``.
        preview_fps: Frames a second that are compared at the most.
        preview_height: Height in pixels at which they are compared.
        preview_width: Width in pixels at which they are compared.
    """

    num_frames: int = 16
    too_short: TooShort = "repeat_last"
    preview_fps: float = 8.0
    preview_height: int = 60
    preview_width: int = 80

    def __post_init__(self) -> None:
        """Checks the arguments."""
        _check_preview(self)

    def choose(self, times: Times, frames: Frames) -> Times:
        """Returns (num_frames,) seconds."""
        background = np.median(frames, axis=0).astype(np.int16)
        motion = np.array([np.abs(frame - background).mean() for frame in frames])
        return _highest(motion, times, self.num_frames, self.too_short)


@dataclass(frozen=True)
class HighestScores(ContentSampling):
    """Frames that a function scores highest, such as a detector of animals; in order of time.

    Args:
        scorer: Takes pictures, uint8 (N, preview_height, preview_width, 3), 16 of a clip at a time at the most, and returns a
            score for each, (N,). An import path of a function, or ``class_path`` and ``init_args`` of a dataclass that can be
            called.
        num_frames: How many.
        too_short: What to do with clips that have fewer frames: ``repeat_last`` or ``refuse``.
        preview_fps: Frames a second that are scored at the most.
        preview_height: Height in pixels of the pictures that are scored.
        preview_width: Width in pixels of the pictures that are scored.
    """

    scorer: Callable[[Frames], Sequence[float]]
    num_frames: int = 16
    too_short: TooShort = "repeat_last"
    preview_fps: float = 4.0
    preview_height: int = 360
    preview_width: int = 640

    def __post_init__(self) -> None:
        """Checks the arguments."""
        _check_preview(self)
        _plain(self.scorer)  # refuses what no checkpoint could keep

    def choose(self, times: Times, frames: Frames) -> Times:
        """Returns (num_frames,) seconds."""
        return _highest(self.scores(frames), times, self.num_frames, self.too_short)

    def watch(self, pictures: int) -> Watcher:
        """Returns what keeps no more pictures than are scored together."""
        return _Scores(self)

    def scores(self, frames: Frames) -> NDArray[np.float64]:
        """Returns the scores of pictures, (N,)."""
        scores = np.asarray(self.scorer(frames), np.float64)
        if scores.shape != (len(frames),):
            raise InputError(
                f"data.sampling.init_args.scorer: it gave scores of the shape {scores.shape} for {len(frames)} pictures."
            )
        return scores


class _Changes(Watcher):
    """Compares each picture with the one before."""

    def __init__(self, of: Callable[[Times, NDArray[np.float64]], Times]) -> None:
        self.of = of
        self.last: Frames | None = None
        self.changes: list[float] = []

    def see(self, picture: Frames) -> None:
        self.changes.append(np.inf if self.last is None else _change(self.last, picture))
        self.last = picture

    def choose(self, times: Times, seen: NDArray[np.int64]) -> Times:
        is_new = np.diff(seen, prepend=-1) != 0  # the same picture again is no change
        return self.of(times, np.where(is_new, np.array(self.changes)[seen], 0.0))


class _Scores(Watcher):
    """Lets pictures be scored, some at a time."""

    def __init__(self, sampling: HighestScores) -> None:
        self.sampling = sampling
        self.waiting: list[Frames] = []
        self.scores: list[float] = []

    def see(self, picture: Frames) -> None:
        self.waiting.append(picture)
        if len(self.waiting) == SCORED_TOGETHER:
            self._score()

    def _score(self) -> None:
        if self.waiting:
            self.scores += self.sampling.scores(np.stack(self.waiting)).tolist()
            self.waiting.clear()

    def choose(self, times: Times, seen: NDArray[np.int64]) -> Times:
        self._score()
        return _highest(np.array(self.scores)[seen], times, self.sampling.num_frames, self.sampling.too_short)


# ---- by chance, in training ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TemporalJitter:
    """Moves the times that a sampling chooses, another way each time a train clip is drawn.

    Times that would come before the first frame or after the last one become theirs.

    Args:
        shift: Seconds by which all times of a part are moved together, earlier or later, at the most.
        step: How far each time is moved by itself, between 0 and 1: at the most by that share of half the distance to the next
            one, so that they stay in order.
    """

    shift: float = 0.0
    step: float = 0.0

    def __post_init__(self) -> None:
        """Checks the arguments."""
        if not 0 <= self.shift < float("inf"):
            raise InputError(
                f"data.temporal_jitter.init_args.shift: {self.shift} is not a number of seconds from 0 on."
            )
        if not 0 <= self.step <= 1:
            raise InputError(f"data.temporal_jitter.init_args.step: {self.step} is not between 0 and 1.")

    def move(self, times: Times, duration: float, chance: np.random.Generator) -> Times:
        """Moves the times of a part.

        Args:
            times: (T,) seconds, ascending.
            duration: Time of the clip's last frame.
            chance: Decides.

        Returns:
            (T,) seconds, ascending, from 0 to ``duration``.
        """
        direction = chance.uniform(-self.step, self.step, len(times)) / 2
        gaps = np.diff(times, prepend=times[:1], append=times[-1:])  # to the one before, and after it
        moved = times + direction * np.where(direction < 0, gaps[:-1], gaps[1:])
        return np.clip(moved + chance.uniform(-self.shift, self.shift), 0.0, duration)


# ---- helpers ---------------------------------------------------------------------------------------------------------


def _check_at_least(least: int, **arguments: float) -> None:
    for name, value in arguments.items():
        if value < least:
            raise InputError(f"data.sampling.init_args.{name}: {value} is less than {least}.")


def _check_positive(**arguments: float) -> None:
    for name, value in arguments.items():
        if not 0 < value < float("inf"):
            raise InputError(f"data.sampling.init_args.{name}: {value} is not a number above 0.")


def _change(before: Frames, after: Frames) -> float:
    """Returns the mean absolute difference of two pictures, as a share of the range from black to white."""
    return float(np.abs(after.astype(np.int16) - before).mean() / 255)


def _check_preview(sampling: ContentSampling) -> None:
    _check_at_least(1, num_frames=sampling.num_frames)
    _check_at_least(1, preview_height=sampling.preview_height, preview_width=sampling.preview_width)
    _check_positive(preview_fps=sampling.preview_fps)


def _within(times: Times, timeline: Timeline, too_short: TooShort) -> Times:
    """Moves times after the last frame to it, or refuses."""
    if too_short == "refuse" and times[-1] > timeline.end + 1e-6:
        raise TooShortError(f"{timeline.end:.2f} s long, but {times[-1]:.2f} s are looked at")
    return np.minimum(times, timeline.duration)


def _filled(times: Times, num_frames: int, too_short: TooShort, what: str) -> Times:
    """Repeats the last time, or refuses."""
    if too_short == "refuse" and len(times) < num_frames:
        raise TooShortError(f"{len(times)} {what}, but {num_frames} are asked for")
    return np.concatenate([times, np.repeat(times[-1:], num_frames - len(times))])


def _highest(scores: NDArray[np.float64], times: Times, num_frames: int, too_short: TooShort) -> Times:
    """Returns the times with the highest scores; of equal ones, the earlier."""
    chosen = np.sort(np.argsort(-scores, kind="stable")[:num_frames])
    return _filled(times[chosen], num_frames, too_short, "frames")


def _plain(value: Any) -> Any:
    """Returns a value as a YAML would state it.

    Raises:
        InputError: If it is an object whose arguments are not known.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        init_args = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {"class_path": _class_path(type(value)), "init_args": init_args}
    name = getattr(value, "__qualname__", "<locals>")
    if "<" in name:  # an object of some class, a lambda, a function within another
        raise InputError(
            f"data.sampling: {value!r} cannot be named in a checkpoint. Give the import path of a function or of a class, or "
            "make its class a dataclass."
        )
    return f"{value.__module__}.{name}"


def _class_path(kind: type) -> str:
    """Returns the import path of a class, by its package where that offers it: files of a package may be moved."""
    package = sys.modules.get(kind.__module__.rpartition(".")[0])
    offered = getattr(package, kind.__qualname__, None) is kind
    return f"{package.__name__ if package and offered else kind.__module__}.{kind.__qualname__}"
