"""Reads tables of text (CSV) and collects their problems."""

import csv
import difflib
import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from zamba_lcli.data.missing_values import FORMULA_ERROR, is_missing, may_be_missing
from zamba_lcli.data.table_files import KINDS
from zamba_lcli.data.table_files import read_text as read_text
from zamba_lcli.errors import InputError, Problem

MAX_LISTED = 20  # lines of a list in a message
MAX_SHOWN = 60  # characters of a value in a message
SEPARATORS = ",;\t|"
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r*\n?', re.IGNORECASE)  # of Excel, before the header
UNSEEN = " \t\r\n\f\v\xa0\u2000\u2001\u2002\u2003\u2007\u2009\u202f\u3000" + (  # blanks, and marks of no width
    "\ufeff\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069"
)
OTHER_NAMES = {  # what people call the columns that are needed
    "filepath": ("file", "filename", "file_name", "file_path", "path", "video", "clip"),
    "label": ("labels", "species", "class", "category", "taxon", "scientific_name"),
}


class Place(NamedTuple):
    """A row of a table."""

    file: str  # within a package; empty for a table that stands alone
    row: int  # 1 is the header, as in a spreadsheet

    def __str__(self) -> str:
        """Returns what messages call it."""
        return f"{self.file}, row {self.row}" if self.file else f"row {self.row}"


Record = tuple[Place, dict[str, str]]  # a row: where it is, and its values by the names of the columns


@dataclass
class LabelRow:
    """Labels, split and site of a clip in one row; after merging, in all rows."""

    place: Place
    filepath: str
    labels: list[str]
    split: str
    site: str
    time: str = ""  # of the recording, if the table has it
    is_predicted: bool = False  # whether the labels are a machine's


@dataclass
class Problems:
    """Problems in the rows of a table or package, reported together."""

    source: Path
    key: str = "data.labels"  # the argument that named the table
    found: list[tuple[Place, str, str]] = field(default_factory=list)  # where, what, remedy
    warnings: list[Problem] = field(default_factory=list)  # which ``zamba check`` reports too

    def add(self, place: Place, what: str, remedy: str) -> None:
        """Adds a problem; problems of one kind share a remedy."""
        self.found.append((place, what, remedy))

    def warn(self, place: Place, what: str, remedy: str) -> None:
        """Adds a warning, which stops no run; ``zamba check`` lists it."""
        self.warnings.append(Problem(str(place.row), place.file or str(self.source), what, remedy, "warning"))

    def raise_if_any(self) -> None:
        """Raises ``InputError`` with all problems, in the order of files and rows."""
        if self.found:
            in_order = sorted(self.found, key=lambda problem: problem[0])
            lines = [f"{place}: {what}" for place, what, _ in in_order]
            remedies = dict.fromkeys(remedy for _, _, remedy in self.found)
            head = f"{self.key}: {counted(len(lines), 'problem')} in {self.source.absolute()}:"
            problems = [
                Problem(str(place.row), place.file or str(self.source), what, remedy)
                for place, what, remedy in in_order
            ]
            raise InputError("\n".join([head, listing(lines), *remedies]), [*problems, *self.warnings])


class Cells(NamedTuple):
    """The cells of a table, as text."""

    header: list[str]
    rows: list[list[str]]
    first: int  # number of the first of the rows


def read_table(path: Path, columns: Sequence[str], key: str = "data.labels") -> Cells:
    """Reads a table of text, whatever separates its columns and whichever program saved it.

    Args:
        path: The table.
        columns: Names that its header may have, by which the separator is found.
        key: The argument that named the table, for messages.

    Raises:
        InputError: Names the file that cannot be read, is no table, or has no row below its header.
    """
    where = path.absolute()
    text = read_text(path, key=key)
    if text.lstrip()[:1] in ("<", "{", "["):
        kind = "a page (HTML or XML)" if text.lstrip().startswith("<") else "JSON"
        raise InputError(f"{key}: {where} is {kind}. {KINDS}: save or export it as 'CSV UTF-8'.")
    stated = SEPARATOR_LINE.match(text)  # Excel does not count that line
    separator = stated[1] if stated else separator_in(text, columns)
    cells = parse_cells(text[stated.end() :] if stated else text, separator, where, key)
    header = next((i for i, row in enumerate(cells) if any(row)), 0)
    if not any(any(row) for row in cells[header + 1 :]):
        raise InputError(f"{key}: {where} is empty. It needs a header {','.join(columns)} and a row for each clip.")
    return Cells(cells[header], cells[header + 1 :], header + 2)


