"""Arrays made from clips on disk, so that each is made once."""

import hashlib
import io
import json
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np

from zamba_lcli.checksum import seal, unseal
from zamba_lcli.data.video.deadline import TIME_LIMIT, read_within
from zamba_lcli.errors import InputError
from zamba_lcli.files import file_identity, replacing

GB = 10**9
T = TypeVar("T")  # a dataclass of arrays and numbers


class ClipCache(Generic[T]):
    """Keeps what is made from clips: a file for each, shared by all processes, bounded in size.

    An entry belongs to a file as it is (path, size, time of change) and to a way of making it; if any of these changes, it
    is made anew. Entries are numpy's ``.npz`` with a checksum behind them: one with any bit wrong is made anew.

    Args:
        kind: What is kept, a dataclass of arrays and numbers.
        folder: Where the entries are; safe to delete.
        max_gb: Size that the cache may reach, None for no limit; what was not used for longest goes first.
        making: What entries depend on besides the clips' files, plain values.
    """

    def __init__(self, kind: type[T], folder: str | Path, max_gb: float | None, making: dict[str, Any]) -> None:
        """Makes the folder."""
        self.kind = kind
        self.folder = Path(folder)
        self.max_bytes = None if max_gb is None else int(max_gb * GB)
        self.making = json.dumps(making, sort_keys=True)
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
        name = hashlib.sha256(json.dumps([*file_identity(path), self.making]).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.npz"

    def get(self, path: Path, read: Callable[[Path], T], time_limit: float = TIME_LIMIT) -> T:
        """Returns what is kept of a clip, or else makes and keeps it; what cannot be made is not kept.

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
            made = read(path)
            self._put(entry, made)
            return made
        with np.load(io.BytesIO(content)) as kept:
            values: dict[str, Any] = {name: kept[name] if kept[name].ndim else kept[name].item() for name in kept.files}
        if self.max_bytes is not None:
            with suppress(OSError):  # another process may have deleted it
                os.utime(entry)  # the time of its last use
        return self.kind(**values)

    def _put(self, entry: Path, made: T) -> None:
        """Writes an entry under another name and moves it into place when it is whole."""
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()
            values = {field.name: getattr(made, field.name) for field in fields(cast(Any, made))}
            np.savez(content, **{name: value for name, value in values.items() if value is not None})
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
