"""What a checkpoint says of the clips and sites that its model was trained and chosen on.

Splits that are drawn anew from a table with more rows, or with another seed, would put clips that the model was trained on into
the holdout. So the checkpoint keeps the split of each clip, by its name and by what is in its file, and of each site.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from zamba_lcli.data.splits import SPLITS
from zamba_lcli.data.tables import LabelRow

BYTES = 16  # of a digest
PIECE = 65_536  # bytes at the beginning and at the end of a file that tell it from others of the same size
UNREAD = bytes(BYTES)


def file_identity(path: Path) -> bytes:
    """Returns 16 bytes that tell what is in a file from what is in others; zeros where it cannot be read."""
    digest = blake2b(digest_size=BYTES)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(size.to_bytes(8, "little"))
            digest.update(file.read(PIECE))
            file.seek(max(PIECE, size - PIECE))
            digest.update(file.read(PIECE))
    except (OSError, ValueError):  # ValueError: a null character in the name
        return UNREAD
    return digest.digest()


def file_identities(paths: Sequence[Path]) -> list[bytes]:
    """Returns the identity of each file; several are read at a time, which waits for the disk mostly."""
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(file_identity, paths))


def _name(filepath: str) -> bytes:
    return blake2b(PurePath(filepath).as_posix().encode(errors="surrogateescape"), digest_size=BYTES).digest()


@dataclass
class SplitRecord:
    """The splits of the clips and sites of the runs that a model comes from."""

    names: dict[bytes, str] = field(default_factory=dict)  # digest of the filepath: split
    files: dict[bytes, str] = field(default_factory=dict)  # identity of the file: split
    sites: dict[str, str] = field(default_factory=dict)  # site: split

    def add(self, filepaths: Iterable[str], identities: Iterable[bytes], splits: Iterable[str]) -> None:
        """Adds clips; of one that is known, what the model learned from it counts: train before val before holdout."""
        for filepath, identity, split in zip(filepaths, identities, splits, strict=True):
            self.names[_name(filepath)] = split
            if identity != UNREAD:
                self.files[identity] = min(split, self.files.get(identity, split), key=SPLITS.index)

    def add_site(self, site: str, split: str) -> None:
        """Adds a site."""
        self.sites[site] = min(split, self.sites.get(site, split), key=SPLITS.index)

    def place(self, rows: Mapping[Path, LabelRow]) -> list[LabelRow]:
        """Sets the split of each clip that is known, by its name or by what is in its file, or whose site is.

        Args:
            rows: The clips by the paths of their files.

        Returns:
            The other clips.
        """
        unnamed = [path for path, row in rows.items() if _name(row.filepath) not in self.names]
        identity = dict(zip(unnamed, file_identities(unnamed), strict=True))
        left = []
        for path, row in rows.items():
            known = self.names.get(_name(row.filepath)) or self.files.get(identity.get(path, UNREAD))
            row.split = known or self.sites.get(row.site, "")
            if not row.split:
                left.append(row)
        return left

    def learned_from(self, paths: Sequence[Path], split: str) -> list[str | None]:
        """Returns for each clip of a split from which split before it (train, val) the model knows it; None if from none."""
        earlier = SPLITS[: SPLITS.index(split)]
        found = (self.files.get(identity) for identity in file_identities(paths))
        return [known if known in earlier else None for known in found]

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


def _digests(digests: Iterable[bytes]) -> torch.Tensor:
    """Returns uint8 (number, 16)."""
    return torch.from_numpy(np.frombuffer(bytearray(b"".join(digests)), np.uint8).reshape(-1, BYTES))


def _numbers(splits: Iterable[str]) -> torch.Tensor:
    """Returns uint8 (number,), positions in ``SPLITS``."""
    return torch.tensor([SPLITS.index(split) for split in splits], dtype=torch.uint8)


def _splits_by_digest(digests: torch.Tensor, splits: torch.Tensor) -> dict[bytes, str]:
    rows = digests.contiguous().numpy()
    return {row.tobytes(): SPLITS[split] for row, split in zip(rows, splits.tolist(), strict=True)}
