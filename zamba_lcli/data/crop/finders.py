"""What finds the animals in a clip: bases of all finders, and those that need no weights."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from zamba_lcli.data.crop.boxes import Detections
from zamba_lcli.data.sampling.base import KEPT_BYTES, Frames, TooLongError, plain_value
from zamba_lcli.errors import InputError

VERSION = 1  # of how boxes are found; another one where they change, so that kept ones are found anew
TOLERANCE = 0.05  # of the picture, by which boxes may be outside: detectors round
MASS = 0.25  # of what moves most, that a second animal must have
Found = list[NDArray[np.float64]]  # for each picture (M, 5): x, y, width, height as shares of it, and a score


class BoxFinder:
    """Base of all finders: a frozen dataclass, whose arguments travel in checkpoints."""

    usual_confidence: ClassVar[float] = 0.2  # that a box must have where none is stated

    def key(self) -> Any:
        """Returns all that the boxes depend on, besides the clip's file, as plain values."""
        return [plain_value(self, "data.crop"), VERSION]


class PictureFinder(BoxFinder, ABC):
    """Base of the finders that look at the pictures of a clip, scaled down.

    All frames are decoded, at most ``fps`` of them a second; of a picture the longer side has ``side`` pixels.
    """

    fps: float
    side: int
    together: ClassVar[int | None] = 16  # pictures looked at together; None for all of the clip, 256 MiB at most

    @abstractmethod
    def find(self, frames: Frames) -> Found:
        """Finds boxes in pictures of a clip, uint8 (N, H, W, 3); returns an array for each picture."""

    def check_room(self, pictures: int, height: int, width: int) -> None:
        """Refuses clips whose pictures take too much memory.

        Raises:
            TooLongError: If they take more than 256 MiB.
        """
        size = pictures * height * width * 3
        if self.together is None and size > KEPT_BYTES:
            raise TooLongError(
                f"{pictures} pictures of {height} x {width} pixels would be kept to find what moves, {size >> 20} MiB, but "
                f"{KEPT_BYTES >> 20} MiB is the most. Lower fps or side of the finder"
            )


class TableFinder(BoxFinder, ABC):
    """Base of the finders that know the boxes beforehand."""

    @abstractmethod
    def check(self, filepaths: Sequence[str], paths: Sequence[Path], all_needed: bool) -> None:
        """Refuses, before anything is read, boxes that are not those of the clips.

        Args:
            filepaths: The clips as the user wrote them.
            paths: Their files.
            all_needed: Whether each clip must have an entry.

        Raises:
            InputError: With the remedy.
        """

    @abstractmethod
    def boxes_of(self, path: Path, frames: int | None) -> Detections:
        """Returns the boxes of a clip.

        Args:
            path: Its file.
            frames: Number of its frames, if it is known.

        Raises:
            LookupError: With the reason, if it has none that can be trusted.
        """


