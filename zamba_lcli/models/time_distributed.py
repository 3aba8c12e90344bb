"""Networks that look at frames one by one: timm's image models, and heads for what they find in a clip's frames."""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, cast

import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn

from zamba_lcli.errors import InputError
from zamba_lcli.models.attention import HeadKind, make_head, tokens_of
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.models.fitting import Other
from zamba_lcli.models.timm_blocks import (
    BLOCK,
    HEAD_PARTS,
    divide,
    layer_groups,
    measure,
    outline_of,
    published_size,
    steps_of,
    takes,
)
from zamba_lcli.models.weights import build_image_model, load_file, load_matching_weights, similar_image_models

Pooling: TypeAlias = Literal["mean", "max", "attention"]


class _FrameNetwork(ZambaVideoClassificationLightningModule):
    """Applies one of timm's image models to each frame; a subclass makes the head."""

    network: str  # timm's name
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
            InputError: If there is no such network, it makes no features of pictures, or has not as many blocks.
        """
        self.network = network
        self.base = build_image_model(network, pretrained)
        features, self._in_steps = measure(self.base, network)
        names = [step.name for step in steps_of(self.base)]
        blocks = [i for i, name in enumerate(names) if BLOCK.fullmatch(name)]
        groups = {} if self._in_steps else layer_groups(self.base)
        count = len(blocks) if self._in_steps else len(set(groups.values()))
        if not 1 <= backbone_blocks <= count:
            which = f": {', '.join(names[i] for i in blocks)}" if self._in_steps else ""
            raise InputError(
                f"model.init_args.backbone_blocks: {backbone_blocks} is not between 1 and {count}, the number of {network}'s "
                f"blocks{which}."
            )
        self._sizes: set[tuple[int, int]] = set()  # of frames, which it is known to take
        if self._in_steps:
            self._cut = blocks[-backbone_blocks]  # the backbone's first step
        else:
            self._last = {name for name, group in groups.items() if group >= count - backbone_blocks}  # in the backbone
            rank_zero_info(
                f"{network} does more than run its layers one after the other, so that it is always run as a whole. The last "
                f"{backbone_blocks} of its {count} blocks train once the backbone is unfrozen."
            )
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
        load_matching_weights(self, state, class_names, path, self._similar_networks())

    def _similar_networks(self) -> Iterator[Other]:
        """Yields networks that a file may be of instead."""
        for name in similar_image_models(self.network):
            yield f"--model.init_args.network {name}", partial(_as_base, name)

    @property
    def trunk(self) -> nn.Module:
        """The layers before the backbone, and parameters that are in no layer (a vision transformer's positions)."""
        if not self._in_steps:
            return divide(self.base, self._last)[0]
        layers = [step.module for step in steps_of(self.base)[: self._cut]]
        return nn.ModuleList([*layers, nn.ParameterList(self.base.parameters(recurse=False))])

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]
        """The last blocks, and the normalization and pooling after them.

        Not an attribute: a checkpoint would hold its weights twice, and those of another ``backbone_blocks`` under other
        names.
        """
        if not self._in_steps:
            return divide(self.base, self._last)[1]
        layers = [step.module for step in steps_of(self.base)[self._cut :]]
        names = [name for name, _ in self.base.named_children()]
        after = next((i for i, name in enumerate(names) if name in HEAD_PARTS), len(names))
        return nn.ModuleList([*layers, *(self.base.get_submodule(name) for name in names[after:])])

    def forward_trunk(self, video: Tensor) -> Tensor:
        """Normalizes and runs the layers before the backbone on each frame.

        Args:
            video: uint8 (B, 3, T, H, W).

        Returns:
            Features (B, T, C, h, w), channels last (B, T, h, w, C) for some networks, tokens (B, T, N, C) for vision
            transformers; of a network that can only be run as a whole the frames as they are, uint8 (B, T, 3, H, W).

        Raises:
            InputError: If the network cannot take pictures of this size; names one that it takes.
        """
        if not torch.compiler.is_compiling():
            self._check_size(*video.shape[3:])
        x = video.transpose(1, 2)  # (B, T, 3, H, W)
        if not self._in_steps:
            return x
        frames = self._normalize(x.flatten(0, 1))  # (B * T, 3, H, W)
        for step in steps_of(self.base)[: self._cut]:
            frames = step.function(frames)
        return frames.reshape(video.shape[0], -1, *frames.shape[1:])

    def forward_backbone(self, features: Tensor) -> Tensor:
        """Runs the last blocks on each frame and pools over its positions: to (B, T, features).

        For attention to tokens (B, T * N, features), a frame's N positions not pooled.
        """
        frames = features.flatten(0, 1)
        if self._in_steps:
            for step in steps_of(self.base)[self._cut :]:
                frames = step.function(frames)
            pooled = cast(Tensor, cast(Any, self.base).forward_head(frames))  # (B * T, features)
        else:
            try:
                pooled = self.base(self._normalize(frames))
            except IndexError as error:  # a position table that is too small, which shapes do not reveal
                raise self._refusal(frames.shape[2:]) from error
        if pooled.ndim == 4 and getattr(self.base, "output_fmt", "NCHW") == "NHWC":
            pooled = pooled.flatten(1, 2)
        elif pooled.ndim == 4:
            pooled = tokens_of(pooled)
        return pooled.reshape(features.shape[0], -1, pooled.shape[-1])

    def _normalize(self, frames: Tensor) -> Tensor:
        """Turns pixels (N, 3, H, W) from 0 to 255 into what the network was trained with."""
        return (frames.to(self.mean.dtype) / 255 - self.mean) / self.std

    def _check_size(self, height: int, width: int) -> None:
        """Refuses frames of a size that the network cannot take; looks at each size once."""
        size = (height, width)
        if size in self._sizes:
            return
        outline = outline_of(self.base)
        # a network whose shapes cannot be had without computing is let go on
        if not takes(outline, *size) and takes(outline, *published_size(outline)):
            raise self._refusal(size)
        self._sizes.add(size)

    def _refusal(self, size: Sequence[int]) -> InputError:
        """Returns the error that says that frames cannot be of this size, but of the published one."""
        height, width = published_size(self.base)
        return InputError(
            f"{cast(Any, self.base).pretrained_cfg['architecture']} does not take frames of {size[0]} x {size[1]} pixels. It "
            f"takes, for example, {height} x {width} (height x width): set data.height and data.width accordingly."
        )


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

    feature_arguments = ()

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


