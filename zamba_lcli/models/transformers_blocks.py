"""How transformers' video classifiers are run block by block: embeddings, layers, and what comes after the last one."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from torch import Tensor, nn


class Block(NamedTuple):
    """Layers that are frozen and unfrozen together, and what is computed with them; dimension 0 counts clips."""

    layers: tuple[nn.Module, ...]
    run: Callable[[Tensor], Tensor]


class Parts(NamedTuple):
    """A network taken apart.

    Attributes:
        embeddings: From pixels (B, T, 3, H, W).
        layers: One after the other.
        norm: To tokens (B, N, C), with the layers that it has.
        pool: From tokens to (B, C), as the network's own classifier does.
    """

    embeddings: Block
    layers: list[Block]
    norm: Block
    pool: Block


def parts_of(network: Any) -> Parts:
    """Takes one of transformers' networks apart, by ``config.model_type``."""
    return TAKEN_APART[network.config.model_type](network)


def blocks_of(network: Any, pools: bool) -> list[Block]:
    """Returns the blocks of a network; its normalization, and the pooling if it has one, are in the last layer's block.

    Args:
        network: One of transformers' networks.
        pools: Whether the blocks end with the network's own pooling, or with tokens.
    """
    parts = parts_of(network)
    last, after = parts.layers[-1], [parts.norm, *([parts.pool] if pools else [])]

    def finish(x: Tensor) -> Tensor:
        for block in (last, *after):
            x = block.run(x)
        return x

    layers = tuple(layer for block in (last, *after) for layer in block.layers)
    return [parts.embeddings, *parts.layers[:-1], Block(layers, finish)]


def _layers(modules: Sequence[nn.Module], *arguments: Any) -> list[Block]:
    """Returns layers that are called with tokens and the same arguments; some return a tuple."""

    def run(layer: nn.Module) -> Callable[[Tensor], Tensor]:
        def function(x: Tensor) -> Tensor:
            output = layer(x, *arguments)
            return cast(Tensor, output[0] if isinstance(output, tuple) else output)

        return function

    return [Block((layer,), run(layer)) for layer in modules]


def _in_sequence(*modules: nn.Module | None) -> Block:
    layers = tuple(module for module in modules if module is not None)

    def run(x: Tensor) -> Tensor:
        for layer in layers:
            x = layer(x)
        return x

    return Block(layers, run)


def _first_token(x: Tensor) -> Tensor:
    return x[:, 0]


def _video_mae(network: Any) -> Parts:
    encoder, norm = network.videomae, network.fc_norm
    embeddings = Block((encoder.embeddings,), lambda x: encoder.embeddings(x, None))
    pool = Block((), _first_token) if norm is None else Block((norm,), lambda x: norm(x.mean(1)))
    return Parts(embeddings, _layers(encoder.encoder.layer), _in_sequence(encoder.layernorm), pool)


def _vivit(network: Any) -> Parts:
    encoder = network.vivit
    layers = _layers(encoder.layers, None)
    return Parts(_in_sequence(encoder.embeddings), layers, _in_sequence(encoder.layernorm), Block((), _first_token))


def _timesformer(network: Any) -> Parts:
    encoder = network.timesformer
    layers = _layers(encoder.encoder.layer, False)
    return Parts(_in_sequence(encoder.embeddings), layers, _in_sequence(encoder.layernorm), Block((), _first_token))


def _vjepa2(network: Any) -> Parts:
    encoder = network.vjepa2.encoder
    layers = _layers(encoder.layer, None)
    return Parts(
        _in_sequence(encoder.embeddings), layers, _in_sequence(encoder.layernorm), _in_sequence(network.pooler)
    )


def _video_prism(network: Any) -> Parts:
    """Takes apart a network whose first layers see single frames, (B, T, N, C), and whose last single places (B, N, T, C)."""
    encoder, head, norm = network.vision_model, network.head, network.head_layernorm

    def embed(x: Tensor) -> Tensor:
        tokens = encoder.spatial_embeddings(x)
        return cast(Tensor, tokens.reshape(x.shape[0], -1, *tokens.shape[1:]))

    def on_parts(block: Block) -> Block:
        return Block(block.layers, lambda x: block.run(x.flatten(0, 1)).reshape(x.shape))

    def turn(x: Tensor) -> Tensor:
        frames = encoder.layernorm1(x)
        shape = (*frames.shape[:2], 0, 0, 0)  # of the clips: their number and that of frames are looked at
        places = encoder.temporal_embeddings(frames.flatten(0, 1), shape)
        return cast(Tensor, places.reshape(x.shape[0], -1, *places.shape[1:]))

    def join(x: Tensor) -> Tensor:
        return cast(Tensor, encoder.layernorm2(x)).transpose(1, 2).flatten(1, 2)

    turned = Block((encoder.layernorm1, encoder.temporal_embeddings), turn)
    layers = [
        *map(on_parts, _layers(encoder.spatial_layers)),
        turned,
        *map(on_parts, _layers(encoder.temporal_layers)),
    ]
    pool = Block(() if head is None else (head, norm), lambda x: norm(head(x)[0]).flatten(1))
    return Parts(Block((encoder.spatial_embeddings,), embed), layers, Block((encoder.layernorm2,), join), pool)


TAKEN_APART: dict[str, Callable[[Any], Parts]] = {
    "videomae": _video_mae,
    "vivit": _vivit,
    "timesformer": _timesformer,
    "vjepa2": _vjepa2,
    "videoprism_vision_model": _video_prism,
}


def remove_unused(network: Any, pools: bool) -> None:
    """Takes the classifier from a network, what only pretraining needs, and its own pooling unless that is used."""
    network.classifier = None
    if network.config.model_type == "vjepa2":
        network.vjepa2.predictor = None
    if not pools:
        for name in ("pooler", "fc_norm", "head", "head_layernorm"):
            if hasattr(network, name):
                setattr(network, name, None)


def size_of(config: Any) -> tuple[int, int, int]:
    """Returns the number of frames, the height and the width of the clips that a network was made for."""
    if config.model_type == "vjepa2":
        return config.frames_per_clip, config.crop_size, config.crop_size
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return config.num_frames, height, width
