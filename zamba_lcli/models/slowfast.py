"""SlowFast: a slow pathway for what is there, a fast one for how it moves.

Feichtenhofer et al., "SlowFast Networks for Video Recognition", https://arxiv.org/abs/1812.03982. The network is
pytorchvideo's; its names of arguments are kept.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zamba_lcli.errors import InputError
from zamba_lcli.models.attention import AttentionPool, HeadKind, tokens_of
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.models.layers import normalize, without_warnings_of_torchscript, write_in_place
from zamba_lcli.models.weights import load_file, load_matching_weights, load_published_weights

DEPTHS = (18, 50, 101, 152)
ALPHA = 4  # the fast pathway sees this many times as many frames as the slow one


class PathwayPool(nn.Module):
    """Averages a pathway over all its frames and over windows of at most 7 x 7 positions.

    With 32 frames and at least 224 x 224 pixels this is the published network's ``AvgPool3d``; other numbers of frames
    and smaller pictures, which that refuses, work as well.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Pools (B, C, T, H, W) to (B, C, 1, max(1, H - 6), max(1, W - 6))."""
        frames, height, width = x.shape[2:]
        return F.avg_pool3d(x, kernel_size=(frames, min(7, height), min(7, width)), stride=1)


def _perceptron(inputs: int, hidden_layer_sizes: Sequence[int], outputs: int, dropout: float) -> nn.Module:
    """Returns linear layers with ReLU and dropout between them; a single one where there are no hidden layers.

    Without dropout there is no layer for it, as in zamba, whose names of weights count the layers.
    """
    layers: list[nn.Module] = []
    for size in hidden_layer_sizes:
        layers += [nn.Linear(inputs, size), nn.ReLU(), *([nn.Dropout(dropout)] if dropout > 0 else [])]
        inputs = size
    output = nn.Linear(inputs, outputs)
    return nn.Sequential(*layers, output) if layers else output


class SlowFast(ZambaVideoClassificationLightningModule):
    """SlowFast, by default R50 8x8 with Kinetics-400 weights: for 32 frames of about 224 x 224 pixels or more.

    Args:
        class_names: The classes, in the order of the logits. On the command line they come from the labels.
        weights: ``kinetics400`` for the published weights, a path for a checkpoint file, of
            which those are taken that fit, null for a random start.
        model_depth: Layers of each pathway's ResNet: 18, 50, 101 or 152. Kinetics weights exist for 50 and 101.
        stem_dim_outs: Channels of the slow and of the fast stem; all widths follow from them.
        backbone_blocks: How many of the last blocks (stem, res2 to res5, pooling: 6 in all) are the backbone, which
            finetuning can unfreeze. Those before it never train.
        head: ``linear`` for linear layers on the network's own pooling; ``attention`` for learned queries over all positions
            of space and time in place of that.
        post_backbone_dropout: Share of the pooled features set to zero in training, null for none.
        head_hidden_layer_sizes: Widths of hidden layers in the head, null for a single linear layer.
        head_dropout_rate: Share of the hidden layers' outputs set to zero in training; needs hidden layers.
        common: What all models have, such as ``task``: see ``ZambaVideoClassificationLightningModule``.
    """

    feature_arguments = ("model_depth", "stem_dim_outs", "backbone_blocks")

    def __init__(
        self,
        class_names: Sequence[str],
        weights: str | None = "kinetics400",
        model_depth: int = 50,
        stem_dim_outs: tuple[int, int] = (64, 8),
        backbone_blocks: int = 2,
        head: HeadKind = "linear",
        post_backbone_dropout: float | None = None,
        head_hidden_layer_sizes: list[int] | None = None,
        head_dropout_rate: float | None = None,
        **common: Any,
    ) -> None:
        """Builds the network and loads its weights; see the class for the arguments.

        Raises:
            InputError: If the arguments do not fit each other or the weights cannot be loaded.
        """
        super().__init__(class_names=class_names, **common)
        with without_warnings_of_torchscript():
            from pytorchvideo.models.head import ResNetBasicHead
            from pytorchvideo.models.slowfast import create_slowfast
        slow, fast = stem_dim_outs
        if fast < 1 or slow % fast or slow % 2:
            raise InputError(
                f"model.init_args.stem_dim_outs: {list(stem_dim_outs)}: the first must be even and a multiple of the second."
            )
        if model_depth not in DEPTHS:
            raise InputError(f"model.init_args.model_depth: {model_depth} is not one of {', '.join(map(str, DEPTHS))}.")
        if head_dropout_rate is not None and not head_hidden_layer_sizes:
            raise InputError(
                "model.init_args.head_dropout_rate acts on hidden layers: give head_hidden_layer_sizes too, or use "
                "post_backbone_dropout."
            )
        self.base = create_slowfast(
            model_depth=model_depth,
            stem_dim_outs=tuple(stem_dim_outs),
            slowfast_channel_reduction_ratio=(slow // fast,),
            slowfast_fusion_conv_kernel_size=(5 if model_depth == 101 else 7, 1, 1),  # as published
        )
        features = self.base.blocks[-1].proj.in_features
        self.base.blocks = self.base.blocks[:-1]  # the head for Kinetics' 400 classes
        self.pools_tokens = head == "attention"
        pools = [nn.Identity(), nn.AvgPool3d((ALPHA, 1, 1))] if self.pools_tokens else [PathwayPool(), PathwayPool()]
        self.base.blocks[-1].pool = nn.ModuleList(pools)
        write_in_place(self.base)
        blocks = len(self.base.blocks)
        if not 1 <= backbone_blocks <= blocks:
            raise InputError(f"model.init_args.backbone_blocks: {backbone_blocks} is not between 1 and {blocks}.")
        self.backbone_blocks = backbone_blocks
        self.backbone = self.base.blocks[-backbone_blocks:]
        output = _perceptron(features, head_hidden_layer_sizes or [], len(self.class_names), head_dropout_rate or 0.0)
        if self.pools_tokens:
            self.head = nn.Sequential(AttentionPool(features), nn.Dropout(post_backbone_dropout or 0.0), output)
        else:
            self.head = ResNetBasicHead(
                proj=output,
                dropout=None if post_backbone_dropout is None else nn.Dropout(post_backbone_dropout),
                output_pool=nn.AdaptiveAvgPool3d(1),
            )
        if weights is not None:
            self._load_weights(weights, model_depth, (slow, fast))
        self.freeze_backbone()

    def _load_weights(self, weights: str, model_depth: int, stem_dim_outs: tuple[int, int]) -> None:
        """Loads published weights, all but the head, or what fits of the weights in a file."""
        if weights != "kinetics400":
            state, class_names = load_file(weights)
            if any(key.startswith("blocks.") for key in state):  # pytorchvideo's network
                state = {f"base.{key}": value for key, value in state.items()}
            others = [
                (
                    f"--model.init_args.model_depth {depth}",
                    partial(SlowFast, self.class_names, None, depth, stem_dim_outs),
                )
                for depth in DEPTHS
                if depth != model_depth
            ]
            load_matching_weights(self, state, class_names, weights, others)
            return
        from pytorchvideo.models.hub.slowfast import checkpoint_paths

        url = checkpoint_paths.get(f"slowfast_r{model_depth}")
        if url is None or stem_dim_outs != (64, 8):
            raise InputError(
                "model.init_args.weights: kinetics400 exists for model_depth 50 and 101 with stem_dim_outs [64, 8]. Set "
                "weights to null for a random start, or to a checkpoint file."
            )
        load_published_weights(self.base, url)

    @property
    def trunk(self) -> nn.Module:
        """The blocks before the backbone."""
        return cast(nn.Module, self.base.blocks[: -self.backbone_blocks])

    def forward_trunk(self, video: Tensor) -> list[Tensor]:
        """Normalizes, splits the pathways and runs the blocks before the backbone.

        Args:
            video: uint8 (B, 3, T, H, W); T is a multiple of 4.

        Returns:
            Slow (B, C, T / 4, h, w) and fast (B, C', T, h, w) features.

        Raises:
            InputError: If the number of frames is not a multiple of 4.
        """
        frames = video.shape[2]
        if frames % ALPHA:
            raise InputError(
                f"SlowFast takes a number of frames that is a multiple of {ALPHA}, not {frames}: set num_frames of "
                "data.sampling accordingly."
            )
        fast = normalize(video, next(self.parameters()).dtype)
        # evenly spaced from the first to the last frame, like pytorchvideo's PackPathway
        slow = fast[:, :, torch.linspace(0, frames - 1, frames // ALPHA, device=fast.device).long()]
        features = [slow, fast]  # a new list each time: the blocks write their outputs into it
        for block in self.base.blocks[: -self.backbone_blocks]:
            features = block(features)
        return features

    def forward_backbone(self, features: list[Tensor]) -> Tensor:
        """Runs the backbone's blocks: pathways to (B, channels, 1, h, w), the two pooled and concatenated.

        For attention to tokens (B, T / 4 * h * w, channels): the fast pathway is averaged over the frames of each slow one.
        """
        output: list[Tensor] | Tensor = list(features)
        for block in cast(nn.ModuleList, self.backbone):
            output = block(output)
        return tokens_of(cast(Tensor, output)) if self.pools_tokens else cast(Tensor, output)
