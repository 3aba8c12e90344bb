"""The metrics of a fit's and a test's stages, and those that torchmetrics lacks or defines otherwise."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryF1Score,
    BinaryPrecision,
    BinaryRecall,
    MultilabelAccuracy,
    MultilabelF1Score,
    MultilabelPrecision,
    MultilabelRecall,
)

from zamba_lcli._lightning import attached_trainer, restore_metric
from zamba_lcli.errors import InputError
from zamba_lcli.types import Task

Stage: TypeAlias = Literal["train", "val", "test"]


def f1_score(tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
    """Returns F1 from counts of true positives, false positives and false negatives, float, each (...,); NaN where all are 0.

    Every macro F1 of the program is the mean of this over the classes, without those that are NaN.
    """
    return 2 * tp / (2 * tp + fp + fn)


class MacroF1(Metric):
    """Mean F1 of the classes that have clips or are predicted.

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
        return f1_score(self.tp, self.fp, self.fn).nanmean()


class TopKAccuracy(Metric):
    """Share of clips with a true label among the ``k`` classes of the highest scores.

    For clips of one label this is the usual top-k accuracy. Of several labels one among the ``k`` is enough, as in zamba;
    torchmetrics has no such metric.

    Args:
        k: Number of classes that are predicted.
    """

    full_state_update = False
    hits: Tensor
    clips: Tensor

    def __init__(self, k: int) -> None:
        """Begins to count."""
        super().__init__()
        self.k = k
        self.add_state("hits", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("clips", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Counts a batch.

        Args:
            preds: Scores, float (B, classes).
            target: Zeros and ones, (B, classes), or class indices, (B,).
        """
        predicted = preds.topk(self.k, dim=1).indices  # (B, k)
        hit = target.gather(1, predicted) if target.ndim == 2 else predicted == target[:, None]
        self.hits += hit.any(dim=1).sum()
        self.clips += len(preds)

    def compute(self) -> Tensor:
        """Returns the share, float32 between 0 and 1."""
        return self.hits / self.clips


def _scores(classes: int) -> dict[str, Metric | MetricCollection]:
    top_k = {f"top_{k}_accuracy": TopKAccuracy(k) for k in (1, 3, 5, 10) if k < classes}
    return {"macro_f1": MacroF1(classes), **top_k}


def _scores_per_class(classes: int) -> dict[str, Metric | MetricCollection]:
    """Returns metrics of each class against all others; a multiclass model predicts one and no other."""
    if classes == 1:
        return {
            "precision": BinaryPrecision(),
            "recall": BinaryRecall(),
            "f1": BinaryF1Score(),
            "accuracy": BinaryAccuracy(),
        }
    return {
        "precision": MultilabelPrecision(classes, average="none"),
        "recall": MultilabelRecall(classes, average="none"),
        "f1": MultilabelF1Score(classes, average="none"),
        "accuracy": MultilabelAccuracy(classes, average="none"),
    }


class ClipMetrics(nn.Module):
    """The metrics of a stage: mean loss, macro F1, top-1/3/5/10 accuracy, and for val and test scores of each class.

    Args:
        class_names: The classes, in the order of the logits.
        task: The model's task.
        stage: Begins the names of what is logged.
    """

    def __init__(self, class_names: Sequence[str], task: Task, stage: Stage) -> None:
        """Begins to count."""
        super().__init__()
        classes = len(class_names)
        self.class_names, self.task, self.stage = list(class_names), task, stage
        self.loss = MeanMetric(nan_strategy=math.nan)  # the mean of NaN is NaN; by default such batches are left out
        # no compute groups: torchmetrics would merge top-1 and top-3 for good if they agree on the first batch
        self.overall = MetricCollection(_scores(classes), prefix=f"{stage}_", compute_groups=False)
        per_class = {} if stage == "train" else _scores_per_class(classes)
        self.per_class = MetricCollection(per_class, prefix=f"species/{stage}_", compute_groups=False)

    def update(self, loss: Tensor, probabilities: Tensor, target: Tensor) -> None:
        """Counts a batch.

        Args:
            loss: Mean over the clips, float ().
            probabilities: Float (B, classes).
            target: Float (B, classes), 1 where the clip has the label; of mixed clips, labels of at least one half count,
                for multiclass the largest.
        """
        is_multiclass = self.task == "multiclass"
        labels = target.argmax(dim=1) if is_multiclass else target.ge(0.5).long()  # (B,) or (B, classes)
        self.loss.update(loss, weight=len(target))
        self.overall.update(probabilities, labels)
        if is_multiclass:
            predicted = F.one_hot(probabilities.argmax(dim=1), len(self.class_names))
        else:
            predicted = (probabilities > 0.5).long()
        self.per_class.update(predicted, target.long())

    def has_counted(self, module: LightningModule) -> bool:
        """Returns whether any process has counted a clip since the last reset; every process must call this."""
        counted, trainer = torch.tensor(float(self.loss.update_called), device=module.device), attached_trainer(module)
        return bool(counted if trainer is None else trainer.strategy.reduce(counted, reduce_op="sum"))

    def log(self, module: LightningModule) -> None:
        """Logs what the batches of all processes add up to, and begins to count anew.

        Args:
            module: In a hook in which it may log.

        Raises:
            InputError: If no clip was counted.
        """
        if not self.has_counted(module):
            first = getattr(module.trainer.datamodule, "first_failure", None)  # type: ignore[attr-defined]
            raise InputError(
                f"None of the {self.stage} clips could be read{f', such as {first}' if first else ''}. See the reasons in the "
                "log and in failed.csv of the run folder."
            )
        loss, values = self.loss.compute(), self.overall.compute()
        for name, by_class in self.per_class.compute().items():
            values |= {f"{name}/{label}": v for label, v in zip(self.class_names, by_class.reshape(-1), strict=True)}
        if self.stage == "train":
            module.log("train_loss_epoch", loss)
        else:
            module.log(f"{self.stage}_loss", loss, prog_bar=True)
        if loss.isnan():  # so are probabilities, which metrics would count as predictions
            values = dict.fromkeys(values, loss)
        module.log_dict(values)
        self.reset()

    def names(self) -> list[str]:
        """Returns the names of the values that a fit logs."""
        loss = ["train_loss", "train_loss_epoch"] if self.stage == "train" else [f"{self.stage}_loss"]
        return [*loss, *self.overall, *(f"{name}/{label}" for name in self.per_class for label in self.class_names)]

    def reset(self) -> None:
        """Begins to count anew."""
        self.loss.reset()
        self.overall.reset()
        self.per_class.reset()

    def by_name(self) -> Iterator[tuple[str, Metric]]:
        """Yields the loss and the scores of all classes, by the names that checkpoints have for them."""
        yield "loss", self.loss
        yield from cast(Iterator[tuple[str, Metric]], self.overall.items(keep_base=True))

    def counts(self) -> dict[str, dict[str, Tensor]]:
        """Returns what the metrics have counted, summed over all processes; every process must call this."""
        states = {}
        for name, metric in self.by_name():
            with metric.sync_context():
                states[name] = state_of(metric)
        return states

    def restore(self, states: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Goes on from what :meth:`counts` returned."""
        for name, metric in self.by_name():
            if name in states:
                restore_metric(metric, states[name])


def state_of(metric: Metric) -> dict[str, Any]:
    """Returns a copy of what a metric has counted in this process."""
    return {name: cast(Tensor, value).detach().clone() for name, value in metric.metric_state.items()}


def log_train_loss(module: LightningModule, loss: Tensor, clips: int) -> None:
    """Logs the mean loss of a batch over the clips of all processes, each of which must call this.

    Args:
        module: In a step.
        loss: Mean over the clips of this process, float32 ().
        clips: Their number; without any, and without those of other processes, nothing is logged.
    """
    trainer = module.trainer
    if trainer.world_size > 1:
        total = torch.stack([loss * clips if clips else torch.zeros_like(loss), loss.new_tensor(clips)])
        total = cast(Tensor, trainer.strategy.reduce(total, reduce_op="sum"))
        if not total[1]:
            return
        loss = total[0] / total[1]
    module.log("train_loss", loss, prog_bar=True, batch_size=clips)
