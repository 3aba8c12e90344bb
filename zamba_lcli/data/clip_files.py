"""Files of the clips in a table: one file is one clip, however its path is written."""

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

from zamba_lcli.data.csv_tables import UNSEEN, Place, Problems
from zamba_lcli.data.video.deadline import TIME_LIMIT, Looks, look_within

AT_ONCE = 16  # files looked at: on a network drive each takes its time
URL = re.compile(r"(?:^|/)(?:https?|ftp|file|s3|gs|az|rtsp)://?", re.IGNORECASE)
DRIVE = re.compile(r"(?:^|/)[a-z]:[\\/]|(?:^|/)\\\\", re.IGNORECASE)  # how paths begin on Windows


class ClipFile(NamedTuple):
    """Where a clip of a table is."""

    path: str  # from where the table's paths start; where it should be, if there is none
    same_as: int  # number of the first clip of the table that is this very file
    differs: bool  # whether the name on the disk is another than that in the table


def locate(
    folder: Path, names: Sequence[str], key: str = "data.labels", time_limit: float = TIME_LIMIT
) -> list[ClipFile]:
    r"""Finds the files of a table; returns one for each name.

    A file that is not there as written is found if there is exactly one that differs from it only in how Unicode composes
    its name, in blanks around it, in the case of its ending, or in ``/`` for ``\``. Links, hard links, ``..`` and the like
    do not make a file another one.

    Args:
        folder: What relative names start from.
        names: As in the table.
        key: The argument that named the table, for messages.
        time_limit: Seconds that looking at a file may take.

    Raises:
        NoAnswerError: If the disk of a file does not answer.
    """
    return look_within(time_limit, key, lambda looks: list(_locate(folder, names, looks)))


def _locate(folder: Path, names: Sequence[str], looks: Looks) -> Iterator[ClipFile]:
    others = _OtherNames()
    firsts = _Firsts()
    keys = _in_threads(_Keys(looks), [os.path.join(folder, name) for name in names])
    for number, (name, key) in enumerate(zip(names, keys, strict=True)):
        looks.at(os.path.join(folder, name))
        path, differs = name, False
        if key is None and (other := others.only(os.fspath(folder), name)) is not None:
            path, differs = other, True
            key = _Keys(looks)(os.path.join(folder, path))
        full = os.path.join(folder, path)
        first = firsts.add(key or _key_of_missing(full), full, number)
        looks.done()
        yield ClipFile(path, first, differs)


def leads_outside(folder: Path, name: str, real: Callable[[str], str] = os.path.realpath) -> bool:
    """Returns whether the path of a clip leads out of a folder, as it is written: where links lead is up to who made them.

    Args:
        folder: What relative names start from.
        name: As in the table; backslashes may be meant as slashes.
        real: Returns the path of a folder without links.
    """
    if not os.path.isabs(name) and ".." not in name:
        return False
    root = os.path.join(os.path.abspath(folder), "")
    for text in {name, name.replace("\\", "/")}:
        path = os.path.join(root, text)
        written = os.path.normpath(path)
        parent = os.path.dirname(path)
        # after a link, .. is the folder above the link's target
        if written.startswith(root) and (".." not in text or real(parent) == real(os.path.dirname(written))):
            continue
        if not os.path.join(real(parent), "").startswith(os.path.join(real(root), "")):  # a folder may have two names
            return True
    return False


def check_inside(
    rows: Iterable[tuple[Place, str]], folder: Path, problems: Problems, time_limit: float = TIME_LIMIT
) -> None:
    """Refuses filepaths that lead out of a folder: a table that somebody else wrote could name any file of the machine.

    Args:
        rows: Where each filepath stands, and the filepath.
        folder: What relative filepaths start from.
        problems: Gets those that lead out of it.
        time_limit: Seconds that looking at a folder may take.

    Raises:
        NoAnswerError: If the disk of a folder does not answer.
    """
    rows = list(rows)
    real = lru_cache(maxsize=None)(os.path.realpath)  # clips are many, folders few

    def look(looks: Looks) -> list[tuple[Place, str]]:
        found = []
        for place, name in rows:
            looks.at(name)
            if leads_outside(folder, name, real):
                found.append((place, name))
        return found

    outside = look_within(time_limit, problems.key, look)
    if not outside:
        return
    folders = [os.path.dirname(name) for _, name in rows if os.path.isabs(name)]
    common = os.path.commonpath(folders) if len(folders) == len(rows) else ""
    stated = f"set data.data_dir to {common}" if os.path.dirname(common) != common else "state another data.data_dir"
    remedy = (
        f"Filepaths start from {folder.absolute()}. If you trust the table, {stated}, which all clips are in, or set "
        "data.allow_outside_data_dir to true."
    )
    for place, name in outside:
        problems.add(place, f"the filepath {name!r} leads out of the folder of the clips", remedy)


class _Keys:
    """Tells files apart."""

    def __init__(self, looks: Looks) -> None:
        self.looks = looks
        self.folder = lru_cache(maxsize=None)(os.path.realpath)  # clips are many, folders few

    def __call__(self, path: str) -> str | None:
        """Returns what is the same for all names of a file; ``None`` if there is none."""
        try:
            status = os.lstat(self.looks.at(path))
            is_link = stat.S_ISLNK(status.st_mode)
            status = os.stat(path) if is_link else status
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError):  # ValueError: a null character in the name
            return path
        if status.st_nlink > 1 and stat.S_ISREG(status.st_mode) and status.st_ino:
            return f"\0{status.st_dev}/{status.st_ino}"
        parent, name = os.path.split(path)
        if is_link or name in ("", ".", ".."):
            return os.path.realpath(path)
        return os.path.join(self.folder(parent), name)


