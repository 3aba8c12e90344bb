"""A file and the times to look at -> frames.

What counts are the frames that a player shows, and when. Headers (number of frames, duration, rate) are wrong or absent in
many files of camera traps and are not read.
"""

from __future__ import annotations  # PyAV's classes are named before it is imported

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from zamba_lcli.data.clip_cache import ClipCache
from zamba_lcli.data.crop import ClipCrop, Detections, NothingFoundError, PictureFinder, TableFinder
from zamba_lcli.data.sampling import (
    ContentSampling,
    FrameSampling,
    HighestScores,
    Timeline,
    TooLongError,
    TooShortError,
    Watcher,
)
from zamba_lcli.data.sampling.base import at_most
from zamba_lcli.data.video import pictures
from zamba_lcli.data.video.cropping import Cropping, Finding
from zamba_lcli.data.video.deadline import TIME_LIMIT as TIME_LIMIT
from zamba_lcli.data.video.deadline import Deadline, read_within
from zamba_lcli.data.video.deadline import UnreadableClipError as UnreadableClipError
from zamba_lcli.data.video.declared import note_of
from zamba_lcli.data.video.decoding import FrameReader, deliver
from zamba_lcli.data.video.opening import open_clip
from zamba_lcli.data.video.packets import ClipIndex, read_index
from zamba_lcli.data.video.pictures import PictureMaker, upright
from zamba_lcli.errors import InputError

if TYPE_CHECKING:  # imported by the functions that need it: --help reads no clip
    from av.video.frame import VideoFrame

T = TypeVar("T")
Move: TypeAlias = Callable[[NDArray[np.float64], float], NDArray[np.float64]]


@dataclass(frozen=True)
class Clip:
    """The frames of a clip that were asked for."""

    frames: NDArray[np.uint8]  # (num_clips x T, H, W, 3) RGB; (0, H, W, 3) of a clip that is to be called blank
    times: NDArray[np.float64]  # (num_clips x T,) seconds: when the frames given are shown
    numbers: NDArray[np.int64]  # (num_clips x T,) which frames of the file they are, 0 is the first
    frame_rate: float  # frames a second of the file, on average; 0.0 for a single frame
    duration: float  # seconds: length of the file
    note: str = ""  # what of it could not be read; empty if all could
    # of cropped clips, as shares of the whole picture: x, y, width, height
    windows: NDArray[np.float64] | None = (
        None  # (num_clips x T, 4) what was cut out; the whole picture where nothing was found
    )
    boxes: NDArray[np.float64] | None = None  # (M, 6) frame of the file, x, y, width, height and score of each box


def probe(path: Path, time_limit: float = TIME_LIMIT) -> None:
    """Opens a file to see whether there is a video in it; no frame is decoded.

    Raises:
        UnreadableClipError: With the reason.
    """
    read_within(path, time_limit, lambda deadline: open_clip(path, deadline)[0].close())


def upright_size(path: Path, time_limit: float = TIME_LIMIT) -> tuple[int, int]:
    """Returns height and width, in pixels, of the pictures of a clip as they are to be looked at.

    Raises:
        UnreadableClipError: With the reason.
    """

    def read(deadline: Deadline) -> tuple[int, int]:
        with FrameReader(path, read_index(path, deadline), deadline) as reader:
            for _, frame in reader.frames():
                return upright(frame)
        raise UnreadableClipError("no frame of it can be decoded")

    return read_within(path, time_limit, read)


def try_clip(path: Path, time_limit: float = TIME_LIMIT) -> ClipIndex:
    """Opens a file, lists its frames and decodes the first good one; returns the list.

    Raises:
        UnreadableClipError: With the reason.
    """

    def read(deadline: Deadline) -> ClipIndex:
        index = read_index(path, deadline)
        with FrameReader(path, index, deadline) as reader:
            if next(reader.frames(), None) is None:
                raise UnreadableClipError("none of the frames can be decoded")
        return index

    return read_within(path, time_limit, read)


def decode_all(path: Path, time_limit: float = TIME_LIMIT) -> tuple[ClipIndex, float]:
    """Decodes a whole file; returns the list of its frames, and the share of them that is damaged.

    Raises:
        UnreadableClipError: With the reason.
    """

    def read(deadline: Deadline) -> tuple[ClipIndex, float]:
        index = read_index(path, deadline)
        with FrameReader(path, index, deadline) as reader:
            good = len({position for position, _ in reader.frames()})
        if not good:
            raise UnreadableClipError("none of the frames can be decoded")
        return index, 1 - good / len(index.timeline.times)

    return read_within(path, time_limit, read)


def read_timeline(path: Path) -> Timeline:
    """Reads when each frame in a file is shown, without decoding them.

    Raises:
        UnreadableClipError: If the file cannot be opened or holds no frame.
    """
    return read_within(path, TIME_LIMIT, lambda deadline: read_index(path, deadline)).timeline


