"""A file and the times to look at -> frames.

What counts are the presentation times of what is really in the file. Headers (number of frames, duration, rate) are wrong
or absent in many files of camera traps and are not read.
"""

from __future__ import annotations  # PyAV's classes are named before it is imported

import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zamba_lcli.data.opening import Deadline, open_clip
from zamba_lcli.data.opening import UnreadableClipError as UnreadableClipError
from zamba_lcli.data.pictures import PictureMaker, upright
from zamba_lcli.data.sampling import ContentSampling, FrameSampling, Timeline, TooShortError

if TYPE_CHECKING:  # imported by the functions that need it: --help reads no clip
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


MAX_DISORDER = 16  # frames; as many as an H.264 decoder keeps to bring them into order
TIME_LIMIT = 120.0  # seconds for a clip; a healthy one takes a few at most


class _SeekMissedError(Exception):
    """A seek did not land at or before the key frame it was meant for."""


@dataclass(frozen=True)
class Clip:
    """The frames of a clip that were asked for."""

    frames: NDArray[np.uint8]  # (num_clips x T, H, W, 3) RGB
    times: NDArray[np.float64]  # (num_clips x T,) seconds: when the frames given are shown
    numbers: NDArray[np.int64]  # (num_clips x T,) which frames of the file they are, 0 is the first
    frame_rate: float  # frames a second of the file, on average; 0.0 for a single frame
    duration: float  # seconds: length of the file


@dataclass(frozen=True)
class _Index:
    """Timeline in the ticks of the stream."""

    ticks: NDArray[np.int64]  # (N,) ascending
    seconds_per_tick: float
    timeline: Timeline

    def shown_at(self, seconds: NDArray[np.float64]) -> NDArray[np.int64]:
        """Returns which frames are shown at the given times: the last that began by then, (T,) positions."""
        tolerance = 1e-6  # seconds; the times asked for are often those of frames, up to rounding
        return np.maximum(np.searchsorted(self.timeline.times, seconds + tolerance, side="right") - 1, 0)

    def key_before(self, position: int) -> int:
        """Returns the ticks of the last key frame at or before ``position``."""
        keys = np.flatnonzero(self.timeline.keyframes[: position + 1])
        return int(self.ticks[keys[-1] if len(keys) else 0])


def probe(path: Path) -> None:
    """Opens a file to see whether there is a video in it; no frame is decoded.

    Raises:
        UnreadableClipError: With the reason.
    """
    open_clip(path, Deadline(TIME_LIMIT))[0].close()


def upright_size(path: Path) -> tuple[int, int]:
    """Returns height and width, in pixels, of the pictures of a clip as they are to be looked at.

    Raises:
        UnreadableClipError: With the reason.
    """
    deadline = Deadline(TIME_LIMIT)
    container, stream = open_clip(path, deadline)
    with container:
        for frame in _frames(container, stream, deadline, None):
            return upright(frame)
    raise UnreadableClipError("no frame of it can be decoded")


def try_clip(path: Path) -> None:
    """Opens a file, lists its frames and decodes the first good one.

    Raises:
        UnreadableClipError: With the reason.
    """
    deadline = Deadline(TIME_LIMIT)
    container, stream = open_clip(path, deadline)
    with container:
        _index(container, stream, deadline)
    container, stream = open_clip(path, deadline)
    with container:
        if next(_frames(container, stream, deadline, None), None) is None:
            raise UnreadableClipError("none of the frames can be decoded")


def read_timeline(path: Path) -> Timeline:
    """Reads when each frame in a file is shown, without decoding them.

    Raises:
        UnreadableClipError: If the file cannot be opened or holds no frame.
    """
    deadline = Deadline(TIME_LIMIT)
    container, stream = open_clip(path, deadline)
    with container:
        return _index(container, stream, deadline).timeline


