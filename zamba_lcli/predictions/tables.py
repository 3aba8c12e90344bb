"""Predictions as tables: CSV and Parquet with a row per clip, and CSV with a row per part of a clip."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from zamba_lcli.columns import NOTE, OF_CROP, OF_PART, OF_RESULT, has_column
from zamba_lcli.errors import InputError
from zamba_lcli.predictions.formats import (
    PredictedClip,
    PredictionFormat,
    PredictionRun,
    check_text,
    check_thresholds,
    top_class,
)

ROWS_AT_ONCE = 10_000  # in memory
# with the full-width forms of Chinese and Japanese keyboards
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@dataclass(frozen=True)
class CSVPredictions(PredictionFormat):
    """``predictions.csv``: a row for each clip, in the order found, whether it could be read or not.

    Columns: ``filepath``; ``site``, if the table of the clips has it; a probability for each class; ``top_class``, the one with
    the highest; ``status`` (``ok`` or ``failed``), ``error`` (the reason) and ``note`` (how much of a clip that is damaged or
    cut off could be read). With ``data.crop`` also ``crop``: ``animal``, ``whole`` (nothing was found) or ``blank`` (nothing
    was found, and the network did not look); and the window that holds all that was looked at: ``crop_x``, ``crop_y``,
    ``crop_width``, ``crop_height``, shares of the picture.

    Args:
        threshold: Lowest probability at which a class is predicted: one number, or one for each class by name. The columns
            ``has_<class>`` then say so with 1 and 0. Null for no such columns.
        for_excel: Whether the file is meant to be opened by a double click: a byte order mark marks the text as UTF-8, and text
            that a spreadsheet would read as a formula gets an apostrophe in front. Other programs see both, too.
    """

    threshold: float | dict[str, float] | None = None
    for_excel: bool = False
    filename = "predictions.csv"

    def check(self, run: PredictionRun) -> None:
        """Refuses thresholds that do not fit the classes, and classes with the name of a column."""
        _check_columns(self.filename, self.threshold, run)
        _check_names(self.filename, [self._text(name) for name in _columns(self.threshold, run)])

    def write(self, path: Path, clips: Iterable[PredictedClip], run: PredictionRun) -> None:
        """Writes the table."""
        # names of files need not be text in any encoding: their bytes are written as they are
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

    Probabilities are double precision; missing values are null. Needs pyarrow: ``pip install 'zamba-lcli[parquet]'``.

    Args:
        threshold: See ``CSVPredictions``.
    """

    threshold: float | dict[str, float] | None = None
    filename = "predictions.parquet"

    def check(self, run: PredictionRun) -> None:
        """Refuses what ``CSVPredictions`` refuses, names of files that are not text, and a missing pyarrow."""
        _check_columns(self.filename, self.threshold, run)
        check_text(self.filename, run)
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
        type_of |= {name: pa.float64() for name in OF_CROP[1:] if run.has_crops}
        type_of |= {name: pa.int8() for name in names if self.threshold is not None and name in _has_columns(run)}
        schema = pa.schema(list(type_of.items()))
        with pq.ParquetWriter(path, schema) as file:
            rows = (_cells(clip, self.threshold, run) for clip in clips)
            while some := list(islice(rows, ROWS_AT_ONCE)):
                file.write_table(pa.table(dict(zip(names, zip(*some, strict=True), strict=True)), schema=schema))


@dataclass(frozen=True)
class ClipTimelines(PredictionFormat):
    """``timelines.csv``: a row for each part of a clip that is predicted by itself, as with ``num_clips`` of a sampling.

    Columns: ``filepath``; ``site``, if the table of the clips has it; ``part``, from 0 on; ``start`` and ``end``, the times of
    the part's first and last sampled frame in seconds from the clip's first frame; a probability for each class; ``top_class``;
    ``status``, ``error`` and ``note``. A clip that could not be read has one row without a part.
    """

    filename = "timelines.csv"

    def check(self, run: PredictionRun) -> None:
        """Refuses classes with the name of a column."""
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
                    top = run.class_names[top_class(part.probabilities)]
                    table.writerow([*place, i, start, end, *probabilities, top, clip.status, None, clip.note or None])
                if clip.error:
                    table.writerow([*place, *[None] * (3 + len(run.class_names) + 1), clip.status, clip.error, None])

    @staticmethod
    def _columns(run: PredictionRun) -> list[str]:
        site = ["site"] if run.has_sites else []
        return ["filepath", *site, *OF_PART, *run.class_names, *OF_RESULT, NOTE]


def _check_columns(filename: str, threshold: float | dict[str, float] | None, run: PredictionRun) -> None:
    check_thresholds(threshold, run)
    _check_names(filename, _columns(threshold, run))


def _check_names(filename: str, columns: Sequence[str]) -> None:
    if twice := sorted(name for name, times in Counter(columns).items() if times > 1):
        raise InputError(f"{filename}: the classes {twice} have the names of other columns. Use another format.")


def _columns(threshold: float | dict[str, float] | None, run: PredictionRun) -> list[str]:
    has = [] if threshold is None else _has_columns(run)
    site = ["site"] if run.has_sites else []
    return ["filepath", *site, *run.class_names, *has, *OF_RESULT, *(OF_CROP if run.has_crops else ()), NOTE]


def _has_columns(run: PredictionRun) -> list[str]:
    return [has_column(name) for name in run.class_names]


def _cells(
    clip: PredictedClip, threshold: float | dict[str, float] | None, run: PredictionRun
) -> list[str | float | int | None]:
    """Returns the values of a row; None where there is none."""
    site = [clip.site] if run.has_sites else []
    if clip.error:
        crops = [None] * len(OF_CROP) if run.has_crops else []
        blanks = len(_columns(threshold, run)) - len(site) - 4 - len(crops)
        return [clip.filepath, *site, *[None] * blanks, clip.status, clip.error, *crops, None]
    has: list[int] = []
    if threshold is not None:
        of = threshold if isinstance(threshold, dict) else dict.fromkeys(run.class_names, threshold)
        has = [int(p >= of[name]) for name, p in zip(run.class_names, clip.probabilities, strict=True)]
    top = run.class_names[top_class(clip.probabilities)]
    crop = [clip.crop or None, *_window(clip)] if run.has_crops else []
    return [clip.filepath, *site, *clip.probabilities, *has, top, clip.status, None, *crop, clip.note or None]


def _window(clip: PredictedClip) -> list[float | None]:
    """Returns the smallest window that holds those of all frames: x, y, width, height."""
    if not clip.windows:
        return [None] * 4
    left, top = (min(window[i] for window in clip.windows) for i in (1, 2))
    right, bottom = (max(window[i] + window[i + 2] for window in clip.windows) for i in (1, 2))
    return [left, top, right - left, bottom - top]
