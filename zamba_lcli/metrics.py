"""Metrics that are logged while a model trains, where torchmetrics has another convention than this program."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric


class MacroF1(Metric):
    """Mean F1 over the classes that a clip has or that are predicted for one.

    A class without clips that is never predicted has no F1 and is left out, in every task: scikit-learn's
    ``f1_score(average="macro", zero_division=np.nan)``. torchmetrics leaves it out for multiclass and counts it as 0 for
    multilabel; sites differ in their species, so that it would be the split that is scored and not the model.

    Args:
        classes: Number of classes.
    """

    full_state_update = False
    tp: Tensor
    fp: Tensor
    fn: Tensor

    def __init__(self, classes: int) -> None:
        """Begins to count."""
        super().__init__()
        for name in ("tp", "fp", "fn"):
            self.add_state(name, torch.zeros(classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Counts a batch.

        Args:
            preds: Probabilities, float (B, classes).
            target: Long: class indices, (B,), of which the most probable class is the prediction; or zeros and ones,
                (B, classes), of which all classes above one half are predicted.
        """
        classes = preds.shape[1]
        if target.ndim == 1:
            predicted, has = F.one_hot(preds.argmax(dim=1), classes), F.one_hot(target, classes)
        else:
            predicted, has = preds.gt(0.5).long(), target
        self.tp += (predicted * has).sum(dim=0)
        self.fp += (predicted * (1 - has)).sum(dim=0)
        self.fn += ((1 - predicted) * has).sum(dim=0)

    def compute(self) -> Tensor:
        """Returns the mean F1, float32 between 0 and 1; NaN without clips and predictions."""
        either = 2 * self.tp + self.fp + self.fn  # (classes,); zeros are left out
        return (2 * self.tp / either).nanmean()
