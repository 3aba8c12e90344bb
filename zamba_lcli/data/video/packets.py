"""Which frames a clip has and when, found out from the packets of its file: what a player shows, in the order it shows them.

Most containers say when the picture of a packet is shown. Some packets are not shown at all (what an edit list cuts off,
frames that only others refer to); some files have no times of showing (AVI) or those of other recordings (joined byte by byte);
some call every frame a key frame. Everything is decoded to find the order only where nothing else gives it.
"""

from __future__ import annotations  # PyAV's classes are named before it is imported

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import NDArray

from zamba_lcli.data.sampling.base import Timeline
from zamba_lcli.data.video.bitstream import H264Fields, holds_one_picture, may_be_moved, shows_nothing
from zamba_lcli.data.video.clock import (
    MAX_DISORDER,
    Numbers,
    Place,
    clock_of,
    is_unclear,
    join_parts,
    rank_among,
    spread_apart,
    ticks_of,
)
from zamba_lcli.data.video.deadline import Deadline, UnreadableClipError
from zamba_lcli.data.video.declared import declared
from zamba_lcli.data.video.opening import open_clip

if TYPE_CHECKING:  # imported by the functions that need it: --help reads no clip
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

LONG_JUMP = 10.0  # seconds; FFmpeg treats it as a reset clock, in formats that allow it
USUAL_RATE = 25.0  # frames a second, where nothing is known
TRIED_MARKS = 6  # frames
MAX_PACKETS = 1_000_000  # of a clip: 11 hours at 25 a second. Each takes 300 bytes while the clip is read
HIDING = ("vp8", "vp9", "av1", "theora", "dirac")  # codecs with packets that are not shown
# whose decoders show nothing before a key frame
WAITING = (
    "h264",
    "hevc",
    "vvc",
    "mpeg1video",
    "mpeg2video",
    "vp8",
    "vp9",
    "av1",
)


@dataclass(frozen=True)
class ClipIndex:
    """The frames of a clip, and the packets to read for them; packets are numbered from 0 as they are stored."""

    timeline: Timeline
    packets: Numbers  # (N,) the packet of each frame
    positions: Numbers  # (P,) the frame of each packet, -1 for those that are not shown
    rank: Numbers  # (P,) where each packet would stand if all were shown
    seconds: frozenset[int]  # packets that hold the second field of the frame before
    keys: Numbers  # (K,) packets at which decoding can begin, shown or not
    places: list[Place]  # (P,)
    seekable: bool  # whether a packet can be found by its times
    assumed_rate: float | None  # frames a second that make the times, where the file has none; None where it has
    order_decoded: bool  # whether only decoding gave the order
    marks_wrong: bool  # whether frames are marked as key frames that are none
    restarts: list[int]  # frames before which the times begin anew
    jumps: list[tuple[int, float]]  # frames that are shown much later than the one before, and by how many seconds
    missing: float  # share of the length that the header declares that is not in the file

    @cached_property
    def numbers(self) -> dict[tuple[int | None, ...], int]:
        """The numbers of the packets by their marks; those that look alike are left out."""
        marks = [place.mark for place in self.places]
        alike = {mark for mark, count in Counter(marks).items() if count > 1}
        return {mark: count for count, mark in enumerate(marks) if mark not in alike}

    def shown_at(self, seconds: NDArray[np.float64]) -> Numbers:
        """Returns which frames are shown at the given times: the last that began by then, (T,) positions."""
        tolerance = 1e-6  # seconds; the times asked for are often those of frames, up to rounding
        return np.maximum(np.searchsorted(self.timeline.times, seconds + tolerance, side="right") - 1, 0)

    def key_before(self, position: int) -> int:
        """Returns the packet to begin at for a frame: the last key frame stored and shown before it, or else the first."""
        packet = self.packets[position]
        fit = self.keys[(self.keys <= packet) & (self.rank[self.keys] <= self.rank[packet])]
        return int(fit[-1]) if len(fit) else 0


