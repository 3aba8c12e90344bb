"""A decoded frame -> a picture as a player shows it: upright, scaled, in RGB."""

from __future__ import annotations  # PyAV's classes are named before it is imported

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from math import atan2, degrees, hypot
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from zamba_lcli.data.video.deadline import UnreadableClipError

if TYPE_CHECKING:  # imported by the functions that need it: --help reads no clip
    from av.filter import Graph
    from av.filter.context import FilterContext
    from av.video.frame import VideoFrame

DEFAULT = 5  # of FFmpeg's colour spaces: that of BT.601, where none is stated
VERSION = 4  # of what is read of a file; another one where frames or pixels change, so that caches make theirs anew


@dataclass(frozen=True)
class Orientation:
    """What is done to the stored picture before it is shown, in this order; as ``ffmpeg -autorotate`` does it."""

    turn: int = 0  # degrees clockwise, 0 to 359, not a multiple of 90; within the frame, what it leaves free is black
    transpose: bool = False  # columns become rows
    flip_columns: bool = False  # left becomes right
    flip_rows: bool = False  # top becomes bottom

    @classmethod
    def of(cls, frame: VideoFrame) -> Orientation:
        """Reads a frame's display matrix; without one, or with one that makes no sense, it is upright."""
        matrix = _display_matrix(frame)
        if matrix is None:
            return cls()
        a, b, c, d = matrix
        if not hypot(a, c) or not hypot(b, d):
            return cls()
        angle = round(degrees(atan2(b / hypot(b, d), a / hypot(a, c)))) % 360
        if angle == 90:
            return cls(transpose=True, flip_columns=c <= 0)
        if angle == 270:
            return cls(transpose=True, flip_columns=c < 0, flip_rows=True)
        if angle == 180:
            return cls(flip_columns=a < 0, flip_rows=d < 0)
        if angle <= 1:  # ffmpeg leaves one degree as it is
            return cls(flip_rows=angle == 0 and d < 0)
        return cls(turn=angle)

    def of_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns pixels, (H, W, 3), transposed and flipped."""
        if self.transpose:
            pixels = pixels.transpose(1, 0, 2)
        if self.flip_columns:
            pixels = pixels[:, ::-1]
        return pixels[::-1] if self.flip_rows else pixels


def _display_matrix(frame: VideoFrame) -> list[float] | None:
    """Returns a, b, c, d of a frame's display matrix (x' = ax + cy, y' = bx + dy), or None if it has none."""
    from av.sidedata.sidedata import Type

    try:
        found: Any = frame.side_data
    except ValueError:  # one that PyAV has no name for, such as Exif, hides all the others
        found = _without_unnamed_side_data(frame).side_data
    data = found.get(Type.DISPLAYMATRIX)
    if data is None or data.buffer_size < 36:
        return None
    a, b, _, c, d = np.frombuffer(bytes(data)[:20], np.int32).tolist()
    return [a, b, c, d]


def _without_unnamed_side_data(frame: VideoFrame) -> VideoFrame:
    """Returns a frame without the side data that PyAV's ``Type`` does not know. Delete when it knows all of FFmpeg's."""
    from av.filter import Graph
    from av.sidedata.sidedata import Type

    graph = Graph()
    first = max(int(kind.value) for kind in cast(Iterable[Enum], Type)) + 1
    filters = [graph.add("sidedata", f"mode=delete:type={kind}") for kind in range(first, first + 16)]
    return _filtered(graph, filters, frame)


