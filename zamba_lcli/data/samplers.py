"""Order and frequency in which clips are drawn, and the position in an epoch that a resumed run goes on from."""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from torch.utils.data import DistributedSampler, SequentialSampler

from zamba_lcli._lightning import epoch_in_progress, is_in_last_validation, set_batches_done
from zamba_lcli.data.dataset import NO_CLIP, ClipDataset, ClipDraw
from zamba_lcli.errors import InputError


class Loading(Protocol):
    """A data module, as far as the position in an epoch depends on it."""

    trainer: Trainer | None
    batch_size: int


class EpochPosition:
    """The epoch that begins or goes on, and how many of its clips are done.

    Lightning counts batches. Clips count where a run is resumed with another batch size or number of processes.

    Args:
        data: The data module.
    """

    def __init__(self, data: Loading) -> None:
        """Begins at the first clip."""
        self._data = data
        self._resumed: dict[str, int] | None = None  # as in the checkpoint
        self._began = (0, 0, 0)  # the epoch gone on with, and its batches and clips that were done then

    def current(self) -> tuple[int, int]:
        """Returns the epoch, and how many of its clips this process is done with."""
        epoch, batches = epoch_in_progress(self._data.trainer)
        began = self._began if self._began[0] == epoch else (epoch, 0, 0)
        return epoch, began[2] + (batches - began[1]) * self._data.batch_size

    def state_dict(self) -> dict[str, int]:
        """Returns ``epoch`` and ``clips``, those that all processes together are done with."""
        epoch, clips = self.current()
        return {"epoch": epoch, "clips": clips * self._processes}

    def load_state_dict(self, state_dict: dict[str, int] | None) -> None:
        """Takes over the position of the run that is resumed; ``None`` if its checkpoint has none."""
        self._resumed = state_dict

    def align_loop(self, clips: int, batches: int) -> None:
        """Lets an epoch go on that was begun with another batch size or number of processes.

        By its count of batches alone Lightning would repeat or leave out clips, or train on in an epoch that is done.

        Args:
            clips: Number of clips of this process in an epoch.
            batches: Number of batches they make now.
        """
        trainer = self._data.trainer
        if trainer is None or not trainer.fit_loop.restarting or self._resumed is None:
            return
        limit = trainer.limit_train_batches
        if limit is not None:
            batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
            clips = min(clips, batches * self._data.batch_size)
        epoch, batches_done = epoch_in_progress(trainer)
        if is_in_last_validation(trainer, epoch):
            set_batches_done(trainer, batches)  # all of them; what is left is the validation
        elif batches_done and epoch == self._resumed["epoch"]:
            done = self._resumed["clips"] // self._processes
            batches_done = max(0, batches - -(-max(0, clips - done) // self._data.batch_size))
            set_batches_done(trainer, batches_done)
            self._began = (epoch, batches_done, done)

    @property
    def _processes(self) -> int:
        return 1 if self._data.trainer is None else self._data.trainer.world_size


class ClipWeights(ABC):
    """Base of the weightings of train clips; an epoch has as many draws as there are clips, whatever the weights."""

    @abstractmethod
    def weights(self, targets: NDArray[np.float32]) -> NDArray[np.float64]:
        """Returns the weights to draw clips by, (clips,), 0 or more.

        Args:
            targets: (clips, classes), 1 where a clip has the label.
        """


@dataclass(frozen=True)
class ClassBalanced(ClipWeights):
    """Draws clips of rare classes more often, so that on average over epochs all classes are equally frequent.

    A clip with several labels is weighted by the rarest of them.

    Args:
        power: 1 for equal frequencies, 0 for those of the table, 0.5 for weights by the inverse square root.
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


class ShuffledSampler(DistributedSampler[ClipDraw]):
    """Shuffles the clips and deals them to the processes; the order depends on the seed and the epoch alone.

    A resumed run goes on with the batch after the last one trained on, without reading those before it. Lightning starts
    its epoch anew, with the order of epoch 0: it makes the loader's iterator before it sets the sampler's epoch.

    Args:
        dataset: The clips.
        position: Returns the epoch and the number of clips that this process is done with; called when an epoch begins.
        num_replicas: Number of processes.
        rank: Which of them this is.
        seed: The run's seed.
        weights: Weights to draw clips by, (clips,); ``None`` for once an epoch. Of the n draws of an epoch, a clip with
            the share w of all weights gets n * w, rounded up or down at random.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        position: Callable[[], tuple[int, int]],
        *,
        num_replicas: int,
        rank: int,
        seed: int,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        """Keeps the arguments; see the class."""
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=True, seed=seed)
        self.position = position
        self.weights = weights

    def __iter__(self) -> Iterator[ClipDraw]:
        """Yields this process's indices that are left of the epoch."""
        epoch, clips_done = self.position()
        self.set_epoch(epoch)
        if self.weights is None:
            drawn = [ClipDraw(position, epoch) for position in cast(Iterator[int], super().__iter__())]
        else:
            drawn = self._weighted(self.weights)[self.rank : self.total_size : self.num_replicas]
        return iter(drawn[clips_done:])

    def _weighted(self, weights: NDArray[np.float64]) -> list[ClipDraw]:
        """Draws an epoch's clips, of all processes, by systematic sampling: evenly spaced marks on the summed weights."""
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(weights))
        reached = np.cumsum(weights[order]) / weights.sum()
        marks = (np.arange(self.total_size) + rng.random()) / self.total_size
        chosen = order[np.minimum(np.searchsorted(reached, marks, side="right"), len(weights) - 1)]
        before: Counter[int] = Counter()
        drawn = []
        for position in map(int, rng.permutation(chosen)):
            drawn.append(ClipDraw(position, self.epoch, before[position]))
            before[position] += 1
        return drawn


class InOrderSampler(ShuffledSampler, SequentialSampler):
    """Deals the clips in the order of the table in each epoch, for ``trainer.overfit_batches``.

    Lightning puts a sampler in the place of one that is not sequential, with which a resumed run would begin its epoch anew.
    """

    def __iter__(self) -> Iterator[Any]:
        """Yields this process's indices that are left of the epoch."""
        _, clips_done = self.position()
        self.shuffle = False
        in_order = cast(Iterator[int], DistributedSampler.__iter__(self))
        return iter([ClipDraw(position) for position in in_order][clips_done:])


class EachClipOnceSampler(DistributedSampler[int]):
    """Deals the clips to the processes in order, each clip once.

    ``DistributedSampler`` repeats clips so that all processes take as many steps, which falsifies metrics. Here the
    processes that run out get the index ``NO_CLIP`` instead, and the collation leaves it out.

    Args:
        dataset: The clips.
        num_replicas: Number of processes.
        rank: Which of them this is.
        left_out: Clips that are not dealt, bool (clips,); None for none. Where that is all, each process gets ``NO_CLIP``:
            without any step Lightning would not call the hooks of a run.
    """

    def __init__(
        self, dataset: ClipDataset, *, num_replicas: int, rank: int, left_out: NDArray[np.bool_] | None = None
    ) -> None:
        """Keeps the arguments; see the class."""
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)
        self.indices = np.arange(len(dataset)) if left_out is None else np.flatnonzero(~left_out)
        self.num_samples = max(1, math.ceil(len(self.indices) / num_replicas))
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[int]:
        """Yields this process's indices."""
        for place in range(self.rank, self.total_size, self.num_replicas):
            yield int(self.indices[place]) if place < len(self.indices) else NO_CLIP
