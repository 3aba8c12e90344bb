"""Delivers frames of a clip, by seeking to where their decoding can begin."""

from __future__ import annotations  # PyAV's classes are named before it is imported

import bisect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from zamba_lcli.data.video.clock import MAX_DISORDER
from zamba_lcli.data.video.deadline import Deadline, UnreadableClipError
from zamba_lcli.data.video.opening import open_clip
from zamba_lcli.data.video.packets import (
    WAITING,
    ClipIndex,
    clock_may_be_set_anew,
    demux,
    is_whole,
    number,
    place_of,
)

if TYPE_CHECKING:  # imported by the functions that need it: --help reads no clip
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

T = TypeVar("T")
Numbered: TypeAlias = tuple[int, "VideoFrame"]  # position among the frames shown


class SeekMissedError(Exception):
    """A seek did not lead to the key frame that it was meant for, or that was none."""


class FrameReader:
    """Decodes a clip from a packet on.

    Args:
        path: The file.
        index: Its frames and packets.
        deadline: When to give up.
        whole: Packets of the frames that are wanted; of the others only those are decoded that others refer to. None for all.
    """

    def __init__(self, path: Path, index: ClipIndex, deadline: Deadline, whole: set[int] | None = None) -> None:
        """Opens the file."""
        self.container, self.stream = open_clip(path, deadline)
        self.index, self.deadline, self.whole = index, deadline, whole
        self.last = -1  # the packet decoded last
        self._key: int | None = None  # the packet that decoding begins at after a seek

    def __enter__(self) -> FrameReader:
        """Returns the reader."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file."""
        self.container.close()

    def seek(self, key: int) -> None:
        """Lets ``frames`` go on from a key frame, given by the number of its packet."""
        self._key = key

    def frames(self) -> Iterator[Numbered]:
        """Yields the good frames from here on as the decoder gives them, with their positions; damaged ones are passed over.

        Raises:
            SeekMissedError: If the key frame is not found, or is none.
        """
        index, key = self.index, self._key
        codec = self.stream.codec_context.codec
        tested = key is None or codec.intra_only or codec.canonical_name in WAITING
        for frame in self._decoded():
            count = frame.pts
            if count is None or not 0 <= count < len(index.positions):
                continue
            if key is not None and index.rank[count] < index.rank[key]:  # refers to what is before the key frame
                continue
            if not tested and not is_whole(frame):
                raise SeekMissedError
            tested = True
            if index.positions[count] >= 0:
                yield int(index.positions[count]), frame

    def _decoded(self) -> Iterator[VideoFrame]:
        """Yields the good frames, which have the number of their packet in place of a time."""
        from av.error import FFmpegError

        decoder = self.stream.codec_context
        decoder.skip_frame = "DEFAULT"
        skipping = False
        try:
            for count, packet in self._packets():
                if self.whole is not None and skipping is (not packet.size or count in self.whole):
                    skipping = not skipping
                    decoder.skip_frame = "NONREF" if skipping else "DEFAULT"
                self.last = count
                number(packet, count)
                try:
                    frames = packet.decode()
                except (FFmpegError, OSError):
                    continue
                yield from (frame for frame in frames if not frame.is_corrupt)
        except (FFmpegError, OSError):  # cut off: what the decoder still holds is good
            try:
                yield from (frame for frame in decoder.decode(None) if not frame.is_corrupt)
            except (FFmpegError, OSError):
                return

    def _packets(self) -> Iterator[tuple[int, Packet[VideoStream]]]:
        """Yields packets with their numbers: those that follow, or after ``seek`` those from the key frame on."""
        if self._key is None:
            count = self.last
            for packet in demux(self.container, self.stream, self.deadline):
                count += bool(packet.size)
                yield count, packet
            return
        for ticks in self._times_before(self._key):
            found = self._packets_after(ticks, self._key)
            first = next(found, None)
            if first is not None:
                yield first
                yield from found
                return
        raise SeekMissedError

    def _times_before(self, key: int) -> Iterator[int]:
        """Yields times, in ticks, at which the file may have to be entered to come by a key frame."""
        place = self.index.places[key]
        if clock_may_be_set_anew(self.container) and place.dts is not None:  # such formats are searched by that
            yield place.dts
            yield place.dts - round(1 / float(self.stream.time_base or 1))  # the packet may begin a little earlier
            return
        yield from (ticks for ticks in (place.pts, place.dts) if ticks is not None)

    def _packets_after(self, ticks: int, key: int) -> Iterator[tuple[int, Packet[VideoStream]]]:
        """Yields the packets from a key frame on; none if entering the file at a time leads to others after it."""
        from av.error import FFmpegError

        try:
            self.container.seek(ticks, stream=self.stream)
        except FFmpegError:
            return
        before: int | None = None
        for packet in demux(self.container, self.stream, self.deadline):
            if packet.size:
                count = self.index.numbers.get(place_of(packet).mark)
                if before is None:
                    if count is None:  # part of a packet
                        continue
                    if count > key:
                        return
                elif count != before + 1:
                    raise SeekMissedError
                before = count
            elif before is None or before < key:
                return
            if before >= key:
                yield before, packet


