"""Layers: how they lie in memory, what they may overwrite, what they must refuse, and what they take."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from zamba_lcli.errors import InputError

KINETICS_MEAN = 0.45  # of pixels between 0 and 1, the same for the three channels
KINETICS_STD = 0.225
BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@contextmanager
def without_warnings_of_torchscript() -> Iterator[None]:
    """Hides that ``torch.jit.script`` is deprecated, which pytorchvideo calls when it is imported.

    It is imported where a network is built: the command line alone does not need it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        yield


def write_in_place(network: nn.Module) -> None:
    """Lets each ReLU of a published network write over its input, which saves a tensor of that size each time.

    For networks in which nothing else looks at what goes into a ReLU: normalizations and sums, in those of pytorchvideo. The
    numbers are the same. Measured on two cores: a forward of SlowFast takes an eighth less time in float32.

    Args:
        network: Changed in place.
    """
    for layer in network.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = True


def batchnorms_of(layers: nn.Module) -> nn.ModuleList:
    """Returns the BatchNorm layers among layers, at any depth."""
    return nn.ModuleList(layer for layer in layers.modules() if isinstance(layer, BATCHNORMS))


def lay_out_channels_last(network: nn.Module) -> None:
    """Lays out weights of 3-D convolutions as clips are laid out, channels last.

    Else torch rearranges them in each call: a sixth of SlowFast's time on two cores.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d):
            layer.to(memory_format=torch.channels_last_3d)


def guard_bfloat16(layers: nn.Module) -> list[RemovableHandle]:
    """Lets 3-D convolutions refuse clips for which a CPU computes wrong gradients in bfloat16.

    Returns:
        What removes the guards.
    """
    convolutions = (layer for layer in layers.modules() if isinstance(layer, nn.Conv3d))
    return [layer.register_forward_pre_hook(_refuse_too_few_frames) for layer in convolutions]


def _refuse_too_few_frames(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Refuses a 3-D convolution over fewer frames than its kernel has, other than one.

    Measured with torch 2.15 on a CPU with AVX-512: the weight's gradient in bfloat16 is what happens to be in memory, up to
    1e36, and memory behind it is overwritten. In float32, and with one frame or enough of them, it is right.
    """
    frames, together = inputs[0].shape[2], cast(tuple[int, ...], layer.kernel_size)[0]
    if 1 < frames < together:
        raise InputError(
            f"trainer.precision: in bfloat16 the CPU computes wrong gradients for layers that take {together} frames at once "
            f"and have {frames}. Take more frames (num_frames of data.sampling), or precision 32-true."
        )


def normalize(
    video: Tensor, dtype: torch.dtype, mean: Tensor | float = KINETICS_MEAN, std: Tensor | float = KINETICS_STD
) -> Tensor:
    """Returns clips as networks take them, by default those that were trained on Kinetics at first.

    Args:
        video: uint8 (B, 3, T, H, W); augmentations may make it float, of the same range.
        dtype: Of the result.
        mean: Of pixels between 0 and 1; for each channel (3, 1, 1, 1) where they differ.
        std: The same of their standard deviation.

    Returns:
        (B, 3, T, H, W) of about zero mean and unit variance, written over a single copy.
    """
    return video.to(dtype, copy=True).div_(255).sub_(mean).div_(std)
