"""Whether weights are of a model's network: a file of another one is refused, with the network that fits, if one is known."""

import re
from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from zamba_lcli.errors import InputError

Other: TypeAlias = tuple[str, Callable[[], nn.Module]]  # how it is stated, and what builds it, with the model's names
OF_POSITIONS = re.compile(
    r"pos_embed|pos_encod|positional|position_bias|rel_pos"
)  # of the size of frames, not the network
FEW = 2  # tensors, which are no network
NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def check_body(model: nn.Module, state: dict[str, Tensor], source: str, others: Iterable[Other] = ()) -> None:
    """Refuses weights that are not those of the model's network; heads for other classes and positions may differ.

    A file of a head alone is left as it is.

    Args:
        model: Its head is ``head``; all other parameters are the network's.
        state: Weights by the model's own names.
        source: Where the weights are from, for messages.
        others: Networks to compare with, the likeliest first; built one after the other until one fits.

    Raises:
        InputError: Says what differs, and which network fits.
    """
    body, lacking, beyond = _differences(model, state)
    if not lacking and not beyond:
        return
    if sum(not key.startswith("head.") for key in state) <= FEW:
        return  # a head alone
    what = []
    if lacking:
        what.append(
            f"{len(lacking)} of the {body} weights of the network, all but the head, are not in it or have another shape, such "
            f"as {lacking[0]}"
        )
    if beyond:
        what.append(f"it has {len(beyond)} weights of layers that the network lacks, such as {beyond[0]}")
    fitting = next((how for how, build in others if _fits(build, state)), None)
    remedy = "State the network that it was trained for" if fitting is None else f"It fits {fitting}: state that"
    raise InputError(
        f"model.init_args.weights: {source} is of another network: {'; '.join(what)}. {remedy}, or give another file."
    )


def _fits(build: Callable[[], nn.Module], state: dict[str, Tensor]) -> bool:
    try:
        with torch.device("meta"):  # no memory, no random numbers
            network = build()
    except RuntimeError:  # some compute with numbers while they are built
        network = build()
    _, lacking, beyond = _differences(network, state)
    return not lacking and not beyond


def _differences(model: nn.Module, state: dict[str, Tensor]) -> tuple[int, list[str], list[str]]:
    """Returns how many parameters are compared, which of them ``state`` lacks, and which of further layers it has."""
    body = {
        key: parameter
        for key, parameter in model.named_parameters()
        if not key.startswith("head.") and not OF_POSITIONS.search(key)
    }
    lacking = [key for key, parameter in body.items() if key not in state or state[key].shape != parameter.shape]
    kinds = {NUMBER.sub("#", key) for key in body}  # of the same kind as others: the next block, not a classifier
    known = {key for key, _ in model.named_parameters(remove_duplicate=False)}
    beyond = [key for key in state if key not in known and NUMBER.sub("#", key) in kinds]
    return len(body), lacking, beyond
