"""What data modules, models and callbacks agree on."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypedDict, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

Task: TypeAlias = Literal["multilabel", "multiclass"]
StatedTask: TypeAlias = Literal["auto", "multilabel", "multiclass"]  # auto: what the labels make it
Features: TypeAlias = Tensor | list[Tensor]  # a trunk's output; dimension 0 counts clips
Interval: TypeAlias = Literal["epoch", "step"]
BLANK = ("blank", "empty")  # usual names of the class of clips without animals, in any case
POSITION = "position"  # what a data module keeps in a checkpoint: the epoch, and how many of its clips are done
SPLITS_KEY = "splits"  # and which clips and sites it was trained and chosen on


class Batch(TypedDict):
    """Clips as a data module hands them to a model; those that could not be read are in ``failed``, not in ``video``."""

    video: Tensor  # uint8 (B x clips, 3, T, H, W), without blank ones; clips: those of one video, mostly 1
    times: Tensor  # float64 (B, clips, T) seconds: when the frames are shown
    frame_numbers: Tensor  # int64 (B, clips, T): which frames of the file they are, 0 is the first
    frame_rate: Tensor  # float64 (B,) frames a second of the file, on average; 0 for a single frame
    duration: Tensor  # float64 (B,) seconds: length of the file
    note: list[str]  # (B,) how much of a clip that is damaged or cut off could be read; empty of those that are whole
    target: Tensor  # float32 (B, classes), 1 where the clip has the label, between where clips are mixed; (B, 0) without labels
    index: list[int]  # (B,) positions in the dataset
    drawn: list[tuple[int, int]]  # (B,) epoch of training, and how many times the clip was drawn before in the epoch
    filepath: list[str]  # (B,) as written in the labels table
    cached: list[list[str]]  # (B,) for each clip the names of its features in a cache, which replace ``video``; or []
    failed: list[tuple[int, str, str]]  # position, filepath, reason
    blank: int  # how many clips, the last of the batch, are called blank without being looked at: ``video`` is without them
    windows: list[NDArray[np.float64] | None]  # (B,) of each clip (clips x T, 4) what was cut out; see ``Clip``
    boxes: list[NDArray[np.float64] | None]  # (B,) of each clip (M, 6) the boxes found in it; see ``Clip``


class Prediction(TypedDict):
    """What ``predict_step`` returns of a batch."""

    probabilities: Tensor  # float32 (B, classes)
    part_probabilities: Tensor  # float32 (B, clips, classes): of each clip of a video


class FeatureSource(Protocol):
    """Hands out what frozen layers of a model have computed before."""

    def trunk(self, module: Any, entries: Sequence[str]) -> Features:
        """Returns the trunk's outputs as a batch."""
        ...

    def backbone(self, module: Any, entries: Sequence[str]) -> Tensor:
        """Returns the frozen backbone's outputs as a batch."""
        ...


@runtime_checkable
class KnowsTask(Protocol):
    """Labels that know which task a model has."""

    def task_of_labels(self) -> tuple[Task, str]:
        """Returns the task, and why."""
        ...

    def set_task(self, task: Task) -> None:
        """Lets them be read for a task."""
        ...


@runtime_checkable
class KnowsTrainLabels(Protocol):
    """A data module that knows its clips before it makes loaders."""

    batch_size: int

    def count_train_labels(self) -> tuple[dict[str, int], int]:
        """Returns how many train clips have each label, and the number of train clips."""
        ...

    def train_dataloader(self) -> DataLoader[Any]:
        """Makes the loader, which reads nothing before it is iterated over."""
        ...