@dataclass(frozen=True)
class ClipReader:
    """Reads the frames shown at the times that ``sampling`` chooses, scaled, upright, in RGB.

    A frame that is damaged is replaced by the nearest good one before it (or, at the beginning, after it), which is what a
    player shows; ``Clip.times`` has the times. No frame is made up.

    Args:
        sampling: Chooses times from a clip's timeline.
        height: Height of the frames in pixels.
        width: Width of the frames in pixels.
        crop_bottom_pixels: Rows cut off at the bottom of the upright original picture, before scaling.
        max_damaged: Share of a clip that may be damaged or missing: of the chosen frames, and of the length that the file
            declares; a clip with more is unreadable.
        time_limit: Seconds that reading a clip may take; finding its boxes may take as long.
        crop: Says what is cut out of the frames; None for whole frames.
        kept_boxes: Keeps the boxes that a finder has found in the pictures of clips.
    """

    sampling: FrameSampling
    height: int
    width: int
    crop_bottom_pixels: int = 0
    max_damaged: float = 0.5
    time_limit: float = TIME_LIMIT
    crop: ClipCrop | None = None
    kept_boxes: ClipCache[Detections] | None = None

    def __post_init__(self) -> None:
        """Checks the options."""
        for name, least in (
            ("height", 1),
            ("width", 1),
            ("crop_bottom_pixels", 0),
            ("max_damaged", 0),
            ("time_limit", 0),
        ):
            if (value := getattr(self, name)) < least:
                raise InputError(f"data.{name}: {value} is less than {least}.")
        if isinstance(self.sampling, HighestScores) and self.sampling.takes_boxes and self.crop is None:
            raise InputError(
                "data.sampling.init_args.scorer is missing: state one, or data.crop, whose boxes then score the frames."
            )
        if self.max_damaged > 1:
            raise InputError(f"data.max_damaged: {self.max_damaged} is a share, at most 1.")

    @property
    def clip_bytes(self) -> int:
        """Size of the frames of a clip."""
        return self.sampling.num_clips * self.sampling.num_frames * self.height * self.width * 3

    def stated(self) -> dict[str, Any]:
        """Returns all that the frames of a clip depend on, besides its file, as plain values."""
        stated = {
            "sampling": self.sampling.stated(),
            "size": [self.height, self.width],
            "crop_bottom_pixels": self.crop_bottom_pixels,
            "max_damaged": self.max_damaged,
            "pictures": pictures.VERSION,
        }
        return stated if self.crop is None else {**stated, "crop": self.crop.key()}

    def finding(self) -> dict[str, Any]:
        """Returns all that the boxes found in the pictures of a clip depend on, besides its file, as plain values."""
        assert self.crop is not None
        return {
            "finder": self.crop.finder.key(),
            "crop_bottom_pixels": self.crop_bottom_pixels,
            "pictures": pictures.VERSION,
        }

    def read(self, path: Path, move: Move | None = None) -> Clip:
        """Reads a clip.

        Args:
            path: The file.
            move: Moves the chosen times of each part, (T,); is also given the time of the clip's last frame.

        Raises:
            UnreadableClipError: If the file cannot be opened, none or too few of its frames can be decoded, it is shorter than
                ``sampling`` allows, or reading takes too long.
            NoAnswerError: If too many files of this process were never answered for.
        """
        found = self._found_in_pictures(path)
        return read_within(path, self.time_limit, lambda deadline: self._read(path, move, found, deadline))

    def boxes_of(self, path: Path) -> Detections:
        """Returns the boxes of a clip, whatever their finder.

        Raises:
            UnreadableClipError: As ``read`` does.
        """
        found = self._found_in_pictures(path)
        return self._from_table(path, None) if found is None else found

    def _from_table(self, path: Path, frames: int | None) -> Detections:
        assert self.crop is not None
        assert isinstance(self.crop.finder, TableFinder)
        try:
            return self.crop.finder.boxes_of(path, frames)
        except LookupError as error:
            raise UnreadableClipError(str(error.args[0])) from None

    def _found_in_pictures(self, path: Path) -> Detections | None:
        """Returns the boxes that a finder finds in the pictures of a clip; None without such a finder."""
        if self.crop is None or not isinstance(self.crop.finder, PictureFinder):
            return None
        finder = self.crop.finder

        def find(path: Path) -> Detections:
            return read_within(path, self.time_limit, lambda deadline: self._find(path, finder, deadline))

        return find(path) if self.kept_boxes is None else self.kept_boxes.get(path, find, self.time_limit)

    def _find(self, path: Path, finder: PictureFinder, deadline: Deadline) -> Detections:
        index = read_index(path, deadline)
        wanted = at_most(finder.fps, index.timeline).tolist()
        watchers: list[Finding] = []

        def begin() -> Callable[[VideoFrame], int]:
            """Begins anew, as decoding does after it went wrong."""
            watchers[:] = [Finding(finder, len(wanted), self.crop_bottom_pixels)]
            return watchers[0].see

        try:
            delivered = deliver(path, index, wanted, begin, deadline)
        except TooLongError as error:
            raise UnreadableClipError(f"too long: {error}") from None
        found = watchers[0].boxes()
        picture_of = dict(delivered[position] for position in wanted)  # by the frame that was good
        numbers = np.array(sorted(picture_of), np.int64)
        return Detections.of_frames(numbers, [found[picture_of[number]] for number in numbers.tolist()])

    def _read(self, path: Path, move: Move | None, found: Detections | None, deadline: Deadline) -> Clip:
        index = read_index(path, deadline)
        if index.assumed_rate is not None:
            # without its name: Python prints the same warning once
            warnings.warn(
                "A clip is a stream without a container, so that its frames have no times: its rate, "
                f"{index.assumed_rate:g} frames a second, makes them. zamba check lists these clips.",
                stacklevel=2,
            )
        if index.missing > self.max_damaged:
            raise UnreadableClipError(note_of(index.missing, index.timeline.end))
        if self.crop is not None and found is None:
            found = self._from_table(path, len(index.timeline.times))
        try:
            times = self.sampling.times(index.timeline)
            if isinstance(self.sampling, HighestScores) and self.sampling.takes_boxes and found is not None:
                if len(found.numbers):
                    times = index.timeline.times[found.numbers]
                times = self.sampling.highest(
                    times, found.best_scores() if len(found.numbers) else np.zeros(len(times))
                )
            elif isinstance(self.sampling, ContentSampling):
                times = self._chosen_by_content(path, index, times, self.sampling, deadline)
        except TooShortError as error:
            raise UnreadableClipError(f"too short: {error}") from None
        except TooLongError as error:
            raise UnreadableClipError(f"too long: {error}") from None
        if move is not None:
            parts = np.split(times, self.sampling.num_clips)
            times = np.concatenate([move(part, index.timeline.duration) for part in parts])
        clip, damaged = self._frames_at(path, index, times, found, deadline)
        if 1 - (1 - damaged) * (1 - index.missing) > self.max_damaged:
            raise UnreadableClipError(note_of(index.missing, index.timeline.end, damaged))
        return replace(clip, note=note_of(index.missing, index.timeline.end, damaged))

    def _frames_at(
        self,
        path: Path,
        index: ClipIndex,
        times: NDArray[np.float64],
        found: Detections | None,
        deadline: Deadline,
    ) -> tuple[Clip, float]:
        """Returns the frames shown at the given times, and the share of them that is replaced by others."""
        positions = index.shown_at(times)
        wanted = [int(position) for position in np.unique(positions)]
        timeline = index.timeline
        crops: list[Cropping] = []

        def begin() -> Callable[[VideoFrame], NDArray[np.uint8]]:
            """Begins anew, as decoding does after it went wrong."""
            maker = PictureMaker(self.height, self.width, self.crop_bottom_pixels)
            if self.crop is None or found is None:
                return maker
            crops[:] = [Cropping(self.crop, found, timeline, np.array(wanted), maker)]
            return crops[0]

        try:
            if self.crop is not None and found is not None and self.crop.calls_blank(found):
                raise NothingFoundError  # before any frame is decoded
            delivered = deliver(path, index, wanted, begin, deadline)
        except NothingFoundError:
            return self._blank(index, positions), 0.0
        numbers = np.array([delivered[int(position)][0] for position in positions])
        cut = crops[0].windows[np.searchsorted(wanted, positions)] if crops else None
        clip = Clip(
            frames=np.stack([delivered[int(position)][1] for position in positions]),
            times=timeline.times[numbers],
            numbers=numbers,
            frame_rate=timeline.frame_rate,
            duration=timeline.end,
            windows=cut,
            boxes=crops[0].boxes if crops else None,
        )
        return clip, float(np.mean([delivered[position][0] != position for position in wanted]))

    def _blank(self, index: ClipIndex, positions: NDArray[np.int64]) -> Clip:
        """Returns a clip that is to be called blank, without frames."""
        timeline = index.timeline
        frames, none = np.zeros((0, self.height, self.width, 3), np.uint8), np.zeros((0, 6))
        return Clip(frames, timeline.times[positions], positions, timeline.frame_rate, timeline.end, boxes=none)

    def _chosen_by_content(
        self,
        path: Path,
        index: ClipIndex,
        times: NDArray[np.float64],
        sampling: ContentSampling,
        deadline: Deadline,
    ) -> NDArray[np.float64]:
        """Shows a sampling the small pictures of a clip, one by one, and returns the times that it chooses."""
        positions = index.shown_at(times)
        wanted = [int(position) for position in np.unique(positions)]
        watchers: list[Watcher] = []

        def begin() -> Callable[[VideoFrame], int]:
            """Begins anew, as decoding does after it went wrong."""
            watchers[:] = [sampling.watch(len(wanted))]
            picture = PictureMaker(sampling.preview_height, sampling.preview_width, self.crop_bottom_pixels)
            count = itertools.count()

            def see(frame: VideoFrame) -> int:
                watchers[0].see(picture(frame))
                return next(count)

            return see

        delivered = deliver(path, index, wanted, begin, deadline)
        return watchers[0].choose(times, np.array([delivered[int(position)][1] for position in positions]))


def read_clip(path: Path, sampling: FrameSampling, *, move: Move | None = None, **options: Any) -> Clip:
    """Reads one clip; for the options see ``ClipReader``.

    Raises:
        UnreadableClipError: See ``ClipReader.read``.
    """
    return ClipReader(sampling, **options).read(path, move)
