"""Shards: shares of the clips, each predicted by a job of its own that knows nothing of the others."""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from zamba_lcli.errors import InputError
from zamba_lcli.predictions.spool import Spool

AUTO = "auto"
FOLDER = re.compile(r"(\d+)-of-(\d+)")
SHOWN = 10  # shards that a message names
# of a task of a job array: its number, the first number, the step, the last number (or how many there are)
RANGES = {
    "SLURM": ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_MAX"),
    "Grid Engine": ("SGE_TASK_ID", "SGE_TASK_FIRST", "SGE_TASK_STEPSIZE", "SGE_TASK_LAST"),
}
COUNTS = {  # numbers from 0, and how many there are
    "AWS Batch": ("AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
    "Google Cloud Batch": ("BATCH_TASK_INDEX", "BATCH_TASK_COUNT"),
    "Cloud Run": ("CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"),
}
SLURM_COUNT = "SLURM_ARRAY_TASK_COUNT"


@dataclass(frozen=True)
class Shard:
    """One of ``of`` equal shares of the clips; clips are dealt in turn, so that neighbours in a folder are in other shares."""

    number: int  # from 1
    of: int

    @property
    def folder(self) -> str:
        """Name of the folder with its rows."""
        return f"{self.number:0{len(str(self.of))}d}-of-{self.of}"

    def holds(self, clips: int) -> NDArray[np.bool_]:
        """Returns which clips it has, bool (clips,)."""
        held: NDArray[np.bool_] = np.arange(clips) % self.of == self.number - 1
        return held

    def __str__(self) -> str:
        """Returns it as it is stated."""
        return f"{self.number}/{self.of}"


def parse_shard(text: str, environment: Mapping[str, str] = os.environ) -> Shard:
    """Returns the shard that an argument states.

    Args:
        text: ``3/100``, or ``auto`` for the task of a job array that the environment describes.
        environment: Environment variables.

    Raises:
        InputError: If it is no shard, or there is no job array.
    """
    if text == AUTO:
        return _of_job_array(environment)
    stated = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text, re.ASCII)
    if stated is None or not 1 <= int(stated[1]) <= int(stated[2]):
        raise InputError(
            f"WritePredictions: shard is {text!r}. Give the number of the shard and how many there are, from 1/100 to 100/100; "
            f"or {AUTO} in a job array."
        )
    return Shard(int(stated[1]), int(stated[2]))


def _of_job_array(environment: Mapping[str, str]) -> Shard:
    for names in RANGES.values():
        values = [environment.get(name, "") for name in names]
        if values[0].isdigit():
            number, first, step, last = (int(value) if value.isdigit() else 1 for value in values)
            shards = (last - first) // step + 1
            listed = environment.get(SLURM_COUNT, str(shards)) if names[0].startswith("SLURM") else str(shards)
            if listed != str(shards):  # such as --array=4,17, to run two of a hundred again
                raise InputError(
                    f"WritePredictions: shard: {AUTO}, but the job array has {listed} tasks between {first} and {last}: "
                    f"the number of shards is unknown. State it, such as shard: {number}/{last}."
                )
            return Shard((number - first) // step + 1, shards)
    for index, count in COUNTS.values():
        if environment.get(index, "").isdigit() and environment.get(count, "").isdigit():
            return Shard(int(environment[index]) + 1, int(environment[count]))
    known = ", ".join([*RANGES, *COUNTS])
    raise InputError(
        f"WritePredictions: shard: {AUTO} needs a job array ({known}), and the environment describes none. State the shard, "
        "such as 3/100."
    )


def fingerprint_of_list(filepaths: Iterable[str]) -> str:
    """Returns what identifies a list of clips and its order: shards of another list would have other clips."""
    digest = hashlib.sha256()
    for filepath in filepaths:
        digest.update(filepath.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


class MergedSpool(Spool):
    """The rows of all shards in a folder, to be read as one run's."""

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*-of-*/*-*.jsonl"))

    def open(self, start: int, rank: int) -> IO[bytes]:
        """Opens nothing: no row is added."""
        return open(os.devnull, "wb")

    def check(self, header: Mapping[str, Any], filepaths: Sequence[str]) -> None:
        """Refuses shards that are missing, unfinished, at work or made with other arguments.

        Args:
            header: What the rows depend on, as for ``begin``.
            filepaths: All clips, in the order in which shards deal them.

        Raises:
            InputError: Names the shards and what to do.
        """
        shards = self._shards()
        differing: dict[str, list[Shard]] = defaultdict(list)
        working: list[Shard] = []
        for shard in shards:
            spool = Spool(self.folder / shard.folder)
            keys = spool.differing(header)
            if keys:
                differing[", ".join(keys)].append(shard)
            if spool.is_claimed():
                working.append(shard)
        if working:
            raise InputError(f"{self.folder}: shard {_listed(working)} still at work. Merge when all are done.")
        if differing:
            told = "; ".join(f"shard {_listed(found)} in {keys}" for keys, found in differing.items())
            raise InputError(
                f"{self.folder} has shards that differ from this command: {told}. Merge with the arguments of the shards; or "
                "predict those shards again with these, and overwrite: true."
            )
        there = self.find(filepaths).there
        unfinished = [
            f"{shard} ({int((~there & held).sum())} of {int(held.sum())} clips)"
            for shard in (Shard(number, shards[0].of) for number in range(1, shards[0].of + 1))
            if (~there & (held := shard.holds(len(there)))).any()
        ]
        if unfinished:
            more = f" and {len(unfinished) - SHOWN} more" if len(unfinished) > SHOWN else ""
            raise InputError(
                f"{self.folder}: clips without a row in shard {', '.join(unfinished[:SHOWN])}{more}. Run these shards, which "
                "continues those that were begun, and merge again."
            )

    def _shards(self) -> list[Shard]:
        """Returns the shards that were begun, in order.

        Raises:
            InputError: If there are none, or of several divisions.
        """
        names = [match for entry in self.folder.glob("*-of-*") if (match := FOLDER.fullmatch(entry.name))]
        shards = sorted((Shard(int(match[1]), int(match[2])) for match in names), key=lambda shard: shard.number)
        if not shards:
            raise InputError(
                f"{self.folder} has no shards to merge. Predict them first, with the argument shard of WritePredictions; or "
                "give its output_dir."
            )
        divisions = sorted({shard.of for shard in shards})
        if len(divisions) > 1:
            raise InputError(
                f"{self.folder} has shards of several divisions: of {', of '.join(map(str, divisions))}. Delete the folders of "
                f"all but one, such as {shards[0].folder}."
            )
        return shards


def _listed(shards: Sequence[Shard]) -> str:
    return ", ".join(map(str, shards[:SHOWN])) + (f" and {len(shards) - SHOWN} more" if len(shards) > SHOWN else "")
