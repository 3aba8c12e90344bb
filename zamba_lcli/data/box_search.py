"""Finds the boxes of all clips before they are needed, once for each clip, and says how far it is."""

import os
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_info
from tqdm.auto import tqdm

from zamba_lcli._lightning import gather
from zamba_lcli.data.crop import ClipCrop, TableFinder
from zamba_lcli.data.dataset import ClipDataset
from zamba_lcli.data.video.reading import UnreadableClipError
from zamba_lcli.errors import InputError
from zamba_lcli.types import BLANK

MAX_THREADS = 8  # each holds a clip's decoder, some hundred MB for large pictures


def check_crop(crop: ClipCrop, class_names: Sequence[str]) -> None:
    """Refuses to call clips blank where the model has no such class.

    Raises:
        InputError: With the classes.
    """
    if crop.if_none == "blank" and not any(name.casefold() in BLANK for name in class_names):
        raise InputError(
            f"data.crop.init_args.if_none: blank: none of the classes {list(class_names)} is called {' or '.join(BLANK)}. "
            "Set it to whole."
        )


def check_boxes(datasets: Sequence[ClipDataset], *, all_needed: bool) -> None:
    """Refuses boxes from a table that are not those of the clips.

    Args:
        datasets: The clips.
        all_needed: Whether each clip must have an entry.

    Raises:
        InputError: With the remedy.
    """
    crop = datasets[0].reader.crop if datasets else None
    if crop is not None and isinstance(crop.finder, TableFinder):
        filepaths = [name for dataset in datasets for name in dataset.filepaths]
        crop.finder.check(filepaths, [path for dataset in datasets for path in dataset.paths], all_needed)


def find_boxes(
    datasets: Sequence[ClipDataset], num_replicas: int, rank: int, left_out: NDArray[np.bool_] | None = None
) -> None:
    """Finds the boxes of clips, shared between the processes, and notes which clips are to be called blank.

    A clip that cannot be read is passed over: reading it says why.

    Args:
        datasets: The clips, with the same reader; those that this was done for are passed over.
        num_replicas: Number of processes.
        rank: Which of them this is.
        left_out: Bool (clips,), true for clips of the only dataset that are not read.

    Raises:
        InputError: In all processes, if the finder of one of them gives something else than boxes.
    """
    datasets = [dataset for dataset in datasets if not dataset.boxes_are_known and dataset.reader.crop is not None]
    if not datasets:
        return
    reader = datasets[0].reader
    crop = cast(ClipCrop, reader.crop)
    work = [
        (dataset, position)
        for dataset in datasets
        for position in range(len(dataset))
        if left_out is None or not left_out[position]
    ]

    def look(number: int) -> tuple[int, bool] | None:
        dataset, position = work[number]
        try:
            return number, crop.has_found(reader.boxes_of(dataset.paths[position]))
        except UnreadableClipError:
            return None

    seen: list[tuple[int, bool] | None] = []
    wrong = ""
    share = range(rank, len(work), num_replicas)
    try:
        with ThreadPool(min(MAX_THREADS, os.cpu_count() or 1)) as pool:  # decoding happens outside Python's lock
            results = pool.imap(look, share)
            seen += tqdm(results, total=len(share), desc="boxes", unit="clip", disable=rank > 0)
    except InputError as error:
        wrong = str(error)
    answers = gather((seen, wrong))
    if refusals := [text for _, text in answers if text]:
        raise InputError(refusals[0])
    found = {
        number: has_boxes for part, _ in answers for item in part if item is not None for number, has_boxes in [item]
    }
    without = [work[number] for number, has_boxes in found.items() if not has_boxes]
    _tell(crop, len(found), without)
    for dataset in datasets:
        dataset.boxes_are_known = True
        if crop.if_none == "blank":
            dataset.blank = frozenset(position for of, position in without if of is dataset)


def _tell(crop: ClipCrop, clips: int, without: Sequence[tuple[ClipDataset, int]]) -> None:
    rank_zero_info(f"Boxes were found in {clips - len(without)} of {clips} clips ({type(crop.finder).__name__}).")
    if without and crop.if_none == "whole":
        rank_zero_info(f"{len(without)} clips without a box are looked at as a whole.")
    elif without:
        left_out = sum(dataset.leaves_out_blank for dataset, _ in without)
        rank_zero_info(
            f"{len(without) - left_out} clips without a box are called blank"
            + (f"; {left_out} train clips without a box are left out." if left_out else ".")
        )
