"""Losses that torch lacks, checks of injected losses, and class weights.

Torch's own are used as they are, e.g. ``class_path: torch.nn.CrossEntropyLoss`` with ``label_smoothing``.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from zamba_lcli.errors import InputError
from zamba_lcli.types import KnowsTrainLabels, Task

FITTING_LOSSES = {
    "multilabel": "torch.nn.BCEWithLogitsLoss, SmoothedBCEWithLogitsLoss, SigmoidFocalLoss",
    "multiclass": "torch.nn.CrossEntropyLoss, SoftmaxFocalLoss",
}


class SmoothedBCEWithLogitsLoss(nn.Module):
    """Binary cross-entropy with label smoothing, for ``multilabel``: aims at s / 2 and 1 - s / 2 instead of 0 and 1.

    ``torch.nn.CrossEntropyLoss`` has the same for ``multiclass``. Szegedy et al., https://arxiv.org/abs/1512.00567.

    Args:
        label_smoothing: s, between 0 and 1.
    """

    def __init__(self, label_smoothing: float = 0.1) -> None:
        """Keeps the argument."""
        super().__init__()
        self.label_smoothing = _checked_smoothing(label_smoothing)
        self.reduction = "mean"

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the loss of ``logits`` and ``target``, both float (B, classes): (B, classes), or a mean or sum."""
        smoothed = _smoothed(target, self.label_smoothing)
        return F.binary_cross_entropy_with_logits(logits, smoothed, reduction=self.reduction)


class SigmoidFocalLoss(nn.Module):
    """Focal loss for ``multilabel``: well-classified labels count less.

    ``torchvision.ops.sigmoid_focal_loss``; Lin et al., "Focal Loss for Dense Object Detection",
    https://arxiv.org/abs/1708.02002.

    Args:
        gamma: Focusing parameter: binary cross-entropy is multiplied by (1 - p)^gamma, with p the probability of the truth.
        alpha: Weight of clips that have the label, 1 - alpha being that of those that do not; null for no weights.
        label_smoothing: Aims at s / 2 and 1 - s / 2 instead of 0 and 1.
    """

    def __init__(self, gamma: float = 2.0, alpha: float | None = None, label_smoothing: float = 0.0) -> None:
        """Keeps the arguments."""
        super().__init__()
        self.gamma = _checked_gamma(gamma)
        if alpha is not None and not 0 <= alpha <= 1:
            raise InputError(f"model.init_args.loss.init_args.alpha: {alpha} is not between 0 and 1.")
        self.alpha = alpha
        self.label_smoothing = _checked_smoothing(label_smoothing)
        self.reduction = "mean"

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the loss of ``logits`` and ``target``, both float (B, classes): (B, classes), or a mean or sum."""
        alpha = -1 if self.alpha is None else self.alpha
        smoothed = _smoothed(target, self.label_smoothing)
        return cast(Tensor, sigmoid_focal_loss(logits, smoothed, alpha, self.gamma, self.reduction))


class SoftmaxFocalLoss(nn.Module):
    """Focal loss for ``multiclass``: well-classified clips count less.

    The loss of class c is -(1 - p_c)^gamma log p_c, with p the softmax of the logits, after
    https://arxiv.org/abs/1708.02002.

    Args:
        gamma: Focusing parameter; 0 is cross-entropy.
        label_smoothing: Aims at 1 - s + s / classes for the true class and s / classes for the others.
    """

    def __init__(self, gamma: float = 2.0, label_smoothing: float = 0.0) -> None:
        """Keeps the arguments."""
        super().__init__()
        self.gamma = _checked_gamma(gamma)
        self.label_smoothing = _checked_smoothing(label_smoothing)
        self.reduction = "mean"

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the loss: (B,), or a mean or sum.

        Args:
            logits: Float (B, classes).
            target: Class indices (B,), or probabilities, float (B, classes).
        """
        classes = logits.shape[1]
        aim = F.one_hot(target, classes).to(logits.dtype) if target.ndim == 1 else target
        aim = aim * (1 - self.label_smoothing) + self.label_smoothing / classes
        log_p = logits.log_softmax(dim=1)
        losses = -(aim * (1 - log_p.exp()) ** self.gamma * log_p).sum(dim=1)
        return losses if self.reduction == "none" else losses.mean() if self.reduction == "mean" else losses.sum()


