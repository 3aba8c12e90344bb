"""Freeze the backbone, then unfreeze it at an epoch with a learning rate of its own."""

from collections.abc import Callable
from typing import Any, cast

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BackboneFinetuning, BatchSizeFinder
from pytorch_lightning.callbacks.finetuning import multiplicative
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from zamba_lcli._lightning import trainer_callbacks
from zamba_lcli.errors import InputError
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.models.batch_norm import REMEDY, gets_single_values, last_batch_size
from zamba_lcli.models.layers import guard_bfloat16
from zamba_lcli.run_length import progress_of, run_length


class ConstantFactor:
    """A ``lambda_func`` of :class:`ZambaBackboneFinetuning`: the same factor each epoch.

    Args:
        factor: By which the ratio of the learning rates grows each epoch; 1 keeps it.
    """

    def __init__(self, factor: float) -> None:
        """Keeps the factor."""
        self.factor = factor

    def __call__(self, epoch: int) -> float:
        """Returns the factor, whatever the epoch."""
        return self.factor


class ZambaBackboneFinetuning(BackboneFinetuning):
    """Trains the head alone, and from an epoch on the backbone too, with its learning rate tied to the head's.

    The arguments are those of Lightning's ``BackboneFinetuning``, and so is what they promise: a YAML that names that one
    gets this one. Here it holds with every optimizer, with every scheduler and on resume as well: the backbone is a
    parameter group of its own from the first step, and its learning rate is always the head's times a ratio. Lightning's
    callback adds the group at the unfreeze, which does nothing where the optimizer was built on all parameters (as
    LightningCLI does), trains BatchNorm of the frozen backbone, and does not unfreeze after a resume (Lightning#20340,
    #20629, #21901).

    In the epoch of the unfreeze the ratio is ``backbone_initial_ratio_lr``, or ``backbone_initial_lr`` over the head's
    learning rate then. Each epoch after it multiplies the ratio by ``lambda_func(epoch + 1)``; with ``should_align`` it stays
    at 1 once it would exceed 1.

    Args:
        unfreeze_backbone_at_epoch: First epoch (counted from 0) in which the backbone trains. If it is past on a resume, the
            backbone is unfrozen at once.
        lambda_func: Takes an epoch, returns the factor by which the ratio grows.
        backbone_initial_ratio_lr: Backbone's over head's learning rate when unfrozen.
        backbone_initial_lr: Backbone's learning rate when unfrozen; null to use the ratio.
        should_align: Keep the backbone's learning rate from exceeding the head's.
        initial_denom_lr: Not used, as in Lightning, where a learning rate is always given; kept so that its YAML is valid.
        train_bn: Train the backbone's BatchNorm layers too, once unfrozen. Otherwise they keep weights and statistics.
        verbose: Log both learning rates at each epoch.
        rounding: Digits of the logged learning rates.
    """

    def __init__(
        self,
        unfreeze_backbone_at_epoch: int = 10,
        lambda_func: Callable[[int], float] = multiplicative,
        backbone_initial_ratio_lr: float = 10e-2,
        backbone_initial_lr: float | None = None,
        should_align: bool = True,
        initial_denom_lr: float = 10.0,
        train_bn: bool = True,
        verbose: bool = False,
        rounding: int = 12,
    ) -> None:
        """Keeps the arguments; see the class."""
        if unfreeze_backbone_at_epoch < 0:
            raise InputError(
                f"BackboneFinetuning: unfreeze_backbone_at_epoch: {unfreeze_backbone_at_epoch} is less than 0."
            )
        for name, value in (
            ("backbone_initial_ratio_lr", backbone_initial_ratio_lr),
            ("backbone_initial_lr", 1.0 if backbone_initial_lr is None else backbone_initial_lr),
        ):
            if value <= 0:
                raise InputError(
                    f"BackboneFinetuning: {name}: {value} is not above 0, with which the backbone would never train. To keep "
                    "it frozen, leave BackboneFinetuning out."
                )
        super().__init__(
            unfreeze_backbone_at_epoch=unfreeze_backbone_at_epoch,
            lambda_func=lambda_func,
            backbone_initial_ratio_lr=backbone_initial_ratio_lr,
            backbone_initial_lr=backbone_initial_lr,
            should_align=should_align,
            initial_denom_lr=initial_denom_lr,
            train_bn=train_bn,
            verbose=verbose,
            rounding=rounding,
        )
        self.unfrozen_at_epoch: int | None = None
        self.unfrozen_at_step: int | None = None
        self._epochs_done = 0
        # whether backbone_initial_lr is to be compared with a head's learning rate of the past
        self._ratio_is_open = False
        self._guards: list[RemovableHandle] = []
        self._has_looked = False  # whether there are batches that it cannot train on
        self.initial_ratio: float | None = None

    @property
    def state_key(self) -> str:
        """The name of Lightning's callback, which the YAML names."""
        return BackboneFinetuning.__qualname__

    def state_dict(self) -> dict[str, Any]:
        """Returns since when the backbone trains, with which ratio it began, and what this was for."""
        return {
            "unfrozen_at_epoch": self.unfrozen_at_epoch,
            "unfrozen_at_step": self.unfrozen_at_step,
            "initial_ratio": self.initial_ratio,
            "backbone_initial_lr": self.backbone_initial_lr,
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Looks how far the run has come that is resumed."""
        self._epochs_done = progress_of(checkpoint).epochs if "loops" in checkpoint else 0

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over since when the backbone trains; the ratio since then is what the arguments now say.

        If this callback is to unfreeze it later than that, the backbone is frozen again until then. Where that is past too, the
        ratio grows since then. A state of Lightning's own callback says nothing of it.
        """
        since, step = state_dict.get("unfrozen_at_epoch"), state_dict.get("unfrozen_at_step")
        if since is None:
            return
        if since < self.unfreeze_backbone_at_epoch:
            since_when = f"The backbone was unfrozen in epoch {since} of the checkpoint's run; "
            end = f"epoch {self.unfreeze_backbone_at_epoch}, as unfreeze_backbone_at_epoch says now."
            if self._epochs_done < self.unfreeze_backbone_at_epoch:
                rank_zero_info(f"{since_when}it is frozen again until {end}")
                return
            rank_zero_info(f"{since_when}its learning rate is what it would be if that had been {end}")
            since, step = self.unfreeze_backbone_at_epoch, None
        self.unfrozen_at_epoch, self.unfrozen_at_step = since, step
        self.initial_ratio = self.backbone_initial_ratio_lr
        if self.backbone_initial_lr is not None:
            self.initial_ratio = state_dict.get("initial_ratio")
            stated_then = state_dict.get("backbone_initial_lr", self.backbone_initial_lr)
            is_moved = since != state_dict["unfrozen_at_epoch"]
            self._ratio_is_open = is_moved or stated_then != self.backbone_initial_lr

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        """Freezes the backbone."""
        attached_module(pl_module).freeze_backbone()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses to train in bfloat16 what the CPU computes wrongly; the optimizer's groups are the same in all phases."""
        epochs = trainer.max_epochs
        unfreezes = epochs is None or epochs < 0 or self.unfreeze_backbone_at_epoch < epochs
        on_cpu = trainer.strategy.root_device.type == "cpu"
        if on_cpu and "bf16" in str(trainer.precision) and unfreezes:
            self._guards = guard_bfloat16(attached_module(pl_module).backbone)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the watch over the layers."""
        while self._guards:
            self._guards.pop().remove()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Brings a resumed run into the phase of its epoch, also in the middle of one."""
        optimization = attached_module(pl_module).optimization
        is_open = self._ratio_is_open or (optimization is not None and optimization.schedule_is_restated)
        if self.unfrozen_at_epoch is not None and self.backbone_initial_lr is not None and is_open:
            self.initial_ratio = self.backbone_initial_lr / self._head_lr_then(trainer, pl_module)
        self._enter_epoch(trainer, pl_module)  # no learning rate yet: a run that has ended goes on with no epoch

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Optimizer) -> None:
        """Unfreezes the backbone when its epoch has come."""
        trainer = pl_module.trainer
        self._enter_epoch(trainer, pl_module)
        self._tie_learning_rates(trainer)
        if self.verbose:
            lrs = (round(float(_groups(trainer)[name]["lr"]), self.rounding) for name in ("head", "backbone"))
            rank_zero_info("Epoch {}: head lr {}, backbone lr {}".format(epoch, *lrs))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Ties the backbone's learning rate to the head's, whatever the scheduler made of them."""
        if not self._has_looked and batch["index"] and not batch["cached"]:
            self._has_looked = True
            parts = len(batch["video"]) // len(batch["index"])
            self._check_batch_size(trainer, attached_module(pl_module), batch["video"][:parts])
        self._tie_learning_rates(trainer)

    def _check_batch_size(
        self, trainer: Trainer, module: ZambaVideoClassificationLightningModule, video: Tensor
    ) -> None:
        """Refuses at the run's first batch what would end it after the unfreeze: BatchNorm on a single value per channel.

        A run without a last epoch, as are the trials of LearningRateFinder, and one whose batches are yet to be found are let
        go on.
        """
        is_open = trainer.max_epochs in (None, -1)
        if is_open or any(isinstance(callback, BatchSizeFinder) for callback in trainer_callbacks(trainer)):
            return
        if not self.train_bn or last_batch_size(trainer) != 1:
            return
        epochs = run_length(trainer, "epoch", None)
        if epochs is not None and epochs <= self.unfreeze_backbone_at_epoch:
            return
        if gets_single_values(module, module.backbone, video):
            raise InputError(
                "data.batch_size: the last batch of an epoch has one clip, of which BatchNorm layers of the backbone get one "
                f"value per channel and so no variance. They train from epoch {self.unfreeze_backbone_at_epoch} on. {REMEDY}"
            )

    def ratio(self, epoch: int) -> float:
        """Returns the backbone's over the head's learning rate in ``epoch``; 0 while the backbone is frozen."""
        if self.unfrozen_at_epoch is None or self.initial_ratio is None or epoch < self.unfrozen_at_epoch:
            return 0.0
        ratio = self._capped(self.initial_ratio)
        for past in range(self.unfrozen_at_epoch + 1, epoch + 1):
            ratio = self._capped(ratio * float(self.lambda_func(past + 1)))
        return ratio

    def _capped(self, ratio: float) -> float:
        return min(1.0, ratio) if self.should_align else ratio

    def _enter_epoch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module, epoch = attached_module(pl_module), trainer.current_epoch
        if epoch < self.unfreeze_backbone_at_epoch or not module.backbone_is_frozen:
            return
        if self.unfrozen_at_epoch is None:
            self.unfrozen_at_epoch, self.unfrozen_at_step = epoch, trainer.global_step
            self.initial_ratio = self._initial_ratio(trainer)
            rank_zero_info(
                f"Epoch {epoch}: the backbone is unfrozen, at {self.ratio(epoch):g} of the head's learning rate."
            )
        module.unfreeze_backbone(train_bn=self.train_bn)
        wrap_again(trainer, module)

    def _initial_ratio(self, trainer: Trainer) -> float:
        if self.backbone_initial_lr is None:
            return self.backbone_initial_ratio_lr
        head = _groups(trainer)["head"]
        return float(self.backbone_initial_lr / (head["lr"] or head["initial_lr"]))  # a warm-up may start at 0

    def _head_lr_then(self, trainer: Trainer, pl_module: LightningModule) -> float:
        """Returns the head's learning rate when the backbone was unfrozen, in the schedule that is stated now."""
        epoch, step, module = cast(int, self.unfrozen_at_epoch), self.unfrozen_at_step, attached_module(pl_module)
        if step is None:
            step = round(trainer.global_step * epoch / max(1, trainer.current_epoch))
        assert module.optimization is not None
        return module.optimization.head_lr_at(module.parameter_groups(), epoch, step)

    def _tie_learning_rates(self, trainer: Trainer) -> None:
        ratio, groups = self.ratio(trainer.current_epoch), _groups(trainer)
        for name, group in groups.items():
            if name.startswith("backbone"):
                head = groups["head_undecayed" if name.endswith("_undecayed") else "head"]
                group["lr"] = head["lr"] * ratio * group.get("lr_scale", 1.0)


