"""The times of a clip's packets: recordings that were joined, and clocks that say little."""

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

MAX_DISORDER = 16  # frames; as many as an H.264 decoder keeps to bring them into order

Numbers: TypeAlias = NDArray[np.int64]


class Place(NamedTuple):
    """Tells a packet from the others of its stream, wherever reading began."""

    pts: int | None
    dts: int | None
    pos: int | None  # byte in the file
    size: int  # bytes

    @property
    def mark(self) -> tuple[int | None, ...]:
        """What is the same wherever reading began; times of decoding may be known later only."""
        return (self.dts if self.pts is None else self.pts, self.pos, self.size)


def is_unclear(places: list[Place], keys: NDArray[np.bool_], hidden: NDArray[np.bool_]) -> bool:
    """Whether two frames of a recording have one time, or the clock steps back within it: then times give no order."""
    parts, _ = _parts(places, keys, 0.0)
    shown = [(part, place.pts) for part, place, no in zip(parts, places, hidden, strict=True) if not no]
    known = [both for both in shown if both[1] is not None]
    return len(set(known)) < len(known) or _steps_back(clock_of(places)) > parts[-1]


def join_parts(
    places: list[Place], keys: NDArray[np.bool_], hidden: NDArray[np.bool_], when: NDArray[np.float64], long_jump: float
) -> tuple[Numbers, list[int], list[tuple[int, float]]]:
    """Lets the times of recordings that were joined follow each other, as players do.

    Args:
        places: The packets.
        keys: Which are key frames.
        hidden: Which are not shown.
        when: When each is shown, in ticks; changed in place.
        long_jump: Ticks; a longer jump ahead is left out. 0 for none.

    Returns:
        The part that each packet belongs to, the packets before which times began anew, and those before which a jump was left
        out, with its ticks.
    """
    parts, interval = _parts(places, keys, long_jump)
    restarts: list[int] = []
    jumps: list[tuple[int, float]] = []
    offset, end = 0.0, None
    for part in range(int(parts[-1]) + 1):
        shown = np.flatnonzero((parts == part) & ~hidden)
        if len(shown):
            gap = 0.0 if end is None else when[shown].min() + offset - end
            if end is not None and (gap <= 0 or (long_jump and gap > long_jump)):
                first = int(shown[np.argmin(when[shown])])
                if gap <= 0:
                    restarts.append(first)
                else:
                    jumps.append((first, gap))
                offset += interval - gap
            end = float(when[shown].max() + offset)
        when[parts == part] += offset
    return parts, restarts, jumps


def _parts(places: list[Place], keys: NDArray[np.bool_], long_jump: float) -> tuple[Numbers, float]:
    """Returns the part that each packet belongs to, by the clock it is decoded by; and the usual time between two, in ticks."""
    clock = clock_of(places)
    known = np.flatnonzero(~np.isnan(clock))
    steps = np.diff(clock[known])
    forward = steps[steps > 0]
    interval = float(np.median(forward)) if len(forward) else 1.0
    # a step back between key frames is one of a clock that is not exact
    back = (steps < 0) & (keys[known[1:]] | (steps < -MAX_DISORDER * interval))
    ahead = steps > long_jump if long_jump else np.zeros_like(back)
    starts = known[1:][back | ahead]
    return np.searchsorted(starts, np.arange(len(places)), side="right"), interval


def ticks_of(places: list[Place], which: Literal["pts", "dts"]) -> NDArray[np.float64]:
    """Returns one of the times of each packet, (P,) ticks, NaN where unknown."""
    return np.array([getattr(place, which) for place in places], np.float64)  # which makes NaN of None


def clock_of(places: list[Place]) -> NDArray[np.float64]:
    """Returns the times by which packets are decoded, (P,) ticks, NaN where unknown.

    Where FFmpeg can but guess them, what a container gives as times of showing may be them.
    """
    dts, pts = ticks_of(places, "dts"), ticks_of(places, "pts")
    return pts if _steps_back(pts) <= _steps_back(dts) and not np.isnan(pts).any() else dts


def _steps_back(ticks: NDArray[np.float64]) -> int:
    return int((np.diff(ticks[~np.isnan(ticks)]) < 0).sum())


def spread_apart(ticks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spreads frames with one and the same time up to the next one's, so that each is shown for a while: (N,), ascending."""
    distinct, first, counts = np.unique(ticks, return_index=True, return_counts=True)
    if len(distinct) == len(ticks):
        return ticks
    room = np.diff(distinct, append=distinct[-1] + (distinct[-1] - distinct[-2] if len(distinct) > 1 else 1.0))
    place = np.arange(len(ticks)) - np.repeat(first, counts)
    return np.repeat(distinct, counts) + np.repeat(room / counts, counts) * place


def rank_among(packets: Numbers, count: int) -> Numbers:
    """Returns where each packet would stand if all were shown: those that are not follow the one stored before them."""
    place = np.full(count, -1)
    place[packets] = np.arange(len(packets))
    shown = np.where(place >= 0, np.arange(count), -1)
    before = np.maximum.accumulate(shown)
    return np.argsort(np.lexsort((np.arange(count), np.where(before >= 0, place[before], -1))))
