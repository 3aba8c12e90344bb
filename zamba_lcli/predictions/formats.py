"""Files that predictions are written to: one small class for each format, chosen by class path in the YAML.

A new format derives from ``PredictionFormat``. It gets the clips one by one, so that memory stays flat, and writes to a name
that ``WritePredictions`` moves into place when all is well.
"""

import csv
import json
import os
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from zamba_lcli.columns import OF_PART, OF_RESULT, has_column
from zamba_lcli.data.previews import read_previews
from zamba_lcli.data.video.reading import TIME_LIMIT
from zamba_lcli.errors import InputError
from zamba_lcli.report.page import Report, ReportClip, spread
from zamba_lcli.types import Task

ROWS_AT_ONCE = 10_000  # in memory
MAX_FAILED = 1000  # files that could not be read, listed on a page
FORMULA_STARTS = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "\uff1d",
    "\uff0b",
    "\uff0d",
    "\uff20",
)  # and as wide as Chinese
# what classes that are no animals are usually called, in any case
BLANK = ("blank", "empty")
PEOPLE = ("human", "person")
VEHICLES = ("vehicle",)


@dataclass(frozen=True)
class PredictedPart:
    """A part of a clip that was looked at by itself; most clips have one."""

    probabilities: list[float]  # (classes,)
    times: list[float]  # (T,) seconds from the first frame of the file: when the frames looked at are shown
    frame_numbers: list[int]  # (T,) which frames of the file they are, 0 is the first


@dataclass(frozen=True)
class PredictedClip:
    """What a run has found out about a clip."""

    filepath: str  # as found, or as written in the table
    path: Path  # where it is
    site: str | None  # as in the table
    predicted_at: str  # time with its zone, as in 2020-05-30T04:57:37Z
    probabilities: list[float] = field(default_factory=list)  # (classes,); empty if the clip could not be read
    parts: list[PredictedPart] = field(default_factory=list)
    frame_rate: float = 0.0  # frames a second on average; 0 if not known
    duration: float = 0.0  # seconds
    error: str = ""  # why it could not be read

    @property
    def status(self) -> str:
        """``ok`` or ``failed``."""
        return "failed" if self.error else "ok"


@dataclass(frozen=True)
class PredictionRun:
    """What all clips of a run have in common."""

    class_names: Sequence[str]
    task: Task
    classifier: str  # program and version, model and checkpoint
    has_sites: bool  # whether the table that names the clips has a column `site`
    filepaths: Sequence[str]  # of all clips, in order
    paths: Sequence[Path]  # where they are
    folder: Path  # where the formats' files go
    root: Path | None = None  # absolute: a folder that all clips are below; None where filepaths are relative to one
    time_limit: float = TIME_LIMIT  # seconds that reading a clip again may take


class PredictionFormat(ABC):
    """Base of all formats."""

    filename: str  # of the file or folder in the output folder

    def check(self, run: PredictionRun) -> None:  # noqa: B027  (most formats can write whatever comes)
        """Refuses, before anything is computed, what could not be written.

        Raises:
            InputError: Says what to do about it.
        """

    @abstractmethod
    def write(self, path: Path, clips: Iterable[PredictedClip], run: PredictionRun) -> None:
        """Writes all clips, in order, to the file or folder ``path``, which does not exist."""


@dataclass(frozen=True)
class CSVPredictions(PredictionFormat):
    """``predictions.csv``: a row for each clip, in the order found, whether it could be read or not.

    Columns: ``filepath``; ``site``, if the table that names the clips has it; a probability for each class; ``top_class``, the
    one with the highest; ``status`` (``ok`` or ``failed``) and ``error`` (the reason).

    Args:
        threshold: From which probability on a clip counts as having the class: one number, or one for each class by name. The
            columns ``has_<class>`` then say so with 1 and 0. Null for no such columns.
        for_excel: Whether it is written to be opened by a double click: a byte order mark tells spreadsheets that the text is
            UTF-8, and text that they would take for a formula gets an apostrophe in front. Other programs then see these too.
    """

    threshold: float | dict[str, float] | None = None
    for_excel: bool = False
    filename = "predictions.csv"

    def check(self, run: PredictionRun) -> None:
        """Refuses thresholds that do not fit the classes, and classes that are called like a column."""
        _check_columns(self.filename, self.threshold, run)
        _check_names(self.filename, [self._text(name) for name in _columns(self.threshold, run)])

    def write(self, path: Path, clips: Iterable[PredictedClip], run: PredictionRun) -> None:
        """Writes the table."""
        # names of files need not be text in any encoding: what is not is written as it is
        encoding = "utf-8-sig" if self.for_excel else "utf-8"
        with path.open("w", newline="", encoding=encoding, errors="surrogateescape") as file:
            table = csv.writer(file)
            table.writerow(self._written(name) for name in _columns(self.threshold, run))
            for clip in clips:
                table.writerow(self._written(cell) for cell in _cells(clip, self.threshold, run))

    def _written(self, cell: str | float | int | None) -> str | int | None:
        if isinstance(cell, float):
            return f"{cell:.6g}"
        return self._text(cell) if isinstance(cell, str) else cell

    def _text(self, text: str) -> str:
        return f"'{text}" if self.for_excel and text.startswith(FORMULA_STARTS) else text


