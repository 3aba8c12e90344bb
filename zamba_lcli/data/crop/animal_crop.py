"""Where a clip is cut: from the boxes found in it to a window for each frame that is looked at."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zamba_lcli.data.crop.boxes import Boxes, Detections, PictureSize, Windows, hull, per_frame
from zamba_lcli.data.crop.finders import BoxFinder
from zamba_lcli.data.sampling import Timeline
from zamba_lcli.data.sampling.base import plain_value
from zamba_lcli.errors import InputError

Follow: TypeAlias = Literal["union", "per_frame"]
IfNone: TypeAlias = Literal["whole", "blank"]

SMOOTHED_OVER = 0.5  # seconds: standard deviation of the Gaussian that smooths the path of a window


class NothingFoundError(Exception):
    """Nothing was found in a clip, which is to be called blank."""


class ClipCrop(ABC):
    """Base of what says which part of a clip is looked at: a frozen dataclass, whose arguments travel in checkpoints."""

    finder: BoxFinder
    if_none: IfNone

    @property
    @abstractmethod
    def confidence(self) -> float:
        """Confidence that a box must have."""

    @abstractmethod
    def windows(
        self,
        found: Detections,
        timeline: Timeline,
        positions: NDArray[np.int64],
        picture: PictureSize,
        output: PictureSize,
        bottom: int = 0,
    ) -> Windows | None:
        """Returns the window of each frame looked at, or None if nothing was found in the clip.

        Args:
            found: The boxes in the clip.
            timeline: When its frames are shown.
            positions: (T,) the frames looked at.
            picture: Size of the clip's pictures.
            output: Size that windows are scaled to.
            bottom: Rows at the bottom of the pictures that are not to be seen.

        Returns:
            (T, 4) shares of the picture.
        """

    def stated(self) -> dict[str, Any]:
        """Returns ``class_path`` and ``init_args`` as plain values, as in a YAML."""
        stated: dict[str, Any] = plain_value(self, "data.crop")
        return stated

    def key(self) -> dict[str, Any]:
        """Returns all that windows depend on, besides the clip's file, as plain values."""
        return {**self.stated(), "finder": self.finder.key()}

    def has_found(self, found: Detections) -> bool:
        """Returns whether any of the boxes counts."""
        return bool(len(found.at_least(self.confidence).boxes))

    def calls_blank(self, found: Detections) -> bool:
        """Returns whether a clip with these boxes is to be called blank."""
        return self.if_none == "blank" and not self.has_found(found)