@dataclass
class _Stored:
    """The packets of a file, after one pass."""

    places: list[Place] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)  # as they are marked
    hidden: list[bool] = field(default_factory=list)  # cut off by an edit list, or only there for others
    seconds: list[bool] = field(default_factory=list)  # second fields of the frame that the packet before began
    trimmed: bool = False  # whether an edit list cuts some off
    ascending: bool = True  # whether each is shown after those before it, by the times
    moved: bool = False  # whether some are shown before others that are stored before them, by the pictures
    odd: bool = False  # whether some hold two pictures, or none
    first: float = float("inf")  # ticks
    end: float = float("-inf")

    @property
    def length(self) -> float:
        """From the begin of the first frame to the end of the last, in ticks; infinite if not known."""
        return abs(self.end - self.first)


def read_index(path: Path, deadline: Deadline) -> ClipIndex:
    """Finds out which frames a clip has and when each is shown.

    Raises:
        UnreadableClipError: If the file cannot be opened or holds no frame.
    """
    from av.format import Flags

    container, stream = open_clip(path, deadline)
    with container:
        codec = stream.codec_context.codec
        stored = _pass_over(container, stream, deadline)
        seconds_per_tick = float(stream.time_base or 1)
        rate = float(
            stream.guessed_rate or stream.average_rate or USUAL_RATE
        )  # guessed: by what the stream says itself
        missing = declared(path, container, stream).missing(len(stored.places), stored.length * seconds_per_tick)
        has_times = Flags.no_timestamps not in Flags(container.format.flags)
        clock_set_anew = clock_may_be_set_anew(container)
        has_palette = stream.codec_context.pix_fmt == "pal8"  # which comes with the first packet alone
        numbered = container.format.name == "dirac"  # whose streams have numbers of pictures in place of times
    if not stored.places:
        raise UnreadableClipError("no frame in the file")
    keys, hidden = np.array(stored.keys, bool), np.array(stored.hidden, bool)
    seconds = np.array(stored.seconds, bool)
    hidden |= seconds
    marks_wrong = False
    if not codec.intra_only and keys.sum() > max(1, len(keys) / 2) and _marks_are_wrong(path, keys, deadline):
        keys, marks_wrong = _true_keys(path, keys, deadline), True

    untimed = numbered or any(
        place.pts is None and place.dts is None and not second
        for place, second in zip(stored.places, stored.seconds, strict=True)
    )
    order = None
    if (
        untimed
        or stored.odd
        or (stored.moved and stored.ascending)
        or (codec.reorder and is_unclear(stored.places, keys, hidden))
    ):
        order = _order_of_decoder(path, hidden, deadline)
        if not untimed and order == np.flatnonzero(~hidden).tolist():  # as it is stored, each packet one picture
            order = None
    if untimed:
        when, seconds_per_tick = np.cumsum(~seconds).astype(np.float64) - 1, 1 / rate
    else:
        pts, dts = ticks_of(stored.places, "pts"), ticks_of(stored.places, "dts")
        best = pts if order is None else clock_of(stored.places)
        when = np.where(np.isnan(best), np.where(np.isnan(pts), dts, pts), best)
    parts, restarts, jumps = join_parts(
        stored.places, keys, hidden, when, LONG_JUMP / seconds_per_tick if clock_set_anew else 0
    )
    rank = np.arange(len(keys))
    if codec.reorder:
        by_times = np.lexsort((when, parts))  # stable: what is shown at one time is shown as it is stored
        rank = np.argsort(by_times)
        if restarts and order is None:  # at a seam frames of both recordings may be mixed
            decoded = _order_of_decoder(path, hidden, deadline)
            order = None if decoded == by_times[~hidden[by_times]].tolist() else decoded
    if order is None:
        hidden |= _not_decodable(path, keys, hidden, rank, deadline)
        packets = np.flatnonzero(~hidden)
        packets = packets[np.argsort(rank[packets])]
        ticks = np.sort(when[packets])
    else:
        packets = np.array(order, np.int64)
        ticks = np.sort(when[packets])
        rank = rank_among(packets, len(keys))
    if not len(packets):
        raise UnreadableClipError(
            "no frame in the file" if not len(keys) else "none of the frames in the file is shown"
        )
    times = (spread_apart(ticks) - ticks[0]) * seconds_per_tick
    positions = np.full(len(keys), -1)
    positions[packets] = np.arange(len(packets))
    return ClipIndex(
        timeline=Timeline(times, keys[packets]),
        packets=packets,
        positions=positions,
        rank=rank,
        seconds=frozenset(np.flatnonzero(seconds).tolist()),
        keys=np.flatnonzero(keys & ~seconds),
        places=stored.places,
        seekable=not (untimed or restarts or jumps or has_palette or (stored.odd and order is not None)),
        assumed_rate=rate if (untimed or not has_times) and len(times) > 1 else None,
        order_decoded=order is not None,
        marks_wrong=marks_wrong,
        # parts of a recording that an edit list shows again may overlap, without being another recording
        restarts=[] if stored.trimmed else [int(positions[packet]) for packet in restarts],
        jumps=[(int(positions[packet]), gap * seconds_per_tick) for packet, gap in jumps],
        missing=missing,
    )


