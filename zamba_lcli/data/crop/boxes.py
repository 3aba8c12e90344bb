"""Boxes that a finder has found in a clip, and windows: what is cut out of its frames."""

from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Boxes: TypeAlias = NDArray[
    np.float64
]  # (N, 4) x, y, width, height as shares of the upright picture; x and y of the corner
Windows: TypeAlias = NDArray[np.float64]  # (N, 4) alike; may be larger than the picture


class PictureSize(NamedTuple):
    """Size of an upright picture in pixels."""

    height: int
    width: int


@dataclass(frozen=True)
class Detections:
    """What a finder has found in a clip."""

    numbers: NDArray[np.int64]  # (N,) frames of the file that were looked at, ascending
    frames: NDArray[np.int64]  # (M,) of each box, the frame of the file that it was found in
    boxes: Boxes  # (M, 4)
    scores: NDArray[np.float64]  # (M,) between 0 and 1

    def at_least(self, score: float) -> "Detections":
        """Returns the boxes with a score of at least this."""
        kept = self.scores >= score
        return replace(self, frames=self.frames[kept], boxes=self.boxes[kept], scores=self.scores[kept])

    def best_scores(self) -> NDArray[np.float64]:
        """Returns the highest score in each frame looked at, (N,); 0 where there is no box."""
        best = np.zeros(len(self.numbers))
        places = np.searchsorted(self.numbers, self.frames)
        np.maximum.at(best, places, self.scores)
        return best

    @classmethod
    def of_frames(cls, numbers: NDArray[np.int64], found: list[NDArray[np.float64]]) -> "Detections":
        """Puts together what was found in each frame looked at.

        Args:
            numbers: (N,) the frames.
            found: For each of them (M, 5): x, y, width, height and score.
        """
        rows = np.concatenate(found).reshape(-1, 5) if found else np.zeros((0, 5))
        frames = np.repeat(numbers, [len(some) for some in found])
        return cls(numbers, frames, rows[:, :4], rows[:, 4])


def hull(boxes: Boxes) -> Boxes:
    """Returns the smallest box that holds all the boxes, (4,)."""
    low, high = boxes[:, :2].min(axis=0), (boxes[:, :2] + boxes[:, 2:]).max(axis=0)
    return np.concatenate([low, high - low])


def per_frame(frames: NDArray[np.int64], boxes: Boxes) -> tuple[NDArray[np.int64], Boxes]:
    """Returns the frames that have boxes, ascending, and for each of them the hull of its boxes."""
    with_boxes = np.unique(frames)
    return with_boxes, np.stack([hull(boxes[frames == frame]) for frame in with_boxes])
