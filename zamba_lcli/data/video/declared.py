"""How much of the video that a file declares is in it: of one that was cut off, players and FFmpeg show the rest in silence.

What headers declare is used for nothing else, and counts only where it is made when a recording ends (MP4, MOV, AVI,
Matroska); it is absent in streams (MPEG-TS, fragmented MP4), and what FFmpeg guesses from the bit rate is not taken for it.
"""

from __future__ import annotations  # PyAV's classes are named before it is imported

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported by the functions that need it: --help reads no clip
    from av.container import InputContainer
    from av.video.stream import VideoStream

MICROSECOND = 1e-6  # unit of a container's duration in PyAV
TOLERATED = 5  # frames by which honest headers are off
TOLERATED_SHARE = 0.02


@dataclass(frozen=True)
class Declared:
    """What the header says of the video; 0 where it says nothing."""

    frames: int = 0
    seconds: float = 0.0

    def missing(self, frames: int, seconds: float) -> float:
        """Returns the share of the declared video that is not there; 0.0 for what honest headers are off by.

        Both the number of frames and the length must say so: cameras leave out frames, and show the last one for long.

        Args:
            frames: Frames that are there.
            seconds: From the begin of the first to the end of the last of them.
        """
        shares = [1 - there / said for there, said in ((frames, self.frames), (seconds, self.seconds)) if said > 0]
        missing = min(shares, default=0.0)
        tolerated = max(TOLERATED_SHARE, TOLERATED / (self.frames or max(1.0, frames / max(1e-9, 1 - missing))))
        return missing if missing > tolerated else 0.0


def declared(path: Path, container: InputContainer, stream: VideoStream) -> Declared:
    """Returns what the header of a file says of its video."""
    kind = container.format.name.partition(",")[0]
    start = float((stream.start_time or 0) * (stream.time_base or 0))  # what is declared counts from 0
    if kind == "mov":
        return Declared(stream.frames, max(0.0, float((stream.duration or 0) * (stream.time_base or 0)) - start))
    if kind == "avi" and _is_cut_off(path):  # FFmpeg gives such a stream the length that it guesses from what is left
        return Declared(stream.frames, stream.frames / float(stream.average_rate or 1))
    of_file = (container.duration or 0) * MICROSECOND
    if kind == "matroska":
        tag = _seconds(stream.metadata.get("DURATION", ""))
        # that of the file is the longest stream's, and where none is written, a guess from the bit rate
        tag = tag or (of_file if len(container.streams) == 1 and not stream.bit_rate else 0.0)
        return Declared(0, max(0.0, tag - start))
    return Declared()


def note_of(missing: float, seconds: float, damaged: float = 0.0, of: str = "the frames to be looked at") -> str:
    """Returns in words how much of a clip can be read; empty if all of it can.

    Args:
        missing: Share of the declared video that is not there.
        seconds: Length of what is there.
        damaged: Share of frames that cannot be decoded.
        of: Which frames these are a share of.
    """
    notes = []
    if missing:
        share = 1 - missing
        notes.append(
            f"cut off: only {seconds:.1f} of {seconds / share:.1f} s are in the file ({share:.0%} of the frames)"
        )
    if damaged:
        notes.append(f"{max(damaged, 0.01):.0%} of {of} are damaged")
    return "; ".join(notes)


def _is_cut_off(path: Path) -> bool:
    """Returns whether a RIFF file is shorter than its own chunks say: AVIs of many cameras only declare a wrong length."""
    end, place = path.stat().st_size, 0
    with path.open("rb") as file:
        while place < end:  # OpenDML: one RIFF after the other
            file.seek(place)
            head = file.read(8)
            if len(head) < 8 or head[:4] != b"RIFF":
                return False
            size = struct.unpack("<I", head[4:])[0]
            place += 8 + size + size % 2
    return place > end + 1


def _seconds(tag: str) -> float:
    """Returns the seconds in such as ``00:00:18.800000000``; 0.0 if it is none."""
    parts = tag.split(":")
    try:
        hours, minutes, seconds = map(float, parts)
    except ValueError:
        return 0.0
    return 3600 * hours + 60 * minutes + seconds
