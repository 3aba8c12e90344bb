"""Networks that look at frames one by one: timm's image models, and heads for what they find in a clip's frames."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn

from zamba_lcli.errors import InputError
from zamba_lcli.models.weights import build_image_model, load_file, take_what_fits, with_head_for_classes
from zamba_lcli.module import ZambaVideoClassificationLightningModule

Pooling: TypeAlias = Literal["mean", "max", "attention"]

BLOCK_LISTS = ("blocks", "stages", "layers", "features")  # what timm's networks call the list of their blocks
BLOCK = re.compile(r"(blocks|stages|layers)\.\w+|features\.denseblock\d+|(layer|s|stage)\d+")  # also ResNet's, RegNet's
HEAD_PARTS = ("global_pool", "attn_pool", "fc_norm", "head_drop", "head", "classifier", "fc")  # run by forward_head


class Step(NamedTuple):
    """A layer of a network as it is run: what it is called, its weights, and what is computed with them."""

    name: str
    module: nn.Module
    function: Callable[[Tensor], Tensor]


def _steps(network: nn.Module) -> list[Step]:
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


def _count_features(network: nn.Module, name: str) -> int:
    """Returns the number of features of a picture, and makes sure that the steps compute what the network computes.

    Raises:
        InputError: If the steps are not all that the network does, so that it cannot be split.
    """
    whole = cast(Any, network).eval()
    config = whole.pretrained_cfg
    size = config["input_size"][1:] if config.get("fixed_input_size") else (64, 64)  # small, to be quick
    picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    steps = _steps(network)
    try:
        with torch.no_grad():
            expected, x = whole.forward_features(picture), picture
            for step in steps:
                x = step.function(x)
            if torch.equal(x, expected) and any(BLOCK.fullmatch(step.name) for step in steps):
                return int(whole.forward_head(x).flatten(1).shape[1])
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, NotImplementedError):
        pass  # it does other things than the steps
    raise InputError(
        f"model.init_args.network: {name} cannot be split into trunk and backbone: what it computes is not what its layers "
        f"{', '.join(step.name for step in steps)} compute one after the other. Networks such as resnet50, convnext_tiny, "
        "tf_efficientnetv2_s, mobilenetv3_large_100, vit_small_patch16_224, swin_tiny_patch4_window7_224 can be."
    )


class _FrameNetwork(ZambaVideoClassificationLightningModule):
    """Applies one of timm's image models to each frame; a subclass makes the head."""

    base: nn.Module
    mean: Tensor
    std: Tensor

    def _build_base(self, network: str, backbone_blocks: int, pretrained: bool) -> int:
        """Sets the network and where its backbone begins.

        Args:
            network: timm's name.
            backbone_blocks: How many of its last blocks are the backbone, with all that comes after them.
            pretrained: Whether to load timm's weights.

        Returns:
            The number of features of a frame.

        Raises:
            InputError: If there is no such network, it cannot be split, or has not as many blocks.
        """
        self.base = build_image_model(network, pretrained)
        features = _count_features(self.base, network)
        names = [step.name for step in _steps(self.base)]
        blocks = [i for i, name in enumerate(names) if BLOCK.fullmatch(name)]
        if not 1 <= backbone_blocks <= len(blocks):
            raise InputError(
                f"model.init_args.backbone_blocks: {backbone_blocks} is not between 1 and {len(blocks)}; the blocks of "
                f"{network} are {', '.join(names[i] for i in blocks)}."
            )
        self._cut = blocks[-backbone_blocks]  # the backbone's first step
        config = cast(Any, self.base).pretrained_cfg
        self.register_buffer("mean", torch.tensor(config["mean"]).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]).reshape(3, 1, 1), persistent=False)
        return features

    def _load_weights(self, path: str) -> None:
        """Loads what fits of the weights in a file: this program's, zamba's, or the image model's alone."""
        state, class_names = load_file(path)
        state = {key: value for key, value in state.items() if not key.startswith("backbone.")}  # zamba has them twice
        if any(key.startswith("base.module.") for key in state):  # zamba's TimeDistributedEfficientNet
            renamed = {"base.module.": "base.", "classifier.": "head."}
            pattern = re.compile("^(" + "|".join(map(re.escape, renamed)) + ")")
            state = {pattern.sub(lambda match: renamed[match[0]], key): value for key, value in state.items()}
        elif not any(key.startswith("base.") for key in state):  # timm's network
            state = {f"base.{key}": value for key, value in state.items()}
        take_what_fits(self, with_head_for_classes(self, state, class_names), path)

    @property
    def trunk(self) -> nn.Module:
        """The layers before the backbone, and parameters that are in no layer (a vision transformer's positions)."""
        layers = [step.module for step in _steps(self.base)[: self._cut]]
        return nn.ModuleList([*layers, nn.ParameterList(self.base.parameters(recurse=False))])

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]
        """The last blocks, and the normalization and pooling after them.

        Not an attribute: a checkpoint would hold its weights twice, and those of another ``backbone_blocks`` under other
        names.
        """
        layers = [step.module for step in _steps(self.base)[self._cut :]]
        names = [name for name, _ in self.base.named_children()]
        after = next((i for i, name in enumerate(names) if name in HEAD_PARTS), len(names))
        return nn.ModuleList([*layers, *(self.base.get_submodule(name) for name in names[after:])])

    def forward_trunk(self, video: Tensor) -> Tensor:
        """Normalizes and runs the layers before the backbone on each frame.

        Args:
            video: uint8 (B, 3, T, H, W).

        Returns:
            Features (B, T, C, h, w), channels last (B, T, h, w, C) for some networks, tokens (B, T, N, C) for vision
            transformers.

        Raises:
            InputError: If the network cannot take pictures of this size.
        """
        x = video.transpose(1, 2).to(self.mean.dtype) / 255  # (B, T, 3, H, W)
        frames = ((x - self.mean) / self.std).flatten(0, 1)  # (B * T, 3, H, W)
        try:
            for step in _steps(self.base)[: self._cut]:
                frames = step.function(frames)
        except AssertionError as error:
            raise InputError(
                f"The network does not take frames of {video.shape[3]} x {video.shape[4]} pixels: {error} Set data.height and "
                "data.width accordingly."
            ) from error
        return frames.reshape(video.shape[0], -1, *frames.shape[1:])

    def forward_backbone(self, features: Tensor) -> Tensor:
        """Runs the last blocks on each frame and pools over its positions: to (B, T, features)."""
        frames = features.flatten(0, 1)
        for step in _steps(self.base)[self._cut :]:
            frames = step.function(frames)
        pooled = cast(Tensor, cast(Any, self.base).forward_head(frames))  # (B * T, features)
        return pooled.reshape(features.shape[0], -1, pooled.shape[-1])


