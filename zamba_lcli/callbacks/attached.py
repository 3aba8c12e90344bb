"""What a trainer was given."""

from pytorch_lightning import Trainer

from zamba_lcli.data import ZambaVideoDataModule
from zamba_lcli.errors import InputError


def datamodule_of(trainer: Trainer, needed_by: str) -> ZambaVideoDataModule:
    """Returns the trainer's data module.

    Args:
        trainer: The trainer.
        needed_by: The callback that needs it, for the message.

    Raises:
        InputError: If the trainer has none, or one of another class.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, ZambaVideoDataModule):
        raise InputError(f"{needed_by} needs a ZambaVideoDataModule: give it to the trainer as datamodule=data.")
    return data
