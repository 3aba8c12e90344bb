"""Tables of labels: a CSV or Camtrap DP in; clips with labels, splits and sites out. All problems are reported at once."""

import csv
import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from zamba_lcli.data.clip_files import check_inside
from zamba_lcli.data.csv_tables import (
    OTHER_NAMES,
    LabelRow,
    Place,
    Problems,
    check_columns,
    check_formulas,
    counted,
    parse_label,
    read_table,
    records,
    shown,
)
from zamba_lcli.data.folders import has_video_ending
from zamba_lcli.data.labels.camtrap_dp import read_package
from zamba_lcli.data.labels.camtrap_package import find_package
from zamba_lcli.data.labels.label_origin import HUMAN, MACHINE, RowOrigin, add_predictions, check_label_column
from zamba_lcli.data.labels.leaks import time_column, warn_of_leaks
from zamba_lcli.data.labels.merging import check_blank, merge_rows
from zamba_lcli.data.labels.spellings import (
    check_not_columns,
    check_spellings,
    first_places,
    warn_of_joined,
    warn_of_missing,
    warn_of_synonyms,
)
from zamba_lcli.data.labels.split_record import SplitRecord
from zamba_lcli.data.labels.splits import DEFAULT_PROPORTIONS, SPLITS, draw_splits, shares_of
from zamba_lcli.data.table_files import KINDS
from zamba_lcli.data.video.deadline import TIME_LIMIT, look_within
from zamba_lcli.errors import InputError, Problem
from zamba_lcli.run_folder import keep_earlier

MAX_WARNINGS = 5  # in the log
COLUMNS = ("filepath", "label", "split", "site")


@dataclass(frozen=True)
class LabelledClip:
    """A clip and what is known of it."""

    filepath: str  # as the user wrote it
    path: Path  # where it is
    labels: tuple[str, ...]  # one or more class names, sorted
    split: str  # train, val or holdout
    site: str | None
    place: Place | None = field(default=None, compare=False)  # where the table names it first
    is_predicted: bool = False  # whether its labels are a machine's


@dataclass(frozen=True)
class LabelTable:
    """A table of labels that has been checked."""

    source: Path
    clips: tuple[LabelledClip, ...]  # in the order of first appearance in the table
    class_names: tuple[str, ...]  # sorted
    warnings: tuple[Problem, ...] = ()  # what is odd in the table but stops no run
    has_splits: bool = False  # whether the table says them itself
    leaks: str = ""  # the warning that says why scores may be too high

    def split(self, name: str) -> list[LabelledClip]:
        """Returns the clips of one split in the order of the table."""
        return [clip for clip in self.clips if clip.split == name]


