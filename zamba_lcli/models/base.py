"""The LightningModule of all networks; backbone: only the last blocks, the part that may be unfrozen."""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

import zamba_lcli.models.checkpointing as checkpointing
import zamba_lcli.models.exact_resume as exact_resume
import zamba_lcli.models.optimization as optimization
from zamba_lcli._lightning import attached_trainer, average_in_small_checkpoint, is_fitting
from zamba_lcli.errors import InputError
from zamba_lcli.losses import accumulation_correction, check_labels, check_takes_mixed_targets
from zamba_lcli.metrics import ClipMetrics, log_train_loss
from zamba_lcli.models.batch_norm import refuse_single_values
from zamba_lcli.models.blank_clips import by_clip
from zamba_lcli.models.layers import lay_out_channels_last
from zamba_lcli.models.parameter_groups import blocks_of, frozen_in_backbone, groups_of, layers_of
from zamba_lcli.models.task import ModelWithTask
from zamba_lcli.seed import run_seed, seed_for, seed_generators, share_seed
from zamba_lcli.types import Batch, FeatureSource, Interval, Prediction, StatedTask


class ZambaVideoClassificationLightningModule(ModelWithTask):
    """Base of all networks: trunk -> backbone -> head, trained on clips with one label or several.

    The trunk never trains. The backbone is frozen until a finetuning callback unfreezes it; the head always trains.
    Frozen means: no gradient, eval mode, running statistics untouched. A subclass sets ``backbone`` and ``head``, and
    implements ``trunk``, ``forward_trunk`` and ``forward_backbone``.

    Args:
        class_names: The classes, in the order of the logits. On the command line they come from the labels.
        task: ``multilabel``: a clip may have several labels, each judged by itself (binary cross-entropy with logits).
            ``multiclass``: each clip has exactly one label (cross-entropy). ``auto``: the task of the stated loss; without one
            multiclass where every labelled clip has exactly one label and there are two classes or more, else multilabel.
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

    Attributes:
        resumed: The checkpoint of a resumed run, from its loading until the fit starts.
        stated_callbacks: What the configuration states of the callbacks, by state key: class path and arguments.
        untrained: Names of the weights that ``weights`` did not have.
    """

    backbone: nn.Module
    head: nn.Module
    # arguments that the output of trunk and backbone depends on, besides the weights; None: all that the subclass adds
    feature_arguments: ClassVar[tuple[str, ...] | None] = None
    pools_tokens = False  # whether the backbone's output is tokens (B, N, C), which the head pools by attention

    def __init__(
        self,
        class_names: Sequence[str],
        task: StatedTask = "auto",
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
        if backbone_lr_decay is not None and not 0 < backbone_lr_decay <= 1:
            raise InputError(f"model.init_args.backbone_lr_decay: {backbone_lr_decay} is not above 0 and at most 1.")
        if temperature <= 0:
            raise InputError(f"model.init_args.temperature: {temperature} is not above 0.")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Attribute 'loss' is an instance of `nn.Module`")  # not for long
            self.save_hyperparameters()
        self.hparams["class_names"] = self.class_names = class_names
        self.decay_norm_and_bias = decay_norm_and_bias
        self.backbone_lr_decay = backbone_lr_decay
        self.temperature = temperature
        self.keep_matching_classes = keep_matching_classes
        self.untrained: list[str] = []
        self.backbone_is_frozen = True
        self.train_backbone_batchnorm = True
        self.frozen_blocks = 0  # the backbone's first ones, once it is unfrozen
        self.features: FeatureSource | None = None
        self.state_task(task, loss, class_weights)
        self.optimization: optimization.Optimization | None = None
        self.stated_callbacks: dict[str, Any] = {}
        self.resumed: dict[str, Any] | None = None
        self._unfinished: dict[str, Any] = {}  # of the checkpoint that is resumed, until the training starts
        self._before_batch: exact_resume.BeforeBatch | None = None  # where a checkpoint may be saved within a batch

    @property
    def trunk(self) -> nn.Module:
        """The layers before the backbone; they never train."""
        raise NotImplementedError

    def forward_trunk(self, video: Tensor) -> Any:
        """Turns ``video``, uint8 (B, 3, T, H, W), into the backbone's input; normalization belongs here."""
        raise NotImplementedError

    def forward_backbone(self, features: Any) -> Tensor:
        """Turns the trunk's output into the head's input."""
        raise NotImplementedError

    def forward(self, video: Tensor) -> Tensor:
        """Turns ``video``, uint8 (B, 3, T, H, W), into logits, float (B, classes)."""
        return cast(Tensor, self.head(self.forward_backbone(self.forward_trunk(video))))

    def output_layer(self) -> nn.Module:
        """Returns the head's last layer, whose parameters have a row for each class."""
        return [layer for layer in self.head.modules() if isinstance(layer, nn.Linear)][-1]

    def freeze_backbone(self) -> None:
        """Freezes the backbone and the trunk: no gradients, eval mode, statistics untouched."""
        self.backbone_is_frozen = True
        self.trunk.requires_grad_(False)
        self.backbone.requires_grad_(False)
        self.train(self.training)

    def unfreeze_backbone(self, train_bn: bool = True, blocks: int | None = None) -> None:
        """Lets the backbone's last ``blocks`` train, None for all, with ``train_bn=False`` without their BatchNorm layers."""
        self.backbone_is_frozen = False
        self.train_backbone_batchnorm = train_bn
        self.frozen_blocks = 0 if blocks is None else len(blocks_of(self)) - blocks
        self.backbone.requires_grad_(True)
        nn.ModuleList(frozen_in_backbone(self)).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "ZambaVideoClassificationLightningModule":
        """Sets the training mode; frozen layers, their BatchNorm and dropout included, stay in eval mode."""
        super().train(mode)
        if mode:
            frozen = [self.backbone] if self.backbone_is_frozen else frozen_in_backbone(self)
            nn.ModuleList([self.trunk, *frozen]).eval()
        return self

    def backbone_layers(self) -> list[list[nn.Parameter]]:
        """Returns the parameters of each layer of the backbone, in the order in which the layers run."""
        return layers_of(self.backbone)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Returns the groups of every optimizer, ``head`` and ``backbone`` (see ``groups_of``), from the first step on.

        The trunk is in neither. All else that is not in the backbone is in ``head``. No step changes what has no gradient.
        """
        elsewhere = {id(p) for p in (*self.trunk.parameters(), *self.backbone.parameters())}
        head = [p for p in self.parameters() if id(p) not in elsewhere]
        is_whole = self.backbone_lr_decay is None
        layers = [list(self.backbone.parameters())] if is_whole else self.backbone_layers()
        return groups_of(head, layers, self.backbone_lr_decay, self.decay_norm_and_bias)

    def set_optimizer(
        self,
        optimizer: optimization.OptimizerBuilder,
        lr_scheduler: optimization.LRSchedulerBuilder | None = None,
        lr_scheduler_interval: Interval | None = None,
    ) -> None:
        """Sets optimizer and schedule for a plain ``Trainer``; on the command line they are ``optimizer:`` in the YAML.

        Args:
            optimizer: Builds the optimizer from parameter groups, e.g. ``functools.partial(torch.optim.Adam, lr=1e-3)``.
            lr_scheduler: Builds the scheduler from the optimizer, e.g. ``functools.partial(MultiStepLR, milestones=[9])``.
            lr_scheduler_interval: Whether the scheduler counts epochs or batches (``step``); None for what it is made for.
        """
        self.optimization = optimization.Optimization(optimizer, lr_scheduler, lr_scheduler_interval)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Builds the optimizer on the parameter groups and the scheduler on the optimizer."""
        if self.optimization is None:
            raise InputError(optimization.MISSING)
        return self.optimization.configure(self.parameter_groups(), attached_trainer(self))

    def setup(self, stage: str) -> None:
        """Decides an open task, balances classes if that is stated, lays out weights, lets all processes go by one seed."""
        lay_out_channels_last(self)
        share_seed(self.trainer)
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if stage != "predict":
            self.decide_task(data)
        if self.task == "multiclass" and stage == "fit" and getattr(data, "batch_augmentation", None):
            check_takes_mixed_targets(self.loss, len(self.class_names))
        if stage == "fit":
            self.trainer.optimizers = []  # not those of an earlier run
            self.class_weights.balance(data)

    def mean_logits(self, batch: Batch) -> Tensor:
        """Returns the logits of each video, float (B, classes): the mean over its clips, where there are several."""
        return self.part_logits(batch).mean(dim=1)

    def part_logits(self, batch: Batch) -> Tensor:
        """Returns the logits of each clip of a video, float (B, clips, classes)."""
        if batch["cached"]:
            assert self.features is not None
            entries = [names[self.current_epoch % len(names)] for names in batch["cached"]]
            if self.backbone_is_frozen:
                logits = self.head(self.features.backbone(self, entries))
            else:
                logits = self.head(self.forward_backbone(self.features.trunk(self, entries)))
        else:
            logits = self(batch["video"]) if len(batch["video"]) else self._no_logits(batch)
        return by_clip(logits, batch, self.class_names)

    def _step(self, batch: Batch, metrics: ClipMetrics) -> tuple[Tensor, Tensor]:
        """Returns the batch's mean loss and its logits, and counts its clips in ``metrics``."""
        logits, target = self.mean_logits(batch), batch["target"]
        check_labels(target, self.task)
        loss = self.mean_loss(logits.to(torch.promote_types(logits.dtype, torch.float32)), target)
        with torch.no_grad():
            metrics.update(loss.detach(), self.probabilities(logits.float()), target)
        return loss, logits.detach().float()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Returns the mean loss of the batch, or None where none of its clips could be read."""
        clips = len(batch["index"])
        if clips:
            with refuse_single_values():
                loss, _ = self._step(batch, self.train_metrics)
        elif self.trainer.world_size == 1:
            return None  # no step is taken
        else:  # the other processes wait for this one's gradients: it takes part with zeros
            loss = cast(Tensor, sum(p.sum() for p in self.parameters() if p.requires_grad)) * 0.0
        log_train_loss(self, loss.detach().float(), clips)
        return loss * accumulation_correction(self.trainer, batch_idx)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Counts the batch in the val metrics and returns the logits of its clips, float (B, classes)."""
        return self._step(batch, self.val_metrics)[1] if batch["index"] else self._no_logits(batch)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Returns the logits of the batch's clips, float (B, classes), and counts those of the first loader in the metrics."""
        if not batch["index"]:
            return self._no_logits(batch)
        return self.mean_logits(batch).float() if dataloader_idx else self._step(batch, self.test_metrics)[1]

    def _no_logits(self, batch: Batch) -> Tensor:
        return batch["video"].new_zeros((0, len(self.class_names)), dtype=torch.float32)

    def predict_step(self, batch: Batch, batch_idx: int) -> Prediction:
        """Returns the probabilities of the clips in ``batch["index"]``."""
        logits = self.part_logits(batch).float()  # (B, clips x crops, classes)
        logits = logits.unflatten(1, (batch["times"].shape[1], -1)).mean(dim=2)  # type: ignore[no-untyped-call]
        by_part = self.probabilities(logits.flatten(0, 1)).reshape(logits.shape)
        return {"probabilities": self.probabilities(logits.mean(dim=1)), "part_probabilities": by_part}

    def on_fit_start(self) -> None:
        """Lets optimizer and schedule be as stated, for the run as it is by now."""
        if optimization.is_built_by_user(self):
            checkpointing.check_optimizers(self.resumed, self.trainer.optimizers)
        elif self.optimization is not None:
            self.optimization.restate(self.parameter_groups(), self.trainer, self.resumed)
        self.resumed = None

    def on_train_start(self) -> None:
        """Continues a resumed run where it was saved."""
        exact_resume.resume(self, self._unfinished)
        self._unfinished = {}

    def on_train_epoch_start(self) -> None:
        """Resets the train metrics; a run resumed within an epoch does not come here and counts on."""
        self.train_metrics.reset()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Makes dropout and other randomness a function of the run's seed, the process, the epoch and the batch.

        So a resumed run goes on as if it had not been interrupted, with one process or many: the seed in the checkpoint is
        enough in place of the states of all generators, which Lightning does not save.
        """
        if exact_resume.saves_on_exception(self):
            self._before_batch = exact_resume.BeforeBatch(self, dict(self.train_metrics.by_name()), batch_idx)
        seed_generators(seed_for(self.global_rank, self.current_epoch, batch_idx))

    def on_train_epoch_end(self) -> None:
        """Logs the epoch's train metrics, and steps schedulers that go by them."""
        exact_resume.end_epoch(self.trainer)
        self.train_metrics.log(self)
        optimization.step_plateaus(self.trainer)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Steps a scheduler, but for those that ``on_train_epoch_end`` steps."""
        if not optimization.is_stepped_by_model(scheduler, self.trainer.lr_scheduler_configs[0].interval):
            super().lr_scheduler_step(scheduler, metric)

    def on_validation_epoch_end(self) -> None:
        """Logs the val metrics."""
        self.val_metrics.log(self)

    def on_test_epoch_end(self) -> None:
        """Logs the test metrics."""
        self.test_metrics.log(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what a resumed run needs to go on as if it had not been interrupted."""
        before = None
        if is_fitting(self):
            before = exact_resume.save_progress(self, self._before_batch, checkpoint)
            if self.optimization is not None:
                self.optimization.save(checkpoint, self.stated_callbacks)
        average_in_small_checkpoint(self, checkpoint)
        checkpoint["seed"] = run_seed()
        self.class_weights.save(checkpoint)
        checkpoint["train_metrics"] = self.train_metrics.counts() if self.train_metrics.has_counted(self) else {}
        if before is not None:
            before.put_into(checkpoint)
        hyper_parameters = checkpoint.get("hyper_parameters") or {}
        if "weights" in hyper_parameters:  # the checkpoint's own are all that is needed: it loads without downloads
            hyper_parameters["weights"] = None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint that does not fit; the same classes in another order are matched by name.

        Raises:
            InputError: Says what does not fit, such as the classes that are only here and only there.
        """
        checkpointing.check_has_weights(checkpoint)
        if is_fitting(self):
            groups = self.parameter_groups()
            stated = None if optimization.is_built_by_user(self) else self.optimization
            if checkpointing.load_run(checkpoint, self.trainer, groups, stated, self.stated_callbacks):
                self.resumed = checkpoint
            self._unfinished = exact_resume.unfinished(checkpoint)
        else:
            self.class_weights.load(checkpoint)
        if (order := checkpointing.order_of_classes(checkpoint, self.class_names)) is not None:
            named = dict(self.named_parameters(remove_duplicate=False))
            checkpointing.reorder_classes(checkpoint, order, self.output_layer(), named, self.parameter_groups())
        checkpointing.check_weights(checkpoint, self.state_dict())
        trainer = attached_trainer(self)
        if trainer is None or trainer.is_global_zero:  # the counts of all processes go to the first
            self.train_metrics.restore(checkpoint.get("train_metrics", {}))