def decode(
    path: Path,
    index: ClipIndex,
    wanted: list[int],
    picture: Callable[[VideoFrame], T],
    deadline: Deadline,
    *,
    seek: bool,
    sparing: bool,
) -> dict[int, tuple[int, T]]:
    """Decodes what it takes to deliver the frames at the ``wanted`` positions (ascending).

    Args:
        path: The file.
        index: Its frames.
        wanted: Positions among them.
        picture: What is made of a frame; called once for each frame delivered, in their order.
        deadline: When to give up.
        seek: Jump to key frames where that is shorter.
        sparing: Do not decode frames that are neither wanted nor needed for others, as many of H.264's B-frames are.

    Returns:
        For each position that of the frame delivered, the nearest good one before it if it is damaged, and what is made of it.

    Raises:
        SeekMissedError: If a seek did not lead where it should.
        UnreadableClipError: If no frame is good.
    """
    delivered: dict[int, tuple[int, T]] = {}
    remaining = iter(wanted)
    target: int | None = next(remaining)
    held: Numbered | None = None  # the last good frame
    whole = {int(index.packets[position]) for position in wanted} if sparing else None
    if whole is not None:
        whole |= {packet + 1 for packet in whole} & index.seconds
    with FrameReader(path, index, deadline, whole) as reader:
        while target is not None:
            landed = True
            if seek and index.key_before(target) > reader.last + 1:
                reader.seek(index.key_before(target))
                landed = False
            frames = reader.frames()
            for position, frame in frames if sparing else _in_order(frames):
                if not landed and position > target:
                    raise SeekMissedError
                landed = True
                delivering = False
                while target is not None and position >= target:
                    chosen = (position, frame) if position == target or held is None else held
                    delivered[target] = (chosen[0], picture(chosen[1]))
                    target = next(remaining, None)
                    delivering = True
                if held is None or position > held[0]:  # beyond what is sorted, frames may come in disorder
                    held = position, frame
                if target is None or (seek and delivering and index.key_before(target) > reader.last + 1):
                    break  # done, or jumping ahead is shorter; asked once a target, for a seek may land before its key frame
            else:  # the file ends before the target, which was damaged
                if not landed:
                    raise SeekMissedError
                if held is None:
                    raise UnreadableClipError("none of the frames can be decoded")
                last = (held[0], picture(held[1]))
                delivered |= {position: last for position in (target, *remaining) if position is not None}
                target = None
    return delivered


def deliver(
    path: Path,
    index: ClipIndex,
    wanted: list[int],
    begin: Callable[[], Callable[[VideoFrame], T]],
    deadline: Deadline,
) -> dict[int, tuple[int, T]]:
    """Decodes the frames at the ``wanted`` positions, the cheapest way that works; for each of them ``begin`` is called.

    Raises:
        UnreadableClipError: If no frame is good, or if they take more memory than there is.
    """
    sparing = not index.order_decoded  # where packets and pictures do not go together, a decoder may pass over too much
    try:
        try:
            delivered = decode(path, index, wanted, begin(), deadline, seek=index.seekable, sparing=sparing)
            if sparing and any(delivered[position][0] != position for position in wanted):
                # something is damaged: the frames that were spared may be the nearest good ones
                delivered = decode(path, index, wanted, begin(), deadline, seek=index.seekable, sparing=False)
        except SeekMissedError:  # the index of some AVI files leads astray
            delivered = decode(path, index, wanted, begin(), deadline, seek=False, sparing=False)
    except MemoryError:
        raise UnreadableClipError("there is not enough memory for its pictures") from None
    return delivered


def _in_order(frames: Iterator[Numbered]) -> Iterator[Numbered]:
    """Yields frames in the order they are shown: after damage, a decoder may hand out one after others that follow it."""
    waiting: list[Numbered] = []
    for frame in frames:
        bisect.insort(waiting, frame, key=lambda numbered: numbered[0])
        if len(waiting) > MAX_DISORDER:
            yield waiting.pop(0)
    yield from waiting
