"""Which times of a clip are looked at: one small class for each strategy, chosen by class path in the YAML."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zamba_lcli.errors import InputError


@dataclass(frozen=True)
class Timeline:
    """What is known of a clip before any of its frames is decoded."""

    times: NDArray[np.float64]  # (N,) presentation times in seconds, ascending, from 0.0
    keyframes: NDArray[np.bool_]  # (N,) whether decoding can start there

    @property
    def duration(self) -> float:
        """Time of the last frame in seconds; 0.0 for a single frame."""
        return float(self.times[-1])


class FrameSampling(ABC):
    """Base of all strategies: chooses times, and leaves it to the reader which frames are shown then."""

    num_frames: int

    @abstractmethod
    def times(self, timeline: Timeline) -> NDArray[np.float64]:
        """Returns the times to look at: (num_frames,) seconds, ascending."""


@dataclass(frozen=True)
class EvenlySpaced(FrameSampling):
    """Times evenly spaced from the first frame to the last one, both included.

    A clip with fewer frames than asked for shows some of them several times in a row.

    Args:
        num_frames: How many times.
    """

    num_frames: int = 32

    def __post_init__(self) -> None:
        """Checks the arguments."""
        if self.num_frames < 1:
            raise InputError(f"data.sampling.init_args.num_frames: {self.num_frames} is less than 1.")

    def times(self, timeline: Timeline) -> NDArray[np.float64]:
        """Returns (num_frames,) seconds, from 0 to the time of the last frame."""
        return np.linspace(0.0, timeline.duration, self.num_frames)