class _Firsts:
    """Keeps the first clip in the table of each file."""

    def __init__(self) -> None:
        self.by_key: dict[str, int] = {}
        self.by_folded: dict[str, tuple[str, int]] = {}

    def add(self, key: str, path: str, number: int) -> int:
        """Returns the number of the first clip that is the same file."""
        first = self.by_key.setdefault(key, number)
        if first != number:
            return first
        # on disks that ignore case or Unicode composition, two names lead to one file
        folded = unicodedata.normalize("NFC", key).casefold()
        other, first = self.by_folded.setdefault(folded, (path, number))
        if first != number and _same_file(other, path):
            self.by_key[key] = first
            return first
        return number


def _same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def _key_of_missing(path: str) -> str:
    return os.path.abspath(path.replace("\\", "/"))


class _OtherNames:
    """Finds files by names that differ a little from theirs."""

    def __init__(self) -> None:
        self.listed: dict[tuple[str, bool], dict[str, list[str]]] = {}

    def only(self, folder: str, name: str) -> str | None:
        """Returns the one name on the disk that ``name`` can mean, or ``None`` if there are none or several."""
        found = {match for text in {name, name.replace("\\", "/")} for match in self._matches(folder, text)}
        return found.pop() if len(found) == 1 else None

    def _matches(self, folder: str, name: str) -> list[str]:
        # no Path: it keeps the text of all its parts for good, of which there may be a million
        drive, rest = os.path.splitdrive(name)
        rest = rest.replace(os.altsep or os.sep, os.sep)
        parts = [part for part in rest.split(os.sep) if part not in ("", ".")]
        found = [drive + os.sep if rest.startswith(os.sep) else drive]
        for number, part in enumerate(parts, start=1):
            is_last = number == len(parts)
            found = [
                os.path.join(above, match)
                for above in found
                for match in self._below(os.path.join(folder, above), part, is_last)
            ]
        return [match for match in found if match]

    def _below(self, folder: str, part: str, is_last: bool) -> list[str]:
        if part == ".." or _is_there(os.path.join(folder, part)):
            return [part]
        if (folder, is_last) not in self.listed:
            by_key: dict[str, list[str]] = {}
            for name in _listed(folder):
                by_key.setdefault(_loose(name, is_last), []).append(name)
            self.listed[folder, is_last] = by_key
        return self.listed[folder, is_last].get(_loose(part, is_last), [])


def _loose(name: str, is_file: bool) -> str:
    """Returns a key that names of the same file or folder share."""
    name = unicodedata.normalize("NFC", name).strip(UNSEEN)
    if not is_file:
        return name
    stem, ending = os.path.splitext(name)
    return stem.strip(UNSEEN) + ending.casefold()


def _looser(name: str) -> str:
    """Returns a key that names share which may be mistaken for each other."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())


def _is_there(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:
        return False


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder or "."))
    except (OSError, ValueError):
        return []


def _in_threads(keys: _Keys, paths: Sequence[str]) -> Iterator[str | None]:
    """Yields the key of each path, in order."""
    size = 256  # a future for each path would take more memory than all the rest
    if len(paths) <= size:
        yield from map(keys, paths)
        return

    def several(start: int) -> list[str | None]:
        try:
            return [keys(path) for path in paths[start : start + size]]
        finally:
            keys.looks.done()

    with ThreadPool(AT_ONCE) as pool:  # of daemons, which the interpreter does not wait for
        for found in pool.imap(several, range(0, len(paths), size)):
            yield from found


def wrong_with_file(path: Path) -> str | None:
    """Returns what is wrong with the file at ``path``, or ``None``."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return f"missing{_hint(path)}"
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        return getattr(error, "strerror", None) or str(error)
    if not stat.S_ISREG(status.st_mode):
        return "a folder" if stat.S_ISDIR(status.st_mode) else "not a file"
    if not status.st_size:
        return "empty (0 bytes)"
    return None if os.access(path, os.R_OK) else "no permission to read it"


def _hint(path: Path) -> str:
    """Returns what may be wrong with the path of a missing file."""
    text = str(path)
    if os.path.islink(path):
        return ""
    if os.path.exists(text.replace("\\", "/")):
        return " (write / instead of \\ and it is there)"
    if URL.search(text.replace(os.sep, "/")):
        return " (an address: download the clip, and give its path)"
    if os.name != "nt" and DRIVE.search(text):
        return " (a path of Windows: give the one on this machine)"
    near = [name for name in _listed(str(path.parent)) if _looser(name) == _looser(path.name)]
    if not near:
        return ""
    alike = any(_loose(name, False) == _loose(path.name, False) for name in near)
    names = [ascii(name) if alike else repr(name) for name in [*near[:3], path.name]]
    return f" (there is {' and '.join(names[:-1])}, which is not {names[-1]})"


def names_that_differ(files: Iterable[tuple[str, str]]) -> str:
    """Returns a sentence about files whose names on the disk are not those in the table.

    Args:
        files: The names in the table and those on the disk.
    """
    pairs = list(files)
    written, there = pairs[0]
    how_many = "1 clip is" if len(pairs) == 1 else f"{len(pairs)} clips are"
    return f"{how_many} on the disk by a name that is not quite that in the table, such as {there!a} for {written!a}"