def separator_in(text: str, columns: Sequence[str] = ()) -> str:
    """Returns the separator of the columns, judged by the header alone: in the rows ``;`` may join labels."""

    def fit(separator: str) -> tuple[int, int]:
        try:
            names = [_stripped(name).lower() for name in next(csv.reader(text_lines(), delimiter=separator), [])]
        except csv.Error:  # longer than a cell may be: reported when the table is parsed
            return 0, 0
        return sum(name.lower() in names for name in columns), len(names)

    def text_lines() -> Iterator[str]:
        return iter(io.StringIO(text.lstrip("\r\n"), newline=""))

    return max(SEPARATORS, key=fit)


def parse_cells(text: str, separator: str, where: str | Path, key: str = "data.labels") -> list[list[str]]:
    """Returns the rows of a table as lists of text, the header first; blanks around values do not count.

    Raises:
        InputError: Names the table and the line if it is no CSV.
    """
    lines = io.StringIO(text, newline="")  # lines may end in CR alone, as those of old Excel for Mac do
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    limit = csv.field_size_limit(max(len(text), 1))  # a cell may hold any text; the limit is the whole process's
    try:
        return [[_stripped(cell) for cell in row] for row in reader]
    except csv.Error as error:  # a quote that is not closed, mostly
        raise InputError(f"{key}: {where}, line {reader.line_num}: {error}. Check the quotes there.") from None
    finally:
        csv.field_size_limit(limit)


def _stripped(cell: str) -> str:
    """Strips invisible characters too: Windows puts marks of direction before copied paths."""
    cell = cell.strip()
    return cell if cell.isascii() else cell.strip(UNSEEN)


def check_columns(
    names: Sequence[str],
    where: str | Path,
    *,
    needed: Sequence[str],
    optional: Sequence[str],
    other_names: Mapping[str, Sequence[str]],
    label_column: str | None = None,
    key: str = "data.labels",
) -> None:
    """Refuses a header without a required column, or with a misspelt one.

    Args:
        names: The header.
        where: The table, for the message.
        needed: Columns that must be there.
        optional: Columns that are read if they are there.
        other_names: What people call the columns that are needed.
        label_column: The column, among those needed, that the user may choose.
        key: The argument that named the table, for messages.

    Raises:
        InputError: Names the table and all that is wrong with its header.
    """
    known = dict.fromkeys([*needed, *optional])
    written = {name.lower(): name for name in known}
    there = Counter(names)
    in_any_case = {name.lower() for name in names}
    # `Split` must not be passed over as an unknown column: the clips would be split anew
    miswritten = [n for n in names if n not in known and written.get(n.lower(), n) not in there]
    wrong = [f"the column {n!r} must be written {written[n.lower()]!r}" for n in miswritten]
    wrong += [f"there are {there[name]} columns {name!r}" for name in known if there[name] > 1]
    for name in needed:
        if name.lower() not in in_any_case:
            others = (name.lower(), *other_names.get(name, ()))
            alike = (n for n in names if difflib.get_close_matches(n.lower(), others, n=1, cutoff=0.8))
            close = next(alike, None)
            wrong.append(f"there is no column {name!r}" + (f" (is it {close!r}?)" if close else ""))
    if wrong:
        choice = "" if label_column in (None, *names) else ", or name the column with the labels in data.label_column"
        may_have = f", and may have {_enumeration(optional)}" if optional else ""
        listed = ", ".join(map(shown, names[:MAX_LISTED])) + (", ..." if len(names) > MAX_LISTED else "")
        raise InputError(
            f"{key}: {where}: {'; '.join(wrong)}. Its columns are {listed}. "
            f"It needs {_enumeration(needed)}{may_have}: correct the first row{choice}."
        )


