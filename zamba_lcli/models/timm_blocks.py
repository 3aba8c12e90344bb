"""Where one of timm's image models can be cut into trunk and backbone, and what pictures it takes."""

import copy
import re
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from zamba_lcli.errors import InputError

BLOCK_LISTS = ("blocks", "stages", "layers", "features")  # what timm's networks call the list of their blocks
BLOCK = re.compile(r"(blocks|stages|layers)\.\w+|features\.denseblock\d+|(layer|s|stage)\d+")  # also ResNet's, RegNet's
# what networks raise on pictures of a size that they cannot take, as shapes do not fit or as they check themselves
SIZE_ERRORS = (RuntimeError, AssertionError, ValueError, IndexError)
HEAD_PARTS = ("global_pool", "attn_pool", "fc_norm", "head_drop", "head", "classifier", "fc")  # run by forward_head


class Step(NamedTuple):
    """A layer of a network as it is run: what it is called, its weights, and what is computed with them."""

    name: str
    module: nn.Module
    function: Callable[[Tensor], Tensor]


def steps_of(network: nn.Module) -> list[Step]:
    """Returns what timm's ``forward_features`` runs, one after the other, in most of its networks."""
    steps: list[Step] = []
    for name, child in network.named_children():
        if name in HEAD_PARTS:
            break
        if name in BLOCK_LISTS:
            steps += [Step(f"{name}.{item}", block, block) for item, block in child.named_children()]
        elif name == "pos_drop":  # vision transformers: class token, positions and this dropout
            steps.append(Step(name, child, getattr(network, "_pos_embed", child)))
        else:
            steps.append(Step(name, child, child))
    return steps


def layer_groups(network: nn.Module) -> dict[str, int]:
    """Returns the group of layers that each parameter belongs to, by its name, as timm groups them: 0 is the first group."""
    from timm.models import group_parameters

    for coarse in (True, False):
        try:
            matcher = cast(Any, network).group_matcher(coarse=coarse)
        except (AttributeError, AssertionError):  # none, or none of this kind
            continue
        if isinstance(matcher, dict):
            matcher = {**matcher, "rest": [("", (99999,))]}  # timm's word for: in the group before
        return cast(dict[str, int], group_parameters(network, matcher, reverse=True))
    return {name: 0 for name, _ in network.named_parameters()}


def divide(network: nn.Module, last: set[str]) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Returns the layers without and those with the parameters called ``last``, as large as they come.

    A layer that has both is taken apart; one without parameters goes with the one before it.
    """
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    parts = (nn.ModuleList(), nn.ModuleList())
    side = 0

    def visit(layer: nn.Module) -> None:
        nonlocal side
        sides = {int(names[id(parameter)] in last) for parameter in layer.parameters()}
        if layer is network or len(sides) == 2:
            for i, part in enumerate(parts):
                own = [p for p in layer.parameters(recurse=False) if int(names[id(p)] in last) == i]
                if own:
                    part.append(nn.ParameterList(own))
            for child in layer.children():
                visit(child)
        else:
            side = sides.pop() if sides else side
            parts[side].append(layer)

    visit(network)
    return parts


def measure(network: nn.Module, name: str) -> tuple[int, bool]:
    """Returns the number of features of a picture, and whether the steps compute what the network computes.

    Raises:
        InputError: If the network does not turn pictures into vectors of features.
    """
    whole = cast(Any, network).eval()
    published = published_size(network)
    reason = ""
    for size in dict.fromkeys([published if whole.pretrained_cfg.get("fixed_input_size") else (64, 64), published]):
        picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
        try:
            with torch.no_grad():
                features = whole(picture)
        except SIZE_ERRORS as error:  # 64 x 64 is quick, but too small for some
            reason = str(error)
            continue
        if isinstance(features, Tensor) and features.ndim == 2:
            return features.shape[1], _runs_in_steps(network, picture, features)
        reason = "it returns something else"
    raise InputError(
        f"model.init_args.network: {name} does not turn a picture of {published[0]} x {published[1]} pixels into a vector of "
        f"features: {reason}. Choose another network."
    )


def _runs_in_steps(network: nn.Module, picture: Tensor, features: Tensor) -> bool:
    """Returns whether the steps, one after the other, compute what the network computes."""
    steps = steps_of(network)
    if not any(BLOCK.fullmatch(step.name) for step in steps):
        return False
    x = picture
    try:
        with torch.no_grad():
            for step in steps:
                x = step.function(x)
            return torch.equal(cast(Any, network).forward_head(x), features)
    except (*SIZE_ERRORS, TypeError, AttributeError):  # it does other things than the steps
        return False


def published_size(network: nn.Module) -> tuple[int, int]:
    """Returns height and width, in pixels, of the pictures that a network was published for."""
    height, width = cast(Any, network).pretrained_cfg["input_size"][1:]
    return height, width


def outline_of(network: nn.Module) -> nn.Module:
    """Returns a copy with the shapes of weights alone, which takes no memory and computes nothing but shapes."""
    tensors: dict[int, Any] = {id(p): nn.Parameter(p.to("meta"), requires_grad=False) for p in network.parameters()}
    return copy.deepcopy(network, tensors | {id(buffer): buffer.to("meta") for buffer in network.buffers()})


def takes(outline: nn.Module, height: int, width: int) -> bool:
    """Returns whether a network can be run on pictures of a size."""
    try:
        with torch.no_grad():
            outline(torch.empty(2, 3, height, width, device="meta"))
    except SIZE_ERRORS:
        return False
    return True
