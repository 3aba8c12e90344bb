"""Strategies that choose frames by their content: they see small pictures of a clip, one by one as they are decoded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from zamba_lcli.data.sampling.base import (
    ContentSampling,
    Frames,
    Times,
    TooShort,
    Watcher,
    check_at_least,
    check_positive,
    fill_up,
    plain_value,
)
from zamba_lcli.errors import InputError

SCORED_TOGETHER = 16  # at most, pictures that a scorer is given at a time


@dataclass(frozen=True)
class SceneChanges(ContentSampling):
    """The first frame of each scene: the picture differs from the one before by more than a threshold.

    The first frame of the clip begins a scene. Where a clip has more scenes than ``num_frames``, those with the largest changes
    are taken.

    Args:
        threshold: Mean absolute difference of two consecutive pictures, as a share of the range from black to white.
        num_frames: Number of frames.
        too_short: Clips with fewer scenes: ``repeat_last`` or ``refuse``.
        preview_fps: Maximum rate at which frames are compared, a second.
        preview_height: Height in pixels of the pictures compared.
        preview_width: Width in pixels of the pictures compared.
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
        check_at_least(0, threshold=self.threshold)

    def choose(self, times: Times, frames: Frames) -> Times:
        """Returns (num_frames,) seconds."""
        change = np.array([np.inf, *(_difference(a, b) for a, b in pairwise(frames))])
        return self._of(times, change)

    def watch(self, pictures: int) -> Watcher:
        """Returns a watcher that keeps one picture."""
        return _Changes(self._of)

    def _of(self, times: Times, change: NDArray[np.float64]) -> Times:
        scenes = np.flatnonzero(change > self.threshold)
        chosen = np.sort(scenes[np.argsort(-change[scenes], kind="stable")][: self.num_frames])
        return fill_up(times[chosen], self.num_frames, self.too_short, "scenes")


@dataclass(frozen=True)
class MostMotion(ContentSampling):
    """Frames that differ most from the clip's background, in order of time.

    The background is the median of the frames at low resolution; no weights are needed. All pictures are kept until then, at
    most 256 MiB (18,000 pictures, or 38 minutes, with the defaults); a longer clip fails.

    Args:
        num_frames: Number of frames.
        too_short: Clips with fewer frames: ``repeat_last`` or ``refuse``.
        preview_fps: Maximum rate at which frames are compared, a second.
        preview_height: Height in pixels of the pictures compared.
        preview_width: Width in pixels of the pictures compared.
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


def boxes_of_crop(frames: Frames) -> Sequence[float]:
    """Stands for the boxes of ``data.crop``, by whose confidence frames are scored; it is never called."""
    raise NotImplementedError


@dataclass(frozen=True)
class HighestScores(ContentSampling):
    """Frames with the highest scores of a function, such as an animal detector; in order of time.

    Args:
        scorer: Takes at most 16 pictures of a clip at a time, uint8 (N, preview_height, preview_width, 3), and returns their
            scores, (N,). An import path of a function, or ``class_path`` and ``init_args`` of a callable dataclass. Left out:
            the confidence of the boxes that are found for ``data.crop``, in the frames that its finder looks at.
        num_frames: Number of frames.
        too_short: Clips with fewer frames: ``repeat_last`` or ``refuse``.
        preview_fps: Maximum rate at which frames are scored, a second.
        preview_height: Height in pixels of the pictures scored.
        preview_width: Width in pixels of the pictures scored.
    """

    scorer: Callable[[Frames], Sequence[float]] = boxes_of_crop
    num_frames: int = 16
    too_short: TooShort = "repeat_last"
    preview_fps: float = 4.0
    preview_height: int = 360
    preview_width: int = 640

    def __post_init__(self) -> None:
        """Checks the arguments."""
        _check_preview(self)
        plain_value(self.scorer)  # refuses what no checkpoint could keep

    def choose(self, times: Times, frames: Frames) -> Times:
        """Returns (num_frames,) seconds."""
        return _highest(self.scores(frames), times, self.num_frames, self.too_short)

    def watch(self, pictures: int) -> Watcher:
        """Returns a watcher that keeps the pictures scored together, 16 at most."""
        return _Scores(self)

    @property
    def takes_boxes(self) -> bool:
        """Whether frames are scored by the boxes of ``data.crop``."""
        return self.scorer is boxes_of_crop

    def highest(self, times: Times, scores: NDArray[np.float64]) -> Times:
        """Returns the times with the highest scores, (num_frames,) seconds.

        Args:
            times: (N,) seconds, ascending.
            scores: (N,).
        """
        return _highest(scores, times, self.num_frames, self.too_short)

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
        self.changes.append(np.inf if self.last is None else _difference(self.last, picture))
        self.last = picture

    def choose(self, times: Times, seen: NDArray[np.int64]) -> Times:
        is_new = np.diff(seen, prepend=-1) != 0  # the same picture again is no change
        return self.of(times, np.where(is_new, np.array(self.changes)[seen], 0.0))


class _Scores(Watcher):
    """Scores pictures in batches."""

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


def _difference(before: Frames, after: Frames) -> float:
    """Returns the mean absolute difference of two pictures, as a share of the range from black to white."""
    return float(np.abs(after.astype(np.int16) - before).mean() / 255)


def _check_preview(sampling: ContentSampling) -> None:
    check_at_least(1, num_frames=sampling.num_frames)
    check_at_least(1, preview_height=sampling.preview_height, preview_width=sampling.preview_width)
    check_positive(preview_fps=sampling.preview_fps)


def _highest(scores: NDArray[np.float64], times: Times, num_frames: int, too_short: TooShort) -> Times:
    """Returns the times with the highest scores; of equal scores, the earlier times."""
    chosen = np.sort(np.argsort(-scores, kind="stable")[:num_frames])
    return fill_up(times[chosen], num_frames, too_short, "frames")
