"""Loaders of clips, and how many processes read for them."""

import math
import os
from collections.abc import Sequence, Sized
from typing import Any, cast

import torch
from lightning_fabric.utilities.data import suggested_max_num_workers
from pytorch_lightning.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Sampler

from zamba_lcli.data.dataset import ClipDataset, ClipItem
from zamba_lcli.data.shared_memory import SHARED_MEMORY, free_bytes, workers_with_room
from zamba_lcli.data.video.deadline import SLACK
from zamba_lcli.errors import InputError
from zamba_lcli.seed import run_seed

MAX_WORKERS = 8  # if not stated; each holds a few batches of frames
WORKERS_PER_CORE = 16  # at most, where stated
PREFETCHED = 2  # batches that each of them holds ready
LOADERS = 2  # that read at the same time: a validation may come in the middle of an epoch
ANSWER_WITHIN = 60  # seconds in which a worker is to hand over a batch, beside those that reading its clips may take


class ClipLoaders:
    """Makes loaders.

    Args:
        num_workers: Processes that read clips for a loader; ``None`` for as many as the machine's cores can feed, 8 at most.
    """

    def __init__(self, num_workers: int | None) -> None:
        """Refuses numbers that make no sense."""
        if num_workers is not None and num_workers < 0:
            raise InputError(f"data.num_workers: {num_workers} is less than 0.")
        if num_workers is not None and num_workers > WORKERS_PER_CORE * (cores := os.cpu_count() or 1):
            raise InputError(
                f"data.num_workers: {num_workers} processes on {cores} cores would only fill the memory. Leave it out, for as "
                "many as the cores can feed."
            )
        self.num_workers = num_workers
        self._free: int | None = None  # bytes of shared memory, before any loader takes some of it

    def make(
        self, dataset: ClipDataset, sampler: Sampler[Any] | Sequence[Any], *, batch_size: int, devices: int
    ) -> DataLoader[ClipItem]:
        """Returns a loader that reads the clips of a dataset in the order of a sampler.

        Args:
            dataset: The clips.
            sampler: Which of them, by position or as ``ClipDraw``.
            batch_size: Clips in a batch.
            devices: Number of processes of the run on this machine, each with loaders of its own.
        """
        batches = math.ceil(len(cast(Sized, sampler)) / batch_size)
        batch_bytes = batch_size * dataset.reader.clip_bytes
        # cached features need no one to read clips
        num_workers = 0 if dataset.features else self._workers(batches, batch_bytes, devices)
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=cast(Any, sampler),
            num_workers=num_workers,
            collate_fn=dataset.collate,
            persistent_workers=num_workers > 0,
            prefetch_factor=PREFETCHED if num_workers else None,
            # a worker that never answers must not keep the run waiting for ever
            timeout=batch_size * (dataset.reader.time_limit + SLACK) + ANSWER_WITHIN if num_workers else 0,
            generator=torch.Generator().manual_seed(run_seed()),  # else it draws from the generator that dropout uses
        )

    def _workers(self, batches: int, batch_bytes: int, devices: int) -> int:
        """Returns how many processes read for a loader, as far as shared memory has room for their batches."""
        if self.num_workers is not None:
            wanted = min(self.num_workers, batches)
        else:
            # one for each core: that leaves none for computing, but reading waits more often than it is waited for
            wanted = min(MAX_WORKERS, batches, suggested_max_num_workers(devices) + 1)
        if self._free is None:
            self._free = free_bytes()
        room = workers_with_room(wanted, batch_bytes, PREFETCHED, self._free // (LOADERS * devices))
        if room < wanted:
            rank_zero_warn(
                f"Shared memory ({SHARED_MEMORY}) has {self._free / 1e6:.0f} MB free; for {wanted} processes with batches of "
                f"{batch_bytes / 1e6:.1f} MB more is needed: {room or 'none'} of them are used. To read faster, make it "
                "larger (docker run --shm-size=2g), or data.batch_size, data.height and data.width smaller."
            )
        return room