class TimeDistributedEfficientNet(_FrameNetwork):
    """zamba's model for 16 frames: EfficientNetV2 on each, and a perceptron on the features of all of them.

    The head has weights for each frame's place in the clip, so their number is fixed. ``weights`` can be a checkpoint of
    zamba's model of the same name. Backbone: the last stage, ``conv_head``, ``bn2`` and the pooling.

    Args:
        class_names: The classes, in the order of the logits. On the command line they come from the labels.
        weights: ``imagenet`` for the weights that timm publishes, a path for a checkpoint file, of which those are taken
            that fit, null for a random start.
        num_frames: Frames of a clip; that of ``data.sampling`` must be the same.
        common: What all models have, such as ``task``: see ``ZambaVideoClassificationLightningModule``.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        weights: str | None = "imagenet",
        num_frames: int = 16,
        **common: Any,
    ) -> None:
        """Builds the network and loads its weights; see the class for the arguments.

        Raises:
            InputError: If the weights cannot be loaded.
        """
        super().__init__(class_names=class_names, **common)
        if num_frames < 1:
            raise InputError(f"model.init_args.num_frames: {num_frames} is not at least 1.")
        self.num_frames = num_frames
        features = self._build_base("efficientnetv2_rw_m", backbone_blocks=1, pretrained=weights == "imagenet")
        self.head = nn.Sequential(
            nn.Linear(features, 256),  # of each frame
            nn.Dropout(0.2),
            nn.ReLU(),
            nn.Linear(256, 64),
            nn.Flatten(),
            nn.Linear(64 * num_frames, len(self.class_names)),
        )
        if weights is not None and weights != "imagenet":
            self._load_weights(weights)
        self.freeze_backbone()

    def forward_trunk(self, video: Tensor) -> Tensor:
        """Normalizes and runs the stages before the last: uint8 (B, 3, T, H, W) to (B, T, 192, H / 16, W / 16).

        Raises:
            InputError: If the number of frames is not ``num_frames``.
        """
        if video.shape[2] != self.num_frames:
            raise InputError(
                f"model.init_args.num_frames is {self.num_frames}, but the clips have {video.shape[2]} frames: set it and "
                "num_frames of data.sampling to the same."
            )
        return super().forward_trunk(video)


class FramePool(nn.Module):
    """Pools the features of a clip's frames: their mean, their maximum, or a mean with weights that are learnt.

    Attention as in Ilse et al., "Attention-based Deep Multiple Instance Learning", https://arxiv.org/abs/1802.04712: the
    weight of a frame with features h is the softmax, over the frames, of w' tanh(V h).

    Args:
        features: Number of features of a frame.
        pooling: ``mean``, ``max`` or ``attention``.
    """

    def __init__(self, features: int, pooling: Pooling) -> None:
        """Makes the layers that weigh the frames; see the class for the arguments."""
        super().__init__()
        self.pooling = pooling
        if pooling == "attention":
            self.score = nn.Sequential(nn.Linear(features, 128), nn.Tanh(), nn.Linear(128, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Pools (B, T, features) to (B, features)."""
        if self.pooling == "mean":
            return x.mean(dim=1)
        if self.pooling == "max":
            return x.amax(dim=1)
        return cast(Tensor, (self.score(x).softmax(dim=1) * x).sum(dim=1))


