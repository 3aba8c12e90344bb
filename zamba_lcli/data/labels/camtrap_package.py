"""Reads Camera Trap Data Packages, Camtrap DP 1.0: descriptor, resources and tables. See https://camtrap-dp.tdwg.org."""

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from zamba_lcli.data.csv_tables import Problems, Record, parse_cells, records
from zamba_lcli.data.labels.camtrap_terms import TABLES
from zamba_lcli.data.table_files import read_text
from zamba_lcli.errors import InputError

DESCRIPTOR = "datapackage.json"
URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
OLD_PROFILE = re.compile(r"camtrap-dp/v?(0\.[^/]*)/")


class CamtrapTable(NamedTuple):
    """A table of a package as text."""

    names: list[str]  # of its columns
    rows: list[Record]


@dataclass(frozen=True)
class CamtrapPackage:
    """A package, its tables not read yet.

    Args:
        folder: Folder, perhaps within a zip, that the paths of the package start from.
        name: Name of the descriptor, which is in that folder.
        key: The argument that names the package, for messages.
    """

    folder: Path | zipfile.Path
    name: str
    key: str

    def __str__(self) -> str:
        """Returns the path of the descriptor."""
        return str(self.folder / self.name)

    @cached_property
    def descriptor(self) -> dict[str, Any]:
        """The ``datapackage.json``.

        Raises:
            InputError: If it cannot be read, is not Camtrap DP 1.0, or lacks a table.
        """
        text = read_text(self.folder / self.name, key=self.key)
        try:
            descriptor = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{self.key}: {self}, line {error.lineno}: {error.msg}. Correct it, or export the package anew."
            ) from None
        descriptor = descriptor if isinstance(descriptor, dict) else {}
        if "detection_categories" in descriptor or "predictions" in descriptor:
            raise InputError(
                f"{self.key}: {self} has the results of MegaDetector or a program like it. They are predictions, and no "
                "labels. Give a table (CSV) with the columns filepath and label."
            )
        if version := OLD_PROFILE.search(str(descriptor.get("profile"))):
            raise InputError(
                f"{self.key}: {self} is Camtrap DP {version[1]}, and 1.0 is needed. Export the package anew."
            )
        resources = _resources(descriptor)
        if missing := [name for name in TABLES if not _paths(resources.get(name, {}))]:
            raise InputError(
                f"{self.key}: {self} names no file for {', '.join(missing)} in its resources. A Camtrap DP package has the "
                f"tables {', '.join(TABLES)}."
            )
        return descriptor

    @property
    def resources(self) -> dict[str, dict[str, Any]]:
        """The descriptions of the tables and other files, by name."""
        return _resources(self.descriptor)

    def paths(self, resource: str) -> list[str]:
        """Returns the files of a resource, relative to the folder.

        Raises:
            InputError: If one of them is outside of the package.
        """
        paths = _paths(self.resources[resource])
        for path in paths:
            if URL.match(path) or leads_outside(path):
                raise InputError(
                    f"{self.key}: {self}: {path} is not in the package. Download the whole package, and give paths within it."
                )
        return paths

    def read_table(self, name: str, problems: Problems, *, as_written: bool = False) -> CamtrapTable:
        """Reads a table, which may consist of several files.

        Args:
            name: Name of the resource.
            problems: Gets the rows that do not fit the header.
            as_written: Whether values stay as they are; else missing values are empty.

        Raises:
            InputError: If a file cannot be read or is empty.
        """
        resource = self.resources[name]
        separator, encoding = self._separator(resource), str(resource.get("encoding", "utf-8"))
        header: list[str] = []
        rows: list[Record] = []
        for path in self.paths(name):
            file = self.folder / path
            cells = parse_cells(read_text(file, encoding, key=self.key), separator, str(file), key=self.key)
            if not cells and not header:
                raise InputError(f"{self.key}: {file} is empty. It needs a header with the columns of {name}.")
            has_header = not header or bool(
                cells and set(cells[0]) == set(header)
            )  # that of the first file may do for all
            if has_header:
                header = cells.pop(0)
            first = 2 if has_header else 1
            rows += records(header, cells, problems, file=path, first=first, as_written=header if as_written else ())
        return CamtrapTable(header, rows)

    def _separator(self, resource: Mapping[str, Any]) -> str:
        dialect = resource.get("dialect")
        dialect = dialect if isinstance(dialect, dict) else {}
        separator = str(
            {**dialect, **(dialect.get("csv") or {})}.get("delimiter", ",")
        )  # frictionless 5 writes it in csv
        if len(separator) != 1:
            raise InputError(f"{self.key}: {self}: the delimiter {separator!r} is not one character. Correct it.")
        return separator


def find_package(path: Path) -> Path | None:
    """Returns the ``datapackage.json`` or zip of the package at ``path``, or ``None`` if a table should be there.

    Raises:
        InputError: If ``path`` is a folder without a package.
    """
    if not path.is_dir():
        return path if path.suffix.lower() in (".json", ".zip") else None
    if not (path / DESCRIPTOR).exists():
        raise InputError(
            f"data.labels: {path.absolute()} is a folder without {DESCRIPTOR}. Give the table (CSV) with the columns "
            "filepath and label, or a package in Camtrap DP."
        )
    return path / DESCRIPTOR


@contextmanager
def open_package(source: Path, key: str) -> Iterator[CamtrapPackage]:
    """Opens a package by its ``datapackage.json`` or zip, which stays open meanwhile.

    Raises:
        InputError: If the zip cannot be read or is not that of one package.
    """
    where = source.absolute()
    if source.suffix.lower() != ".zip":
        yield CamtrapPackage(where.parent, where.name, key)
        return
    try:
        if where.exists() and not where.is_file():  # to open a named pipe might never return
            raise OSError("it is not a regular file")
        archive = zipfile.ZipFile(where)
    except FileNotFoundError:
        raise InputError(f"{key}: there is no file {where}. Correct the path.") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{key}: {where} cannot be read: {error}. Is it complete?") from None
    with archive:
        # packages are often zipped with their folder
        folders = [path.parent for name in archive.namelist() if (path := PurePosixPath(name)).name == DESCRIPTOR]
        highest = min((len(folder.parts) for folder in folders), default=0)
        folders = [folder for folder in folders if len(folder.parts) == highest]
        if len(folders) != 1:
            how_many = "several" if folders else "no"
            raise InputError(f"{key}: {where} has {how_many} {DESCRIPTOR} in it. Give the zip of one package.")
        yield CamtrapPackage(zipfile.Path(archive, f"{folders[0]}/" if highest else ""), DESCRIPTOR, key)


def leads_outside(path: str) -> bool:
    """Returns whether a path of a package is absolute or leads out of its folder."""
    return PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts


def _resources(descriptor: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    listed = descriptor.get("resources")
    resources = [resource for resource in (listed if isinstance(listed, list) else []) if isinstance(resource, dict)]
    return {str(resource.get("name")): resource for resource in resources}


def _paths(resource: Mapping[str, Any]) -> list[str]:
    path = resource.get("path")
    return [name for name in (path if isinstance(path, list) else [path]) if isinstance(name, str) and name]