def records(
    names: Sequence[str],
    rows: Iterable[Sequence[str]],
    problems: Problems,
    *,
    file: str = "",
    first: int = 2,
    as_written: Collection[str] = (),
) -> Iterator[Record]:
    """Yields the rows by column names; a missing value is empty, however it is written.

    Blank rows, as Excel leaves them, are passed over.

    Args:
        names: The header.
        rows: The rows below it.
        problems: Gets the rows that do not fit the header; they are passed over too.
        file: The file within a package.
        first: Number of the first of the rows.
        as_written: Columns whose values stay what they are.
    """
    names = list(names)
    for number, values in enumerate(rows, start=first):
        if not any(values):
            continue
        place = Place(file, number)
        if any(values[len(names) :]):
            remedy = "Put values that contain the separator in double quotes."
            if len(values) == len(names) + 1 and values[0] == str(number - 1):
                remedy = "R's write.table gives the column of row names no head: use write.csv(..., row.names = FALSE)."
            problems.add(place, f"{len(values)} values for {len(names)} columns", remedy)
        elif values == names:
            problems.add(place, "the header is repeated, as where tables are joined", "Delete that row.")
        else:
            yield (
                place,
                {
                    name: value if name in as_written or not (is_missing(value) or may_be_missing(value)) else ""
                    for name, value in zip(names, values, strict=False)
                },
            )


def check_formulas(place: Place, record: Mapping[str, str], columns: Iterable[str], problems: Problems) -> bool:
    """Refuses a row with the errors of formulas, such as #REF!, in columns that are read; returns whether it has any."""
    found = [(name, record[name]) for name in columns if FORMULA_ERROR.fullmatch(record.get(name, ""))]
    for name, value in found:
        what = f"the {name} is {value!r}, which a spreadsheet shows for a formula or width that is wrong"
        problems.add(place, what, "Mend it in the spreadsheet, and save the table anew.")
    return bool(found)


def parse_label(text: str, place: Place, problems: Problems) -> list[str]:
    """Returns the labels of ``a;b``."""
    if text.startswith(("[", "('", '("', "{'", '{"')):
        remedy = "Several labels of a clip: write a;b, or a row for each label."
        problems.add(place, f"the label {shown(text)} looks like a list", remedy)
        return []
    labels = [label.strip() for label in text.split(";")]
    missing = [label for label in labels if not label or is_missing(label) or label.casefold() == "nan"]
    if missing:
        remedy = "Give every row a label: clips without animals need one too, such as blank."
        if not text:
            what = "the label is empty"
        elif len(labels) == 1:
            what = f"the label is missing: {text!r} means no value"
            remedy += " A class must have another name than that."
        else:
            what = f"an empty label in {shown(text)}"
        problems.add(place, what, remedy)
    return [label for label in labels if label not in missing]


def shown(value: str) -> str:
    """Returns a value in quotes for a message, cut if it is long."""
    return repr(value if len(value) <= MAX_SHOWN else value[: MAX_SHOWN - 3] + "...")


def listing(lines: Sequence[str]) -> str:
    """Returns an indented list for a message, cut if it is long."""
    more = [f"  ... and {len(lines) - MAX_LISTED} more"] if len(lines) > MAX_LISTED else []
    return "\n".join([*(f"  {line}" for line in lines[:MAX_LISTED]), *more])


def counted(number: int, thing: str, things: str = "") -> str:
    """Returns a number with its noun, such as ``1 clip`` or ``2 clips``."""
    return f"{number} {thing if number == 1 else things or thing + 's'}"


def _enumeration(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
