"""Checks labels and clips, and reports all problems at once."""

import csv
import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from tqdm.auto import tqdm

from zamba_lcli.data.clip_files import wrong_with_file
from zamba_lcli.data.crop import TableFinder
from zamba_lcli.data.csv_tables import counted
from zamba_lcli.data.datamodule import ZambaVideoDataModule
from zamba_lcli.data.labels.checks import (
    check_classes_in_train,
    check_sites_apart,
    require_split,
)
from zamba_lcli.data.labels.split_record import content_digests, copies_apart
from zamba_lcli.data.labels.table import LabelledClip, LabelTable
from zamba_lcli.data.listing import clips_named_in, find_videos
from zamba_lcli.data.video.deadline import read_within
from zamba_lcli.data.video.declared import note_of
from zamba_lcli.data.video.packets import ClipIndex
from zamba_lcli.data.video.reading import ClipReader, UnreadableClipError, decode_all, try_clip
from zamba_lcli.errors import InputError, Problem, Severity

COPY_AGAIN = "Copy it again from the card, or leave it out."
LONG_GAP = 60.0  # seconds between two frames


class CheckedClip(NamedTuple):
    """A clip to be tried."""

    row: str  # of the table; empty for one of a folder
    filepath: str
    path: Path


class Findings(NamedTuple):
    """What a check has found."""

    problems: list[Problem]  # problems first, then warnings
    checked: str  # what was checked, in words


def check_data(data: ZambaVideoDataModule, thorough: bool = False) -> Findings:
    """Checks the labels, or the clips to predict, and decodes a frame of every clip, with a progress bar.

    Args:
        data: Says where labels and clips are. Of a table that cannot be read as a whole, the clips that it names are tried.
        thorough: Decode all frames of every clip.
    """
    problems: list[Problem] = []
    clips: list[CheckedClip] = []
    words = []
    table: LabelTable | None = None
    if data.videos is not None:
        try:
            filepaths, paths, _ = find_videos(
                data.videos, data.data_dir, data.allow_outside_data_dir, data.reader.time_limit
            )
            clips += [CheckedClip("", filepath, path) for filepath, path in zip(filepaths, paths, strict=True)]
            words.append(f"{counted(len(clips), 'clip')} to predict")
        except InputError as error:
            problems += _problems_in(error, data.videos)
    if data.videos is None or data.labels is not None or data.demo is not None:
        table, found = _check_labels(data)
        problems += found
        if table is None and data.labels is not None:
            named = clips_named_in(Path(data.labels), data.data_dir, data.allow_outside_data_dir)
            clips += [CheckedClip(str(place.row), filepath, path) for place, filepath, path in named]
        elif table is not None:
            clips += [CheckedClip(_row_of(clip), clip.filepath, clip.path) for clip in table.clips]
            names = table.class_names if problems else data.class_names
            words.append(f"{len(table.clips)} clips, {len(names)} classes: {', '.join(names)}")
    with ThreadPool(os.cpu_count()) as pool:
        results = pool.imap(partial(_problems_with, reader=data.reader, thorough=thorough), clips)
        for of_clip in tqdm(results, total=len(clips), desc="clips", unit="clip", disable=not clips):
            problems += of_clip
    if table is not None:
        problems += [*_copies(table, data.reader.time_limit), *table.warnings]
    return Findings(sorted(problems, key=lambda problem: problem.severity == "warning"), "; ".join(words))


def _check_labels(data: ZambaVideoDataModule) -> tuple[LabelTable | None, list[Problem]]:
    """Returns the table, None if it cannot be read, and what is wrong with it."""
    try:
        table = data.table
    except InputError as error:
        return None, _problems_in(error, str(data.labels or "data"))
    checks: list[Callable[[], None]] = [
        data.label_set.check_classes,
        lambda: require_split(table, "train"),
        lambda: require_split(table, "val"),
        lambda: check_classes_in_train(table),
    ]
    if not data.label_set.allow_sites_across_splits:
        checks.append(lambda: check_sites_apart(table))
    problems = []
    for check in checks:
        try:
            check()
        except InputError as error:
            problems += _problems_in(error, str(table.source))
    crop = data.reader.crop
    if crop is not None and isinstance(crop.finder, TableFinder):
        try:
            crop.finder.check([c.filepath for c in table.clips], [c.path for c in table.clips], all_needed=True)
        except InputError as error:
            problems += _problems_in(error, "data.crop")
    return table, problems


def _row_of(clip: LabelledClip) -> str:
    return "" if clip.place is None else str(clip.place.row)