def read_labels(
    path: str | Path,
    *,
    data_dir: str | Path | None = None,
    label_column: str | None = None,
    machine_labels: bool = False,
    multiclass: bool = False,
    split_proportions: Mapping[str, int | float] | None = None,
    seed: int = 0,
    record: SplitRecord | None = None,
    allow_outside: bool = True,
    time_limit: float = TIME_LIMIT,
) -> LabelTable:
    """Reads and checks a table of labels; the clips themselves are not looked at.

    The table is UTF-8 text separated by commas, semicolons or tabs with the columns ``filepath`` and ``label``, and
    optionally ``split`` and ``site``. Several labels of a clip are several rows, or ``a;b`` in one (in quotes where
    semicolons separate the columns). All values are text; blanks around them do not count.

    Or it is a package of tables in Camtrap DP, see ``camtrap_dp.read_package``; it has sites, but no splits.

    Args:
        path: The table; or the package: its folder, its ``datapackage.json`` or a zip.
        data_dir: Folder that relative filepaths start from; ``None`` for the folder of the table, package or zip.
        label_column: The column with the labels; ``None`` for ``label``, or ``scientificName`` of a package.
        machine_labels: Whether a machine's predictions count as labels where people say nothing.
        multiclass: Refuse clips with several labels.
        split_proportions: Shares of train, val and holdout where the table has no split; ``None`` for 3 : 1 : 1.
        seed: Changes which clips or sites the drawn splits get.
        record: The splits of the run that a model comes from: where the table has no split, clips and sites that are known
            keep theirs, and splits are drawn for the others.
        allow_outside: Allow filepaths that lead out of ``data_dir``; see ``check_inside``.
        time_limit: Seconds that looking at a file may take.

    Raises:
        InputError: Names the table, every wrong row (1 is the header, as in a spreadsheet) and what to do.
    """
    source = Path(path)
    shares = shares_of(DEFAULT_PROPORTIONS if split_proportions is None else split_proportions)
    package = look_within(time_limit, "data.labels", lambda looks: find_package(looks.at(source)))
    source = package or source
    folder = source.parent if data_dir is None else Path(data_dir)
    problems = Problems(source)
    if package is not None:
        inside = None if allow_outside else folder
        rows = read_package(
            package, label_column or "scientificName", problems, machine_labels=machine_labels, folder=inside
        )
    else:
        rows = _read_table(source, label_column or "label", problems, machine_labels=machine_labels)
        if not allow_outside:
            check_inside([(row.place, row.filepath) for row in rows], folder, problems, time_limit)
    has_splits = any(row.split for row in rows)
    if has_splits:
        if split_proportions is not None:
            warnings.warn(f"data.split_proportions is not used: {source} has a column split.", stacklevel=2)
        _check_all_have_split(rows, problems)
    labels = first_places((label, row.place) for row in rows for label in row.labels)
    check_spellings("label", labels, problems)
    sites = first_places((row.site, row.place) for row in rows)
    check_spellings("site", sites, problems)
    warn_of_synonyms(labels, problems)
    warn_of_joined(labels, problems)
    warn_of_missing(labels, sites, problems)
    check_not_columns(labels, problems)
    drafts = merge_rows(rows, folder, problems, time_limit)
    if multiclass:
        _check_one_label_each(drafts.values(), problems)
    elif package is None:  # a package's reader sees to it
        check_blank(drafts.values(), problems)
    problems.raise_if_any()
    for first, *others in drafts.values():
        first.labels = sorted({*first.labels, *(label for row in others for label in row.labels)})
    firsts = [rows[0] for rows in drafts.values()]
    if not has_splits and record is None:
        draw_splits(firsts, shares, seed, source)
    elif not has_splits and record is not None:
        new = record.place(dict(zip(drafts, firsts, strict=True)))
        draw_splits(new, shares, seed, source, complete=False)
        told = f"splits: {counted(len(firsts) - len(new), 'clip')} as in the run of the checkpoint"
        rank_zero_info(told + (f", {len(new)} new, of other sites, drawn" if new else ""))
    leaks = warn_of_leaks(firsts, problems)
    clips = tuple(
        LabelledClip(row.filepath, where, tuple(row.labels), row.split, row.site or None, row.place, row.is_predicted)
        for where, row in zip(drafts, firsts, strict=True)
    )
    return LabelTable(source, clips, tuple(sorted(labels)), tuple(problems.warnings), has_splits, leaks)


