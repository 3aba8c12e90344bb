"""pytorchvideo's networks with one pathway: Slow, X3D, R(2+1)D, CSN and MViT, as published for Kinetics-400."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, cast, get_args

from torch import Tensor, nn

from zamba_lcli.errors import InputError
from zamba_lcli.models.attention import HeadKind, make_head, tokens_of
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.models.layers import normalize, without_warnings_of_torchscript, write_in_place
from zamba_lcli.models.weights import load_file, load_matching_weights, load_published_weights

Name: TypeAlias = Literal[
    "slow_r50", "x3d_xs", "x3d_s", "x3d_m", "x3d_l", "r2plus1d_r50", "csn_r101", "mvit_base_16x4", "mvit_base_32x3"
]


def url_of(name: str) -> str:
    """Returns where the published weights of a network are."""
    from pytorchvideo.models.hub import csn, r2plus1d, resnet, vision_transformers, x3d

    published = (part.checkpoint_paths for part in (resnet, x3d, r2plus1d, csn, vision_transformers))
    return next(cast(str, paths[name]) for paths in published if name in paths)


class GlobalPool(nn.Module):
    """What the published head does before its linear layer, with averages over all frames and positions.

    The published averages are over windows as large as the features of clips of the published size, for which the two are
    the same; smaller clips are refused there, larger ones give several windows.

    Args:
        head: The published head, of which the layers around the pooling are kept (X3D has some, with weights).
        keeps_tokens: Whether to leave out the pooling itself.
    """

    def __init__(self, head: nn.Module, keeps_tokens: bool) -> None:
        """Takes the pooling from the published head."""
        super().__init__()
        self.keeps_tokens = keeps_tokens
        self.pool = cast(nn.Module, head.pool)
        average = nn.Identity() if keeps_tokens else nn.AdaptiveAvgPool3d(1)
        if isinstance(self.pool, nn.AvgPool3d):
            self.pool = average
        else:
            self.pool.pool = average

    def forward(self, x: Tensor) -> Tensor:
        """Pools (B, C, T, H, W) to (B, features), or turns it into tokens (B, T * H * W, features)."""
        x = self.pool(x)
        return tokens_of(x) if self.keeps_tokens else x.flatten(1)


class PytorchVideo(ZambaVideoClassificationLightningModule):
    """A network of pytorchvideo with one pathway, by default with Kinetics-400 weights, and a linear layer.

    What each was published for: ``slow_r50`` 8 frames of 224 x 224 pixels; ``x3d_xs`` 4 and ``x3d_s`` 13 of 160 x 160,
    ``x3d_m`` 16 of 224 x 224, ``x3d_l`` 16 of 312 x 312; ``r2plus1d_r50`` 16 and ``csn_r101`` 32 of 224 x 224. These take
    other numbers and sizes too. ``mvit_base_16x4`` takes 16 and ``mvit_base_32x3`` 32 frames of 224 x 224, and no others.

    Args:
        class_names: The classes, in the order of the logits. On the command line they come from the labels.
        weights: ``kinetics400`` for the published weights, a path for a checkpoint file, of which those are taken that
            fit, null for a random start.
        name: pytorchvideo's name of the network.
        backbone_blocks: How many of the last blocks are the backbone, which finetuning can unfreeze. Those before it never
            train. Blocks are stem, res2 to res5 and the pooling, 6 in all; of MViT the patches, their positions, 16
            transformer blocks and the normalization, 19 in all.
        head: ``linear`` for a linear layer on the network's own pooling; ``attention`` for learned queries over all positions
            of space and time in place of that.
        post_backbone_dropout: Share of the pooled features set to zero in training, null for none.
        common: What all models have, such as ``task``: see ``ZambaVideoClassificationLightningModule``.
    """

    feature_arguments = ("name", "backbone_blocks")

    def __init__(
        self,
        class_names: Sequence[str],
        weights: str | None = "kinetics400",
        name: Name = "x3d_m",
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
        with without_warnings_of_torchscript():
            from pytorchvideo.models import hub
        self.name = name
        self.pools_tokens = head == "attention"
        self.base: Any = getattr(hub, name)()
        self.takes: tuple[int, int, int] | None = None  # frames, height and width, where no others will do
        self._grids: list[list[int]] = []  # what each of MViT's blocks takes: its tokens' frames, rows and columns
        if name.startswith("mvit"):
            features = self.base.head.proj.in_features
            self.base.head = None
            self._measure_mvit()
        else:
            features = self.base.blocks[-1].proj.in_features
            self.base.blocks[-1] = GlobalPool(self.base.blocks[-1], self.pools_tokens)
        write_in_place(self.base)
        count = len(self._blocks())
        if not 1 <= backbone_blocks <= count:
            raise InputError(f"model.init_args.backbone_blocks: {backbone_blocks} is not between 1 and {count}.")
        self._cut = count - backbone_blocks  # the backbone's first block
        self.head = make_head(head, features, len(self.class_names), post_backbone_dropout)
        if weights == "kinetics400":
            load_published_weights(self.base, url_of(name))
        elif weights is not None:
            self._load_file(weights)
        self.freeze_backbone()

    def _measure_mvit(self) -> None:
        """Computes the size of clips that the vision transformer takes, and that of the tokens before each of its blocks."""
        grid = list(self.base.cls_positional_encoding.patch_embed_shape)
        frames, height, width = (n * s for n, s in zip(grid, self.base.patch_embed.patch_model.stride, strict=True))
        self.takes = (frames, height, width)
        for block in self.base.blocks:
            self._grids.append(grid)
            if block.attn.pool_q is not None:
                grid = [-(-n // s) for n, s in zip(grid, block.attn.pool_q.stride, strict=True)]

    def _load_file(self, path: str) -> None:
        """Loads what fits of the weights in a file: this program's or pytorchvideo's."""
        state, class_names = load_file(path)
        if not any(key.startswith("base.") for key in state):  # pytorchvideo's network
            state = {f"base.{key}": value for key, value in state.items()}
        others = [
            (f"--model.init_args.name {name}", partial(PytorchVideo, self.class_names, weights=None, name=name))
            for name in get_args(Name)
            if name != self.name
        ]
        load_matching_weights(self, state, class_names, path, others)

    def _blocks(self) -> list[nn.Module]:
        """Returns the layers that are run one after the other."""
        if self.takes is None:
            return list(self.base.blocks)
        return [self.base.patch_embed, self.base.cls_positional_encoding, *self.base.blocks, self.base.norm_embed]

    def _run(self, x: Tensor, first: int, end: int) -> Tensor:
        """Runs the blocks from ``first`` to before ``end``."""
        for i, block in enumerate(self._blocks()[first:end], start=first):
            x = block(x, self._grids[i - 2])[0] if 0 <= i - 2 < len(self._grids) else block(x)
        return x

    @property
    def trunk(self) -> nn.Module:
        """The blocks before the backbone."""
        return nn.ModuleList(self._blocks()[: self._cut])

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]
        """The last blocks; not an attribute, with which a checkpoint would hold their weights twice."""
        return nn.ModuleList(self._blocks()[self._cut :])

    def forward_trunk(self, video: Tensor) -> Tensor:
        """Normalizes and runs the blocks before the backbone.

        Args:
            video: uint8 (B, 3, T, H, W).

        Returns:
            Features (B, C, T', h, w); tokens (B, 1 + T' * h * w, C) for MViT, the first one being the class token.

        Raises:
            InputError: If the network cannot take clips of this size.
        """
        if self.takes is not None and tuple(video.shape[2:]) != self.takes:
            sizes = ["{} frames of {} x {} pixels".format(*size) for size in (self.takes, video.shape[2:])]
            raise InputError(
                f"{self.name} takes {sizes[0]}, not {sizes[1]}: set num_frames of data.sampling, data.height and data.width "
                "accordingly."
            )
        return self._run(normalize(video, next(self.parameters()).dtype), 0, self._cut)

    def forward_backbone(self, features: Tensor) -> Tensor:
        """Runs the last blocks: to (B, features), pooled or the class token of MViT, or to tokens (B, N, features)."""
        x = self._run(features, self._cut, len(self._blocks()))
        return x if self.takes is None or self.pools_tokens else x[:, 0]
