"""Tables of text and what is wrong in them: what the readers of labels have in common."""

import codecs
import csv
import difflib
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from zamba_lcli.errors import InputError, Problem

MAX_LISTED = 20  # lines of a list in a message


class Place(NamedTuple):
    """Where something stands."""

    file: str  # within a package; empty for a table that stands alone
    row: int  # 1 is the header, as in a spreadsheet

    def __str__(self) -> str:
        """Returns what messages call it."""
        return f"{self.file}, row {self.row}" if self.file else f"row {self.row}"


Record = tuple[Place, dict[str, str]]  # a row: where it is, and its values by the names of the columns


@dataclass
class LabelRow:
    """What one row says of a clip; after merging, what all rows say."""

    place: Place
    filepath: str
    labels: list[str]
    split: str
    site: str


@dataclass
class Problems:
    """What is wrong with the rows of a table or package, to be told in one go."""

    source: Path
    key: str = "data.labels"  # the argument that named the table
    found: list[tuple[Place, str, str]] = field(default_factory=list)  # where, what, remedy
    warnings: list[Problem] = field(default_factory=list)  # what ``zamba check`` tells besides

    def add(self, place: Place, what: str, remedy: str) -> None:
        """Notes a problem; what is wrong in the same way has the same remedy."""
        self.found.append((place, what, remedy))

    def warn(self, place: Place, what: str, remedy: str) -> None:
        """Notes what is odd but stops no run; ``zamba check`` tells it."""
        self.warnings.append(Problem(str(place.row), place.file or str(self.source), what, remedy, "warning"))

    def raise_if_any(self) -> None:
        """Raises InputError with all that was noted, in the order of files and rows."""
        if self.found:
            in_order = sorted(self.found, key=lambda problem: problem[0])
            lines = [f"{place}: {what}" for place, what, _ in in_order]
            remedies = dict.fromkeys(remedy for _, _, remedy in self.found)
            head = f"{self.key}: {counted(len(lines), 'problem')} in {self.source.absolute()}:"
            problems = [
                Problem(str(place.row), place.file or str(self.source), what, remedy)
                for place, what, remedy in in_order
            ]
            raise InputError("\n".join([head, listing(lines), *remedies]), problems)


def read_text(file: Path | zipfile.Path, encoding: str = "utf-8", key: str = "data.labels") -> str:
    """Returns the text of a file, which may be in a zip or packed with gzip; ``key`` is the argument that named it.

    Raises:
        InputError: Names the file that is not there or cannot be read.
    """
    where = file.absolute() if isinstance(file, Path) else file
    try:
        content = file.read_bytes()
        if file.name.lower().endswith(".gz"):
            content = gzip.decompress(content)
        # -sig: Excel puts a byte order mark before the first column name
        return content.decode("utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding)
    except FileNotFoundError:
        raise InputError(f"{key}: there is no file {where}. Correct the path.") from None
    except UnicodeDecodeError:
        raise InputError(f"{key}: {where} is not {encoding.upper()} text. Save it as 'CSV UTF-8'.") from None
    except LookupError:
        raise InputError(f"{key}: {where}: unknown encoding {encoding!r}. Save it as 'CSV UTF-8'.") from None
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:  # RuntimeError: has a password
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{key}: {where} cannot be read: {reason}.") from None


def separator_in(text: str) -> str:
    """Returns what separates the columns of a table, judged by its header alone: in the rows ``;`` may join labels."""
    header = text.partition("\n")[0]
    return max(",;\t", key=lambda separator: len(next(csv.reader([header], delimiter=separator), [])))


def parse_cells(text: str, separator: str, where: str | Path, key: str = "data.labels") -> list[list[str]]:
    """Returns the rows of a table as lists of text, the header first; blanks around values do not count.

    Raises:
        InputError: Names the table and the line if it is no CSV.
    """
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        return [[cell.strip() for cell in row] for row in reader]
    except csv.Error as error:  # a quote that is not closed, mostly
        raise InputError(f"{key}: {where}, line {reader.line_num}: {error}. Check the quotes there.") from None


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
    """Refuses a header without the columns that are needed, or with one that was surely meant to be one we know.

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
    # `Split` must not be passed over as an unknown column: the clips would be split anew
    miswritten = [n for n in names if n not in known and written.get(n.lower(), n) not in names]
    wrong = [f"the column {n!r} must be written {written[n.lower()]!r}" for n in miswritten]
    wrong += [f"there are {names.count(name)} columns {name!r}" for name in known if names.count(name) > 1]
    for name in needed:
        if name.lower() not in [n.lower() for n in names]:
            others = (name.lower(), *other_names.get(name, ()))
            close = [n for n in names if difflib.get_close_matches(n.lower(), others, n=1, cutoff=0.8)]
            wrong.append(f"there is no column {name!r}" + (f" (is it {close[0]!r}?)" if close else ""))
    if wrong:
        choice = "" if label_column in (None, *names) else ", or name the column with the labels in data.label_column"
        may_have = f", and may have {_enumeration(optional)}" if optional else ""
        raise InputError(
            f"{key}: {where}: {'; '.join(wrong)}. Its columns are {', '.join(map(repr, names))}. "
            f"It needs {_enumeration(needed)}{may_have}: correct the first row{choice}."
        )


def records(
    names: Sequence[str], rows: Iterable[Sequence[str]], problems: Problems, *, file: str = "", first: int = 2
) -> Iterator[Record]:
    """Yields the rows by the names of their columns; blank rows, as Excel leaves them, are passed over.

    Args:
        names: The header.
        rows: The rows below it.
        problems: Gets the rows that do not fit the header; they are passed over too.
        file: The file within a package.
        first: Number of the first of the rows.
    """
    for number, values in enumerate(rows, start=first):
        if not any(values):
            continue
        place = Place(file, number)
        if any(values[len(names) :]):
            remedy = "Put values that contain the separator in double quotes."
            problems.add(place, f"{len(values)} values for {len(names)} columns", remedy)
            continue
        yield place, dict(zip(names, values, strict=False))


def parse_label(text: str, place: Place, problems: Problems) -> list[str]:
    """Returns the labels of ``a;b``."""
    if text.startswith(("[", "('", '("', "{'", '{"')):
        remedy = "Several labels of a clip: write a;b, or a row for each label."
        problems.add(place, f"the label {text!r} looks like a list", remedy)
        return []
    labels = [label.strip() for label in text.split(";")]
    if "" in labels:
        what = f"an empty label in {text!r}" if any(labels) else "the label is empty"
        problems.add(place, what, "Give every row a label: clips without animals need one too, such as blank.")
    return [label for label in labels if label]


def listing(lines: Sequence[str]) -> str:
    """Returns the lines below each other, cut if they are many."""
    more = [f"  ... and {len(lines) - MAX_LISTED} more"] if len(lines) > MAX_LISTED else []
    return "\n".join([*(f"  {line}" for line in lines[:MAX_LISTED]), *more])


def counted(number: int, thing: str, things: str = "") -> str:
    """Returns such as ``1 clip`` and ``2 clips``."""
    return f"{number} {thing if number == 1 else things or thing + 's'}"


def _enumeration(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
