"""Scaled frames on disk, so that each clip is decoded once."""

import shutil
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_info

from zamba_lcli.data.clip_cache import GB as GB
from zamba_lcli.data.clip_cache import ClipCache
from zamba_lcli.data.video.reading import Clip
from zamba_lcli.errors import InputError


class FrameCache(ClipCache[Clip]):
    """Keeps the frames of clips; see ``ClipCache``.

    Args:
        folder: Where the entries are; safe to delete.
        max_gb: Size that the cache may reach, None for no limit; what was not used for longest goes first.
        loading: How clips are loaded, plain values.
    """

    def __init__(self, folder: str | Path, max_gb: float | None, loading: dict[str, Any]) -> None:
        """Makes the folder."""
        super().__init__(Clip, folder, max_gb, loading)

    def announce(self, clips: int, clip_bytes: int) -> None:
        """Says in the log how large the cache will become.

        Args:
            clips: Number of clips that the run reads.
            clip_bytes: Size of a clip's frames.

        Raises:
            InputError: If the disk cannot hold the cache.
        """
        needed = clips * clip_bytes
        there = sum(path.stat().st_size for path in self.folder.glob("??/*.npz"))
        free = shutil.disk_usage(self.folder).free
        bound = needed if self.max_bytes is None else min(needed, self.max_bytes)
        text = f"{clips} clips of {clip_bytes / 1e6:.1f} MB: {needed / GB:.2f} GB"
        if bound > free + there:
            raise InputError(
                f"data.cache_dir: {self.folder.absolute()} has {free / GB:.2f} GB free, but the cache needs up to "
                f"{bound / GB:.2f} GB ({text}). Set data.cache_max_gb below that, or give a folder on another disk."
            )
        limit = "" if self.max_bytes is None else f", at most {self.max_bytes / GB:g} GB"
        rank_zero_info(
            f"Frame cache {self.folder}: {text}{limit}; {there / GB:.2f} GB are there, {free / GB:.2f} GB free."
        )
        if self.max_bytes is not None and needed > self.max_bytes:
            rank_zero_info("The cache is smaller than the run's clips: some are decoded again in each epoch.")
