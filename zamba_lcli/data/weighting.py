"""Which train clips are drawn more often than others, chosen by class path in the YAML."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zamba_lcli.errors import InputError


class ClipWeights(ABC):
    """Base of all ways to draw train clips; an epoch has as many clips as there are, whatever the weights."""

    @abstractmethod
    def weights(self, targets: NDArray[np.float32]) -> NDArray[np.float64]:
        """Returns how often each clip is to be drawn, relative to the others: (clips,) numbers from 0 on.

        Args:
            targets: (clips, classes), 1 where a clip has the label.
        """


@dataclass(frozen=True)
class ClassBalanced(ClipWeights):
    """Draws clips of rare classes more often: in the mean over epochs all classes come equally often.

    A clip with several labels is drawn as often as its rarest label demands.

    Args:
        power: How far to go: 1 for equally often, 0 for as often as they are, 0.5 for the square root between.
    """

    power: float = 1.0

    def __post_init__(self) -> None:
        """Checks the argument."""
        if not 0 <= self.power <= 1:
            raise InputError(f"data.clip_weights.init_args.power: {self.power} is not between 0 and 1.")

    def weights(self, targets: NDArray[np.float32]) -> NDArray[np.float64]:
        """Returns (clips,): 1 / (clips with the rarest of its labels)^power."""
        clips = np.maximum(targets.sum(axis=0, dtype=np.float64), 1)  # (classes,)
        rarest = np.where(targets > 0, clips, len(targets)).min(axis=1)
        weights: NDArray[np.float64] = rarest**-self.power
        return weights