def read_clip(
    path: Path,
    sampling: FrameSampling,
    *,
    height: int,
    width: int,
    crop_bottom_pixels: int = 0,
    max_damaged: float = 0.5,
    time_limit: float = TIME_LIMIT,
    move: Callable[[NDArray[np.float64], float], NDArray[np.float64]] | None = None,
) -> Clip:
    """Reads the frames shown at the times that ``sampling`` chooses, scaled, upright, in RGB.

    A frame that is damaged is replaced by the nearest good one before it (or, at the beginning, after it), which is what a
    player shows; ``Clip.times`` tells. No frame is made up.

    Args:
        path: The file.
        sampling: Chooses times from the clip's timeline.
        height: Height of the frames in pixels.
        width: Width of the frames in pixels.
        crop_bottom_pixels: Rows cut off at the bottom of the upright original picture, before scaling.
        max_damaged: Share of the chosen frames that may be damaged.
        time_limit: Seconds that reading may take.
        move: Moves the times of each part, (T,), in a clip whose last frame is at the given time, before they are looked at.

    Raises:
        UnreadableClipError: If the file cannot be opened, none or too few of its frames can be decoded, it is shorter than
            ``sampling`` allows, or reading takes too long.
    """
    deadline = Deadline(time_limit)
    container, stream = open_clip(path, deadline)
    with container:
        index = _index(container, stream, deadline)
    try:
        times = sampling.times(index.timeline)
        if isinstance(sampling, ContentSampling):
            size = (sampling.preview_height, sampling.preview_width)
            seen, _ = _frames_at(path, index, times, *size, crop_bottom_pixels, deadline)
            times = sampling.choose(times, seen.frames)
    except TooShortError as error:
        raise UnreadableClipError(f"too short: {error}") from None
    if move is not None:
        times = np.concatenate([move(part, index.timeline.duration) for part in np.split(times, sampling.num_clips)])
    clip, damaged = _frames_at(path, index, times, height, width, crop_bottom_pixels, deadline)
    if damaged > max_damaged:
        raise UnreadableClipError(f"{damaged:.0%} of the frames to be looked at are damaged")
    return clip


def _frames_at(
    path: Path,
    index: _Index,
    times: NDArray[np.float64],
    height: int,
    width: int,
    crop_bottom_pixels: int,
    deadline: Deadline,
) -> tuple[Clip, float]:
    """Returns the frames shown at the given times, and which share of them is replaced by others."""
    positions = index.shown_at(times)
    wanted = [int(position) for position in np.unique(positions)]
    size = (height, width, crop_bottom_pixels)
    try:
        delivered = _decode(path, index, wanted, *size, deadline, seek=True, sparing=True)
        if any(delivered[position][0] != index.ticks[position] for position in wanted):
            # something is damaged: the frames that were spared may be the nearest good ones
            delivered = _decode(path, index, wanted, *size, deadline, seek=True, sparing=False)
    except _SeekMissedError:  # the index of some AVI files leads astray
        delivered = _decode(path, index, wanted, *size, deadline, seek=False, sparing=False)
    ticks = np.array([delivered[int(position)][0] for position in positions])
    timeline = index.timeline
    clip = Clip(
        frames=np.stack([delivered[int(position)][1] for position in positions]),
        times=(ticks - index.ticks[0]) * index.seconds_per_tick,
        numbers=np.searchsorted(index.ticks, ticks),
        frame_rate=(len(timeline.times) - 1) / timeline.duration if timeline.duration else 0.0,
        duration=timeline.end,
    )
    return clip, float(np.mean([delivered[position][0] != index.ticks[position] for position in wanted]))


def _index(container: InputContainer, stream: VideoStream, deadline: Deadline) -> _Index:
    """Lists the stream's packets, up to where the file is cut off."""
    from av.error import FFmpegError

    found: dict[int, bool] = {}
    try:
        for packet in _packets(container, stream, deadline):
            shown = packet.pts if packet.pts is not None else packet.dts
            if shown is not None and packet.size:
                found[shown] = packet.is_keyframe
    except (FFmpegError, OSError):
        pass  # what was found so far can be read
    if not found:
        raise UnreadableClipError("no frame in the file")
    ticks = np.array(sorted(found), np.int64)
    keyframes = np.array([found[int(t)] for t in ticks])
    seconds_per_tick = float(stream.time_base or 1)
    return _Index(ticks, seconds_per_tick, Timeline((ticks - ticks[0]) * seconds_per_tick, keyframes))


def _packets(container: InputContainer, stream: VideoStream, deadline: Deadline) -> Iterator[Packet[VideoStream]]:
    """Yields the stream's packets, up to where the file is cut off."""
    try:
        for packet in container.demux(stream):
            deadline.check()
            yield packet
    except IndexError:  # PyAV lists the streams when it opens a file; in a damaged one others may turn up later
        return


