"""Boxes from a detector, such as YOLOX."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zamba_lcli.data.crop.finders import Found, PictureFinder, check_pictures, checked_boxes
from zamba_lcli.data.sampling.base import Frames
from zamba_lcli.errors import InputError

REMEDY = "A detector takes uint8 (N, height, width, 3) and returns for each picture (M, 5): x, y, width, height, score."


@dataclass(frozen=True)
class DetectedBoxes(PictureFinder):
    """Boxes from a detector of animals.

    Args:
        detector: Takes at most 16 pictures of a clip at a time, uint8 (N, H, W, 3), and returns for each of them its boxes,
            (M, 5): x and y of the upper left corner, width, height, as shares of the picture, and a score between 0 and 1.
            An import path of a function, or ``class_path`` and ``init_args`` of a callable dataclass, such as
            ``zamba_lcli.data.detector.YoloxDetector``.
        fps: Maximum rate at which frames are looked at, a second.
        side: Longer side in pixels of the pictures looked at.
    """

    detector: Callable[[Frames], Sequence[Any]]
    fps: float = 4.0
    side: int = 640

    def __post_init__(self) -> None:
        """Checks the arguments."""
        check_pictures(self)

    def find(self, frames: Frames) -> Found:
        """Returns the boxes of each picture."""
        found = self.detector(frames)
        what = "data.crop: DetectedBoxes: detector"
        if not hasattr(found, "__len__") or len(found) != len(frames):
            number = f"{len(found)} of them" if hasattr(found, "__len__") else f"{type(found).__name__}"
            raise InputError(f"{what}: for {len(frames)} pictures it returned {number}. {REMEDY}")
        return [self._checked(boxes, what) for boxes in found]

    @staticmethod
    def _checked(boxes: Any, what: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        try:
            rows = np.asarray(boxes, np.float64)
        except (TypeError, ValueError):
            raise InputError(f"{what}: it returned {type(boxes).__name__}, which is not numbers. {REMEDY}") from None
        if not rows.size:
            return np.zeros((0, 5))
        if rows.ndim != 2 or rows.shape[1] != 5:
            raise InputError(f"{what}: it returned {rows.shape} for a picture. {REMEDY}")
        return checked_boxes(rows, f"{what}: a picture")