def demux(container: InputContainer, stream: VideoStream, deadline: Deadline) -> Iterator[Packet[VideoStream]]:
    """Yields the stream's packets, up to where the file is cut off; the last one is empty and ends the decoding."""
    try:
        for packet in container.demux(stream):
            deadline.check()
            if packet.size or packet.dts is None:
                yield packet
    except IndexError:  # PyAV lists the streams when it opens a file; in a damaged one others may turn up later
        return


def place_of(packet: Packet[VideoStream]) -> Place:
    """Returns what identifies a packet."""
    return Place(packet.pts, packet.dts, packet.pos, packet.size)


def number(packet: Packet[VideoStream], count: int) -> None:
    """Writes a packet's number where decoders take it from, and hand it on with the frame: in place of its time."""
    packet.pts = packet.dts = count


def is_whole(frame: VideoFrame) -> bool:
    """Whether a frame refers to no other."""
    from av.video.frame import PictureType

    return PictureType(frame.pict_type).name in ("I", "SI", "BI", "NONE")


def clock_may_be_set_anew(container: InputContainer) -> bool:
    """Whether the format is one of broadcasts, in which times may jump and begin anew."""
    from av.format import Flags

    return bool(int(container.format.flags) & cast(int, Flags.ts_discont.value))


def _pass_over(container: InputContainer, stream: VideoStream, deadline: Deadline) -> _Stored:
    """Lists the stream's packets without decoding them."""
    from av.error import FFmpegError

    stored = _Stored()
    context = stream.codec_context
    name = context.codec.canonical_name
    # AVI has no times of showing, nor has what is taken over from it as it is; what FFmpeg gives there is a guess
    guessed = container.format.name == "avi" or (
        container.format.name.startswith("matroska") and context.codec_tag.strip("\0") != ""
    )
    reorders = bool(context.codec.reorder and context.has_b_frames)
    fields = H264Fields(context.extradata or b"") if name == "h264" else None
    if fields is not None and not fields.possible:
        fields = None
    last = Place(None, None, None, 0)
    try:
        for packet in demux(container, stream, deadline):
            if not packet.size:
                continue
            place, hidden = place_of(packet), packet.is_discard
            stored.trimmed |= hidden
            if name in HIDING:
                hidden |= shows_nothing(name, bytes(packet))
            elif name == "mpeg4" and not stored.odd:
                stored.odd = not holds_one_picture(name, bytes(packet))
            if reorders and not stored.moved and (stored.ascending or guessed):
                stored.moved = may_be_moved(context, bytes(packet))
            if not guessed and _before(place.pts, last.pts) and not _before(place.dts, last.dts):
                stored.ascending = False
            if len(stored.places) == MAX_PACKETS:
                raise UnreadableClipError(f"it has more than {MAX_PACKETS:,} frames: cut it into several clips")
            if (begin := place.dts if place.pts is None else place.pts) is not None:
                stored.first = min(stored.first, begin)
                stored.end = max(stored.end, begin + (packet.duration or 0))
            stored.places.append(place)
            stored.keys.append(packet.is_keyframe)
            stored.hidden.append(hidden)
            stored.seconds.append(fields is not None and fields.is_second(bytes(packet)))
            last = place
    except (FFmpegError, OSError):
        pass  # what was found so far can be read
    return stored


