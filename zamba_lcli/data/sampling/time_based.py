"""Strategies that choose frames by their times, and the jitter that moves these in training."""

from dataclasses import dataclass

import numpy as np

from zamba_lcli.data.sampling.base import (
    FrameSampling,
    Timeline,
    Times,
    TooShort,
    TooShortError,
    check_at_least,
    check_positive,
    fill_up,
)
from zamba_lcli.errors import InputError

EARLY_FRAMES = (2, 8, 12, 18, 24, 36, 48, 60, 72, 84, 96, 108, 120, 132, 144, 156)  # at EARLY_FPS
EARLY_FPS = 24


@dataclass(frozen=True)
class EvenlySpaced(FrameSampling):
    """Times evenly spaced from the first frame to the last one, both included.

    A clip with fewer frames than asked for shows some of them several times in a row.

    Args:
        num_frames: Number of frames.
    """

    num_frames: int = 32

    def __post_init__(self) -> None:
        """Checks the arguments."""
        check_at_least(1, num_frames=self.num_frames)

    def times(self, timeline: Timeline) -> Times:
        """Returns (num_frames,) seconds, from 0 to the time of the last frame."""
        return np.linspace(0.0, timeline.duration, self.num_frames)


@dataclass(frozen=True)
class FixedRate(FrameSampling):
    """Frames at a fixed rate, from a start time on.

    Args:
        fps: Frames a second.
        num_frames: Number of frames.
        start: Seconds from the first frame.
        too_short: Clips that end earlier: ``repeat_last`` repeats their last frame; ``refuse`` counts them as
            unreadable, with this reason.
    """

    fps: float = 8.0
    num_frames: int = 32
    start: float = 0.0
    too_short: TooShort = "repeat_last"

    def __post_init__(self) -> None:
        """Checks the arguments."""
        check_at_least(1, num_frames=self.num_frames)
        check_at_least(0, start=self.start)
        check_positive(fps=self.fps)

    def times(self, timeline: Timeline) -> Times:
        """Returns (num_frames,) seconds: start, start + 1 / fps, ..., none after the last frame."""
        return _clip_to_end(self.start + np.arange(self.num_frames) / self.fps, timeline, self.too_short)


@dataclass(frozen=True)
class SeveralClips(FrameSampling):
    """Several parts of a video at a fixed rate, evenly spread from its beginning to its end.

    The model looks at each part separately; its logits are averaged. Parts overlap where the video is shorter than all of
    them together.

    Args:
        num_clips: Number of parts.
        fps: Frames a second in each part.
        num_frames: Frames of each part.
        too_short: Videos shorter than one part: ``repeat_last`` or ``refuse``.
    """

    num_clips: int = 3
    fps: float = 8.0
    num_frames: int = 32
    too_short: TooShort = "repeat_last"

    def __post_init__(self) -> None:
        """Checks the arguments."""
        check_at_least(1, num_clips=self.num_clips, num_frames=self.num_frames)
        check_positive(fps=self.fps)

    def times(self, timeline: Timeline) -> Times:
        """Returns (num_clips x num_frames,) seconds, ascending in each part."""
        part = np.arange(self.num_frames) / self.fps
        last_start = max(0.0, timeline.duration - part[-1])
        starts = [last_start / 2] if self.num_clips == 1 else np.linspace(0.0, last_start, self.num_clips)
        return np.concatenate([_clip_to_end(start + part, timeline, self.too_short) for start in starts])


@dataclass(frozen=True)
class EarlyBias(FrameSampling):
    """Sixteen frames, most of them early in the clip, when the animal that triggered the camera is likely in the picture.

    Frames 2, 8, 12, 18, 24, 36, 48, ... 156 at 24 frames a second, the choice of the winner of the Pri-matrix Factorization
    challenge (https://www.drivendata.org/competitions/49).

    Args:
        too_short: Clips of less than 6.5 seconds: ``repeat_last`` or ``refuse``.
    """

    too_short: TooShort = "repeat_last"

    @property
    def num_frames(self) -> int:  # type: ignore[override]
        """Number of frames."""
        return len(EARLY_FRAMES)

    def times(self, timeline: Timeline) -> Times:
        """Returns (16,) seconds."""
        return _clip_to_end(np.array(EARLY_FRAMES) / EARLY_FPS, timeline, self.too_short)


@dataclass(frozen=True)
class GivenFrames(FrameSampling):
    """Frames by their numbers.

    Args:
        indices: Frame numbers in ascending order, 0 for the first frame.
        too_short: Clips without such a frame: ``repeat_last`` or ``refuse``.
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
    """Key frames, which are the cheapest to read; evenly spaced ones where a clip has more than ``num_frames``.

    Args:
        num_frames: Number of frames.
        too_short: Clips with fewer key frames: ``repeat_last`` or ``refuse``.
    """

    num_frames: int = 16
    too_short: TooShort = "repeat_last"

    def __post_init__(self) -> None:
        """Checks the arguments."""
        check_at_least(1, num_frames=self.num_frames)

    def times(self, timeline: Timeline) -> Times:
        """Returns (num_frames,) seconds."""
        keys = timeline.times[timeline.keyframes]
        if not len(keys):  # a stream may mark none
            keys = timeline.times[:1]
        if len(keys) > self.num_frames:
            keys = keys[np.linspace(0, len(keys) - 1, self.num_frames).round().astype(int)]
        return fill_up(keys, self.num_frames, self.too_short, "key frames")


@dataclass(frozen=True)
class TemporalJitter:
    """Moves the times that a sampling chooses, differently each time a train clip is drawn.

    Times before the first frame or after the last one are clipped to it.

    Args:
        shift: Maximum in seconds by which all times of a part are moved together, earlier or later.
        step: Maximum by which each time is moved on its own, as a share (0 to 1) of half the distance to its neighbour, so
            that times stay in order.
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

    def move(self, times: Times, duration: float, rng: np.random.Generator) -> Times:
        """Moves the times of a part.

        Args:
            times: (T,) seconds, ascending.
            duration: Time of the clip's last frame.
            rng: Draws the shift and the steps.

        Returns:
            (T,) seconds, ascending, from 0 to ``duration``.
        """
        direction = rng.uniform(-self.step, self.step, len(times)) / 2
        gaps = np.diff(times, prepend=times[:1], append=times[-1:])  # to the one before, and after it
        moved = times + direction * np.where(direction < 0, gaps[:-1], gaps[1:])
        return np.clip(moved + rng.uniform(-self.shift, self.shift), 0.0, duration)


def _clip_to_end(times: Times, timeline: Timeline, too_short: TooShort) -> Times:
    """Clips times to that of the last frame, or raises ``TooShortError``."""
    if too_short == "refuse" and times[-1] > timeline.end + 1e-6:
        raise TooShortError(f"{timeline.end:.2f} s long, but {times[-1]:.2f} s are looked at")
    return np.minimum(times, timeline.duration)