class TimeDistributedTimm(_FrameNetwork):
    """Any image model of timm on each frame, the frames' features pooled, and a linear layer.

    Any number of frames will do, and any size of pictures that the image model takes. Normalization is that of the image
    model's published weights.

    Args:
        class_names: The classes, in the order of the logits. On the command line they come from the labels.
        weights: ``imagenet`` for the weights that timm publishes, a path for a checkpoint file, of which those are taken
            that fit, null for a random start.
        network: timm's name of the image model, with a tag (``resnet50.a1_in1k``) to choose among published weights. It
            must compute its blocks one after the other, as ResNets, ConvNeXts, EfficientNets, MobileNets, ViTs and Swins
            do; others are refused.
        backbone_blocks: How many of the last blocks (items of timm's ``blocks``, ``stages`` or ``layers``, or ``layer1`` to
            ``layer4``), with the normalization and pooling after them, are the backbone, which finetuning can unfreeze.
        pooling: ``mean``, ``max`` or ``attention`` (a mean whose weights depend on the frames) over the frames.
        post_backbone_dropout: Share of the pooled features set to zero in training, null for none.
        common: What all models have, such as ``task``: see ``ZambaVideoClassificationLightningModule``.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        weights: str | None = "imagenet",
        network: str = "convnext_tiny",
        backbone_blocks: int = 1,
        pooling: Pooling = "mean",
        post_backbone_dropout: float | None = None,
        **common: Any,
    ) -> None:
        """Builds the network and loads its weights; see the class for the arguments.

        Raises:
            InputError: If there is no such network, it cannot be split, or the weights cannot be loaded.
        """
        super().__init__(class_names=class_names, **common)
        features = self._build_base(network, backbone_blocks, pretrained=weights == "imagenet")
        self.head = nn.Sequential(
            FramePool(features, pooling),
            nn.Dropout(post_backbone_dropout or 0.0),
            nn.Linear(features, len(self.class_names)),
        )
        if weights is not None and weights != "imagenet":
            self._load_weights(weights)
        self.freeze_backbone()


class SingleFrameResnet(_FrameNetwork):
    """ResNet-50 on one frame, and a linear layer: a fast baseline that knows nothing of movement.

    Backbone: ``layer4`` and the pooling.

    Args:
        class_names: The classes, in the order of the logits. On the command line they come from the labels.
        weights: ``imagenet`` for the weights that timm publishes, a path for a checkpoint file, of which those are taken
            that fit, null for a random start.
        common: What all models have, such as ``task``: see ``ZambaVideoClassificationLightningModule``.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        weights: str | None = "imagenet",
        **common: Any,
    ) -> None:
        """Builds the network and loads its weights; see the class for the arguments.

        Raises:
            InputError: If the weights cannot be loaded.
        """
        super().__init__(class_names=class_names, **common)
        features = self._build_base("resnet50", backbone_blocks=1, pretrained=weights == "imagenet")
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(features, len(self.class_names)))  # of (B, 1, features)
        if weights is not None and weights != "imagenet":
            self._load_weights(weights)
        self.freeze_backbone()

    def forward_trunk(self, video: Tensor) -> Tensor:
        """Normalizes and runs all before ``layer4``: uint8 (B, 3, 1, H, W) to (B, 1, 1024, H / 16, W / 16).

        Raises:
            InputError: If there is more than one frame.
        """
        if video.shape[2] != 1:
            raise InputError(
                f"SingleFrameResnet takes one frame of a clip, not {video.shape[2]}: set num_frames of data.sampling to 1, "
                "or take TimeDistributedTimm for several."
            )
        return super().forward_trunk(video)
