"""Scaled frames on disk, so that each clip is decoded once."""

import hashlib
import io
import json
import os
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.utilities import rank_zero_info

from zamba_lcli.checksum import seal, unseal
from zamba_lcli.data.video.deadline import TIME_LIMIT, read_within
from zamba_lcli.data.video.reading import Clip
from zamba_lcli.errors import InputError
from zamba_lcli.files import file_identity, replacing

GB = 10**9


class FrameCache:
    """Keeps the frames of clips: a file for each, shared by all processes, bounded in size.

    An entry belongs to a file as it is (path, size, time of change) and to a way of loading it; if any of these changes,
    the clip is read anew. Entries are numpy's ``.npz`` with a checksum behind them: one with any bit wrong is made anew.

    Args:
        folder: Where the entries are; safe to delete.
        max_gb: Size that the cache may reach, None for no limit; what was not used for longest goes first.
        loading: How clips are loaded, plain values.
    """

    def __init__(self, folder: str | Path, max_gb: float | None, loading: dict[str, Any]) -> None:
        """Makes the folder."""
        self.folder = Path(folder)
        self.max_bytes = None if max_gb is None else int(max_gb * GB)
        self.loading = json.dumps(loading, sort_keys=True)
        self._failed_to_write = False
        self._written = 0  # bytes since the cache was last looked through
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"data.cache_dir: {self.folder.absolute()} cannot be made: {error.strerror}.") from None

    def entry(self, path: Path) -> Path:
        """Returns where the entry of a clip is, or would be.

        Raises:
            OSError: If there is no such clip.
        """
        name = hashlib.sha256(json.dumps([*file_identity(path), self.loading]).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.npz"

    def get(self, path: Path, read: Callable[[Path], Clip], time_limit: float = TIME_LIMIT) -> Clip:
        """Returns a clip from the cache, or else reads and keeps it; what cannot be read is not kept.

        Raises:
            UnreadableClipError: As ``read`` does.
        """
        try:
            entry = read_within(path, time_limit, lambda _: self.entry(path))
        except OSError:
            return read(path)  # which says why
        try:
            content = unseal(entry.read_bytes())
        except OSError:
            content = None
        if content is None:  # not there, or damaged
            clip = read(path)
            self._put(entry, clip)
            return clip
        with np.load(io.BytesIO(content)) as kept:
            clip = Clip(**{field.name: kept[field.name] for field in fields(Clip)})
        if self.max_bytes is not None:
            with suppress(OSError):  # another process may have deleted it
                os.utime(entry)  # the time of its last use
        return replace(clip, frame_rate=float(clip.frame_rate), duration=float(clip.duration))

    def _put(self, entry: Path, clip: Clip) -> None:
        """Writes an entry under another name and moves it into place when it is whole."""
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()
            np.savez(content, **{field.name: getattr(clip, field.name) for field in fields(clip)})
            with replacing(entry, durable=False) as partial:  # what is torn is noticed by its checksum
                self._written += partial.write_bytes(seal(content.getvalue()))
        except OSError as error:
            if not self._failed_to_write:
                warnings.warn(
                    f"data.cache_dir: {entry} cannot be written ({error.strerror}); the run goes on without.",
                    stacklevel=2,
                )
            self._failed_to_write = True
            return
        # looking through a large cache takes a while: now and then is enough
        if self.max_bytes is not None and self._written > self.max_bytes // 100:
            self._written = 0
            self.shrink()

    def shrink(self) -> None:
        """Deletes the entries that were not used for longest, until the rest is well within the limit."""
        if self.max_bytes is None:
            return
        entries = []
        for path in self.folder.glob("??/*.npz"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process deletes too
                continue
            entries.append((status.st_mtime_ns, status.st_size, path))
        excess = sum(size for _, size, _ in entries) - self.max_bytes * 95 // 100
        for _, size, path in sorted(entries):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size

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