@dataclass(frozen=True)
class AnimalCrop(ClipCrop):
    """Looks at the animal: cuts a window out of the full-resolution frames, which is then scaled to height and width.

    The window keeps the shape of what is in it: it has the proportions of ``data.height`` and ``data.width``. Where it would
    leave the picture it is moved inside; where it is larger than the picture, what is outside is black.

    Args:
        finder: What finds the animals: ``MegaDetectorBoxes``, ``DetectedBoxes``, ``Motion`` or ``Contrast``.
        margin: What is added to the box on each side, as a share of the box's width or height.
        min_confidence: Boxes with a lower confidence do not count; null for what is usual with the finder.
        follow: ``union``: one window for the clip, which holds all boxes. ``per_frame``: a window that follows the animals,
            smoothed in time, of one size throughout the clip.
        if_none: Clips without a box: ``whole`` looks at the whole picture, as without crops; ``blank`` calls the clip blank
            without running the network (train clips are left out). The model needs a class ``blank`` or ``empty`` for that.
    """

    finder: BoxFinder
    margin: float = 0.3
    min_confidence: float | None = None
    follow: Follow = "union"
    if_none: IfNone = "whole"

    def __post_init__(self) -> None:
        """Checks the arguments."""
        if not 0 <= self.margin < float("inf"):
            raise InputError(f"data.crop.init_args.margin: {self.margin} is not a share of the box, such as 0.3.")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise InputError(f"data.crop.init_args.min_confidence: {self.min_confidence} is not between 0 and 1.")
        self.stated()  # refuses what no checkpoint could keep

    @property
    def confidence(self) -> float:
        """Confidence that a box must have."""
        return self.finder.usual_confidence if self.min_confidence is None else self.min_confidence

    def windows(
        self,
        found: Detections,
        timeline: Timeline,
        positions: NDArray[np.int64],
        picture: PictureSize,
        output: PictureSize,
        bottom: int = 0,
    ) -> Windows | None:
        """Returns (T, 4) shares of the picture, or None if nothing was found in the clip."""
        kept = found.at_least(self.confidence)
        seen = np.array([picture.width, picture.height - bottom], np.float64)  # (2,) pixels
        scale = [picture.width, picture.height]
        low, high = kept.boxes[:, :2] * scale, (kept.boxes[:, :2] + kept.boxes[:, 2:]) * scale
        low, high = np.clip(low, 0, seen), np.clip(high, 0, seen)
        visible = (high > low).all(axis=1)
        if not visible.any():
            return None
        boxes = np.concatenate([low, high - low], axis=1)[visible]
        if self.follow == "union":
            box = hull(boxes)
            size = _with_margin(box[2:], self.margin, output, seen)
            middles = np.broadcast_to(box[:2] + box[2:] / 2, (len(positions), 2))
        else:
            frames, boxes = per_frame(kept.frames[visible], boxes)
            size = _with_margin(boxes[:, 2:].max(axis=0), self.margin, output, seen)
            middles = _smooth_path(timeline.times[frames], boxes, size, timeline.times[positions])
        room = seen - size
        start = np.where(room >= 0, np.clip(middles - size / 2, 0, np.maximum(room, 0)), room / 2)
        windows: Windows = np.concatenate([start, np.broadcast_to(size, start.shape)], axis=1)
        return windows / ([picture.width, picture.height] * 2)


def _with_margin(
    size: NDArray[np.float64], margin: float, output: PictureSize, picture: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns width and height, (2,) pixels, of a window around a box of this size, in the output's proportions."""
    width, height = np.minimum(np.maximum(size, 1) * (1 + 2 * margin), picture)
    proportion = output.width / output.height
    return np.array([max(width, height * proportion), max(height, width / proportion)])


def _smooth_path(
    times: NDArray[np.float64], boxes: Boxes, size: NDArray[np.float64], asked: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns where the middle of a window of ``size`` is at the times ``asked``: (T, 2) pixels.

    The middles of the boxes are smoothed in time, by lines fitted to what is near, and then moved as little as it takes for
    the window to hold its box. Before the first box and after the last the window goes on for a moment, then stays.

    Args:
        times: (N,) seconds, ascending, of the frames with boxes.
        boxes: (N, 4) their boxes in pixels.
        size: (2,) width and height of the window in pixels.
        asked: (T,) seconds.
    """
    middles = boxes[:, :2] + boxes[:, 2:] / 2
    smooth, slopes = np.empty_like(middles), np.empty_like(middles)
    for i, time in enumerate(times):
        weights = np.exp(-0.5 * ((times - time) / SMOOTHED_OVER) ** 2)[:, None]  # (N, 1)
        weights /= weights.sum()
        offsets = times[:, None] - (weights * times[:, None]).sum()  # (N, 1)
        mean, spread = (weights * middles).sum(axis=0), float((weights * offsets**2).sum())
        slopes[i] = (weights * offsets * middles).sum(axis=0) / spread if spread > 1e-6 else 0.0
        smooth[i] = mean + slopes[i] * offsets[i]
    smooth = np.clip(smooth, boxes[:, :2] + boxes[:, 2:] - size / 2, boxes[:, :2] + size / 2)
    before, after = smooth[0] - slopes[0] * SMOOTHED_OVER, smooth[-1] + slopes[-1] * SMOOTHED_OVER
    knots = np.concatenate([times[:1] - SMOOTHED_OVER, times, times[-1:] + SMOOTHED_OVER])
    path = np.concatenate([before[None], smooth, after[None]])
    return np.stack([np.interp(asked, knots, path[:, axis]) for axis in (0, 1)], axis=1)
