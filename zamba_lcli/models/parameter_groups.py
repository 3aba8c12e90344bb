"""The parameter groups of every optimizer, ``head`` and ``backbone``, with layer-wise learning rates where they are stated."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from zamba_lcli.models.layers import batchnorms_of


def layers_of(backbone: nn.Module) -> list[list[nn.Parameter]]:
    """Returns the parameters of each layer of a backbone, in the order in which the layers run.

    Layers are the backbone's children with parameters; a normalization belongs to the layer before it. Parameters of the
    backbone itself are its first layer.
    """
    own = list(backbone.parameters(recurse=False))
    layers: list[list[nn.Parameter]] = [own] if own else []
    for child in backbone.children():
        parameters = list(child.parameters())
        if layers and all(parameter.ndim < 2 for parameter in parameters):
            layers[-1] += parameters
        elif parameters:
            layers.append(parameters)
    return layers


def blocks_of(module: Any) -> list[nn.ModuleList]:
    """Returns the backbone's blocks, in the order in which they run, as many as the model's ``backbone_blocks`` counts.

    What comes after the last block is in it. Models without the argument have a block for each child of their backbone.
    """
    children = list(module.backbone.children())
    count = min(module.hparams.get("backbone_blocks", len(children)), len(children))
    return [*(nn.ModuleList([child]) for child in children[: count - 1]), nn.ModuleList(children[count - 1 :])]


def frozen_in_backbone(module: Any) -> list[nn.ModuleList]:
    """Returns the layers of a model's unfrozen backbone that do not train all the same."""
    batchnorms = [] if module.train_backbone_batchnorm else [batchnorms_of(module.backbone)]
    return [*batchnorms, *blocks_of(module)[: module.frozen_blocks]]


def groups_of(
    head: list[nn.Parameter],
    layers: Sequence[list[nn.Parameter]],
    lr_decay: float | None,
    decay_norm_and_bias: bool,
) -> list[dict[str, Any]]:
    """Returns the parameter groups: ``head``, then ``backbone``.

    With ``lr_decay``, ``backbone`` is the last layer, and those before it are ``backbone_1``, ``backbone_2`` and so on. Each
    keeps its learning rate over that of ``backbone`` as ``lr_scale``, as in timm: torch keeps keys of a group that it does not
    know. With ``decay_norm_and_bias=False`` the parameters without weight decay form groups of their own, ``head_undecayed``,
    ``backbone_undecayed`` and so on.

    Args:
        head: Parameters of the head.
        layers: Those of each layer of the backbone, in the order in which the layers run; of all together without
            ``lr_decay``.
        lr_decay: Learning rate of a layer over that of the next one; None for the same.
        decay_norm_and_bias: Whether weight decay acts on normalizations and biases.
    """
    groups: list[dict[str, Any]] = [{"name": "head", "params": head}]
    for i, layer in enumerate(reversed(layers)):
        scale = {} if lr_decay is None else {"lr_scale": lr_decay**i}
        groups.append({"name": f"backbone_{i}" if i else "backbone", "params": layer, **scale})
    if decay_norm_and_bias:
        return groups
    decayed, undecayed = [], []
    for group in groups:  # weights of normalizations and all biases are vectors, all other weights are not
        vectors, others = ([p for p in group["params"] if (p.ndim < 2) is is_vector] for is_vector in (True, False))
        decayed.append({**group, "params": others})
        undecayed.append({**group, "name": f"{group['name']}_undecayed", "params": vectors, "weight_decay": 0.0})
    return [*decayed, *undecayed]