def write_report(problems: list[Problem], path: Path) -> None:
    """Writes a table with the columns row, file, what, remedy and severity, and a row for each problem."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(Problem.__annotations__)
        rows.writerows(problems)


def _problems_in(error: InputError, source: str) -> list[Problem]:
    if error.problems:
        return error.problems
    what, _, remedy = str(error).rpartition("\n")  # the remedy comes last, on a line of its own if there are several
    if not what:
        what, _, remedy = remedy.partition(". ")
    return [Problem("", source, what, remedy)]


def summary(problems: list[Problem]) -> str:
    """Returns how many problems and warnings there are, in words; empty if there are none."""
    numbers = Counter(problem.severity for problem in problems)
    return ", ".join(counted(numbers[severity], severity) for severity in get_args(Severity) if numbers[severity])


def _problems_with(clip: CheckedClip, reader: ClipReader, thorough: bool) -> list[Problem]:
    time_limit, row = reader.time_limit, clip.row
    try:
        what = read_within(clip.path, time_limit, lambda _: wrong_with_file(clip.path))
        if what is not None:
            remedy = COPY_AGAIN
            if what.startswith("missing"):
                remedy = f"It is looked for at {clip.path.absolute()}: correct the filepath or data_dir."
            return [Problem(row, clip.filepath, what, remedy)]
        index, damaged = decode_all(clip.path, time_limit) if thorough else (try_clip(clip.path, time_limit), 0.0)
    except UnreadableClipError as error:
        return [Problem(row, clip.filepath, error.reason, COPY_AGAIN)]
    if note := note_of(index.missing, index.timeline.end, damaged, "its frames"):
        too_much = 1 - (1 - damaged) * (1 - index.missing) > reader.max_damaged
        remedy = f"{'It counts as unreadable' if too_much else 'The rest is looked at'} (data.max_damaged: "
        remedy += f"{reader.max_damaged:g}). {COPY_AGAIN}"
        return [Problem(row, clip.filepath, note, remedy, "problem" if too_much else "warning")]
    return [Problem(row, clip.filepath, what, remedy, "warning") for what, remedy in _odd_times(index)]


def _copies(table: LabelTable, time_limit: float) -> list[Problem]:
    """Returns a warning for each clip that is a copy of one in an earlier split."""
    remedy = "Take one of them out of the table, or give copies the same split: scores promise too much."
    clips = table.clips
    return [
        Problem(
            _row_of(clip),
            clip.filepath,
            f"it is a copy of {of.filepath}, but in {clip.split}, not {of.split}",
            remedy,
            "warning",
        )
        for clip, of in copies_apart(clips, content_digests([clip.path for clip in clips], time_limit))
    ]


def _odd_times(index: ClipIndex) -> list[tuple[str, str]]:
    """Returns what is odd about the times of a clip, each with a remedy: players show it so, but it may be meant otherwise."""
    odd = []
    if index.restarts:
        odd.append(
            (
                f"its times begin anew at {_frames(index.restarts)}",
                "Recordings were joined: they are read one after the other. Take them apart if they are not of one visit.",
            )
        )
    steps = np.diff(index.timeline.times)
    for frame in (np.flatnonzero(steps > LONG_GAP) + 1).tolist():
        remedy = "Frames are chosen by time. Write wrong times anew: ffmpeg -i IN -vf setpts=N/FRAME_RATE/TB OUT"
        odd.append((f"its times jump by {steps[frame - 1]:.0f} s at frame {frame}", remedy))
    for frame, seconds in index.jumps:
        if seconds > LONG_GAP:
            remedy = "Players leave such a jump out of this kind of file, and so does this program. Take the recordings apart."
            odd.append((f"its times jump by {seconds:.0f} s at frame {frame}", remedy))
    if len(index.timeline.times) == 1:
        odd.append(("it has one picture only", "It may be a thumbnail or a photo: look for the video it belongs to."))
    if index.assumed_rate is not None:
        remedy = (
            f"It is read at {index.assumed_rate:g} frames a second. If that is wrong, give it times with a container: "
            "ffmpeg -framerate RATE -i IN -c:v libx264 OUT.mp4"
        )
        odd.append(("it is a stream without a container, so its frames have no times", remedy))
    elif index.order_decoded:
        remedy = "They are read in the decoder's order, which takes longer. Faster: ffmpeg -i IN -c:v libx264 OUT.mp4"
        odd.append(("its timestamps do not give the order of its frames", remedy))
    return odd


def _frames(numbers: list[int], most: int = 5) -> str:
    """Returns such as ``frame 40`` and ``frames 40, 80 and 3 more``."""
    if len(numbers) == 1:
        return f"frame {numbers[0]}"
    rest = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return f"frames {', '.join(map(str, numbers[:most]))}{rest}"