def _read_table(source: Path, label_column: str, problems: Problems, *, machine_labels: bool) -> list[LabelRow]:
    """Returns the rows of a CSV."""
    where = source.absolute()
    if has_video_ending(source.name):
        raise InputError(f"data.labels: {where} is named like a clip. Give the table of labels. {KINDS}.")
    header, cells, first = read_table(source, ("filepath", label_column))
    check_label_column(header, label_column, where, machine_labels=machine_labels)
    check_columns(
        header,
        where,
        needed=["filepath", label_column],
        optional=["split", "site"],
        other_names=OTHER_NAMES,
        label_column=label_column,
    )
    times = time_column(header)
    origin = RowOrigin(header)
    rows: list[LabelRow] = []
    predicted: list[tuple[LabelRow, str]] = []  # with who predicted it
    not_told = Problems(source)  # what is wrong with rows that do not count
    for place, value in records(header, cells, problems, first=first, as_written=[label_column]):
        if not value["filepath"]:
            problems.add(place, "the filepath is empty", "Give every row a filepath, or delete the row.")
            continue
        is_machine = origin.is_machine(value)
        told = not_told if is_machine and not machine_labels else problems
        if check_formulas(place, value, ("filepath", label_column, "split", "site"), told):
            continue
        labels = parse_label(value.get(label_column, ""), place, told)
        split = value.get("split", "")
        if split and split not in SPLITS:
            problems.add(place, f"unknown split {split!r}", f"Write one of {', '.join(SPLITS)} in the column split.")
        time = value.get(times, "") if times else ""
        row = LabelRow(place, value["filepath"], labels, split, value.get("site", ""), time, is_machine)
        if is_machine:
            predicted.append((row, origin.author(value)))
        else:
            rows.append(row)
    rows = add_predictions(rows, predicted, problems, machine_labels=machine_labels)
    _check_columns_not_exchanged(rows, where, label_column, problems)
    return rows


def _check_columns_not_exchanged(rows: Sequence[LabelRow], where: Path, label_column: str, problems: Problems) -> None:
    """Refuses labels that are names of files."""
    labels = [label for row in rows for label in row.labels]
    files = {label for label in set(labels) if has_video_ending(label)}
    if len(files) == len(set(labels)) > 0 and not any(has_video_ending(row.filepath) for row in rows):
        raise InputError(
            f"data.labels: in {where} the labels are files, such as {labels[0]}, and the filepaths are not: exchange the heads "
            f"of the columns filepath and {label_column}."
        )
    remedy = "Put filepaths that contain the separator in double quotes."
    for row in rows if files else []:
        for label in files.intersection(row.labels):
            problems.add(row.place, f"the label {shown(label)} is the name of a file", remedy)


def _check_all_have_split(rows: Iterable[LabelRow], problems: Problems) -> None:
    for row in rows:
        if not row.split:
            remedy = "Give every row a split; or none, and the splits are drawn."
            problems.add(row.place, f"{row.filepath} has no split, but other rows have one", remedy)


def _check_one_label_each(clips: Iterable[Sequence[LabelRow]], problems: Problems) -> None:
    for rows in clips:
        labels = first_places(sorted((label, row.place) for row in rows for label in row.labels))
        if len(labels) > 1:
            what = f"{rows[0].filepath} has {len(labels)} labels: {', '.join(labels)}"
            if len(places := sorted(set(labels.values()))) > 1:
                what += f" ({', '.join(map(str, places))})"
            problems.add(rows[0].place, what, "For several labels a clip set model.task to multilabel; else keep one.")


def write_labels(table: LabelTable, path: Path) -> None:
    """Writes a table that ``read_labels`` reads, with all splits; its filepaths start from where they did before.

    Where labels are a machine's, a column says so.

    Another one that is there is kept as ``splits_1.csv``, say.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    predicted = any(clip.is_predicted for clip in table.clips)
    rows.writerow([*COLUMNS, *(["classification_method"] if predicted else [])])
    for clip in table.clips:
        method = [MACHINE if clip.is_predicted else HUMAN] if predicted else []
        rows.writerow([clip.filepath, ";".join(clip.labels), clip.split, clip.site or "", *method])
    keep_earlier(path, text.getvalue())


def tell_warnings(table: LabelTable) -> None:
    """Says in the log what is odd in the table, as ``zamba check`` does."""
    for problem in table.warnings[:MAX_WARNINGS]:
        rank_zero_warn(f"{problem.file}, row {problem.row}: {problem.what}. {problem.remedy}")
    if (more := len(table.warnings) - MAX_WARNINGS) > 0:
        rank_zero_warn(f"{table.source}: {counted(more, 'other warning')}: zamba check lists them all.")