def attached_module(
    pl_module: LightningModule, needed_by: str = "ZambaBackboneFinetuning"
) -> ZambaVideoClassificationLightningModule:
    """Returns the trainer's model.

    Args:
        pl_module: The model.
        needed_by: The callback that needs it, for the message.

    Raises:
        InputError: If it is of another class.
    """
    if not isinstance(pl_module, ZambaVideoClassificationLightningModule):
        raise InputError(
            f"{needed_by} needs a ZambaVideoClassificationLightningModule, not {type(pl_module).__name__}."
        )
    return pl_module


def wrap_again(trainer: Trainer, pl_module: LightningModule) -> None:
    """Lets DistributedDataParallel see what trains now: it synchronizes only what did when it was made (Lightning#20340)."""
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy) and isinstance(strategy.model, DistributedDataParallel):
        strategy.model = pl_module
        strategy.configure_ddp()


def _groups(trainer: Trainer) -> dict[str, dict[str, Any]]:
    """Returns the optimizer's parameter groups by name."""
    groups = {group.get("name", ""): group for optimizer in trainer.optimizers for group in optimizer.param_groups}
    if not {"head", "backbone"} <= set(groups):
        raise InputError(
            "ZambaBackboneFinetuning needs an optimizer with the groups `head` and `backbone`; build it on "
            "`model.parameter_groups()`."
        )
    return cast(dict[str, dict[str, Any]], groups)