def prepare_loss(loss: nn.Module | None, task: Task, classes: int) -> nn.Module:
    """Returns a model's loss without reduction: the loss of each clip, (B,), or of each clip and class, (B, classes).

    Args:
        loss: As injected, averaging like torch's losses; None for the task's own, (binary) cross-entropy.
        task: The model's task.
        classes: Number of classes.

    Raises:
        InputError: If it is of the wrong kind for the task.
    """
    if loss is None:
        loss = nn.BCEWithLogitsLoss() if task == "multilabel" else nn.CrossEntropyLoss()
    name = type(loss).__name__
    if getattr(loss, "reduction", None) not in ("mean", "none"):
        raise InputError(
            f"model.init_args.loss: {name} must average over clips: `reduction` must be there, as in torch's losses, and be "
            "`mean`."
        )
    if any(isinstance(getattr(loss, key, None), Tensor) for key in ("weight", "pos_weight")):
        raise InputError(
            f"model.init_args.loss: {name} with a tensor of weights, which no checkpoint could state. Set "
            "model.init_args.class_weights instead."
        )
    loss.reduction = "none"  # type: ignore[assignment]
    logits = torch.full((2, classes), -5.0)
    logits[:, 0] = 5.0  # neither probabilities nor their logarithms, which some losses take
    target = torch.zeros(2, dtype=torch.long)
    try:
        losses = loss(logits, target if task == "multiclass" else F.one_hot(target, classes).float())
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError):  # what torch's losses raise
        losses = None
    shape = (2,) if task == "multiclass" else (2, classes)
    if not isinstance(losses, Tensor) or losses.shape != shape or losses.min() < 0:
        raise InputError(
            f"model.init_args.loss: {name} is not a loss for task {task}. Take one that is: {FITTING_LOSSES[task]}; or set "
            "model.init_args.task."
        )
    return loss


def check_takes_mixed_targets(loss: nn.Module, classes: int) -> None:
    """Refuses a multiclass loss that takes class indices only, where clips are mixed.

    Args:
        loss: As ``prepare_loss`` returns it.
        classes: Number of classes.
    """
    try:
        losses = loss(torch.zeros(2, classes), torch.full((2, classes), 1 / classes))
    except (RuntimeError, ValueError, TypeError, IndexError):  # what torch's losses raise
        losses = None
    if losses is None or losses.shape != (2,):
        raise InputError(
            f"model.init_args.loss: {type(loss).__name__} does not take the targets of mixed clips. Leave out "
            f"data.batch_augmentation, or take one that does: {FITTING_LOSSES['multiclass']}."
        )


def weighted_losses(loss: nn.Module, logits: Tensor, target: Tensor, weights: Tensor, task: Task) -> Tensor:
    """Returns the losses of clips, in which the term of each label is multiplied by the weight of its class.

    So it is in torch: ``weight`` of ``cross_entropy``, ``pos_weight`` of ``binary_cross_entropy_with_logits``, for targets
    between 0 and 1 as well.

    Args:
        loss: As ``prepare_loss`` returns it.
        logits: Float (B, classes).
        target: Float (B, classes), 1 where the clip has the label, between 0 and 1 for mixed clips.
        weights: Float (classes,).
        task: The model's task.

    Returns:
        Float (B,) for multiclass, (B, classes) for multilabel.
    """
    target, weights = target.to(logits), weights.to(logits)  # one dtype, at `precision: 64-true` too
    clips, classes = logits.shape
    is_mixed = ((target > 0) & (target < 1)).any()
    if task == "multilabel":
        losses = loss(logits, target)
        if not is_mixed:
            return cast(Tensor, losses * (1 + target * (weights - 1)))
        return cast(Tensor, losses + target * (weights - 1) * loss(logits, torch.ones_like(target)))
    if type(loss) is nn.CrossEntropyLoss:  # label smoothing weighs the other classes by theirs
        goal = target if is_mixed else target.argmax(dim=1)
        smoothing = loss.label_smoothing
        return F.cross_entropy(logits, goal, weight=weights, reduction="none", label_smoothing=smoothing)
    if not is_mixed:
        return cast(Tensor, loss(logits, target.argmax(dim=1)) * (target @ weights))
    each = torch.arange(classes, device=logits.device).repeat(clips)
    of_class = loss(logits.repeat_interleave(classes, dim=0), each).view(clips, classes)  # if it were of that one alone
    return cast(Tensor, loss(logits, target) + (target * (weights - 1) * of_class).sum(dim=1))


def stated_loss(loss: nn.Module) -> dict[str, Any]:
    """Returns ``class_path`` and ``init_args`` of a loss built in Python, plain values as in a YAML."""
    init_args = {}
    for name, parameter in inspect.signature(type(loss)).parameters.items():
        value = getattr(loss, name, None)
        if name != "reduction" and value != parameter.default and isinstance(value, bool | int | float | str):
            init_args[name] = value
    return {"class_path": f"{type(loss).__module__}.{type(loss).__qualname__}", "init_args": init_args}


def accumulation_correction(trainer: Trainer, batch_idx: int) -> float:
    """Returns the factor that makes a step's gradient the mean over its batches where an epoch ends before all are there.

    Lightning divides by ``accumulate_grad_batches``, so that the last step of such an epoch would be too small. Not reported as
    of Lightning 2.6.
    """
    together = trainer.accumulate_grad_batches
    left = trainer.num_training_batches - batch_idx // together * together  # from the step's first batch on
    return float(together / min(together, left))