@dataclass(frozen=True)
class Contrast(PictureFinder):
    """What differs most from its surroundings, in each picture by itself; no weights are needed.

    For thermal pictures, and for cameras that move. It always finds one place, unless the picture is all alike; its confidence
    is the difference as a share of the range from black to white. Cut off bars with text (``data.crop_bottom_pixels``): they
    stand out most.

    Args:
        size: Least side of the box, as a share of the picture's shorter side.
        fps: Maximum rate at which frames are looked at, a second.
        side: Longer side in pixels of the pictures looked at.
    """

    size: float = 0.1
    fps: float = 4.0
    side: int = 320
    usual_confidence = 0.03

    def __post_init__(self) -> None:
        """Checks the arguments."""
        check_size(self, self.size)
        check_pictures(self)

    def find(self, frames: Frames) -> Found:
        """Returns a box for each picture."""
        from scipy.ndimage import uniform_filter

        height, width = frames.shape[1:3]
        fine, coarse = max(1, round(max(height, width) / 100)), max(3, max(height, width) // 6)
        found = []
        for grey in frames.mean(axis=3, dtype=np.float32) / 255:
            smooth = uniform_filter(grey, fine)
            difference = np.abs(smooth - uniform_filter(smooth, coarse))  # (H, W)
            found.append(_around(difference, self.size * min(height, width), 0.5, 1.0))
        return found


@dataclass(frozen=True)
class Motion(PictureFinder):
    """What differs from the clip's background, the median of its pictures; no weights are needed.

    For cameras that stand still. Its confidence is the difference as a share of the range from black to white, beyond what the
    whole picture brightens or darkens. Cut off bars with the time (``data.crop_bottom_pixels``): they change, too.

    Args:
        size: Least side of a box, as a share of the picture's shorter side.
        fps: Maximum rate at which frames are looked at, a second.
        side: Longer side in pixels of the pictures looked at.
    """

    size: float = 0.05
    fps: float = 4.0
    side: int = 160
    usual_confidence = 0.2
    together = None

    def __post_init__(self) -> None:
        """Checks the arguments."""
        check_size(self, self.size)
        check_pictures(self)

    def find(self, frames: Frames) -> Found:
        """Returns the boxes of each picture."""
        from scipy.ndimage import uniform_filter

        height, width = frames.shape[1:3]
        smoothing = max(1, round(max(height, width) / 50))
        smooth = np.stack(
            [uniform_filter(frame.astype(np.float32) / 255, (smoothing, smoothing, 0)) for frame in frames]
        )
        background = np.median(smooth, axis=0)
        change = smooth - background
        change -= np.median(change, axis=(1, 2), keepdims=True)  # the light of the whole picture
        change = np.abs(change).max(axis=3)  # (N, H, W)
        change -= np.median(change, axis=0)  # what changes most of the time, such as leaves
        return [_around(picture, self.size * min(height, width), 0.3, MASS) for picture in change]


def check_size(finder: PictureFinder, size: float) -> None:
    """Refuses a least side of a box that is no share of the picture."""
    if not 0 < size <= 1:
        raise InputError(f"data.crop: {type(finder).__name__}: size: {size} is not a share between 0 and 1.")


def check_pictures(finder: PictureFinder) -> None:
    """Refuses rates and sizes of pictures that make no sense."""
    name = type(finder).__name__
    if not 0 < finder.fps < float("inf"):
        raise InputError(f"data.crop: {name}: fps: {finder.fps} is not a number above 0.")
    if finder.side < 16:
        raise InputError(f"data.crop: {name}: side: {finder.side} is less than 16 pixels.")


def checked_boxes(rows: NDArray[np.float64], of: str) -> NDArray[np.float64]:
    """Returns boxes cut to the picture.

    Args:
        rows: (M, 5) x, y, width, height as shares of the picture, and a score.
        of: Whose boxes they are, for the message.

    Raises:
        InputError: If they are no boxes in the picture.
    """
    low, high = rows[:, :2], rows[:, :2] + rows[:, 2:4]
    inside = (low >= -TOLERANCE).all(axis=1) & (high <= 1 + TOLERANCE).all(axis=1) & (rows[:, 2:4] >= 0).all(axis=1)
    right = inside & np.isfinite(rows).all(axis=1) & (rows[:, 4] >= 0) & (rows[:, 4] <= 1)
    if not right.all():
        wrong = [float(f"{value:.4g}") for value in rows[~right][0]]
        raise InputError(
            f"{of}: {wrong[:4]} with the score {wrong[4]} is no box in the picture. Boxes are x, y, width and height as shares "
            "of the picture, 0 to 1, with a score of 0 to 1."
        )
    low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
    return np.concatenate([low, high - low, rows[:, 4:]], axis=1)


def _around(difference: NDArray[np.float32], least: float, share: float, mass: float) -> NDArray[np.float64]:
    """Returns boxes around the places where a picture differs most.

    Args:
        difference: (H, W).
        least: Least side of a box in pixels.
        share: Share of the highest difference that belongs to a place.
        mass: Places whose sum of differences is a smaller share of the largest place's have no box.

    Returns:
        (M, 5) x, y, width, height as shares of the picture, and the highest difference in it, at most 1.
    """
    from scipy.ndimage import find_objects, label, maximum, sum_labels

    height, width = difference.shape
    highest = difference.max()
    if highest <= 0:
        return np.zeros((0, 5))
    labels, number = label(difference >= highest * share, np.ones((3, 3)))
    of_each = np.arange(1, number + 1)
    scores, sums = np.asarray(maximum(difference, labels, of_each)), np.asarray(sum_labels(difference, labels, of_each))
    boxes = []
    for (rows, columns), score, total in zip(find_objects(labels), scores, sums, strict=True):
        if total < mass * sums.max():
            continue
        y, h = _at_least(rows.start, rows.stop, least, height)
        x, w = _at_least(columns.start, columns.stop, least, width)
        boxes.append([x / width, y / height, w / width, h / height, min(float(score), 1.0)])
    return np.array(boxes)


def _at_least(start: float, stop: float, least: float, end: int) -> tuple[float, float]:
    """Returns start and length of a stretch, widened to ``least`` and moved into 0 to ``end``."""
    length = min(max(stop - start, least), end)
    middle = (start + stop) / 2
    return min(max(middle - length / 2, 0.0), end - length), length
