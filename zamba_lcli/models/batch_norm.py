"""BatchNorm in training needs two values of each channel; a batch of one clip may have a single one."""

from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn

from zamba_lcli.errors import InputError
from zamba_lcli.models.layers import batchnorms_of

REMEDY = (
    "Set data.batch_size so that no batch has one clip (the last one of an epoch has the remainder, unless the loader has "
    "drop_last), take larger frames, or set train_bn of BackboneFinetuning to false."
)


@contextmanager
def refuse_single_values() -> Iterator[None]:
    """Says in a training step what torch's message means for the data.

    Raises:
        InputError: In place of torch's ValueError.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            "data.batch_size: a batch of one clip, of which a BatchNorm layer that trains gets one value per channel and so no "
            f"variance. {REMEDY}"
        ) from error


def last_batch_size(trainer: Trainer) -> int | None:
    """Returns the number of clips in the last batch of an epoch in one process; None where it is not known."""
    loader: Any = trainer.train_dataloader
    size, batches = getattr(loader, "batch_size", None), trainer.num_training_batches
    if size is None or not isinstance(batches, int) or not isinstance(loader.sampler, Sized):
        return None
    return int(min(size, len(loader.sampler) - (batches - 1) * size))


def gets_single_values(model: nn.Module, layers: nn.Module, video: Tensor) -> bool:
    """Returns whether a BatchNorm layer gets one value per channel of a single clip; the model stays as it is.

    Args:
        model: Takes clips.
        layers: Those of its layers to check.
        video: The clips of one video, uint8 (clips, 3, T, H, W).
    """
    counts: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        counts.append(inputs[0].numel() // inputs[0].shape[1])

    modes = {layer: layer.training for layer in model.modules()}
    hooks = [layer.register_forward_pre_hook(count) for layer in batchnorms_of(layers)]
    try:
        for layer in modes:
            layer.training = False
        with torch.no_grad():
            model(video)
    finally:
        for hook in hooks:
            hook.remove()
        for layer, mode in modes.items():
            layer.training = mode
    return 1 in counts
