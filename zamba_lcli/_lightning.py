"""What Lightning does otherwise than it says, mended with its own parts, private ones too: to be reviewed at each upgrade.

Each function says what is wrong, where that is reported, and when the function may be deleted.
"""

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging

from zamba_lcli.types import callbacks_of


def average_in_small_checkpoint(trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Puts the average of the weights into a checkpoint of weights only.

    Lightning asks no callback then, so that the current weights are saved and not those that were validated (the callback came
    with Lightning#20545). Delete when ``Trainer.save_checkpoint(weights_only=True)`` calls WeightAveraging.

    Args:
        trainer: Knows the callbacks.
        module: The model.
        checkpoint: Changed in place; one with all in it stays as it is.
    """
    if "callbacks" in checkpoint:
        return
    for callback in callbacks_of(trainer):
        if isinstance(callback, WeightAveraging):
            callback.on_save_checkpoint(trainer, module, checkpoint)
            for key in ("current_model_state", "averaging_state"):
                checkpoint.pop(key, None)
