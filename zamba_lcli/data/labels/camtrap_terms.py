"""The terms of Camtrap DP 1.0.2: which columns its tables have, and what may stand in them; https://camtrap-dp.tdwg.org.

They are data, ``camtrap_dp_terms.json``: each column as Table Schema describes it, https://specs.frictionlessdata.io/table-schema.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any, Literal, TypeAlias

from zamba_lcli.data.csv_tables import Place, Problems, Record

Table: TypeAlias = Literal["deployments", "media", "observations"]
TABLES: tuple[Table, ...] = ("deployments", "media", "observations")
TIME = "a time with its zone, as in 2020-05-30T04:57:37+02:00"
BOOLEANS = {
    **dict.fromkeys(("true", "True", "TRUE", "1"), "true"),
    **dict.fromkeys(("false", "False", "FALSE", "0"), "false"),
}
INTEGER = re.compile(r"[+-]?[0-9]+(?:\.0)?")  # programs write 12.0 where others of the column are missing
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
PATTERNS = {  # what a pattern asks for
    "filePath": "a path that leads downwards, without two points in a row and without ., / or ~ in front (rename such files)",
    "fileMediatype": "what the file is, such as video/mp4",
}


@cache
def _terms() -> dict[str, Any]:
    text = resources.files("zamba_lcli.data.labels").joinpath("camtrap_terms.json").read_text(encoding="utf-8")
    terms: dict[str, Any] = json.loads(text)
    return terms


def version() -> str:
    """Returns the version of the standard."""
    return str(_terms()["version"])


def contributor_roles() -> list[str]:
    """Returns what contributors may be."""
    return list(_terms()["contributorRole"])


def project_terms(name: str) -> list[str]:
    """Returns the values that a term of the project, samplingDesign or captureMethod, may have."""
    return list(_terms()["project"][name])


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    descriptor: Mapping[str, Any]  # in Table Schema

    @property
    def name(self) -> str:
        """The name."""
        return str(self.descriptor["name"])

    @property
    def constraints(self) -> Mapping[str, Any]:
        """What Table Schema calls so: required, unique, minimum, maximum, enum, pattern."""
        constraints: Mapping[str, Any] = self.descriptor.get("constraints", {})
        return constraints

    @property
    def expected(self) -> str:
        """What must stand there, in words."""
        if enum := self.constraints.get("enum"):
            return f"one of {', '.join(enum)}"
        words = {"datetime": TIME, "boolean": "true or false", "integer": "a whole number", "number": "a number"}
        least, most = self.constraints.get("minimum"), self.constraints.get("maximum")
        limits = "" if least is None else f" of {least} or more" if most is None else f" from {least} to {most}"
        return PATTERNS.get(self.name, words.get(self.descriptor["type"], "any text")) + limits

    def read(self, text: str) -> str:
        """Returns a value as the standard writes it.

        Raises:
            ValueError: If it is none that the standard knows, or might be read in two ways.
        """
        kind = self.descriptor["type"]
        if kind == "datetime":
            time = parse_time(text)
            if time is None:
                raise ValueError(text)
            return format_time(time)
        if kind == "boolean":
            if text not in BOOLEANS:
                raise ValueError(text)
            return BOOLEANS[text]
        if kind in ("integer", "number"):
            return self._read_number(text)
        enum, pattern = self.constraints.get("enum"), self.constraints.get("pattern")
        if (enum and text not in enum) or (pattern and not re.match(pattern, text)):
            raise ValueError(text)
        return text

    def _read_number(self, text: str) -> str:
        plain = text
        if DECIMAL_COMMA.fullmatch(text):
            if THOUSANDS.fullmatch(text) and self._is_in_range(float(text.replace(",", ""))):
                raise ValueError(text)  # 1,250 m may be 1.25 or 1250
            plain = text.replace(",", ".")
        whole = self.descriptor["type"] == "integer"
        if not (INTEGER if whole else NUMBER).fullmatch(plain) or not self._is_in_range(float(plain)):
            raise ValueError(text)
        plain = plain.removeprefix("+")
        return plain.removesuffix(".0") if whole else plain

    def _is_in_range(self, number: float) -> bool:
        least, most = self.constraints.get("minimum", -math.inf), self.constraints.get("maximum", math.inf)
        return math.isfinite(number) and bool(least <= number <= most)


@cache
def columns(table: Table) -> tuple[Column, ...]:
    """Returns the columns of a table in the order of the standard, which wants all of them to be there."""
    return tuple(Column(descriptor) for descriptor in _terms()["tables"][table])


def column_names(table: Table) -> list[str]:
    """Returns the names of the columns of a table in the order of the standard."""
    return [column.name for column in columns(table)]


def check_rows(table: Table, rows: Iterable[Record], problems: Problems) -> list[Record]:
    """Returns rows with all columns of the standard, and values as it writes them.

    Args:
        table: Whose rows they are.
        rows: May lack columns and have values that other programs write: 12.0 for 12, TRUE, a decimal comma.
        problems: Gets each value that the standard does not know or may be read in two ways; it is empty in the result.
    """
    first: dict[str, dict[str, Place]] = {
        column.name: {} for column in columns(table) if column.constraints.get("unique")
    }
    checked = []
    for place, record in rows:
        row = {}
        for column in columns(table):
            name, text = column.name, record.get(column.name, "")
            row[name] = ""
            remedy = f"{name}: write {column.expected}."
            if text in _terms()["missingValues"]:
                if column.constraints.get("required"):
                    problems.add(place, f"the {name} is empty", remedy)
                continue
            try:
                row[name] = column.read(text)
            except ValueError:
                problems.add(place, f"the {name} is {text!r}", remedy)
                continue
            if name in first and (other := first[name].setdefault(text, place)) != place:
                problems.add(place, f"the {name} {text!r} is in {other} too", f"Give every row its own {name}.")
        checked.append((place, row))
    return checked


def parse_time(text: str) -> datetime | None:
    """Returns a point in time from ISO 8601; ``None`` if ``text`` is none or has no zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if time.tzinfo is None else time


def read_time(name: str, text: str, place: Place, problems: Problems) -> datetime | None:
    """Returns a point in time; where ``text`` is none, or has no zone, ``None``, and ``problems`` gets it.

    Args:
        name: The column.
        text: The value.
        place: Where it is.
        problems: Gets what is wrong.
    """
    if (time := parse_time(text)) is not None:
        return time
    try:
        datetime.fromisoformat(text)
        what = f"the {name} {text!r} has no time zone"
    except ValueError:
        what = f"the {name} {text!r} is no time"
    problems.add(place, what, "Write times with their zone, such as 2020-05-30T04:57:37Z or 2020-05-30T04:57:37+02:00.")
    return None


def format_time(time: datetime) -> str:
    """Returns a time as the standard writes it: whole seconds, in the zone it was given in."""
    return time.replace(microsecond=0).isoformat().replace("+00:00", "Z")
