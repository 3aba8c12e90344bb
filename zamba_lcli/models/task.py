"""What follows from a model's task: loss, metrics and probabilities; and which task it is, where it is stated as ``auto``."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pytorch_lightning import LightningModule
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn

from zamba_lcli.errors import InputError
from zamba_lcli.losses import ClassWeights, check_classes, prepare_loss, stated_loss, weighted_losses
from zamba_lcli.metrics import ClipMetrics
from zamba_lcli.types import KnowsTask, StatedTask, Task


class ModelWithTask(LightningModule):
    """Base of the LightningModule of all networks.

    Where ``auto`` is stated, the task is that of the stated loss, or else what the labels make it: ``decide_task`` asks the
    data. Until then the task is multilabel, which fits any labels.

    Attributes:
        task: The task.
        task_is_open: Whether ``auto`` is stated, and not decided yet.
    """

    class_names: list[str]
    temperature: float

    def state_task(
        self,
        task: StatedTask,
        loss: nn.Module | None,
        class_weights: Mapping[str, float] | Literal["balanced"] | None,
    ) -> None:
        """Takes what is stated of task, loss and class weights; see ``ZambaVideoClassificationLightningModule``."""
        self._stated = (loss, class_weights)  # in a tuple, so that the loss is no part of the model twice
        self.task_is_open = task == "auto"
        self._task_of_loss = _only_task(loss, len(self.class_names)) if task == "auto" else None
        self.set_task(self._task_of_loss or "multilabel" if task == "auto" else task)

    def set_task(self, task: Task) -> None:
        """Makes loss and metrics of a task.

        Raises:
            InputError: If the stated loss is of another one.
        """
        loss, class_weights = self._stated
        check_classes(self.class_names, task)
        self.task: Task = task
        self.loss = prepare_loss(loss, task, len(self.class_names))
        if isinstance(self.hparams.get("loss"), nn.Module):  # from Python; on the command line it is stated already
            self.hparams["loss"] = stated_loss(self.loss)
        if "task" in self.hparams:  # of a checkpoint: never ``auto``
            self.hparams["task"] = task
        self.class_weights = ClassWeights(class_weights, self.class_names, task)
        self.configure_metrics()

    def decide_task(self, data: Any, known: tuple[Task, str] | None = None) -> None:
        """Decides the task where it is open, tells it in the log, and lets the labels go by it.

        Args:
            data: The data module; without a ``label_set`` such as ``ZambaVideoDataModule`` has, the task stays open.
            known: The task and the reason, where something else than loss and labels says them.
        """
        labels = getattr(data, "label_set", None)
        if not self.task_is_open or not isinstance(labels, KnowsTask):
            return
        if self._task_of_loss is not None:
            task, why = self._task_of_loss, f"which {type(self.loss).__name__} is a loss for"
        else:
            task, why = known or labels.task_of_labels()
        self.task_is_open = False
        self.set_task(task)
        labels.set_task(task)
        rank_zero_info(f"task: {task}, {why}. State model.init_args.task for another one.")

    def configure_metrics(self) -> None:
        """Makes the metrics of each stage."""
        self.train_metrics = ClipMetrics(self.class_names, self.task, "train")
        self.val_metrics = ClipMetrics(self.class_names, self.task, "val")
        self.test_metrics = ClipMetrics(self.class_names, self.task, "test")

    def logged_names(self) -> list[str]:
        """Returns the names of the values that a fit logs, which callbacks may monitor."""
        return [*self.train_metrics.names(), *self.val_metrics.names()]

    def probabilities(self, logits: Tensor) -> Tensor:
        """Turns logits into probabilities, both float (B, classes)."""
        logits = logits / self.temperature
        return logits.sigmoid() if self.task == "multilabel" else logits.softmax(dim=1)

    def mean_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the mean loss of clips.

        Args:
            logits: Float (B, classes).
            target: Float (B, classes), 1 where the clip has the label, between 0 and 1 for mixed clips.
        """
        return weighted_losses(self.loss, logits, target, self.class_weights.values, self.task).mean()


def _only_task(loss: nn.Module | None, classes: int) -> Task | None:
    """Returns the task that a stated loss is for; None without one, or if it fits all tasks or none."""
    fitting = [task for task in get_args(Task) if loss is not None and _fits(loss, task, classes)]
    return fitting[0] if len(fitting) == 1 else None


def _fits(loss: nn.Module, task: Task, classes: int) -> bool:
    try:
        prepare_loss(loss, task, classes)
    except InputError:
        return False
    return True