def _as_base(name: str) -> nn.Module:
    """Builds one of timm's image models with the names of weights that it has in ours."""
    return nn.ModuleDict({"base": build_image_model(name, pretrained=False)})


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
        network: timm's name of the image model, with a tag (``resnet50.a1_in1k``) to choose among published weights. What
            computes its blocks one after the other (ResNets, ConvNeXts, EfficientNets, MobileNets, ViTs, Swins) is run as
            trunk and backbone. Others (BEiTs, EVAs, HRNets, Inceptions) are run as a whole, from the frames on: what is
            frozen and what trains is the same, but FrozenFeatureCache keeps the frames, and the frozen layers run again
            in each epoch from the unfreeze on.
        backbone_blocks: How many of the last blocks (items of timm's ``blocks``, ``stages`` or ``layers``, or ``layer1`` to
            ``layer4``), with the normalization and pooling after them, are the backbone, which finetuning can unfreeze. Of
            a network that is run as a whole, its groups of layers in timm's ``group_matcher``, the stem being the first;
            the few networks that have none are one block.
        pooling: ``mean``, ``max`` or ``attention`` (a mean whose weights depend on the frames) over the frames.
        head: ``linear`` for a linear layer on what is pooled; ``attention`` for learned queries over all positions of all
            frames in place of both poolings, and of ``pooling`` (over the frames' features where a network is run as a whole).
        post_backbone_dropout: Share of the pooled features set to zero in training, null for none.
        common: What all models have, such as ``task``: see ``ZambaVideoClassificationLightningModule``.
    """

    feature_arguments = ("network", "backbone_blocks")

    def __init__(
        self,
        class_names: Sequence[str],
        weights: str | None = "imagenet",
        network: str = "convnext_tiny",
        backbone_blocks: int = 1,
        pooling: Pooling = "mean",
        head: HeadKind = "linear",
        post_backbone_dropout: float | None = None,
        **common: Any,
    ) -> None:
        """Builds the network and loads its weights; see the class for the arguments.

        Raises:
            InputError: If there is no such network, it has not as many blocks, or the weights cannot be loaded.
        """
        super().__init__(class_names=class_names, **common)
        features = self._build_base(network, backbone_blocks, pretrained=weights == "imagenet")
        self.pools_tokens = head == "attention"
        if self.pools_tokens and self._in_steps:
            cast(Any, self.base).reset_classifier(
                0, global_pool=""
            )  # its pooling is left out, layers after it are kept
        pool = [] if self.pools_tokens else [FramePool(features, pooling)]
        self.head = nn.Sequential(*pool, *make_head(head, features, len(self.class_names), post_backbone_dropout))
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

    feature_arguments = ()

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