@dataclass(frozen=True)
class ParquetPredictions(PredictionFormat):
    """``predictions.parquet``: the rows and columns of ``CSVPredictions``, for pandas, R's arrow, DuckDB and the like.

    Probabilities are double precision; where there is no value it is null. Needs pyarrow: ``pip install
    'zamba-lcli[parquet]'``.

    Args:
        threshold: See ``CSVPredictions``.
    """

    threshold: float | dict[str, float] | None = None
    filename = "predictions.parquet"

    def check(self, run: PredictionRun) -> None:
        """Refuses what ``CSVPredictions`` refuses, names of files that are not text, and a missing pyarrow."""
        _check_columns(self.filename, self.threshold, run)
        _check_text(self.filename, run)
        try:
            import pyarrow.parquet  # noqa: F401
        except ModuleNotFoundError:
            raise InputError(
                "ParquetPredictions needs pyarrow: pip install 'zamba-lcli[parquet]', or use CSVPredictions."
            ) from None

    def write(self, path: Path, clips: Iterable[PredictedClip], run: PredictionRun) -> None:
        """Writes the table, some thousand rows at a time."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = _columns(self.threshold, run)
        type_of = dict.fromkeys(names, pa.string())
        type_of |= dict.fromkeys(run.class_names, pa.float64())
        type_of |= {name: pa.int8() for name in names if self.threshold is not None and name in _has_columns(run)}
        schema = pa.schema(list(type_of.items()))
        with pq.ParquetWriter(path, schema) as file:
            rows = (_cells(clip, self.threshold, run) for clip in clips)
            while some := list(islice(rows, ROWS_AT_ONCE)):
                file.write_table(pa.table(dict(zip(names, zip(*some, strict=True), strict=True)), schema=schema))


@dataclass(frozen=True)
class ClipTimelines(PredictionFormat):
    """``timelines.csv``: a row for each part of a clip that was looked at by itself, as with ``num_clips`` of a sampling.

    Columns: ``filepath``; ``site``, if the table that names the clips has it; ``part``, from 0 on; ``start`` and ``end``, in
    seconds from the clip's first frame: when the first and the last frame looked at are shown; a probability for each class;
    ``top_class``; ``status`` and ``error``. A clip that could not be read has one row without a part.
    """

    filename = "timelines.csv"

    def check(self, run: PredictionRun) -> None:
        """Refuses classes that are called like a column."""
        _check_names(self.filename, self._columns(run))

    def write(self, path: Path, clips: Iterable[PredictedClip], run: PredictionRun) -> None:
        """Writes the table."""
        with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            table = csv.writer(file)
            table.writerow(self._columns(run))
            for clip in clips:
                place = [clip.filepath, *([clip.site] if run.has_sites else [])]
                for i, part in enumerate(clip.parts):
                    start, end = f"{part.times[0]:.3f}", f"{part.times[-1]:.3f}"
                    probabilities = [f"{p:.6g}" for p in part.probabilities]
                    top = run.class_names[part.probabilities.index(max(part.probabilities))]
                    table.writerow([*place, i, start, end, *probabilities, top, clip.status, None])
                if clip.error:
                    table.writerow([*place, *[None] * (3 + len(run.class_names) + 1), clip.status, clip.error])

    @staticmethod
    def _columns(run: PredictionRun) -> list[str]:
        site = ["site"] if run.has_sites else []
        return ["filepath", *site, *OF_PART, *run.class_names, *OF_RESULT]


@dataclass(frozen=True)
class MegaDetectorJSON(PredictionFormat):
    """``megadetector.json``: MegaDetector's results format, version 1.6, which Timelapse and AddaxAI open.

    https://lila.science/megadetector-output-format. A clip, or each part of it that was looked at by itself, has a detection
    of the whole picture at its middle frame, whose classifications are the classes and their probabilities, the highest
    first, and whose confidence is the probability of the best one; none if that is one of ``blank``.

    Files are named relative to the folder given as ``data.videos``. Those of a table are relative to ``data.data_dir`` or the
    table's folder; where the table has absolute paths, or some lead out of that folder, to the folder that all clips share.

    Args:
        blank: Classes of clips with nothing to see, in any case, as with the following; none of them need be there.
        people: Classes whose detections are of the category ``person``.
        vehicles: Classes whose detections are of the category ``vehicle``; all others are of ``animal``.
    """

    blank: tuple[str, ...] = BLANK
    people: tuple[str, ...] = PEOPLE
    vehicles: tuple[str, ...] = VEHICLES
    filename = "megadetector.json"

    def check(self, run: PredictionRun) -> None:
        """Refuses names of files that are not text, and a model of which all that is not blank is not there."""
        _check_text(self.filename, run)
        if all(is_called(name, self.blank) for name in run.class_names):
            raise InputError(
                f"{self.filename}: all classes of the model are in blank: {list(self.blank)}. Leave one out."
            )

    def write(self, path: Path, clips: Iterable[PredictedClip], run: PredictionRun) -> None:
        """Writes the file, one clip after the other."""
        number_of = {name: str(i) for i, name in enumerate(run.class_names)}
        head = {
            "info": {"format_version": "1.6", "classifier": run.classifier},
            "detection_categories": {"1": "animal", "2": "person", "3": "vehicle"},
            "classification_categories": {number: name for name, number in number_of.items()},
        }
        with path.open("w", encoding="utf-8") as file:
            file.write(json.dumps(head, indent=1)[: -len("\n}")] + ',\n "images": [')
            for i, clip in enumerate(clips):
                image = self._image(clip, _relative(clip, run.root), number_of)
                file.write(("," if i else "") + "\n  " + json.dumps(image))
            file.write("\n ]\n}\n")

    def _image(self, clip: PredictedClip, file: str, number_of: dict[str, str]) -> dict[str, Any]:
        image: dict[str, Any] = {"file": file, "frame_rate": clip.frame_rate, "frames_processed": []}
        if clip.error:
            return {**image, "failure": clip.error, "detections": None}
        seen = sorted({number for part in clip.parts for number in part.frame_numbers})
        detections = [self._detection(part, number_of) for part in clip.parts]
        # of a single frame there is no rate; the format wants one above 0
        rate = clip.frame_rate or 1.0
        found = [detection for detection in detections if detection is not None]
        return {**image, "frame_rate": rate, "frames_processed": seen, "detections": found}

    def _detection(self, part: PredictedPart, number_of: dict[str, str]) -> dict[str, Any] | None:
        ranked = sorted(zip(part.probabilities, number_of, strict=True), key=lambda pair: -pair[0])
        if is_called(ranked[0][1], self.blank):
            return None
        confidence, best = ranked[0]
        return {
            "category": "2" if is_called(best, self.people) else "3" if is_called(best, self.vehicles) else "1",
            "conf": float(confidence),
            "bbox": [0.0, 0.0, 1.0, 1.0],
            "frame_number": part.frame_numbers[len(part.frame_numbers) // 2],
            "classifications": [[number_of[name], float(probability)] for probability, name in ranked],
        }


@dataclass(frozen=True)
class HTMLReport(PredictionFormat):
    """``report.html``: a page to look at, one file that needs no network.

    It has a summary, a table of the classes, moving pictures of clips that can be filtered by class, site and confidence, and
    the files that could not be read.

    Args:
        max_clips: How many clips are on the page; of more, these are drawn at random.
        previews: How many of them have pictures: of each class from those the model is most sure of to those least.
    """

    max_clips: int = 2000
    previews: int = 100
    filename = "report.html"

    def write(self, path: Path, clips: Iterable[PredictedClip], run: PredictionRun) -> None:
        """Writes the page; reads those clips again that have pictures."""
        chance = random.Random(0)
        drawn: list[tuple[int, PredictedClip]] = []  # with their places
        failed: list[tuple[str, str]] = []
        counts = [0] * len(run.class_names)
        total = failures = 0
        for clip in clips:
            if clip.error:
                failures += 1
                if failures <= MAX_FAILED:
                    failed.append((printable(clip.filepath), clip.error))
                continue
            counts[clip.probabilities.index(max(clip.probabilities))] += 1
            total += 1
            clip = replace(clip, parts=[])  # they are not on the page
            if len(drawn) < self.max_clips:
                drawn.append((total, clip))
            elif (place := chance.randrange(total)) < self.max_clips:  # each clip has the same chance
                drawn[place] = (total, clip)
        chosen = [clip for _, clip in sorted(drawn, key=lambda pair: pair[0])]
        with_pictures = self._with_pictures(chosen, len(run.class_names))
        found = read_previews([chosen[i].path for i in with_pictures], time_limit=run.time_limit)
        pictures = {i: preview for i, preview in zip(with_pictures, found, strict=True) if preview is not None}
        notes = [] if failures <= MAX_FAILED else [f"The first {MAX_FAILED} files that could not be read are listed."]
        Report(
            title=f"Predictions for {total + failures} clips",
            summary=[("clips", str(total)), ("could not be read", str(failures)), ("model", run.classifier)],
            class_names=run.class_names,
            columns=["clips", "share"],
            per_class=[[count, count / total if total else None] for count in counts],
            clips=[
                ReportClip(
                    printable(clip.filepath),
                    clip.probabilities,
                    [],
                    clip.site or None,
                    pictures[i].jpeg() if i in pictures else None,
                    len(pictures[i].frames) if i in pictures else 0,
                )
                for i, clip in enumerate(chosen)
            ],
            total=total,
            failed=failed,
            notes=notes,
        ).write(path)

    def _with_pictures(self, clips: Sequence[PredictedClip], classes: int) -> list[int]:
        by_class: list[list[int]] = [[] for _ in range(classes)]
        for i, clip in enumerate(clips):
            by_class[clip.probabilities.index(max(clip.probabilities))].append(i)
        seen = [group for group in by_class if group]
        number = -(-self.previews // max(len(seen), 1))
        chosen = [[group[i] for i in spread([max(clips[j].probabilities) for j in group], number)] for group in seen]
        in_turn = [i for turn in zip_longest(*chosen) for i in turn if i is not None]  # each class before any has two
        return in_turn[: self.previews]


def _relative(clip: PredictedClip, root: Path | None) -> str:
    """Returns where a clip is below a folder, with forward slashes."""
    return clip.filepath if root is None else Path(os.path.relpath(clip.path, root)).as_posix()


def is_called(class_name: str, names: Sequence[str]) -> bool:
    """Returns whether a class has one of the names, in any case."""
    return class_name.casefold() in {name.casefold() for name in names}


def printable(filepath: str) -> str:
    """Returns a name as text: what is not text in it is shown as it is in Python."""
    return filepath.encode("utf-8", "backslashreplace").decode()


# ---- tables ----------------------------------------------------------------------------------------------------------


def _check_columns(filename: str, threshold: float | dict[str, float] | None, run: PredictionRun) -> None:
    check_thresholds(threshold, run)
    _check_names(filename, _columns(threshold, run))


def _check_names(filename: str, columns: Sequence[str]) -> None:
    if twice := sorted(name for name, times in Counter(columns).items() if times > 1):
        raise InputError(f"{filename}: the classes {twice} have the names of other columns. Use another format.")


def _check_text(filename: str, run: PredictionRun) -> None:
    for filepath in run.filepaths:
        try:
            filepath.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"{filename}: the name of the file {filepath!r} is not text. Rename it, or use CSVPredictions."
            ) from None


def check_thresholds(threshold: float | dict[str, float] | None, run: PredictionRun) -> None:
    """Refuses thresholds that are no probabilities, or are not of the run's classes.

    Raises:
        InputError: Names the classes.
    """
    given = threshold if isinstance(threshold, dict) else {} if threshold is None else {"": threshold}
    if wrong := {name: value for name, value in given.items() if not 0 <= value <= 1}:
        raise InputError(f"threshold: {sorted(wrong.values())} is not between 0 and 1.")
    if isinstance(threshold, dict) and set(threshold) != set(run.class_names):
        missing, unknown = sorted(set(run.class_names) - set(threshold)), sorted(set(threshold) - set(run.class_names))
        raise InputError(
            f"threshold: the classes {missing} have none, and there are no classes {unknown}. Give each class one, or one "
            "number for all."
        )


def _columns(threshold: float | dict[str, float] | None, run: PredictionRun) -> list[str]:
    has = [] if threshold is None else _has_columns(run)
    site = ["site"] if run.has_sites else []
    return ["filepath", *site, *run.class_names, *has, *OF_RESULT]


def _has_columns(run: PredictionRun) -> list[str]:
    return [has_column(name) for name in run.class_names]


def _cells(
    clip: PredictedClip, threshold: float | dict[str, float] | None, run: PredictionRun
) -> list[str | float | int | None]:
    """Returns the values of a row; None where there is none."""
    site = [clip.site] if run.has_sites else []
    if clip.error:
        blanks = len(_columns(threshold, run)) - len(site) - 3
        return [clip.filepath, *site, *[None] * blanks, clip.status, clip.error]
    has: list[int] = []
    if threshold is not None:
        of = threshold if isinstance(threshold, dict) else dict.fromkeys(run.class_names, threshold)
        has = [int(p >= of[name]) for name, p in zip(run.class_names, clip.probabilities, strict=True)]
    return [clip.filepath, *site, *clip.probabilities, *has, top_class(clip, run), clip.status, None]


def top_class(clip: PredictedClip, run: PredictionRun) -> str:
    """Returns the class with the highest probability; of equal ones, the first."""
    return run.class_names[clip.probabilities.index(max(clip.probabilities))]
