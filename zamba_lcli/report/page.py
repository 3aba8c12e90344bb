"""A page of predictions: a single file that any browser opens without a network."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

from zamba_lcli.files import write_text

DATA = "{{data}}"  # in the template
MAX_NAMED = 20  # clips, in a note


@dataclass
class ReportClip:
    """A clip on the page."""

    filepath: str
    probabilities: list[float]  # (classes,)
    truth: list[int]  # positions of its labels; empty if unknown
    site: str | None = None
    preview: str | None = None  # frames side by side, JPEG in base64
    num_frames: int = 0  # of the preview


@dataclass
class Report:
    """The content of the page."""

    title: str
    summary: list[tuple[str, str]]  # names and values, as text
    class_names: Sequence[str]
    columns: list[str]  # of the table of classes, after the name: a count, then scores
    per_class: list[list[float | int | None]]  # a row for each class, None where a score is undefined
    clips: list[ReportClip]
    total: int  # number of clips, of which ``clips`` may be a part
    confusion: list[list[int]] | None = None  # clips by label (rows) and predicted class (columns)
    failed: list[tuple[str, str]] = field(default_factory=list)  # filepath and reason
    notes: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Writes the page."""
        template = files("zamba_lcli.report").joinpath("page.html").read_text(encoding="utf-8")
        # all text is data, and the page shows it as text: none of it can become a tag
        data = json.dumps(_short(asdict(self))).replace("<", "\\u003c")
        write_text(path, template.replace(DATA, data, 1))


def read_in_part(clips: Iterable[str]) -> list[str]:
    """Returns a note on clips that are damaged or cut off, each with how much of it could be read; none if there are none."""
    named = list(islice(clips := iter(clips), MAX_NAMED))
    rest = sum(1 for _ in clips)
    more = f"; and {rest} more" if rest else ""
    return [f"Clips that could be read only in part: {'; '.join(named)}{more}."] if named else []


def evenly_spaced_ranks(scores: Sequence[float], number: int) -> list[int]:
    """Returns the positions of ``number`` scores, evenly spaced by rank from the highest to the lowest."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    if number >= len(order):
        return order
    return [order[round(i * (len(order) - 1) / max(number - 1, 1))] for i in range(number)]


def _short(value: Any) -> Any:
    """Rounds numbers to four digits after the point, more than the page shows."""
    if isinstance(value, float):
        return round(value, 4) if value == value else None
    if isinstance(value, dict):
        return {key: _short(v) for key, v in value.items()}
    return [_short(v) for v in value] if isinstance(value, list | tuple) else value
