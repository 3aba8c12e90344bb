"""Clips as items and batches for a torch DataLoader."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from zamba_lcli.data.cache import FrameCache
from zamba_lcli.data.sampling import TemporalJitter
from zamba_lcli.data.video.reading import Clip, ClipReader, UnreadableClipError
from zamba_lcli.seed import run_seed
from zamba_lcli.types import Batch

NO_CLIP = -1  # index that a sampler gives to a process that has run out of clips


class ClipDraw(NamedTuple):
    """A clip as a sampler draws it, with what its augmentation is seeded by."""

    position: int  # in the dataset
    epoch: int = 0
    repeat: int = 0  # how many times it was drawn before in the epoch


def draws_of(batch: Batch) -> list[ClipDraw]:
    """Returns how the clips of a batch were drawn."""
    return [ClipDraw(position, *when) for position, when in zip(batch["index"], batch["drawn"], strict=True)]


@dataclass(frozen=True)
class ClipItem:
    """A clip of a dataset: what was read of it, or why nothing could be."""

    index: int
    filepath: str
    target: np.ndarray  # float32 (classes,)
    cached: list[str] | None = None  # names of its features, which take the place of frames
    clip: Clip | None = None  # what is read of the file
    error: str = ""
    drawn: tuple[int, int] = (0, 0)  # epoch, and how many times it was drawn before in the epoch

    @property
    def is_blank(self) -> bool:
        """Whether the clip is to be called blank without being looked at."""
        return self.clip is not None and not len(self.clip.frames)


class ClipDataset(Dataset[ClipItem]):
    """Reads clips on demand.

    Args:
        filepaths: Names of the clips as the user wrote them.
        paths: Where they are.
        targets: float32 (clips, classes), 1 where a clip has the label; (clips, 0) where there are no labels.
        reader: Reads the frames of a clip.
        cache: Keeps what has been read; None to read it each time.
        jitter: Moves the times that the sampling chooses; None to keep them.
    """

    def __init__(
        self,
        filepaths: Sequence[str],
        paths: Sequence[Path],
        targets: np.ndarray,
        reader: ClipReader,
        *,
        cache: FrameCache | None = None,
        jitter: TemporalJitter | None = None,
    ) -> None:
        """Keeps the arguments; no file is opened."""
        self.filepaths = filepaths
        self.paths = paths
        self.targets = targets
        self.reader = reader
        self.cache = cache
        self.jitter = jitter
        self.features: dict[int, list[str]] = {}  # names of features that take the place of frames, by position
        self.errors: dict[int, str] = {}  # of clips that have none
        self.boxes_are_known = False  # whether the boxes of all clips were found
        self.blank: frozenset[int] = (
            frozenset()
        )  # positions of clips that are to be called blank without being looked at
        self.leaves_out_blank = False  # rather than calling them so

    def __len__(self) -> int:
        """Returns the number of clips, readable or not."""
        return len(self.paths)

    def __getitem__(self, drawn: int | ClipDraw) -> ClipItem:
        """Reads the clip at a position; one that cannot be read comes without frames and with the reason."""
        drawn = drawn if isinstance(drawn, ClipDraw) else ClipDraw(drawn)
        return replace(self._item(drawn), drawn=drawn[1:])

    def _item(self, drawn: ClipDraw) -> ClipItem:
        index = drawn.position
        if index == NO_CLIP:
            return ClipItem(NO_CLIP, "", self.targets[:0])
        if index in self.errors:
            return ClipItem(index, self.filepaths[index], self.targets[index], error=self.errors[index])
        if index in self.features and index not in self.blank:
            return ClipItem(index, self.filepaths[index], self.targets[index], cached=self.features[index])
        path = self.paths[index]
        try:
            clip = (
                self._read(path, drawn)
                if self.cache is None
                else self.cache.get(path, self._read, self.reader.time_limit)
            )
        except UnreadableClipError as error:
            return ClipItem(index, self.filepaths[index], self.targets[index], error=error.reason)
        return ClipItem(index, self.filepaths[index], self.targets[index], clip=clip)

    def _read(self, path: Path, drawn: ClipDraw | None = None) -> Clip:
        move = None
        if self.jitter is not None and drawn is not None:
            move = partial(self.jitter.move, rng=np.random.default_rng([run_seed(), *drawn]))
        return self.reader.read(path, move)

    def collate(self, items: list[ClipItem]) -> Batch:
        """Makes a batch of the clips that could be read and a list of those that could not."""
        read = [item for item in items if item.clip is not None or item.cached is not None]
        blank = [] if self.leaves_out_blank else [item for item in read if item.is_blank]
        read = [item for item in read if not item.is_blank] + blank
        seen = [item.clip for item in read if item.clip is not None]
        pictured = len(seen) - len(blank)
        sampling, size = self.reader.sampling, (self.reader.height, self.reader.width)
        clips, frames = sampling.num_clips, sampling.num_frames
        pictures = np.zeros((0, *size, 3), np.uint8)
        if seen:
            pictures = np.concatenate([clip.frames for clip in seen])
        times = np.array([clip.times for clip in seen], np.float64).reshape(-1, clips, frames)
        numbers = np.array([clip.numbers for clip in seen], np.int64).reshape(-1, clips, frames)
        targets = np.stack([item.target for item in read]) if read else self.targets[:0]
        video = torch.from_numpy(pictures.reshape(pictured * clips, frames, *size, 3))
        return {
            # (B, T, H, W, C) -> (B, C, T, H, W) without copying: torch's channels_last_3d layout
            "video": video.permute(0, 4, 1, 2, 3),
            "times": torch.from_numpy(times),
            "frame_numbers": torch.from_numpy(numbers),
            "frame_rate": torch.tensor([clip.frame_rate for clip in seen], dtype=torch.float64),
            "duration": torch.tensor([clip.duration for clip in seen], dtype=torch.float64),
            "note": [item.clip.note if item.clip is not None else "" for item in read],
            "target": torch.from_numpy(targets),
            "index": [item.index for item in read],
            "drawn": [item.drawn for item in read],
            "filepath": [item.filepath for item in read],
            "cached": [item.cached for item in read if item.cached is not None],
            "blank": len(blank),
            "windows": [clip.windows for clip in seen],
            "boxes": [clip.boxes for clip in seen],
            "failed": [(item.index, item.filepath, item.error) for item in items if item.error],
        }
