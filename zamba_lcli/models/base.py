"""What every network shares while it trains: loss, metrics, steps, parameter groups and what is frozen."""

import math
import os
import random
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, Protocol, TypeAlias, cast

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import BackboneFinetuning, LearningRateFinder
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, LRScheduler, ReduceLROnPlateau, SequentialLR
from torch.utils.hooks import RemovableHandle
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

from zamba_lcli._lightning import average_in_small_checkpoint, trainer_callbacks
from zamba_lcli._lightning_resume import (
    LEFT_OPEN,
    BeforeBatch,
    begin_next_epoch,
    is_within_batch,
    left_open,
    resume_accumulation,
    resume_before_validation,
    resume_what_is_due,
    resume_within_batch,
    resume_without_validation,
    saves_on_exception,
    state_of,
)
from zamba_lcli.errors import InputError
from zamba_lcli.losses import (
    balanced_weights,
    check_class_weights,
    check_takes_mixed_targets,
    prepare_loss,
    stated_loss,
    weighted_losses,
)
from zamba_lcli.metrics import MacroF1
from zamba_lcli.models.callback_states import keep_stated_arguments
from zamba_lcli.models.optimizer_states import fit_state
from zamba_lcli.models.schedule_states import (
    STATED,
    Resumption,
    build_at,
    fast_forward,
    set_numbers,
    stated_optimizer,
    stated_scheduler,
)
from zamba_lcli.run_length import check_cycles, check_not_done, has_cycle, never_begins, run_length
from zamba_lcli.schedulers import PER_BATCH
from zamba_lcli.seed import run_seed, seed_for
from zamba_lcli.types import Batch, Interval, Prediction, Task

Features: TypeAlias = Tensor | list[Tensor]  # a trunk's output; dimension 0 counts clips
OptimizerBuilder: TypeAlias = Callable[[Iterable[dict[str, Any]]], Optimizer]
LRSchedulerBuilder: TypeAlias = Callable[[Optimizer], LRScheduler]


class FeatureSource(Protocol):
    """Hands out what frozen layers computed before."""

    def trunk(self, module: "ZambaVideoClassificationLightningModule", entries: Sequence[str]) -> Features:
        """Returns the trunk's outputs as a batch."""
        ...

    def backbone(self, module: "ZambaVideoClassificationLightningModule", entries: Sequence[str]) -> Tensor:
        """Returns the frozen backbone's outputs as a batch."""
        ...


class TopKAccuracy(Metric):
    """Share of clips of which a true label is among the ``k`` classes with the highest scores.

    For clips with one label this is the usual top-k accuracy. For clips with several, one of them among the ``k`` is
    enough, as in zamba.
    """

    full_state_update = False
    hits: Tensor
    clips: Tensor

    def __init__(self, k: int) -> None:
        """Sets ``k``, the number of classes that may be named."""
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
        named = preds.topk(self.k, dim=1).indices  # (B, k)
        hit = target.gather(1, named) if target.ndim == 2 else named == target[:, None]
        self.hits += hit.any(dim=1).sum()
        self.clips += len(preds)

    def compute(self) -> Tensor:
        """Returns the share of clips, between 0 and 1."""
        return self.hits / self.clips