def _filtered(graph: Graph, filters: Sequence[FilterContext], frame: VideoFrame) -> VideoFrame:
    """Sends a frame through filters, one after the other."""
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    graph.link_nodes(source, *filters, graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()


def upright(frame: VideoFrame) -> tuple[int, int]:
    """Returns height and width, in pixels, of a frame as it is shown."""
    return (frame.width, frame.height) if Orientation.of(frame).transpose else (frame.height, frame.width)


def _edges(start: float, length: float) -> tuple[int, int]:
    """Returns where a stretch begins and ends, in whole pixels: the same number of them wherever it is."""
    first = round(start)
    return first, first + max(1, round(length))


class PictureMaker:
    """Makes pictures of one size; made anew for each clip, and used by one thread.

    Args:
        height: Height of the pictures in pixels.
        width: Width of the pictures in pixels.
        crop_bottom_pixels: Rows cut off at the bottom of the upright original picture, before scaling.
    """

    def __init__(self, height: int, width: int, crop_bottom_pixels: int = 0) -> None:
        """Keeps the arguments."""
        from av.video.reformatter import Interpolation, VideoReformatter

        self.height = height
        self.width = width
        self.crop_bottom_pixels = crop_bottom_pixels
        # "area" averages all pixels that fall into one, without the aliasing of point sampling. Without full chroma a scaled
        # picture has colours of half its width, and is darker by up to 2 of 255. Not with accurate rounding: that changes
        # pictures that are not scaled, which are to be ffmpeg's own.
        self._flags = int(Interpolation.AREA | Interpolation.FULL_CHR_H_INT)
        self._reformatter = VideoReformatter()  # kept: setting one up takes as long as scaling a frame

    def __call__(self, frame: VideoFrame, window: NDArray[np.float64] | None = None) -> NDArray[np.uint8]:
        """Returns a frame upright, cropped and scaled: uint8 (height, width, 3).

        Args:
            frame: A decoded frame.
            window: (4,) x, y, width and height of what is cut out, as shares of the upright original picture; what is outside
                of it becomes black. None for all of it.

        Raises:
            UnreadableClipError: If nothing is left of it, or if its pixels are in a format that cannot be converted.
        """
        orientation = Orientation.of(frame)
        full_height = frame.width if orientation.transpose else frame.height
        if self.crop_bottom_pixels >= full_height:
            raise UnreadableClipError(
                f"crop_bottom_pixels is {self.crop_bottom_pixels}, but the picture has {full_height} rows"
            )
        return self._whole(frame, orientation, full_height) if window is None else self._cut(frame, orientation, window)

    def _whole(self, frame: VideoFrame, orientation: Orientation, full_height: int) -> NDArray[np.uint8]:
        # Scaled to a height of which the bar is cut off: cheaper than a full-size RGB picture to cut it from.
        scaled_height = round(self.height * full_height / (full_height - self.crop_bottom_pixels))
        frame = self._turned(frame, orientation)
        size = (scaled_height, self.width) if orientation.transpose else (self.width, scaled_height)
        pixels = orientation.of_pixels(cast(NDArray[np.uint8], self._rgb(frame, *size).to_ndarray()))
        return np.ascontiguousarray(pixels[: self.height])

    def _cut(self, frame: VideoFrame, orientation: Orientation, window: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Cuts a window out of a frame of the original size, then scales it."""
        from av import VideoFrame

        rgb = self._rgb(self._turned(frame, orientation), frame.width, frame.height)
        pixels = orientation.of_pixels(cast(NDArray[np.uint8], rgb.to_ndarray()))
        pixels = pixels[: len(pixels) - self.crop_bottom_pixels]
        height, width = upright(frame)
        left, right = _edges(window[0] * width, window[2] * width)
        top, bottom = _edges(window[1] * height, window[3] * height)
        inside = pixels[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        rows, columns = self.height / (bottom - top), self.width / (right - left)
        y, x = round(max(-top, 0) * rows), round(max(-left, 0) * columns)
        h = min(max(1, round(len(inside) * rows)), self.height - y)
        w = min(max(1, round(inside.shape[1] * columns)), self.width - x)
        canvas = np.zeros((self.height, self.width, 3), np.uint8)
        if inside.size and h > 0 and w > 0:
            part = VideoFrame.from_ndarray(np.ascontiguousarray(inside), format="rgb24")
            canvas[y : y + h, x : x + w] = self._rgb(part, w, h).to_ndarray()
        return canvas

    def _turned(self, frame: VideoFrame, orientation: Orientation) -> VideoFrame:
        """Returns a frame turned by other angles than multiples of 90 degrees."""
        from av.filter import Graph

        if not orientation.turn:
            return frame
        graph = Graph()
        turning = graph.add("rotate", f"{orientation.turn}*PI/180")
        return _filtered(graph, [turning], self._rgb(frame, frame.width, frame.height))

    def _rgb(self, frame: VideoFrame, width: int, height: int) -> VideoFrame:
        """Scales a frame and converts it; a colour space that FFmpeg does not convert counts as none stated, as in players."""
        from av.error import FFmpegError

        try:
            return self._convert(frame, width, height)
        except FFmpegError:
            try:
                return self._convert(frame, width, height, src_colorspace=DEFAULT, dst_colorspace=DEFAULT)
            except FFmpegError as error:
                raise UnreadableClipError(
                    f"its pictures ({frame.format.name}) cannot be converted ({error.strerror})"
                ) from None

    def _convert(self, frame: VideoFrame, width: int, height: int, **colorspaces: int) -> VideoFrame:
        return self._reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=self._flags, threads=1, **colorspaces
        )
