"""Clips that could not be read: named in the log and listed in ``failed.csv`` of the run folder."""

import csv
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_warn


class FailedClips:
    """Reports each clip once."""

    def __init__(self) -> None:
        """Begins with none."""
        self.table: Path | None = None  # where they are listed
        self.first: str | None = None  # the first one, and why it could not be read
        self._reported: set[str] = set()
        self._in_part: dict[str, str] = {}

    def report(self, filepath: str, reason: str) -> None:
        """Names a clip and why it could not be read, in the log and in the table."""
        if filepath in self._reported:
            return
        self._reported.add(filepath)
        self.first = self.first or f"{filepath}: {reason}"
        rank_zero_warn(f"{filepath} could not be read and is left out: {reason}")
        if self.table is None:
            return
        self.table.parent.mkdir(parents=True, exist_ok=True)
        with self.table.open("a+", newline="", encoding="utf-8") as file:
            file.seek(0)
            there = list(csv.reader(file))  # of the run that is resumed, too
            new = [row for row in (["filepath", "reason"], [filepath, reason]) if row not in there]
            csv.writer(file).writerows(new)

    def note_parts(self, filepaths: Sequence[str], notes: Sequence[str]) -> None:
        """Keeps in mind which clips could be read only in part; their notes are not empty."""
        self._in_part |= {filepath: note for filepath, note in zip(filepaths, notes, strict=True) if note}

    def summarize(self) -> None:
        """Says in the log how many clips could not be read, or only in part."""
        if self._in_part:
            named = [f"{filepath} ({note})" for filepath, note in islice(self._in_part.items(), 3)]
            more = f" and {len(self._in_part) - 3} more" if len(self._in_part) > 3 else ""
            rank_zero_warn(f"Clips that could be read only in part: {', '.join(named)}{more}.")
        if self._reported:
            listed = f"; they are listed in {self.table}" if self.table else ""
            rank_zero_warn(f"{len(self._reported)} clips could not be read and were left out{listed}.")