class ZambaVideoClassificationLightningModule(LightningModule):
    """Base of all networks: trunk -> backbone -> head, trained on clips with one label or several.

    The trunk never trains. The backbone is frozen until a finetuning callback unfreezes it; the head always trains.
    Frozen means: no gradient, eval mode, running statistics untouched. A subclass sets ``backbone`` and ``head``, and
    implements ``trunk``, ``forward_trunk`` and ``forward_backbone``.

    Args:
        class_names: The classes, in the order of the logits. On the command line they come from the labels.
        task: ``multilabel``: a clip may have several labels, each judged by itself (binary cross-entropy with logits).
            ``multiclass``: each clip has exactly one label (cross-entropy).
        decay_norm_and_bias: Whether the optimizer's weight decay acts on BatchNorm layers and biases too.
        backbone_lr_decay: Layer-wise decay of the learning rate, between 0 and 1: the last layer of the backbone has the
            backbone's learning rate, each one before it that of the next one times this. Null for the same in all of it.
        loss: The loss, by class path: ``torch.nn.BCEWithLogitsLoss``, ``SmoothedBCEWithLogitsLoss`` or ``SigmoidFocalLoss``
            for multilabel, ``torch.nn.CrossEntropyLoss`` or ``SoftmaxFocalLoss`` for multiclass; null for the task's
            (binary) cross-entropy. It is averaged over the clips of a batch.
        class_weights: By which the loss of clips with a label is multiplied, in training and evaluation: a number for each
            class, 1 for those left out; or ``balanced``, in inverse proportion to how many train clips have the label. Of
            multilabel clips the terms of the labels that they have are multiplied.
        temperature: By which logits are divided before they become probabilities: above 1 for a model that is too sure of
            itself. ``zamba test`` finds it. It changes no loss, and not which class is the most probable.
        keep_matching_classes: Where ``weights`` is a checkpoint of other classes: whether to keep its head for those classes
            that are among the model's, by name. With false, the head starts anew.
    """

    backbone: nn.Module
    head: nn.Module

    def __init__(
        self,
        class_names: Sequence[str],
        task: Task = "multilabel",
        decay_norm_and_bias: bool = True,
        backbone_lr_decay: float | None = None,
        loss: nn.Module | None = None,
        class_weights: dict[str, float] | Literal["balanced"] | None = None,
        temperature: float = 1.0,
        keep_matching_classes: bool = False,
    ) -> None:
        """Sets up loss and metrics; see the class for the arguments."""
        super().__init__()
        class_names = list(class_names)
        if not class_names:
            raise InputError(
                "The model has no classes. Give labels (data.labels) or a checkpoint that names its classes (ckpt_path)."
            )
        if task == "multiclass" and len(class_names) == 1:
            raise InputError(
                f"There is only one class, {class_names[0]!r}, and nothing to tell it from. Label other clips too (e.g. "
                "blank), or set model.init_args.task to multilabel for one class against none."
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Attribute 'loss' is an instance of `nn.Module`")  # not for long
            self.save_hyperparameters()
        self.hparams["class_names"] = class_names
        self.class_names = class_names
        self.task: Task = task
        if backbone_lr_decay is not None and not 0 < backbone_lr_decay <= 1:
            raise InputError(f"model.init_args.backbone_lr_decay: {backbone_lr_decay} is not above 0 and at most 1.")
        if temperature <= 0:
            raise InputError(f"model.init_args.temperature: {temperature} is not above 0.")
        self.temperature = temperature
        self.keep_matching_classes = keep_matching_classes
        self._guards: list[RemovableHandle] = []
        self.untrained: list[str] = []  # weights that ``weights`` did not have
        self.decay_norm_and_bias = decay_norm_and_bias
        self.backbone_lr_decay = backbone_lr_decay
        self.backbone_is_frozen = True
        self.train_backbone_batchnorm = True
        self.features: FeatureSource | None = None
        self.loss = prepare_loss(loss, task, len(class_names))
        if isinstance(self.hparams.get("loss"), nn.Module):  # from Python; on the command line it is stated already
            self.hparams["loss"] = stated_loss(self.loss)
        if isinstance(class_weights, dict):
            check_class_weights(class_weights, class_names)
        self.class_weights = class_weights
        # not a buffer: a callback that averages weights would average it too
        self._weight_of_class = torch.ones(len(class_names))
        self._weigh_classes(class_weights if isinstance(class_weights, dict) else {})
        self.configure_metrics()
        self._optimizer: OptimizerBuilder | None = None
        self._callback_metrics: dict[str, Tensor] = {}  # of the checkpoint that is resumed
        self._left_open: dict[str, Any] = {}  # by the checkpoint that is resumed
        self._before_batch: BeforeBatch | None = None  # kept where a checkpoint may be saved within a batch
        self._lr_scheduler: LRSchedulerBuilder | None = None
        self._lr_scheduler_interval: Interval | None = None
        self.stated: dict[str, Any] | None = None  # optimizer and schedule, in the words of a checkpoint
        self.schedule_is_restated = False  # whether it is another one than the checkpoint's run had
        self.stated_callbacks: dict[str, Any] = {}  # by state key, class path and arguments
        self.resumed: dict[str, Any] | None = None  # the checkpoint, until the run goes on

    # ---- the network -------------------------------------------------------------------------------------------------

    @property
    def trunk(self) -> nn.Module:
        """The layers before the backbone; they never train."""
        raise NotImplementedError

    def forward_trunk(self, video: Tensor) -> Any:
        """Turns ``video``, uint8 (B, 3, T, H, W), into what the backbone takes; normalization belongs here."""
        raise NotImplementedError

    def forward_backbone(self, features: Any) -> Tensor:
        """Turns the trunk's output into what the head takes."""
        raise NotImplementedError

    def forward(self, video: Tensor) -> Tensor:
        """Turns ``video``, uint8 (B, 3, T, H, W), into logits, float (B, classes)."""
        return cast(Tensor, self.head(self.forward_backbone(self.forward_trunk(video))))

    # ---- what is frozen ----------------------------------------------------------------------------------------------

    def freeze_backbone(self) -> None:
        """Stops the backbone (and the trunk) from training: no gradients, eval mode, statistics kept."""
        self.backbone_is_frozen = True
        self.trunk.requires_grad_(False)
        self.backbone.requires_grad_(False)
        self.train(self.training)

    def unfreeze_backbone(self, train_bn: bool = True) -> None:
        """Lets the backbone train; with ``train_bn=False`` all but its BatchNorm layers, which keep their statistics."""
        self.backbone_is_frozen = False
        self.train_backbone_batchnorm = train_bn
        self.backbone.requires_grad_(True)
        if not train_bn:
            for layer in self._backbone_batchnorms():
                layer.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "ZambaVideoClassificationLightningModule":
        """Sets the training mode, of which frozen layers are left out: their BatchNorm and dropout stay in eval mode."""
        super().train(mode)
        if mode:
            self.trunk.eval()
            if self.backbone_is_frozen:
                self.backbone.eval()
            elif not self.train_backbone_batchnorm:
                for layer in self._backbone_batchnorms():
                    layer.eval()
        return self

    def _backbone_batchnorms(self) -> list[nn.Module]:
        return [layer for layer in self.backbone.modules() if isinstance(layer, _BatchNorm)]

    # ---- optimizer and schedule --------------------------------------------------------------------------------------

    def backbone_layers(self) -> list[list[nn.Parameter]]:
        """Returns the parameters of each layer of the backbone, in the order in which they are run.

        Layers are the backbone's children with parameters; normalization belongs to the one before it. What parameters the
        backbone has itself count as its first layer.
        """
        own = list(self.backbone.parameters(recurse=False))
        layers: list[list[nn.Parameter]] = [own] if own else []
        for child in self.backbone.children():
            parameters = list(child.parameters())
            if layers and all(parameter.ndim < 2 for parameter in parameters):
                layers[-1] += parameters
            elif parameters:
                layers.append(parameters)
        return layers

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Returns the two groups of every optimizer, ``head`` and ``backbone``, the same from the first step on.

        The trunk's parameters are in neither. All else that is not in the backbone belongs to the head. Frozen backbone
        parameters have no gradient and so are not changed by a step. With ``backbone_lr_decay``, ``backbone`` is its last
        layer, and those before it are ``backbone_1``, ``backbone_2`` and so on. With ``decay_norm_and_bias=False`` the
        parameters without weight decay form groups of their own, ``head_undecayed``, ``backbone_undecayed`` and so on.
        """
        elsewhere = {id(p) for p in (*self.trunk.parameters(), *self.backbone.parameters())}
        groups: list[dict[str, Any]] = [
            {"name": "head", "params": [p for p in self.parameters() if id(p) not in elsewhere]},
            {"name": "backbone", "params": list(self.backbone.parameters())},
        ]
        if self.backbone_lr_decay is not None:
            layers = enumerate(reversed(self.backbone_layers()))
            groups[1:] = [{"name": f"backbone_{i}" if i else "backbone", "params": layer} for i, layer in layers]
        if self.decay_norm_and_bias:
            return groups
        # BatchNorm's weights and all biases are vectors, all other weights are not
        undecayed = [
            {"name": f"{g['name']}_undecayed", "params": [p for p in g["params"] if p.ndim < 2], "weight_decay": 0.0}
            for g in groups
        ]
        return [*({**g, "params": [p for p in g["params"] if p.ndim >= 2]} for g in groups), *undecayed]

    def lr_scale(self, group: str) -> float:
        """Returns the learning rate of a parameter group, named as in ``parameter_groups``, over that of ``backbone``."""
        layer = re.fullmatch(r"backbone_(\d+)(_undecayed)?", group)
        return 1.0 if layer is None or self.backbone_lr_decay is None else self.backbone_lr_decay ** int(layer[1])

    def set_optimizer(
        self,
        optimizer: OptimizerBuilder,
        lr_scheduler: LRSchedulerBuilder | None = None,
        lr_scheduler_interval: Interval | None = None,
    ) -> None:
        """Says how to train, for use with a plain ``Trainer``; on the command line this is ``optimizer:`` in the YAML.

        Args:
            optimizer: Builds the optimizer from parameter groups, e.g. ``functools.partial(torch.optim.Adam, lr=1e-3)``.
            lr_scheduler: Builds the scheduler from the optimizer, e.g. ``functools.partial(MultiStepLR, milestones=[9])``.
            lr_scheduler_interval: Whether the scheduler counts epochs or batches (``step``); None for what it is made for.
        """
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler
        self._lr_scheduler_interval = lr_scheduler_interval

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Builds the optimizer on the two groups and the scheduler on the optimizer."""
        if self._optimizer is None:
            raise InputError(
                "No optimizer is given. Add one to the YAML, for example\n"
                "  optimizer:\n    class_path: torch.optim.Adam\n    init_args:\n      lr: 0.001\n"
                "or call `model.set_optimizer(...)` when the Trainer is used from Python."
            )
        optimizer = self._optimizer(self.parameter_groups())
        self.stated = {"optimizer": stated_optimizer(optimizer), "lr_scheduler": None, "found_lr": None}
        if self._lr_scheduler is None:
            return optimizer
        scheduler = self.build_lr_scheduler(optimizer)
        interval: Interval = self._lr_scheduler_interval or ("step" if isinstance(scheduler, PER_BATCH) else "epoch")
        self._note_schedule(scheduler, interval)
        config: dict[str, Any] = {
            "scheduler": scheduler,
            "interval": interval,
            "name": f"lr-{type(optimizer).__name__}",  # what LearningRateMonitor calls it in any case
        }
        if isinstance(scheduler, ReduceLROnPlateau):  # torch's own cannot state what to monitor, Lightning's can
            config["monitor"] = getattr(scheduler, "monitor", "val_loss")
            if interval == "epoch" and not config["monitor"].startswith("train_") and self._trainer is not None:
                every = self.trainer.check_val_every_n_epoch  # None: by batches, an epoch may have no validation
                config |= {"frequency": every or 1, "strict": every is not None}
        return cast(OptimizerLRScheduler, {"optimizer": optimizer, "lr_scheduler": config})

    def build_lr_scheduler(self, optimizer: Optimizer) -> LRScheduler:
        """Builds the scheduler on the optimizer, where one is stated."""
        assert self._lr_scheduler is not None
        return self._lr_scheduler(optimizer)

    def restart_schedule(self, optimizer: Optimizer, found_lr: float | None) -> LRScheduler | None:
        """Gives the optimizer what is stated, and builds the scheduler on it anew, with the length of the run as it is by now.

        Args:
            optimizer: The trainer's.
            found_lr: The head's learning rate (the peak, for OneCycleLR and CyclicLR) in place of the one stated; None for
                that.

        Returns:
            The scheduler, which is the trainer's by now; None where none is stated.
        """
        assert self._optimizer is not None
        assert self.stated is not None
        set_numbers(optimizer, self._optimizer(self.parameter_groups()))
        self.stated["found_lr"] = found_lr
        scheduler = build_at(found_lr, optimizer, self._lr_scheduler)
        for config in self.trainer.lr_scheduler_configs:
            config.scheduler = scheduler
            self._note_schedule(scheduler, cast(Interval, config.interval))
        return cast(LRScheduler | None, scheduler)

    def head_lr_at(self, epochs: int, steps: int) -> float:
        """Returns the head's learning rate after so many epochs and steps, had all been as it is stated.

        What a ReduceLROnPlateau did nobody can say; before it reduces it, the learning rate is as stated.
        """
        assert self._optimizer is not None
        assert self.stated is not None
        optimizer = self._optimizer(self.parameter_groups())
        scheduler = build_at(self.stated["found_lr"], optimizer, self._lr_scheduler)
        if scheduler is not None and not isinstance(scheduler, ReduceLROnPlateau):
            fast_forward(scheduler, epochs if self.stated["lr_scheduler"]["interval"] == "epoch" else steps)
        head = optimizer.param_groups[0]
        return float(head["lr"] or head["initial_lr"])  # a warm-up may start at 0

    def _note_schedule(self, scheduler: LRScheduler, interval: Interval) -> None:
        """Keeps what is stated, for checkpoints."""
        assert self.stated is not None
        self.stated["lr_scheduler"] = stated_scheduler(self._lr_scheduler, scheduler, interval)

    def on_fit_start(self) -> None:
        """Lets optimizer and schedule be as stated, for the run as it is by now: callbacks may have changed its batches."""
        if self.stated is not None and self._optimizer is not None:  # else the model builds its optimizer itself
            self._restate(self.trainer.optimizers[0])
        self.resumed = None

    def _restate(self, optimizer: Optimizer) -> None:
        assert self.stated is not None
        configs = self.trainer.lr_scheduler_configs
        for config in configs if self._lr_scheduler is not None else ():
            interval = cast(Interval, config.interval)
            if stated_scheduler(self._lr_scheduler, config.scheduler, interval) != self.stated["lr_scheduler"]:
                self.restart_schedule(optimizer, self.stated["found_lr"])
            if isinstance(config.scheduler, SequentialLR | ChainedScheduler):
                self._tell_what_never_begins(config.scheduler, interval)
            if has_cycle(config.scheduler):
                check_cycles(config.scheduler, run_length(self.trainer, interval, self.resumed))
        if self.resumed is not None:
            keeps_found_lr = any(
                isinstance(callback, LearningRateFinder) for callback in trainer_callbacks(self.trainer)
            )
            resumption = Resumption(self.resumed, self.stated, keeps_found_lr)
            self.schedule_is_restated = resumption.apply(
                optimizer, next(iter(configs), None), lambda lr: self.restart_schedule(optimizer, lr)
            )

    def _tell_what_never_begins(self, scheduler: LRScheduler, interval: Interval) -> None:
        length = run_length(self.trainer, interval, self.resumed)
        late = [] if length is None or self.trainer.fast_dev_run else never_begins(scheduler, length)  # type: ignore[attr-defined]
        if late:
            other = "step" if interval == "epoch" else "epoch"
            rank_zero_warn(
                f"lr_scheduler: milestones: {late} are not within the run, of {length} {interval}s: the schedulers after them "
                f"never begin. Do they count {other}s? Then state lr_scheduler_interval: {other}."
            )

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Steps a scheduler, but for ReduceLROnPlateau, which ``on_train_epoch_end`` steps.

        Lightning steps that one after the epoch's checkpoint is saved, and not at all at the end of an epoch in which a run was
        resumed; so the resumed run would have other learning rates.
        """
        interval = self.trainer.lr_scheduler_configs[0].interval
        if not _is_stepped_here(scheduler, interval):
            super().lr_scheduler_step(scheduler, metric)

    # ---- metrics -----------------------------------------------------------------------------------------------------

    def configure_metrics(self) -> None:
        """Makes the metrics of each stage: loss, macro F1, top-1/3/5/10 accuracy, and per class for val and test."""
        classes = len(self.class_names)
        overall: dict[str, Metric | MetricCollection] = {"macro_f1": MacroF1(classes)}
        overall |= {f"top_{k}_accuracy": TopKAccuracy(k) for k in (1, 3, 5, 10) if k < classes}
        # Each class against all others, which a multiclass model answers with its one choice.
        per_class: dict[str, Metric | MetricCollection]
        if classes == 1:
            per_class = {
                "precision": BinaryPrecision(),
                "recall": BinaryRecall(),
                "f1": BinaryF1Score(),
                "accuracy": BinaryAccuracy(),
            }
        else:
            per_class = {
                "precision": MultilabelPrecision(classes, average="none"),
                "recall": MultilabelRecall(classes, average="none"),
                "f1": MultilabelF1Score(classes, average="none"),
                "accuracy": MultilabelAccuracy(classes, average="none"),
            }
        # what is no number stays none (by default such batches are left out)
        self.losses = nn.ModuleDict(
            {f"{stage}_loss": MeanMetric(nan_strategy=math.nan) for stage in ("train", "val", "test")}
        )
        # No compute groups: torchmetrics would merge top-1 and top-3 for good if they agree on the first batch.
        self.overall = nn.ModuleDict(
            {
                f"{stage}_metrics": MetricCollection(overall, compute_groups=False).clone()
                for stage in ("train", "val", "test")
            }
        )
        self.per_class = nn.ModuleDict(
            {f"{stage}_metrics": MetricCollection(per_class, compute_groups=False).clone() for stage in ("val", "test")}
        )

    def logged_names(self) -> list[str]:
        """Returns the names of the values that training logs, which callbacks may monitor."""
        names = ["train_loss", "train_loss_epoch", "val_loss"]
        for stage in ("train", "val"):
            names += [f"{stage}_{name}" for name in cast(MetricCollection, self.overall[f"{stage}_metrics"])]
        per_class = cast(MetricCollection, self.per_class["val_metrics"])
        return names + [f"species/val_{name}/{label}" for name in per_class for label in self.class_names]

    def _has_counted(self, stage: str) -> bool:
        """Returns whether any process has counted a clip in the epoch; every process must call this."""
        counted = torch.tensor(float(cast(MeanMetric, self.losses[f"{stage}_loss"]).update_called), device=self.device)
        if self._trainer is not None:
            counted = cast(Tensor, self.trainer.strategy.reduce(counted, reduce_op="sum"))
        return bool(counted)

    def _log_metrics(self, stage: str) -> None:
        """Logs what the epoch's batches add up to, over all processes."""
        loss = cast(MeanMetric, self.losses[f"{stage}_loss"])
        overall = cast(MetricCollection, self.overall[f"{stage}_metrics"])
        if not self._has_counted(stage):
            first = getattr(self.trainer.datamodule, "first_failure", None)  # type: ignore[attr-defined]
            raise InputError(
                f"None of the {stage} clips could be read{f', such as {first}' if first else ''}. See the reasons in the log "
                "and in failed.csv of the run folder."
            )
        values = {f"{stage}_{name}": value for name, value in overall.compute().items()}
        mean_loss = loss.compute()
        if stage != "train":
            self.log(f"{stage}_loss", mean_loss, prog_bar=True)
            per_class = cast(MetricCollection, self.per_class[f"{stage}_metrics"])
            for name, by_class in per_class.compute().items():
                values |= {
                    f"species/{stage}_{name}/{c}": v
                    for c, v in zip(self.class_names, by_class.reshape(-1), strict=True)
                }
            per_class.reset()
        else:
            self.log("train_loss_epoch", mean_loss)
        if mean_loss.isnan():  # so are probabilities, which metrics would take for answers
            values = dict.fromkeys(values, mean_loss)
        self.log_dict(values)
        loss.reset()
        overall.reset()

    def setup(self, stage: str) -> None:
        """Counts the train labels, if that is what the loss goes by.

        Also lays out weights as clips are laid out, channels last: else torch rearranges the weights of 3-D convolutions in
        each call (a sixth of SlowFast's time on two cores). And lets all processes go by the seed of the first one: a seed
        that is drawn is another in each of them.
        """
        self.stated = None  # of an earlier run
        if stage == "fit":
            self._watch_bfloat16()
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                layer.to(memory_format=torch.channels_last_3d)
        if self.trainer.world_size > 1:
            os.environ["PL_GLOBAL_SEED"] = str(self.trainer.strategy.broadcast(run_seed()))
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.task == "multiclass" and stage == "fit" and getattr(data, "batch_augmentation", None):
            check_takes_mixed_targets(self.loss, len(self.class_names))
        if self.class_weights == "balanced" and stage == "fit":
            if not hasattr(data, "count_train_labels"):
                raise InputError(
                    "model.init_args.class_weights: balanced needs a ZambaVideoDataModule, which knows the train labels. "
                    "Give weights by name."
                )
            counts, clips = data.count_train_labels()
            weights = balanced_weights(counts, clips, self.task)
            rank_zero_info("class_weights: " + ", ".join(f"{name} {weight:.4g}" for name, weight in weights.items()))
            self._weigh_classes(weights)

    def _watch_bfloat16(self) -> None:
        """Refuses to train in bfloat16 what the CPU computes wrongly."""
        callbacks = trainer_callbacks(self.trainer)
        epochs = self.trainer.max_epochs
        end = float("inf") if epochs is None or epochs < 0 else epochs
        unfreezes = any(isinstance(c, BackboneFinetuning) and c.unfreeze_backbone_at_epoch < end for c in callbacks)
        on_cpu = self.trainer.strategy.root_device.type == "cpu"
        if on_cpu and "bf16" in str(self.trainer.precision) and unfreezes:
            for layer in self.backbone.modules():
                if isinstance(layer, nn.Conv3d):
                    self._guards.append(layer.register_forward_pre_hook(_refuse_too_few_frames))

    def on_fit_end(self) -> None:
        """Ends the watch over the layers."""
        for guard in self._guards:
            guard.remove()
        self._guards.clear()

    def _weigh_classes(self, weights: dict[str, float]) -> None:
        self._weight_of_class = torch.tensor([weights.get(name, 1.0) for name in self.class_names])

    # ---- steps -------------------------------------------------------------------------------------------------------

    def probabilities(self, logits: Tensor) -> Tensor:
        """Turns logits into probabilities, both float (B, classes)."""
        logits = logits / self.temperature
        return logits.sigmoid() if self.task == "multilabel" else logits.softmax(dim=1)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Makes dropout and whatever else is random a function of the run's seed, the process, the epoch and the batch.

        So a run that is interrupted anywhere and resumed, with one process or many, goes on as if it had not been: the seed in
        the checkpoint stands for the states of all generators of all processes, which Lightning does not keep.
        """
        if self._trainer is not None and saves_on_exception(self.trainer):
            self._before_batch = BeforeBatch(self, dict(self._train_metrics()), batch_idx)
        number = seed_for(self.global_rank, self.current_epoch, batch_idx)
        torch.manual_seed(number)
        random.seed(number)
        np.random.seed(number % 2**32)

    def mean_logits(self, batch: Batch) -> Tensor:
        """Returns float (B, classes): where several parts of a video are looked at, the mean over them."""
        return self.part_logits(batch).mean(dim=1)

    def part_logits(self, batch: Batch) -> Tensor:
        """Returns float (B, clips, classes), for each of the parts of a video that are looked at apart."""
        if batch["cached"]:
            assert self.features is not None
            entries = [names[self.current_epoch % len(names)] for names in batch["cached"]]
            if self.backbone_is_frozen:
                logits = self.head(self.features.backbone(self, entries))
            else:
                logits = self.head(self.forward_backbone(self.features.trunk(self, entries)))
        else:
            logits = self(batch["video"])
        return cast(Tensor, logits.unflatten(0, (len(batch["index"]), -1)))  # type: ignore[no-untyped-call]

    def mean_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the mean loss of clips.

        Args:
            logits: Float (B, classes).
            target: Float (B, classes), 1 where the clip has the label, between 0 and 1 for mixed clips.
        """
        return weighted_losses(self.loss, logits, target, self._weight_of_class.to(target), self.task).mean()

    def _step(self, batch: Batch, stage: str) -> tuple[Tensor, Tensor]:
        """Returns the batch's mean loss and its logits, and counts its clips in the stage's metrics."""
        logits, target = self.mean_logits(batch), batch["target"]
        if self.task == "multiclass" and ((target.sum(dim=1) - 1).abs() > 1e-3).any():
            raise InputError(
                "A clip without exactly one label, in a multiclass model. Set model.init_args.task to multilabel, "
                "or give each clip one label."
            )
        loss = self.mean_loss(logits.float(), target)
        # of a mixed clip, metrics go by the labels that make up at least half of it
        target = target.argmax(dim=1) if self.task == "multiclass" else target.ge(0.5).long()  # (B,) or (B, classes)
        with torch.no_grad():
            probabilities = self.probabilities(logits.float())
            cast(MeanMetric, self.losses[f"{stage}_loss"]).update(loss.detach(), weight=len(target))
            cast(MetricCollection, self.overall[f"{stage}_metrics"]).update(probabilities, target)
            if stage != "train":
                if self.task == "multilabel":
                    named = (probabilities > 0.5).long()
                else:
                    named = F.one_hot(probabilities.argmax(dim=1), len(self.class_names))
                cast(MetricCollection, self.per_class[f"{stage}_metrics"]).update(named, batch["target"].long())
        return loss, logits.detach().float()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Returns the mean loss of the batch, or None where none of its clips could be read."""
        clips = len(batch["index"])
        if clips:
            loss, _ = self._step(batch, "train")
        elif self.trainer.world_size == 1:
            return None  # no step is taken
        else:  # the other processes wait for this one's gradients: it takes part with zeros
            loss = cast(Tensor, sum(p.sum() for p in self.parameters() if p.requires_grad)) * 0.0
        self._log_train_loss(loss.detach().float() if clips else torch.zeros((), device=self.device), clips)
        return loss * self._accumulation_correction(batch_idx)

    def _log_train_loss(self, loss: Tensor, clips: int) -> None:
        """Logs the mean (float32) over the clips of all processes, each of which must call this."""
        if self.trainer.world_size > 1:
            total = torch.stack([loss * clips, loss.new_tensor(clips)])
            total = cast(Tensor, self.trainer.strategy.reduce(total, reduce_op="sum"))
            if not total[1]:
                return
            loss = total[0] / total[1]
        self.log("train_loss", loss, prog_bar=True, batch_size=clips)

    def _accumulation_correction(self, batch_idx: int) -> float:
        """Returns the factor that makes a step's gradient the mean over its batches where an epoch ends before all are there.

        Lightning divides by ``accumulate_grad_batches``, so that the last step of such an epoch would be too small.
        """
        together = self.trainer.accumulate_grad_batches
        left = self.trainer.num_training_batches - batch_idx // together * together  # from the step's first batch on
        return float(together / min(together, left))

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Counts the batch in the val metrics and returns the logits of its clips, float (B, classes)."""
        return self._step(batch, "val")[1] if batch["index"] else self._no_logits(batch)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Returns the logits of the batch's clips, float (B, classes), and counts those of the first loader in the metrics."""
        if not batch["index"]:
            return self._no_logits(batch)
        return self.mean_logits(batch).float() if dataloader_idx else self._step(batch, "test")[1]

    def _no_logits(self, batch: Batch) -> Tensor:
        return batch["video"].new_zeros((0, len(self.class_names)), dtype=torch.float32)

    def predict_step(self, batch: Batch, batch_idx: int) -> Prediction:
        """Returns the probabilities of the clips in ``batch["index"]``."""
        if not batch["index"]:
            none = self._no_logits(batch)
            return {"probabilities": none, "part_probabilities": none[:, None]}
        logits = self.part_logits(batch).float()  # (B, clips x crops, classes)
        logits = logits.unflatten(1, (batch["times"].shape[1], -1)).mean(dim=2)  # type: ignore[no-untyped-call]
        by_part = self.probabilities(logits.flatten(0, 1)).reshape(logits.shape)
        return {"probabilities": self.probabilities(logits.mean(dim=1)), "part_probabilities": by_part}

    def on_train_start(self) -> None:
        """Goes on where a run that is resumed was saved, with what was logged last for those who monitor it."""
        loop = self.trainer.fit_loop
        begin_next_epoch(loop)
        resume_accumulation(self.trainer)
        resume_within_batch(loop)
        resume_without_validation(loop)
        self.trainer.callback_metrics.update(self._callback_metrics)
        self._callback_metrics = {}
        resume_what_is_due(self.trainer, self, self._left_open)
        self._left_open = {}

    def on_train_epoch_start(self) -> None:
        """Begins to count; a run resumed in the middle of an epoch does not come here and counts on."""
        for _, metric in self._train_metrics():
            metric.reset()

    def on_train_epoch_end(self) -> None:
        """Logs the epoch's train metrics."""
        epoch_loop = self.trainer.fit_loop.epoch_loop
        if epoch_loop.restarting:  # resumed at the epoch's end; Lightning takes back the mark only after a batch
            epoch_loop.on_iteration_done()
        self._log_metrics("train")
        for config in self.trainer.lr_scheduler_configs:
            if _is_stepped_here(config.scheduler, config.interval) and (self.current_epoch + 1) % config.frequency == 0:
                value = self.trainer.callback_metrics.get(cast(str, config.monitor))
                if value is not None:
                    cast(Any, config.scheduler).step(value)

    def on_validation_epoch_end(self) -> None:
        """Logs the val metrics."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Logs the test metrics."""
        self._log_metrics("test")

    # ---- checkpoint --------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what a resumed run needs to go on as if it had not been interrupted.

        Also keeps loading free of downloads: the checkpoint's own weights are all that is needed.
        """
        before = None
        if self._is_fitting():
            loop = self.trainer.fit_loop
            before = self._before_batch if is_within_batch(loop) else None
            if "callbacks" in checkpoint:  # else it is of weights only
                checkpoint[LEFT_OPEN] = left_open(self.trainer, self, before)
            resume_before_validation(loop, self.trainer.validating, checkpoint["loops"]["fit_loop"])
            checkpoint["callback_metrics"] = dict(self.trainer.callback_metrics)
            if self.stated is not None:
                checkpoint[STATED] = {**self.stated, "callbacks": self.stated_callbacks}
        if self._trainer is not None:
            average_in_small_checkpoint(self.trainer, self, checkpoint)
        checkpoint["seed"] = run_seed()
        if self.class_weights == "balanced":
            checkpoint["class_weights"] = dict(zip(self.class_names, self._weight_of_class.tolist(), strict=True))
        counted = self._train_metrics() if self._has_counted("train") else ()
        checkpoint["train_metrics"] = {name: _state_over_processes(metric) for name, metric in counted}
        if before is not None:
            before.put_into(checkpoint)
        hyper_parameters = checkpoint.get("hyper_parameters")
        if hyper_parameters is not None and "weights" in hyper_parameters:
            hyper_parameters["weights"] = None

    def _is_fitting(self) -> bool:
        return self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING

    def _is_fitting_without_finetuning(self) -> bool:
        if not self._is_fitting():
            return False
        callbacks = trainer_callbacks(self.trainer)
        return not any(isinstance(callback, BackboneFinetuning) for callback in callbacks)

    def _train_metrics(self) -> Iterator[tuple[str, Metric]]:
        """Yields the metrics that a checkpoint from the middle of an epoch finds half counted."""
        yield "loss", cast(MeanMetric, self.losses["train_loss"])
        yield from cast(MetricCollection, self.overall["train_metrics"]).items()

    def _restore_train_metrics(self, states: dict[str, dict[str, Tensor]]) -> None:
        first = self._trainer is None or self.trainer.is_global_zero  # the counts of all processes go to the first
        for name, metric in self._train_metrics():
            if first and name in states:
                metric._update_count = 1  # else it takes itself for empty
                for key, value in states[name].items():
                    setattr(metric, key, value.to(metric.device))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of other classes; the same classes in another order are matched by name.

        Raises:
            InputError: Names the classes that are only here and only there.
        """
        finetuning = checkpoint.get("callbacks", {}).get(BackboneFinetuning.__qualname__, {})
        if finetuning.get("unfrozen_at_epoch") is not None and self._is_fitting_without_finetuning():
            rank_zero_info(
                "The checkpoint's run trained the backbone; without BackboneFinetuning it is frozen from here on."
            )
        if not isinstance(checkpoint.get("state_dict"), dict):
            raise InputError("ckpt_path: there are no weights (state_dict) in the checkpoint. Give another one.")
        if self._is_fitting():
            if missing := [key for key in ("loops", "optimizer_states") if key not in checkpoint]:
                raise InputError(
                    f"ckpt_path: the checkpoint was made to pass on and cannot be resumed: it has no {missing[0]}. To begin a "
                    "new run from its weights, set model.init_args.weights to it instead."
                )
            self._check_same_groups(checkpoint)
            if self.stated is None:  # else a callback restores what it saved before it tried something out
                check_not_done(self.trainer, checkpoint)
                self.resumed = checkpoint
                keep_stated_arguments(trainer_callbacks(self.trainer), self.stated_callbacks, checkpoint)
        theirs = checkpoint.get("hyper_parameters", {}).get("class_names")
        if theirs is not None and list(theirs) != self.class_names:
            only_theirs, only_ours = (
                sorted(set(theirs) - set(self.class_names)),
                sorted(set(self.class_names) - set(theirs)),
            )
            if only_theirs or only_ours:
                raise InputError(
                    f"The checkpoint was made for other classes; only in the checkpoint: {only_theirs}; only in the labels or "
                    f"the model: {only_ours}. Use the labels it was trained with."
                )
            self._reorder_classes(checkpoint, [list(theirs).index(name) for name in self.class_names])
        missing = [name for name in self.state_dict() if name not in checkpoint["state_dict"]]
        if missing:
            raise InputError(
                f"ckpt_path: the checkpoint lacks {len(missing)} of the model's weights, such as {missing[0]}. To start from "
                "those that it has, set model.init_args.weights to it."
            )
        for name, ours in self.state_dict().items():
            if (theirs := checkpoint["state_dict"][name]).shape != ours.shape:
                raise InputError(
                    f"ckpt_path: the checkpoint is of a network of another size: {name} is {list(theirs.shape)} there and "
                    f"{list(ours.shape)} here. Leave out the arguments of the model that differ from those it was made with."
                )
        self._restore_train_metrics(checkpoint.get("train_metrics", {}))
        if self._is_fitting():
            self._callback_metrics = checkpoint.get("callback_metrics", {})
            self._left_open = checkpoint.get(LEFT_OPEN, {})
        if self.class_weights == "balanced" and not self._is_fitting():
            if "class_weights" not in checkpoint:
                raise InputError(
                    "model.init_args.class_weights: the checkpoint's run did not balance its classes. Leave balanced out, or "
                    "give weights by name."
                )
            self._weigh_classes(checkpoint["class_weights"])  # there may be no train labels here

    def _check_same_groups(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to go on with an optimizer of other parameter groups, whose state could not be told apart."""
        ours = [group["name"] for group in self.parameter_groups()]
        then = checkpoint.get(STATED, {}).get("optimizer", {}).get("class_path")
        for optimizer in checkpoint.get("optimizer_states", []):
            if self._optimizer is not None:
                fit_state(optimizer, then, self._optimizer)
            theirs = [group.get("name") for group in optimizer["param_groups"]]
            if None not in theirs and theirs != ours:
                raise InputError(
                    f"The checkpoint's optimizer has the parameter groups {theirs}, but here they are {ours}. Go on with its "
                    "backbone_lr_decay, decay_norm_and_bias and backbone_blocks, or begin a new run from its weights with "
                    "model.init_args.weights."
                )

    def _reorder_classes(self, checkpoint: dict[str, Any], order: list[int]) -> None:
        """Brings a checkpoint of the same classes in another order into the order of this model, in place.

        Args:
            checkpoint: As loaded.
            order: For each class here its position there.
        """
        rank_zero_info(
            f"The checkpoint has the classes in another order; they are matched by name: {self.class_names}."
        )
        output = self.output_layer()
        groups = self.parameter_groups()
        states = [
            checkpoint[key] for key in ("state_dict", "current_model_state") if key in checkpoint
        ]  # average, current
        states.append(checkpoint.get(LEFT_OPEN, {}).get("gradients", {}))
        names = {id(parameter): name for name, parameter in self.named_parameters(remove_duplicate=False)}
        for state in states:
            for parameter in output.parameters():
                if (name := names[id(parameter)]) in state:
                    state[name] = state[name][order]
        positions = {id(p): i for i, p in enumerate(p for group in groups for p in group["params"])}
        for optimizer in checkpoint.get("optimizer_states", []):
            for parameter in output.parameters():
                kept = optimizer["state"].get(positions[id(parameter)], {})
                for key, value in kept.items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        kept[key] = value[order]
        for counts in checkpoint.get("train_metrics", {}).values():
            for key, value in counts.items():
                if value.shape == (len(order),):
                    counts[key] = value[order]

    def output_layer(self) -> nn.Module:
        """Returns the head's last layer, whose parameters have a row for each class."""
        return [layer for layer in self.head.modules() if isinstance(layer, nn.Linear)][-1]


def _refuse_too_few_frames(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Refuses a 3-D convolution over fewer frames than it looks at together, other than one.

    Measured with torch 2.15 on a CPU with AVX-512: the weight's gradient in bfloat16 is what happens to be in memory, up to
    1e36, and memory behind it is overwritten. In float32, and with one frame or enough of them, it is right.
    """
    frames, together = inputs[0].shape[2], cast(tuple[int, ...], layer.kernel_size)[0]
    if 1 < frames < together:
        raise InputError(
            f"trainer.precision: in bfloat16 the CPU computes wrong gradients for layers that take {together} frames at once "
            f"and have {frames}. Take more frames (num_frames of data.sampling), or precision 32-true."
        )


def _is_stepped_here(scheduler: Any, interval: str) -> bool:
    return isinstance(scheduler, ReduceLROnPlateau) and interval == "epoch"


def _state_over_processes(metric: Metric) -> dict[str, Tensor]:
    """Returns what a metric has counted so far, summed over all processes; every process must call this."""
    with metric.sync_context():
        return state_of(metric)
