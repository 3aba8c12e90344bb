"""Unfreeze the backbone block by block, from the top, in phases."""

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info

from zamba_lcli.callbacks.finetuning import ZambaBackboneFinetuning, attached_module, wrap_again
from zamba_lcli.errors import InputError
from zamba_lcli.models.parameter_groups import blocks_of


class GradualUnfreezing(ZambaBackboneFinetuning):
    """Trains the head alone, and from each phase's epoch on more of the backbone's last blocks, with it.

    Blocks that no phase has reached yet stay as they are to the bit: no gradient, eval mode, statistics untouched. What trains,
    and how fast, follows from the epoch alone, so that a resumed run is in the phase of its epoch. For learning rates that fall
    from layer to layer besides, set the model's ``backbone_lr_decay``. It takes the place of ``BackboneFinetuning``.

    Args:
        phases: For the first epoch (counted from 0) of each phase how many of the backbone's last blocks train from then on,
            in the units of the model's ``backbone_blocks``: ``{5: 1, 10: 3}``.
        ratio: Backbone's over head's learning rate: one for all phases, or for the first epoch of each, as in ``phases``.
        train_bn: Train the BatchNorm layers of unfrozen blocks too. Otherwise they keep weights and statistics.
        verbose: Log both learning rates at each epoch.
    """

    def __init__(
        self,
        phases: dict[int, int],
        ratio: float | dict[int, float] = 0.1,
        train_bn: bool = True,
        verbose: bool = False,
    ) -> None:
        """Keeps the arguments; see the class.

        Raises:
            InputError: If there is no phase, one does not unfreeze more blocks than the one before, or has no ratio.
        """
        if not phases:
            raise InputError(
                "GradualUnfreezing: phases: there are none. State an epoch and a number of blocks, such as 5: 1."
            )
        epochs = sorted(phases)
        if epochs[0] < 0:
            raise InputError(f"GradualUnfreezing: phases: epoch {epochs[0]} is less than 0.")
        blocks = [0, *(phases[epoch] for epoch in epochs)]
        for epoch, before, count in zip(epochs, blocks, blocks[1:], strict=False):
            if count <= before:
                raise InputError(
                    f"GradualUnfreezing: phases: {count} blocks from epoch {epoch} on are not more than the {before} before. "
                    "Each phase unfreezes more."
                )
        ratios = ratio if isinstance(ratio, dict) else dict.fromkeys(epochs, ratio)
        if sorted(ratios) != epochs:
            raise InputError(f"GradualUnfreezing: ratio: epochs {sorted(ratios)} are not those of phases, {epochs}.")
        if low := [value for value in ratios.values() if value <= 0]:
            raise InputError(
                f"GradualUnfreezing: ratio: {low[0]} is not above 0, with which the backbone would not train."
            )
        super().__init__(epochs[0], backbone_initial_ratio_lr=ratios[epochs[0]], train_bn=train_bn, verbose=verbose)
        self.phases = phases
        self.ratios = ratios

    @property
    def state_key(self) -> str:
        """The name of the class."""
        return type(self).__qualname__

    def state_dict(self) -> dict[str, Any]:
        """Returns since when the backbone trains, which nothing but messages depends on."""
        return {"unfrozen_at_epoch": self.unfrozen_at_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes nothing over: all follows from the epoch."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses more blocks than there are, and freezes the backbone."""
        module, largest = attached_module(pl_module, type(self).__name__), max(self.phases.values())
        if largest > (count := len(blocks_of(module))):
            raise InputError(
                f"GradualUnfreezing: phases: {largest} blocks are more than the backbone has, which are {count}. Raise "
                "model.init_args.backbone_blocks, or lower the number."
            )
        super().setup(trainer, pl_module, stage)

    def phase(self, epoch: int) -> int | None:
        """Returns the first epoch of the phase that ``epoch`` is in; None before the first."""
        return max((first for first in self.phases if first <= epoch), default=None)

    def ratio(self, epoch: int) -> float:
        """Returns the backbone's over the head's learning rate in ``epoch``; 0 while all of the backbone is frozen."""
        phase = self.phase(epoch)
        return 0.0 if phase is None else self.ratios[phase]

    def _enter_epoch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = attached_module(pl_module, type(self).__name__)
        phase = self.phase(trainer.current_epoch)
        if phase is None:
            return
        frozen = len(blocks_of(module)) - self.phases[phase]
        if not module.backbone_is_frozen and module.frozen_blocks == frozen:
            return
        self.unfrozen_at_epoch = min(self.phases)
        rank_zero_info(
            f"Epoch {trainer.current_epoch}: the last {self.phases[phase]} blocks of the backbone train, at "
            f"{self.ratios[phase]:g} of the head's learning rate."
        )
        module.unfreeze_backbone(train_bn=self.train_bn, blocks=self.phases[phase])
        wrap_again(trainer, module)
