"""Scores of a multilabel model by a threshold for each class that is fitted on the val clips, beside those at one half."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from zamba_lcli.evaluation.calibration import best_thresholds
from zamba_lcli.evaluation.intervals import site_intervals
from zamba_lcli.evaluation.scores import Bools, ClassScores, Floats, class_scores, macro_f1, predict_labels
from zamba_lcli.types import Task

RULES: dict[Task, str] = {
    "multiclass": "The class of the highest probability is predicted.",
    "multilabel": "Accuracy and the confusion matrix go by the class of the highest probability.",
}
AT_HALF = "A class is predicted above a probability of one half."
AT_THRESHOLDS = (
    "A class is predicted above its threshold: the highest F1 on the {} val clips; where one half is named, above that."
)
ENOUGH_CLIPS = 10  # of a class among the val clips
COLUMNS = ("threshold", "precision_at_threshold", "recall_at_threshold", "f1_at_threshold")
STATED = "# Columns has_<class> in predictions.csv: zamba predict --ckpt_path ... --config thresholds.yaml\n"


def rule(task: Task, val_clips: int = 0) -> str:
    """Returns by what the scores of a test go.

    Args:
        task: The model's task.
        val_clips: Number of clips that thresholds are fitted on; 0 where there are none.
    """
    if task == "multiclass":
        return RULES[task]
    return f"{AT_THRESHOLDS.format(val_clips) if val_clips else AT_HALF} {RULES[task]}"


@dataclass(frozen=True)
class AtThresholds:
    """Scores by thresholds that are fitted on other clips."""

    values: Floats  # (classes,)
    val_clips: int
    val_support: NDArray[np.int64]  # (classes,), of the clips that the threshold is fitted on those that have the class
    scores: ClassScores
    macro_f1: float
    interval: tuple[float, float]  # 95 %, of the macro F1

    def rows(self) -> list[list[float]]:
        """Returns for each class the values of ``COLUMNS``."""
        columns = (self.values, self.scores.precision, self.scores.recall, self.scores.f1)
        return [[float(value) for value in row] for row in zip(*columns, strict=True)]

    def metrics(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Returns what ``metrics.json`` says of them."""
        return {
            "rule": rule("multilabel", self.val_clips),
            "macro_f1_at_thresholds": self.macro_f1,
            "fitted_thresholds": {
                "val_clips": self.val_clips,
                "by_class": dict(zip(class_names, self.values.tolist(), strict=True)),
                "val_clips_by_class": dict(zip(class_names, self.val_support.tolist(), strict=True)),
                "doubt": self.doubt(class_names),
            },
        }

    def doubt(self, class_names: Sequence[str]) -> str | None:
        """Returns which thresholds are rough; None if there are none."""
        few = [name for name, clips in zip(class_names, self.val_support, strict=True) if clips < ENOUGH_CLIPS]
        listed = ", ".join(few)
        return (
            f"Thresholds fitted on fewer than {ENOUGH_CLIPS} val clips of the class are rough: {listed}."
            if few
            else None
        )

    def stated(self, class_names: Sequence[str]) -> str:
        """Returns the configuration with which ``zamba predict`` uses the thresholds."""
        by_class = {name: round(float(value), 6) for name, value in zip(class_names, self.values, strict=True)}
        table = {"class_path": "CSVPredictions", "init_args": {"threshold": by_class}}
        writer = {"class_path": "WritePredictions", "init_args": {"formats+": [table]}}
        return STATED + yaml.safe_dump({"trainer": {"callbacks+": [writer]}}, sort_keys=False, allow_unicode=True)


def at_thresholds(
    targets: Bools, probabilities: Floats, sites: Sequence[str], val_targets: Bools, val_probabilities: Floats
) -> AtThresholds:
    """Fits a threshold for each class on val clips and scores other clips by them.

    Args:
        targets: (clips, classes), true where a clip has a label.
        probabilities: (clips, classes).
        sites: (clips,), the site of each clip, or another sampling unit.
        val_targets: (val clips, classes).
        val_probabilities: (val clips, classes).
    """
    thresholds = best_thresholds(val_targets, val_probabilities)
    predicted = predict_labels(probabilities, "multilabel", thresholds)
    overall, _ = site_intervals(targets, predicted, probabilities, sites)
    return AtThresholds(
        values=thresholds,
        val_clips=len(val_targets),
        val_support=val_targets.sum(axis=0),
        scores=class_scores(targets, predicted, probabilities),
        macro_f1=macro_f1(targets, predicted),
        interval=overall["macro_f1"],
    )
