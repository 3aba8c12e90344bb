"""Lists the clips to predict."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, overload

from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from zamba_lcli.data.clip_files import check_inside, locate, names_that_differ
from zamba_lcli.data.csv_tables import (
    OTHER_NAMES,
    Place,
    Problems,
    check_columns,
    check_formulas,
    counted,
    read_table,
    records,
    shown,
)
from zamba_lcli.data.folders import VIDEO_SUFFIXES, cut_name, has_video_ending, list_clips
from zamba_lcli.data.labels.camtrap_package import DESCRIPTOR
from zamba_lcli.data.table_files import KINDS, PACKED_ENDINGS, looks_like_table
from zamba_lcli.data.video.deadline import TIME_LIMIT, look_within
from zamba_lcli.errors import InputError

TEXT_ENDINGS = (".csv", ".tsv", ".txt", ".tab")


class PathsBelow(Sequence[Path]):
    """Paths of clips, made on demand: a million of them take four times the memory of their names.

    Args:
        folder: What the names are relative to.
        names: Names of the clips.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        """Keeps the arguments."""
        self.folder = folder
        self.names = names

    def __len__(self) -> int:
        """Returns the number of paths."""
        return len(self.names)

    @overload
    def __getitem__(self, position: int) -> Path: ...

    @overload
    def __getitem__(self, position: slice) -> list[Path]: ...

    def __getitem__(self, position: int | slice) -> Path | list[Path]:
        """Makes a path, or several."""
        if isinstance(position, slice):
            return [self.folder / name for name in self.names[position]]
        return self.folder / self.names[position]


class Videos(NamedTuple):
    """Clips to predict."""

    filepaths: list[str]  # as found, relative to the folder, or as written in the table
    paths: Sequence[Path]  # where they are, or should be
    sites: list[str] | None  # as in the table; None without such a column


def find_videos(
    videos: str | None, data_dir: str | None = None, allow_outside: bool = True, time_limit: float = TIME_LIMIT
) -> Videos:
    """Lists clips: those of a folder in sorted order, or those of a table in its order.

    Args:
        videos: A folder, searched with its subfolders for files with the endings of videos in any case; a table with a column
            ``filepath`` and maybe a column ``site``; or one clip.
        data_dir: Folder that the filepaths of a table are relative to; ``None`` for the folder of the table.
        allow_outside: Allow filepaths of a table that lead out of that folder; see ``check_inside``.
        time_limit: Seconds that looking at a file or folder may take.

    Returns:
        The clips, each once. The files of a table may be missing: that is reported for each clip.

    Raises:
        InputError: If there is none, no such folder or file, nothing to predict in it, or something wrong with it.
    """
    if videos is None:
        raise InputError("data.videos is missing: give a folder of clips, a table with a column filepath, or a clip.")
    path = Path(videos)
    try:
        mode = look_within(time_limit, "data.videos", lambda looks: os.stat(looks.at(path))).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"data.videos: there is no folder or file {path.absolute()}.") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"data.videos: {path.absolute()} cannot be looked at: {reason}.") from None
    if stat.S_ISDIR(mode):
        return _in_folder(path, time_limit)
    if not has_video_ending(path.name) and not stat.S_ISREG(mode):
        raise InputError(f"data.videos: {path.absolute()} is neither a folder nor a regular file. Give one of these.")
    if has_video_ending(path.name):
        return Videos([str(path)], [path], None)
    if look_within(time_limit, "data.videos", lambda looks: _is_table(looks.at(path))):
        return _in_table(path, data_dir, allow_outside, time_limit)
    return Videos([str(path)], [path], None)


def _in_folder(folder: Path, time_limit: float) -> Videos:
    listing = list_clips(folder, time_limit)
    passed_over = listing.passed_over()
    if not listing.names:
        package = (
            f" It has a {DESCRIPTOR}: give the folder with the clips of the package." * (folder / DESCRIPTOR).exists()
        )
        raise InputError(
            f"data.videos: no clip in {folder.absolute()} or its subfolders; files with these endings count as clips: "
            f"{' '.join(sorted(VIDEO_SUFFIXES))}.{f' Passed over: {passed_over}.' if passed_over else ''}{package}"
        )
    if passed_over:
        (rank_zero_warn if listing.broken_links else rank_zero_info)(f"{folder}: passed over {passed_over}.")
    return Videos(listing.names, PathsBelow(folder, listing.names), None)


def _is_table(path: Path) -> bool:
    """Returns whether a file without the name of a clip is, or was meant to be, a table."""
    name = path.name.lower()
    if name.endswith((*TEXT_ENDINGS, *PACKED_ENDINGS)):
        return True
    try:
        with path.open("rb") as file:
            return looks_like_table(file.read(4096))
    except OSError:  # reported when it is read as a clip
        return False


