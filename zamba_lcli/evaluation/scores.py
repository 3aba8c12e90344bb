"""Scores of predictions with known labels: functions of arrays, without a model or files.

Throughout, ``targets`` is bool (clips, classes), true where a clip has a label; ``predicted`` is bool (clips, classes), true
where a class is predicted; ``probabilities`` is float64 (clips, classes).
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision, multiclass_confusion_matrix

from zamba_lcli.metrics import f1_score
from zamba_lcli.types import Task

Bools: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class ClassScores:
    """Scores of each class, each (classes,); NaN where a score is undefined, such as the recall of a class without clips."""

    support: NDArray[np.int64]  # clips that have the label
    precision: Floats
    recall: Floats
    f1: Floats
    average_precision: Floats

    @property
    def mean_average_precision(self) -> float:
        """Mean average precision of the classes that a clip has; NaN without any."""
        return float(torch.from_numpy(self.average_precision).nanmean())


def predict_labels(probabilities: Floats, task: Task, thresholds: Floats | float = 0.5) -> Bools:
    """Returns the predicted classes: of a multiclass model the one with the highest probability, else those above thresholds.

    Args:
        probabilities: (clips, classes).
        task: The model's task.
        thresholds: That of each class, (classes,), or one for all; for multilabel alone.
    """
    if task == "multilabel":
        return probabilities > thresholds
    predicted = np.zeros(probabilities.shape, np.bool_)
    predicted[np.arange(len(predicted)), probabilities.argmax(axis=1)] = True
    return predicted


def class_scores(targets: Bools, predicted: Bools, probabilities: Floats) -> ClassScores:
    """Returns precision, recall, F1 and average precision of each class."""
    tp, fp, fn = _counts(targets, predicted)
    average_precision = [_average_precision(*pair) for pair in zip(targets.T, probabilities.T, strict=True)]
    return ClassScores(
        support=targets.sum(axis=0),
        precision=(tp / (tp + fp)).numpy(),
        recall=(tp / (tp + fn)).numpy(),
        f1=f1_score(tp, fp, fn).numpy(),
        average_precision=np.array(average_precision),
    )


def _average_precision(target: Bools, probabilities: Floats) -> float:
    """Returns the average precision of a class, whose target and probabilities are (clips,); NaN without clips."""
    if not target.any():
        return float("nan")
    return float(binary_average_precision(torch.from_numpy(probabilities), torch.from_numpy(target).int()))


def macro_f1(targets: Bools, predicted: Bools) -> float:
    """Returns the mean F1 of the classes that a clip has or that are predicted, as ``metrics.MacroF1`` does; NaN without any.

    scikit-learn's ``f1_score(average="macro", zero_division=np.nan)``.
    """
    return float(f1_score(*_counts(targets, predicted)).nanmean())


def _counts(targets: Bools, predicted: Bools) -> tuple[Tensor, Tensor, Tensor]:
    """Returns true positives, false positives and false negatives of each class, float64 (classes,).

    By hand, as torchmetrics refuses a single class.
    """
    tp, fp, fn = (
        torch.from_numpy(clips.sum(axis=0)).double()
        for clips in (targets & predicted, ~targets & predicted, targets & ~predicted)
    )
    return tp, fp, fn


def is_top_class_right(targets: Bools, probabilities: Floats) -> Bools:
    """Returns whether the class with the highest probability is a label of the clip, (clips,)."""
    right: Bools = targets[np.arange(len(targets)), probabilities.argmax(axis=1)]
    return right


def confusion_matrix(targets: Bools, probabilities: Floats) -> NDArray[np.int64]:
    """Returns int64 (classes, classes): clips by their label (rows) and the class with the highest probability (columns).

    Clips with several labels, or none, are not counted.
    """
    one = targets.sum(axis=1) == 1
    top, label = (torch.from_numpy(of_all[one].argmax(axis=1)) for of_all in (probabilities, targets))
    classes = targets.shape[1]
    # torchmetrics wants two classes
    matrix: NDArray[Any] = multiclass_confusion_matrix(top, label, num_classes=max(classes, 2)).numpy()
    return matrix[:classes, :classes]