def _before(ticks: int | None, others: int | None) -> bool:
    return ticks is not None and others is not None and ticks < others


def _decode_all(
    path: Path, deadline: Deadline, skip: Literal["DEFAULT", "NONKEY"] = "DEFAULT", limit: int | None = None
) -> Iterator[tuple[int, list[VideoFrame] | None]]:
    """Decodes from the beginning; yields the number of each packet and the frames that came out then, None if it is damaged.

    Args:
        path: The file.
        deadline: When to give up.
        skip: Which frames the decoder may pass over.
        limit: The last packet; None for all.
    """
    from av.error import FFmpegError

    container, stream = open_clip(path, deadline)
    with container:
        stream.codec_context.skip_frame = skip
        count = -1
        try:
            for packet in demux(container, stream, deadline):
                count += bool(packet.size)
                if limit is not None and count > limit:
                    break
                number(packet, count)
                try:
                    yield count, packet.decode() if packet.size else stream.codec_context.decode(None)
                except (FFmpegError, OSError):
                    yield count, None
            else:
                return
        except (FFmpegError, OSError):
            pass
        try:
            yield count, stream.codec_context.decode(None)
        except (FFmpegError, OSError):
            return


def _order_of_decoder(path: Path, hidden: NDArray[np.bool_], deadline: Deadline) -> list[int]:
    """Returns the packets whose frames the decoder gives, in its order; those that are damaged stand where they are stored."""
    order: dict[int, None] = {}
    damaged = []
    for count, frames in _decode_all(path, deadline):
        if frames is None:
            damaged.append(count)
        for frame in frames or ():
            if frame.pts is not None and 0 <= frame.pts < len(hidden):
                order[frame.pts] = None
    given = list(order)
    for count in damaged:
        if count < len(hidden) and count not in order and not hidden[count]:
            given.insert(next((at for at, other in enumerate(given) if other > count), len(given)), count)
    return given


def _marks_are_wrong(path: Path, keys: NDArray[np.bool_], deadline: Deadline) -> bool:
    """Whether one of the first frames that are marked as key frames refers to others."""
    tried = 0
    for _, frames in _decode_all(path, deadline, limit=int(np.flatnonzero(keys)[:TRIED_MARKS][-1]) + 1):
        for frame in frames or ():
            if frame.pts is not None and frame.pts < len(keys) and keys[frame.pts]:
                if not is_whole(frame):
                    return True
                tried += 1
        if tried >= TRIED_MARKS:
            break
    return False


def _true_keys(path: Path, keys: NDArray[np.bool_], deadline: Deadline) -> NDArray[np.bool_]:
    """Returns which packets are key frames by what is in them; the decoder passes over all others."""
    true = np.zeros_like(keys)
    for _, frames in _decode_all(path, deadline, skip="NONKEY"):
        for frame in frames or ():
            if frame.pts is not None and frame.pts < len(keys):
                true[frame.pts] = is_whole(frame)
    return true & keys


def _not_decodable(
    path: Path, keys: NDArray[np.bool_], hidden: NDArray[np.bool_], rank: Numbers, deadline: Deadline
) -> NDArray[np.bool_]:
    """Returns which packets stored or shown before the first key frame refer to what is not in the file any more."""
    lost = np.zeros_like(hidden)
    first = int(np.flatnonzero(keys)[0]) if keys.any() else 0
    leading = np.flatnonzero(~hidden & ((np.arange(len(keys)) < first) | (rank < rank[first])))
    if len(leading):
        last = max(first, int(leading[-1])) + MAX_DISORDER
        given = [
            f.pts for _, frames in _decode_all(path, deadline, limit=last) for f in frames or () if not f.is_corrupt
        ]
        lost[np.setdiff1d(leading, [count for count in given if count is not None])] = True
    return lost