def _in_table(path: Path, data_dir: str | None, allow_outside: bool, time_limit: float) -> Videos:
    if path.suffix.lower() == ".json":
        raise InputError(
            f"data.videos: {path.absolute()} is JSON. Of a package in Camtrap DP, give the folder with its clips, or a table "
            f"(CSV) that names them in a column filepath. {KINDS}."
        )
    problems = Problems(path, "data.videos")
    header, cells, first = read_table(path, ("filepath", "site"), key=problems.key)
    check_columns(
        header, path.absolute(), needed=["filepath"], optional=["site"], other_names=OTHER_NAMES, key=problems.key
    )
    folder = path.parent if data_dir is None else Path(data_dir)
    rows: list[tuple[Place, str, str]] = []
    for place, value in records(header, cells, problems, first=first):
        name, site = value["filepath"], value.get("site", "")
        if not name:
            problems.add(place, "the filepath is empty", "Give every row a filepath, or delete the row.")
        elif (rest := cut_name(name, value.values())) is not None and not (folder / name).is_file():
            column = next(column for column, cell in value.items() if cell == rest)
            remedy = "Put filepaths that contain the separator in double quotes."
            problems.add(place, f"the {column} {shown(rest)} is the name of a file, and {shown(name)} is not", remedy)
        elif not check_formulas(place, value, ("filepath", "site"), problems):
            rows.append((place, name, site))
    if not allow_outside:
        check_inside([(place, name) for place, name, _ in rows], folder, problems, time_limit)
    found = _clips_of(rows, folder, problems, "site" in header, time_limit)
    problems.raise_if_any()
    return found


def clips_named_in(
    table: Path, data_dir: str | None = None, allow_outside: bool = True
) -> list[tuple[Place, str, Path]]:
    """Returns the clips that a table names, each once, whatever else is wrong with it; none if it is no table.

    Args:
        table: Has a column ``filepath``.
        data_dir: See ``find_videos``.
        allow_outside: See there.
    """
    problems = Problems(table)  # which are reported elsewhere
    try:
        if not table.is_file() or not _is_table(table):
            return []
        header, cells, first = read_table(table, ("filepath",))
        if "filepath" not in header:
            return []
        folder = table.parent if data_dir is None else Path(data_dir)
        rows = [(p, value["filepath"]) for p, value in records(header, cells, problems, first=first)]
    except InputError:
        return []
    outside = Problems(table)
    if not allow_outside:
        check_inside(rows, folder, outside)
    left_out = {place for place, _, _ in outside.found}
    rows = [(place, name) for place, name in rows if name and place not in left_out]
    files = locate(folder, [name for _, name in rows])
    return [
        (place, name, folder / file.path)
        for number, ((place, name), file) in enumerate(zip(rows, files, strict=True))
        if file.same_as == number
    ]


def _clips_of(
    rows: Sequence[tuple[Place, str, str]], folder: Path, problems: Problems, has_sites: bool, time_limit: float
) -> Videos:
    """Returns the clips that rows (place, filepath, site) name, each once; says so in the log where a row is not needed."""
    files = locate(folder, [name for _, name, _ in rows], problems.key, time_limit)
    sites: dict[int, tuple[str, Place]] = {}
    repeated = []
    for number, ((place, name, site), file) in enumerate(zip(rows, files, strict=True)):
        if file.same_as != number:
            repeated.append(f"{name} ({place}; {rows[file.same_as][1]} in {rows[file.same_as][0]})")
        before, where = sites.get(file.same_as, ("", place))
        if site and before and site != before:
            what = f"the site of {name} is {site!r}, but {before!r} further up ({where})"
            problems.add(place, what, "Give all rows of a clip the same site.")
        sites[file.same_as] = (before, where) if before else (site, place)
    if repeated:
        rows_name = f"{counted(len(repeated), 'row')} of {problems.source} name"
        rank_zero_info(f"{rows_name} clips that rows above name too, such as {repeated[0]}: each is predicted once.")
    if differing := [(row[1], file.path) for row, file in zip(rows, files, strict=True) if file.differs]:
        rank_zero_info(f"{problems.source}: {names_that_differ(differing)}.")
    names = [rows[number][1] for number in sites]
    paths = [files[number].path for number in sites] if differing else names
    return Videos(names, PathsBelow(folder, paths), [site for site, _ in sites.values()] if has_sites else None)


def folder_beside(videos: str) -> Path:
    """Returns the default folder of predictions: ``clips_predictions`` beside the folder, table or clip ``clips``.

    Raises:
        InputError: If there is nothing beside it.
    """
    path = Path(os.path.abspath(videos))  # a link stays a link: beside it is where people look
    is_folder = look_within(TIME_LIMIT, "data.videos", lambda looks: looks.at(path).is_dir())
    name = path.name if is_folder else path.stem
    if path.suffix.lower() in PACKED_ENDINGS and not is_folder:
        name = Path(name).stem
    if not name:
        raise InputError(
            f"data.videos: there is no place beside {path} for predictions. Give WritePredictions an output_dir."
        )
    return path.with_name(f"{name}_predictions")
