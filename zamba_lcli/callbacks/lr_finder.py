"""Find a learning rate by a range test."""

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateFinder
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from zamba_lcli.errors import InputError
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.models.optimization import is_built_by_user
from zamba_lcli.schedulers import parts_of


class ZambaLearningRateFinder(LearningRateFinder):
    """Tries learning rates from ``min_lr`` to ``max_lr`` on a few batches and trains with the one of the steepest descent.

    The arguments are those of Lightning's ``LearningRateFinder``: a YAML that names that one gets this one. Here it works
    without a ``model.lr``, the learning rate found goes to optimizer and scheduler (the peak, for OneCycleLR and CyclicLR),
    groups keep their ratio, a resumed run is left as it is, and the curve is a figure in TensorBoard. Lightning's callback sets
    one learning rate for all groups, which most schedulers undo, and lets a resumed run start over.

    Args:
        min_lr: Smallest learning rate tried.
        max_lr: Largest learning rate tried.
        num_training_steps: Number of learning rates tried, a batch each.
        mode: ``exponential`` or ``linear`` steps.
        early_stop_threshold: Stops when the loss exceeds the smallest seen by this factor; null to try all.
        update_attr: Not used; kept so that Lightning's YAML is valid.
        attr_name: Not used; kept so that Lightning's YAML is valid.
    """

    def __init__(
        self,
        min_lr: float = 1e-8,
        max_lr: float = 1,
        num_training_steps: int = 100,
        mode: str = "exponential",
        early_stop_threshold: float | None = 4.0,
        update_attr: bool = True,
        attr_name: str = "",
    ) -> None:
        """Keeps the arguments; see the class."""
        super().__init__(min_lr, max_lr, num_training_steps, mode, early_stop_threshold, update_attr=False)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks for the learning rate, in a new run only."""
        if not isinstance(pl_module, ZambaVideoClassificationLightningModule):
            raise InputError(f"ZambaLearningRateFinder needs a model of zamba_lcli, not {type(pl_module).__name__}.")
        if pl_module.resumed is not None:
            rank_zero_info("LearningRateFinder: a resumed run keeps its learning rate.")
            return
        epochs = trainer.fit_loop.max_epochs
        trainer.fit_loop.max_epochs = -1  # else the trial ends with the batches of that many epochs
        try:
            self.lr_find(trainer, pl_module)
        finally:
            trainer.fit_loop.max_epochs = epochs
        found = None if self.optimal_lr is None else self.optimal_lr.suggestion()
        if self.optimal_lr is None or found is None:
            rank_zero_warn("LearningRateFinder: too few batches to find a learning rate; it stays as stated.")
            return
        if pl_module.optimization is not None and not is_built_by_user(pl_module):
            pl_module.optimization.restart_schedule(pl_module.parameter_groups(), trainer, found)
        else:
            _scale(trainer, found)
        rank_zero_info(f"LearningRateFinder: the learning rate is {found:.3g}.")
        if isinstance(trainer.logger, TensorBoardLogger) and trainer.is_global_zero:
            trainer.logger.experiment.add_figure("lr_finder", self.optimal_lr.plot(suggest=True), global_step=0)


def _scale(trainer: Trainer, found: float) -> None:
    """Scales optimizer and schedulers that a user's own model has made: nothing here could build them anew."""
    groups = trainer.optimizers[0].param_groups
    factor = found / groups[0].get("initial_lr", groups[0]["lr"])
    for group in groups:
        for key in {"lr", "max_lr", "min_lr", "initial_lr"} & set(group):
            group[key] *= factor
    for config in trainer.lr_scheduler_configs:
        _scale_scheduler(config.scheduler, factor)


def _scale_scheduler(scheduler: Any, factor: float) -> None:
    """Multiplies the learning rates that a scheduler, and those it is made of, begin from."""
    for part in parts_of(scheduler):
        _scale_scheduler(part.scheduler, factor)
    for name in ("base_lrs", "max_lrs", "_last_lr", "_bases"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, [lr * factor for lr in getattr(scheduler, name)])
