"""Between decoding and crops: pictures for a finder of boxes, and frames cut to windows."""

from __future__ import annotations  # PyAV's classes are named before it is imported

import itertools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zamba_lcli.data.crop import ClipCrop, Detections, NothingFoundError, PictureFinder, PictureSize, Windows
from zamba_lcli.data.sampling import Timeline
from zamba_lcli.data.video.pictures import PictureMaker, upright

if TYPE_CHECKING:  # imported by the functions that need it: --help reads no clip
    from av.video.frame import VideoFrame


class Finding:
    """Shows a finder the pictures of a clip as they are decoded."""

    def __init__(self, finder: PictureFinder, pictures: int, crop_bottom_pixels: int) -> None:
        """Begins a clip of so many pictures, at most."""
        self.finder = finder
        self.pictures = pictures
        self.crop_bottom_pixels = crop_bottom_pixels
        self.picture: PictureMaker | None = None
        self.visible = 1.0  # share of the rows that the finder sees
        self.seen = 0
        self.waiting: list[NDArray[np.uint8]] = []
        self.found: list[NDArray[np.float64]] = []

    def see(self, frame: VideoFrame) -> int:
        """Takes the next frame and returns its number."""
        if self.picture is None:
            height, width = upright(frame)
            self.visible = max(height - self.crop_bottom_pixels, 1) / height
            scale = min(1.0, self.finder.side / max(height, width))
            size = max(1, round(height * self.visible * scale)), max(1, round(width * scale))
            self.finder.check_room(self.pictures, *size)
            self.picture = PictureMaker(*size, self.crop_bottom_pixels)
        self.waiting.append(self.picture(frame))
        if len(self.waiting) == self.finder.together:
            self._find()
        self.seen += 1
        return self.seen - 1

    def _find(self) -> None:
        if self.waiting:
            self.found += self.finder.find(np.stack(self.waiting))
            self.waiting.clear()

    def boxes(self) -> list[NDArray[np.float64]]:
        """Returns what was found in each picture, (M, 5): x, y, width, height as shares of the whole picture, and a score."""
        self._find()
        return [found * [1, self.visible, 1, self.visible, 1] for found in self.found]


class Cropping:
    """Cuts the frames of a clip, in the order in which they are delivered."""

    def __init__(
        self, crop: ClipCrop, found: Detections, timeline: Timeline, wanted: NDArray[np.int64], maker: PictureMaker
    ) -> None:
        """Keeps the arguments; windows are found when the size of the pictures is known."""
        self.crop = crop
        self.found = found
        self.timeline = timeline
        self.wanted = wanted
        self.maker = maker
        self.windows: Windows = np.zeros((0, 4))
        self.boxes = np.zeros((0, 6))
        self.is_whole = False
        self.count = itertools.count()

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Returns the next frame, cut and scaled."""
        number = next(self.count)
        if number == 0:
            self._find_windows(PictureSize(*upright(frame)))
        return self.maker(frame, None if self.is_whole else self.windows[number])

    def _find_windows(self, picture: PictureSize) -> None:
        maker = self.maker
        output, bottom = PictureSize(maker.height, maker.width), maker.crop_bottom_pixels
        windows = self.crop.windows(self.found, self.timeline, self.wanted, picture, output, bottom)
        if windows is None and self.crop.if_none == "blank":
            raise NothingFoundError
        if windows is None:
            self.is_whole = True
            self.windows = np.tile([0.0, 0.0, 1.0, 1 - bottom / picture.height], (len(self.wanted), 1))
            return
        self.windows = windows
        kept = self.found.at_least(self.crop.confidence)
        self.boxes = np.column_stack([kept.frames, kept.boxes, kept.scores])
