"""torchvision's networks for clips: MViT, Video Swin, S3D and 3-D ResNets, as published for Kinetics-400."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zamba_lcli.errors import InputError
from zamba_lcli.models.attention import HeadKind, make_head, tokens_of
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.models.layers import normalize
from zamba_lcli.models.weights import load_file, load_matching_weights, load_published_weights

Network: TypeAlias = Literal[
    "mvit_v2_s", "mvit_v1_b", "swin3d_t", "swin3d_s", "swin3d_b", "s3d", "r3d_18", "mc3_18", "r2plus1d_18"
]
Block: TypeAlias = tuple[nn.Module, ...]  # layers that are run one after the other; frozen and unfrozen together


class TorchvisionVideo(ZambaVideoClassificationLightningModule):
    """A network of torchvision for clips, by default with Kinetics-400 weights, and a linear layer or attention.

    Mean and standard deviation of the pixels are those of the published weights. What each was published for: ``mvit_v2_s``
    and ``mvit_v1_b`` 16 frames of 224 x 224 pixels, and no others; ``swin3d_t``, ``swin3d_s`` and ``swin3d_b`` 32 frames of
    224 x 224, and they take any; ``s3d`` 128 frames of 224 x 224, at least 14 of 224 x 224; ``r3d_18``, ``mc3_18`` and
    ``r2plus1d_18`` 16 frames of 112 x 112, and they take any.

    Args:
        class_names: The classes, in the order of the logits. On the command line they come from the labels.
        weights: ``kinetics400`` for the weights that torchvision publishes, a path for a checkpoint file, of which those are
            taken that fit, null for a random start.
        network: torchvision's name of the network.
        backbone_blocks: How many of the last blocks are the backbone, which finetuning can unfreeze. Those before it never
            train. Blocks are: of MViT the patches, their positions, 16 transformer blocks and the normalization, 19 in all; of
            Video Swin the patches, each transformer block, each merging of patches and the normalization, 17 in all for
            ``swin3d_t``, 29 for the others; of S3D 12 convolutions and Inception blocks; of the ResNets the stem and
            ``layer1`` to ``layer4``, 5 in all.
        head: ``linear`` for a linear layer on the network's own pooling; ``attention`` for learned queries over all positions
            of space and time before it.
        post_backbone_dropout: Share of the pooled features set to zero in training, null for none.
        common: What all models have, such as ``task``: see ``ZambaVideoClassificationLightningModule``.
    """

    feature_arguments = ("network", "backbone_blocks")
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        class_names: Sequence[str],
        weights: str | None = "kinetics400",
        network: Network = "mvit_v2_s",
        backbone_blocks: int = 2,
        head: HeadKind = "linear",
        post_backbone_dropout: float | None = None,
        **common: Any,
    ) -> None:
        """Builds the network and loads its weights; see the class for the arguments.

        Raises:
            InputError: If there are not as many blocks or the weights cannot be loaded.
        """
        super().__init__(class_names=class_names, **common)
        from torchvision.models import get_model, get_model_weights

        published: Any = get_model_weights(network)["KINETICS400_V1"]  # type: ignore[index]
        self.network = network
        self.base: Any = get_model(network)
        # frames, height and width: the least of them, and for vision transformers with a table of positions the only ones
        self.least = (published.meta.get("min_temporal_size", 1), *published.meta["min_size"])
        self._grids: list[
            tuple[int, int, int]
        ] = []  # what each of MViT's blocks takes: its tokens' frames, rows, columns
        features = self._take_head()
        pixels = published.transforms()
        self.register_buffer("mean", torch.tensor(pixels.mean).reshape(3, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(pixels.std).reshape(3, 1, 1, 1), persistent=False)
        count = len(self._blocks())
        if not 1 <= backbone_blocks <= count:
            raise InputError(f"model.init_args.backbone_blocks: {backbone_blocks} is not between 1 and {count}.")
        self._cut = count - backbone_blocks  # the backbone's first block
        self.pools_tokens = head == "attention"
        self.head = make_head(head, features, len(self.class_names), post_backbone_dropout)
        if weights == "kinetics400":
            load_published_weights(self.base, published.url)
        elif weights is not None:
            self._load_file(weights)
        self.freeze_backbone()

    def _take_head(self) -> int:
        """Takes the layers for Kinetics' classes from the network and returns how many features they had."""
        if self.network.startswith(("mvit", "swin3d")):
            layer = self.base.head if isinstance(self.base.head, nn.Linear) else self.base.head[-1]
            self.base.head = None
        elif self.network == "s3d":
            layer = self.base.classifier[-1]  # a convolution over single positions
            self.base.classifier = None
        else:
            layer = self.base.fc
            self.base.fc = None
        self.base.avgpool = None  # none has weights
        if self.network.startswith("mvit"):
            self._measure_mvit()
        return int(layer.in_channels if isinstance(layer, nn.Conv3d) else layer.in_features)

    def _measure_mvit(self) -> None:
        """Computes the size of clips that the vision transformer takes, and that of the tokens before each of its blocks."""
        positions = self.base.pos_encoding
        grid = (positions.temporal_size, *positions.spatial_size)
        frames, height, width = (n * s for n, s in zip(grid, self.base.conv_proj.stride, strict=True))
        self.least = (frames, height, width)
        for block in self.base.blocks:
            self._grids.append(grid)
            if block.attn.pool_q is not None:
                strides = block.attn.pool_q.pool.stride
                grid = cast(tuple[int, int, int], tuple(-(-n // s) for n, s in zip(grid, strides, strict=True)))

    def _load_file(self, path: str) -> None:
        """Loads what fits of the weights in a file: this program's or torchvision's."""
        state, class_names = load_file(path)
        if not any(key.startswith("base.") for key in state):  # torchvision's network
            state = {f"base.{key}": value for key, value in state.items()}
        load_matching_weights(self, state, class_names, path)

    def _blocks(self) -> list[Block]:
        """Returns the blocks in the order in which they run; layers without weights are in the block after them."""
        base = self.base
        if self.network.startswith("mvit"):
            return [(base.conv_proj,), (base.pos_encoding,), *((block,) for block in base.blocks), (base.norm,)]
        if self.network.startswith("swin3d"):
            layers = [
                layer for part in base.features for layer in (part if isinstance(part, nn.Sequential) else [part])
            ]
            return [(base.patch_embed, base.pos_drop), *((layer,) for layer in layers), (base.norm,)]
        if self.network == "s3d":
            blocks: list[Block] = []
            pools: Block = ()
            for layer in base.features:
                if isinstance(layer, nn.MaxPool3d):
                    pools = (layer,)
                else:
                    blocks.append((*pools, layer))
                    pools = ()
            return blocks
        return [(base.stem,), (base.layer1,), (base.layer2,), (base.layer3,), (base.layer4,)]

    def _run(self, x: Tensor, first: int, end: int) -> Tensor:
        """Runs the blocks from ``first`` to before ``end``."""
        for i, block in enumerate(self._blocks()[first:end], start=first):
            if 0 <= i - 2 < len(self._grids):
                x = block[0](x, self._grids[i - 2])[0]
                continue
            for layer in block:
                x = layer(x)
            if self._grids and i == 0:
                x = tokens_of(x)
        return x

    @property
    def trunk(self) -> nn.Module:
        """The blocks before the backbone."""
        return nn.ModuleList(nn.ModuleList(block) for block in self._blocks()[: self._cut])

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]
        """The last blocks; not an attribute, with which a checkpoint would hold their weights twice."""
        return nn.ModuleList(nn.ModuleList(block) for block in self._blocks()[self._cut :])

    def forward_trunk(self, video: Tensor) -> Tensor:
        """Normalizes and runs the blocks before the backbone.

        Args:
            video: uint8 (B, 3, T, H, W).

        Returns:
            Features (B, C, T', h, w); channels last (B, T', h, w, C) for Video Swin; tokens (B, 1 + T' * h * w, C) for MViT,
            the first one being the class token.

        Raises:
            InputError: If the network cannot take clips of this size.
        """
        self._check_size(tuple(video.shape[2:]))
        return self._run(normalize(video, next(self.parameters()).dtype, self.mean, self.std), 0, self._cut)

    def _check_size(self, size: tuple[int, ...]) -> None:
        """Refuses clips of a number of frames, a height or a width that the network cannot take."""
        is_fixed = bool(self._grids)
        if size == self.least or (not is_fixed and all(n >= m for n, m in zip(size, self.least, strict=True))):
            return
        takes = "{} frames of {} x {} pixels".format(*self.least)
        takes = f"{takes} and no others" if is_fixed else f"at least {takes}"
        raise InputError(
            f"{self.network} takes {takes} (height x width), not {size[0]} frames of {size[1]} x {size[2]}: set num_frames of "
            "data.sampling, data.height and data.width accordingly."
        )

    def forward_backbone(self, features: Tensor) -> Tensor:
        """Runs the last blocks: to (B, features), pooled as the network does, or for attention to tokens (B, N, features)."""
        x = self._run(features, self._cut, len(self._blocks()))
        if self._grids:
            return x if self.pools_tokens else x[:, 0]
        if self.network.startswith("swin3d"):
            x = x.permute(0, 4, 1, 2, 3)
        if self.pools_tokens:
            return tokens_of(x)
        if self.network == "s3d":
            x = F.avg_pool3d(x, kernel_size=(2, 7, 7), stride=1)
        return x.mean(dim=(2, 3, 4))