def _decode(
    path: Path,
    index: _Index,
    wanted: list[int],
    height: int,
    width: int,
    crop_bottom_pixels: int,
    deadline: Deadline,
    seek: bool,
    sparing: bool,
) -> dict[int, tuple[int, NDArray[np.uint8]]]:
    """Decodes what it takes to deliver the frames at the ``wanted`` positions (ascending).

    Args:
        path: The file.
        index: Its timeline.
        wanted: Positions in it.
        height: Height of the pictures in pixels.
        width: Width of the pictures in pixels.
        crop_bottom_pixels: Rows cut off at the bottom of the original picture.
        deadline: When to give up.
        seek: Jump to key frames where that is shorter.
        sparing: Do not decode frames that are neither wanted nor needed for others, as many of H.264's B-frames are.

    Returns:
        For each position the ticks of the frame delivered and its picture, uint8 (height, width, 3).
    """
    from av.error import FFmpegError

    picture = PictureMaker(height, width, crop_bottom_pixels)
    container, stream = open_clip(path, deadline)
    delivered: dict[int, tuple[int, NDArray[np.uint8]]] = {}
    remaining = iter(wanted)
    target: int | None = next(remaining)
    held: VideoFrame | None = None  # the last good frame
    whole = {int(index.ticks[position]) for position in wanted} if sparing else None
    with container:
        while target is not None:
            key = index.key_before(target)
            if seek and key > (index.ticks[0] if held is None else _ticks(held)):
                try:
                    container.seek(key, stream=stream)
                except FFmpegError:
                    raise _SeekMissedError from None
                landed = False
            else:
                landed = True
            frames = _frames(container, stream, deadline, whole)
            for frame in frames if sparing else _in_order(frames):
                if not landed and _ticks(frame) > index.ticks[target]:
                    raise _SeekMissedError
                landed = True
                delivering = False
                while target is not None and _ticks(frame) >= index.ticks[target]:
                    exact = _ticks(frame) == index.ticks[target] or held is None
                    chosen = frame if exact or held is None else held
                    delivered[target] = (_ticks(chosen), picture(chosen))
                    target = next(remaining, None)
                    delivering = True
                if held is None or _ticks(frame) > _ticks(held):  # beyond what is sorted, frames may come in disorder
                    held = frame
                if target is None or (seek and delivering and index.key_before(target) > _ticks(frame)):
                    break  # done, or jumping ahead is shorter; asked once a target, for a seek may land before its key frame
            else:  # the file ends before the target, which was damaged
                if not landed:
                    raise _SeekMissedError
                if held is None:
                    raise UnreadableClipError("none of the frames can be decoded")
                last = (_ticks(held), picture(held))
                delivered |= {position: last for position in (target, *remaining) if position is not None}
                target = None
    return delivered


def _frames(
    container: InputContainer, stream: VideoStream, deadline: Deadline, whole: set[int] | None
) -> Iterator[VideoFrame]:
    """Yields the good frames from here on in the order they are shown; damaged packets and frames are passed over.

    Args:
        container: The file, at the place to begin.
        stream: Its video.
        deadline: When to give up.
        whole: Ticks of the frames that are wanted; of the others only those are decoded that others refer to. None for all.
    """
    from av.error import FFmpegError

    decoder = stream.codec_context
    decoder.skip_frame = "DEFAULT"
    skipping = False
    try:
        for packet in _packets(container, stream, deadline):
            if whole is not None and skipping is (packet.pts is None or packet.pts in whole):
                skipping = not skipping
                decoder.skip_frame = "NONREF" if skipping else "DEFAULT"
            try:
                frames = packet.decode()
            except (FFmpegError, OSError):
                continue
            yield from (f for f in frames if not f.is_corrupt and (f.pts is not None or f.dts is not None))
    except (FFmpegError, OSError):  # cut off: what the decoder still holds is good
        try:
            yield from (f for f in decoder.decode(None) if not f.is_corrupt)
        except (FFmpegError, OSError):
            return


def _in_order(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """Yields frames in the order they are shown: after damage, a decoder may hand out one after others that follow it."""
    waiting: list[VideoFrame] = []
    for frame in frames:
        bisect.insort(waiting, frame, key=_ticks)
        if len(waiting) > MAX_DISORDER:
            yield waiting.pop(0)
    yield from waiting


def _ticks(frame: VideoFrame) -> int:
    ticks = frame.pts if frame.pts is not None else frame.dts
    assert ticks is not None
    return ticks
