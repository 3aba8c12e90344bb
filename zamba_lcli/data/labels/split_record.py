"""What a checkpoint says of the clips and sites that its model was trained and chosen on.

Splits that are drawn anew from a table with more rows, or with another seed, would put clips that the model was trained on into
the holdout. So the checkpoint keeps the split of each clip, by its name and by what is in its file, and of each site.
"""

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePath
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from zamba_lcli.data.csv_tables import LabelRow
from zamba_lcli.data.labels.splits import SPLITS
from zamba_lcli.data.video.deadline import TIME_LIMIT, Deadline, UnreadableClipError, read_within

BYTES = 16  # of a digest
PIECE = 32_768  # bytes at the beginning, in the middle and at the end: enough to distinguish files of one size
UNREAD = bytes(BYTES)


class Clip(Protocol):
    """What is kept of a clip."""

    @property
    def path(self) -> Path:
        """Its file."""

    @property
    def filepath(self) -> str:
        """As the table has it."""

    @property
    def site(self) -> str | None:
        """Where it is from, if that is known."""

    @property
    def split(self) -> str:
        """Train, val or holdout."""


AnyClip = TypeVar("AnyClip", bound=Clip)


def content_digest(path: Path, time_limit: float = TIME_LIMIT) -> bytes:
    """Returns 16 bytes that identify a file's content; zeros where there is nothing to read.

    Args:
        path: The file.
        time_limit: Seconds after which a disk that does not answer counts as one with nothing to read.
    """

    def read(_: Deadline) -> bytes:
        digest = blake2b(digest_size=BYTES)
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or not status.st_size:  # to open a pipe might never return
            return UNREAD
        with path.open("rb") as file:
            digest.update((size := status.st_size).to_bytes(8, "little"))
            # the middle too: recorders that set space aside begin and end many files alike
            for start in dict.fromkeys((0, size // 2, max(0, size - PIECE))):
                file.seek(start)
                digest.update(file.read(PIECE))
        return digest.digest()

    try:
        return read_within(path, time_limit, read)
    except (OSError, ValueError, UnreadableClipError):  # ValueError: a null character in the name
        return UNREAD


def content_digests(paths: Sequence[Path], time_limit: float = TIME_LIMIT) -> list[bytes]:
    """Returns the digest of each file; several are read at a time, which waits for the disk mostly."""
    with ThreadPool(min(32, 4 * (os.cpu_count() or 1))) as pool:
        return list(pool.imap(partial(content_digest, time_limit=time_limit), paths))


def _name(filepath: str, site: str | None) -> bytes:
    """Returns the key of a clip by name: its site belongs to it, for cameras number their clips alike."""
    text = f"{PurePath(filepath).as_posix()}\0{site or ''}"
    return blake2b(text.encode(errors="surrogateescape"), digest_size=BYTES).digest()


@dataclass
class SplitRecord:
    """The splits of the clips and sites of the runs that a model comes from."""

    names: dict[bytes, str] = field(default_factory=dict)  # digest of filepath and site: split
    files: dict[bytes, str] = field(default_factory=dict)  # digest of the content: split
    sites: dict[str, str] = field(default_factory=dict)  # site: split
    digest_of: dict[Path, bytes] = field(default_factory=dict, repr=False, compare=False)  # of the files read so far
    time_limit: float = field(default=TIME_LIMIT, repr=False, compare=False)  # seconds for each of them

    def digests(self, paths: Sequence[Path]) -> list[bytes]:
        """Returns the digests of the contents of files, each of which is read once."""
        unread = [path for path in dict.fromkeys(paths) if path not in self.digest_of]
        self.digest_of |= zip(unread, content_digests(unread, self.time_limit), strict=True)
        return [self.digest_of[path] for path in paths]

    def add(self, clip: Clip, digest: bytes) -> None:
        """Adds a clip and its site; where they are known already, train goes before val before holdout."""
        self.names[_name(clip.filepath, clip.site)] = clip.split
        if digest != UNREAD:
            self.files[digest] = min(clip.split, self.files.get(digest, clip.split), key=SPLITS.index)
        if clip.site:
            self.sites[clip.site] = min(clip.split, self.sites.get(clip.site, clip.split), key=SPLITS.index)

    def is_as_it_was(self, clip: Clip) -> bool:
        """Returns whether a clip was in the split that it is in now, by its name and site."""
        return self.names.get(_name(clip.filepath, clip.site)) == clip.split

    def place(self, rows: Mapping[Path, LabelRow]) -> list[LabelRow]:
        """Sets the split of each clip that is known, by its name and site or by what is in its file, or whose site is.

        Args:
            rows: The clips by the paths of their files.

        Returns:
            The other clips.
        """
        unnamed = [path for path, row in rows.items() if _name(row.filepath, row.site) not in self.names]
        digest_of = dict(zip(unnamed, self.digests(unnamed), strict=True))
        left = []
        for path, row in rows.items():
            known = self.names.get(_name(row.filepath, row.site)) or self.files.get(digest_of.get(path, UNREAD))
            row.split = known or self.sites.get(row.site, "")
            if not row.split:
                left.append(row)
        return left

    def learned_from(self, clips: Sequence[Clip]) -> list[tuple[str, str] | None]:
        """Returns for each clip from which split before its own (train, val) the model knows it, and by what.

        By what is in its file, under whatever name; or by its name and site, though the file was changed since. None for clips
        that the model does not know.
        """
        found: list[tuple[str, str] | None] = []
        for clip, digest in zip(clips, self.digests([clip.path for clip in clips]), strict=True):
            earlier = SPLITS[: SPLITS.index(clip.split)]
            by_name = self.names.get(_name(clip.filepath, clip.site))
            known = (self.files.get(digest), ""), (by_name, ", by its name: the file is another")
            found.append(next(((split, how) for split, how in known if split in earlier), None))
        return found

    def state(self) -> dict[str, Any]:
        """Returns plain values and tensors, as a checkpoint may have them."""
        return {
            "names": _digests(self.names),
            "name_splits": _numbers(self.names.values()),
            "files": _digests(self.files),
            "file_splits": _numbers(self.files.values()),
            "sites": dict(self.sites),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "SplitRecord":
        """Returns the record that a checkpoint has."""
        return cls(
            _splits_by_digest(state["names"], state["name_splits"]),
            _splits_by_digest(state["files"], state["file_splits"]),
            dict(state["sites"]),
        )


def copies_apart(clips: Sequence[AnyClip], digests: Sequence[bytes]) -> list[tuple[AnyClip, AnyClip]]:
    """Returns the clips that are copies of one in an earlier split (train before val before holdout), each with that one."""
    earliest: dict[bytes, AnyClip] = {}
    for clip, digest in zip(clips, digests, strict=True):
        if digest != UNREAD:
            earliest[digest] = min(earliest.get(digest, clip), clip, key=lambda clip: SPLITS.index(clip.split))
    pairs = ((clip, earliest.get(digest, clip)) for clip, digest in zip(clips, digests, strict=True))
    return [(clip, other) for clip, other in pairs if clip.split != other.split]


def _digests(digests: Iterable[bytes]) -> torch.Tensor:
    """Returns uint8 (number, 16)."""
    return torch.from_numpy(np.frombuffer(bytearray(b"".join(digests)), np.uint8).reshape(-1, BYTES))


def _numbers(splits: Iterable[str]) -> torch.Tensor:
    """Returns uint8 (number,), positions in ``SPLITS``."""
    return torch.tensor([SPLITS.index(split) for split in splits], dtype=torch.uint8)


def _splits_by_digest(digests: torch.Tensor, splits: torch.Tensor) -> dict[bytes, str]:
    rows = digests.contiguous().numpy()
    return {row.tobytes(): SPLITS[split] for row, split in zip(rows, splits.tolist(), strict=True)}