def check_classes(class_names: Sequence[str], task: Task) -> None:
    """Refuses a model without classes, and a choice of one."""
    if not class_names:
        raise InputError(
            "The model has no classes. Give labels (data.labels) or a checkpoint that names its classes (ckpt_path)."
        )
    if task == "multiclass" and len(class_names) == 1:
        raise InputError(
            f"There is only one class, {class_names[0]!r}, and nothing to distinguish it from. Label other clips too (e.g. "
            "blank), or set model.init_args.task to multilabel for one class against none."
        )


def check_labels(target: Tensor, task: Task) -> None:
    """Refuses clips without exactly one label in a multiclass model.

    Args:
        target: Float (B, classes), 1 where the clip has the label, between 0 and 1 for mixed clips.
        task: The model's task.
    """
    if task == "multiclass" and ((target.sum(dim=1) - 1).abs() > 1e-3).any():
        raise InputError(
            "A clip without exactly one label, in a multiclass model. Set model.init_args.task to multilabel, "
            "or give each clip one label."
        )


class ClassWeights:
    """The weight of each class in the loss.

    Args:
        stated: The weight of each class, 1 for those left out; ``balanced`` for weights by the train labels; None for none.
        class_names: The classes, in the order of the logits.
        task: The model's task.

    Attributes:
        values: Float (classes,); all 1 where the train labels are not known yet.
    """

    def __init__(
        self, stated: Mapping[str, float] | Literal["balanced"] | None, class_names: Sequence[str], task: Task
    ) -> None:
        """Refuses unknown classes, and weights that are not positive numbers."""
        self.is_balanced = stated == "balanced"
        self.class_names, self.task = list(class_names), task
        weights: Mapping[str, float] = stated if isinstance(stated, Mapping) else {}
        unknown = sorted(set(weights) - set(class_names))
        if unknown:
            raise InputError(
                f"model.init_args.class_weights: there are no classes {unknown}. The classes are {self.class_names}."
            )
        for name, weight in weights.items():
            if not 0 < weight < float("inf"):
                raise InputError(f"model.init_args.class_weights: {name}: {weight} is not a number above 0.")
        self._set(weights)

    def _set(self, weights: Mapping[str, float]) -> None:
        self.values = torch.tensor([weights.get(name, 1.0) for name in self.class_names])

    def balance(self, data: Any) -> None:
        """Sets balanced weights, if these are stated.

        Args:
            data: The data module, which knows the train labels.
        """
        if not self.is_balanced:
            return
        if not isinstance(data, KnowsTrainLabels):
            raise InputError(
                "model.init_args.class_weights: balanced needs a ZambaVideoDataModule, which knows the train labels. "
                "Give weights by name."
            )
        weights = balanced_weights(*data.count_train_labels(), self.task)
        rank_zero_info("class_weights: " + ", ".join(f"{name} {weight:.4g}" for name, weight in weights.items()))
        self._set(weights)

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Adds balanced weights to a checkpoint: where it is tested, there may be no train labels."""
        if self.is_balanced:
            checkpoint["class_weights"] = dict(zip(self.class_names, self.values.tolist(), strict=True))

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Sets the balanced weights of a checkpoint, if such are stated."""
        if not self.is_balanced:
            return
        if "class_weights" not in checkpoint:
            raise InputError(
                "model.init_args.class_weights: the checkpoint's run did not balance its classes. Leave balanced out, or "
                "give weights by name."
            )
        self._set(checkpoint["class_weights"])


def balanced_weights(counts: Mapping[str, int], clips: int, task: Task) -> dict[str, float]:
    """Returns for each class the weight with which all count alike.

    Multiclass: clips / (classes x clips of the class), as in scikit-learn, so that the mean over the clips is 1. Multilabel:
    clips without the label / clips with it, as in torch's documentation of ``pos_weight``.

    Args:
        counts: Number of train clips of each class.
        clips: Number of train clips.
        task: The model's task.

    Raises:
        InputError: If a class has no weight, since none or all of the clips have the label.
    """
    weights = {}
    for name, count in counts.items():
        rest = clips - count if task == "multilabel" else clips
        if not count or not rest:
            raise InputError(
                f"model.init_args.class_weights: balanced: {count} of the {clips} train clips have the label {name!r}, so that "
                "there is nothing to balance. Give weights by name."
            )
        weights[name] = rest / count if task == "multilabel" else clips / (len(counts) * count)
    return weights


def _smoothed(target: Tensor, smoothing: float) -> Tensor:
    return target * (1 - smoothing) + smoothing / 2


def _checked_smoothing(smoothing: float) -> float:
    if not 0 <= smoothing < 1:
        raise InputError(f"model.init_args.loss.init_args.label_smoothing: {smoothing} is not from 0 to below 1.")
    return smoothing


def _checked_gamma(gamma: float) -> float:
    if not 0 <= gamma < float("inf"):
        raise InputError(f"model.init_args.loss.init_args.gamma: {gamma} is not a number from 0 on.")
    return gamma
