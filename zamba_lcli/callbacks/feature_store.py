"""Files with the output of frozen layers: which may be shared by runs, damaged, half-written or claimed."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from zamba_lcli.checksum import is_sealed, seal_file
from zamba_lcli.errors import InputError
from zamba_lcli.files import PARTIAL, replacing
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.types import Features

DAY = 24 * 3600  # seconds


class FeatureStore:
    """A folder of features: for each entry a file with the trunk's output, and beside it one with the frozen backbone's.

    Args:
        folder: Where the files are; safe to delete while no run uses it.
        dtype: Type in which the trunk's output is kept.
        keeps_tokens: Whether the backbone's output is tokens, many times as large as pooled features: they are of type
            ``dtype`` too.
        keeps_trunk: Whether to keep the trunk's output; without it, the backbone cannot be unfrozen.
    """

    def __init__(
        self, folder: Path, dtype: torch.dtype, *, keeps_tokens: bool = False, keeps_trunk: bool = True
    ) -> None:
        """Makes the folder."""
        self.folder = folder
        self.dtype = dtype
        self.keeps_tokens = keeps_tokens
        self.keeps_trunk = keeps_trunk
        self.backbone_key = ""  # of the weights of the frozen backbone
        self._claimed: list[str] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"FrozenFeatureCache: {folder.absolute()} cannot be made: {error.strerror}.") from None

    def _path(self, entry: str, kind: str) -> Path:
        return self.folder / entry[:2] / f"{entry}.{kind}"

    def _main_path(self, entry: str) -> Path:
        """Returns the file without which an entry has to be computed."""
        return self._path(entry, "trunk" if self.keeps_trunk else f"{self.backbone_key}.backbone")

    def is_whole(self, entry: str) -> bool:
        """Returns whether what has to be kept of ``entry`` is there and undamaged; what is damaged is deleted."""
        path = self._main_path(entry)
        if self._load(path) is not None:
            return True
        path.unlink(missing_ok=True)
        return False

    def claim(self, entry: str) -> bool:
        """Claims ``entry`` for this run; returns False if another computes it or has computed it."""
        path = self._path(entry, "claim")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            return False
        self._claimed.append(entry)
        return not self._main_path(entry).exists()

    def release(self, entries: Sequence[str] = ()) -> None:
        """Drops all claims of this run, and those of others on ``entries``, for example of a run that was killed."""
        for entry in (*self._claimed, *entries):
            self._path(entry, "claim").unlink(missing_ok=True)
        self._claimed.clear()

    def sweep(self) -> None:
        """Deletes files and claims that killed runs left, after a day."""
        for path in (*self.folder.glob(f"??/.*{PARTIAL}"), *self.folder.glob("??/*.claim")):
            try:
                if path.stat().st_mtime < time.time() - DAY:
                    path.unlink()
            except FileNotFoundError:  # another process sweeps too
                continue

    def put_trunk(self, entry: str, features: Features) -> None:
        """Keeps a trunk's output, with a batch dimension, if that is to be kept."""
        if not self.keeps_trunk:
            return
        features = map_features(features, lambda x: cast_features(self.dtype, x.detach()).cpu().clone())
        self._save(self._path(entry, "trunk"), features)

    def put_backbone(self, entry: str, features: Tensor) -> Tensor:
        """Keeps the frozen backbone's output, with a batch dimension, and returns what is kept."""
        features = cast_features(self.dtype if self.keeps_tokens else torch.float32, features.detach()).cpu().clone()
        name = f"{self.backbone_key}.backbone"
        self._save(self._path(entry, name), features)
        return features

    def trunk(self, module: ZambaVideoClassificationLightningModule, entries: Sequence[str]) -> Features:
        """Returns the trunk's outputs as a batch on the module's device; only what is used is read from the disk."""
        parts = []
        for entry in entries:
            kept = self._load(self._path(entry, "trunk"))
            if kept is None and not self.keeps_trunk and not module.backbone_is_frozen:
                raise InputError(
                    "FrozenFeatureCache keeps the backbone's tokens alone where no callback of Lightning's BaseFinetuning "
                    "unfreezes it. Make yours one, or leave out FrozenFeatureCache."
                )
            if kept is None:
                raise InputError(
                    f"FrozenFeatureCache: an entry in {self.folder.absolute()} was deleted or damaged while it was in use. "
                    "Resume from the last checkpoint: it is computed again."
                )
            parts.append(kept)
        return map_features(cat_features(parts), lambda x: cast_features(dtype_of(module), x.to(module.device)))

    def backbone(self, module: ZambaVideoClassificationLightningModule, entries: Sequence[str]) -> Tensor:
        """Returns the frozen backbone's outputs as a batch on the module's device, those that are missing computed now."""
        parts = []
        for entry in entries:
            path = self._path(entry, f"{self.backbone_key}.backbone")
            kept = self._load(path)
            if kept is None:
                with torch.no_grad():
                    kept = self.put_backbone(entry, module.forward_backbone(self.trunk(module, [entry])))
            parts.append(cast(Tensor, kept))
        return torch.cat(parts).to(module.device, dtype_of(module))

    @staticmethod
    def _load(path: Path) -> Features | None:
        """Returns the features in a file; None if it is not there or damaged."""
        try:
            if not is_sealed(path):
                return None
            features: Features = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except OSError:
            return None
        return features

    @staticmethod
    def _save(path: Path, features: Features) -> None:
        """Writes the features, with a checksum."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(path, durable=False) as partial:  # what is torn is noticed by its checksum
                torch.save(features, partial)
                seal_file(partial)
        except (OSError, RuntimeError) as error:
            raise InputError(f"FrozenFeatureCache: {path} cannot be written ({error}). Is the disk full?") from error


def cast_features(dtype: torch.dtype, x: Tensor) -> Tensor:
    """Returns a tensor of type ``dtype``; integers, frames that no layer has changed, as they are."""
    return x.to(dtype) if x.is_floating_point() else x


def dtype_of(module: nn.Module) -> torch.dtype:
    """Returns the type of the weights."""
    return next(module.parameters()).dtype


def map_features(features: Features, change: Callable[[Tensor], Tensor]) -> Features:
    """Returns features with each tensor changed."""
    return change(features) if isinstance(features, Tensor) else [change(tensor) for tensor in features]


def cat_features(parts: Sequence[Features]) -> Features:
    """Returns the batch of the parts."""
    if isinstance(parts[0], Tensor):
        return _cat_tensors(cast(list[Tensor], list(parts)))
    return [_cat_tensors(tensors) for tensors in zip(*cast(Sequence[list[Tensor]], parts), strict=True)]


def _cat_tensors(tensors: Sequence[Tensor]) -> Tensor:
    """Returns a batch with the memory order of its parts, which torch.cat keeps only where it knows channels last.

    It would lay out anew the features of frames, (B, T, C, H, W) with C last: a convolution then runs another kernel, which
    rounds differently.
    """
    order = [0, *(i for i in _memory_order(tensors[0]) if i)]
    return torch.cat([tensor.permute(order) for tensor in tensors]).permute(np.argsort(order).tolist())


def _memory_order(tensor: Tensor) -> list[int]:
    """Returns the dimensions from the one with the largest stride to the one with the smallest."""
    return cast(list[int], np.argsort(np.negative(tensor.stride()), kind="stable").tolist())
