"""Which clips to predict."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, overload

from zamba_lcli.data.tables import parse_cells, read_text, separator_in
from zamba_lcli.errors import InputError

VIDEO_SUFFIXES = frozenset(
    [
        ".3gp",
        ".asf",
        ".avi",
        ".divx",
        ".flv",
        ".m2ts",
        ".m4v",
        ".mjpeg",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ogv",
        ".ts",
        ".webm",
        ".wmv",
    ]
)


class PathsBelow(Sequence[Path]):
    """Paths of clips, made when they are asked for: a million of them take four times the memory of their names.

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
    sites: list[str] | None  # as in the table; None if it does not tell


def find_videos(videos: str, data_dir: str | None = None) -> Videos:
    """Lists clips: those of a folder in sorted order, or those of a table in its order.

    Args:
        videos: A folder, searched with its subfolders for files with the endings of videos in any case; a ``.csv`` table
            with a column ``filepath`` and maybe a column ``site``; or one clip.
        data_dir: Folder that the filepaths of a table are relative to; null for the folder of the table.

    Returns:
        The clips, each once. The files of a table may be missing: that is told clip by clip.

    Raises:
        InputError: If there is no such folder or file, or nothing to predict in it.
    """
    path = Path(videos)
    if path.is_dir():
        found = sorted(_clips_below(path), key=lambda name: name.replace("/", "\0"))  # a folder at a time
        if not found:
            raise InputError(
                f"data.videos: no clip in {path.absolute()} or its subfolders; files with these endings count as clips: "
                f"{' '.join(sorted(VIDEO_SUFFIXES))}."
            )
        return Videos(found, PathsBelow(path, found), None)
    if not path.is_file():
        raise InputError(f"data.videos: there is no folder or file {path.absolute()}.")
    if path.suffix.lower() != ".csv":
        return Videos([str(path)], [path], None)
    text = read_text(path, key="data.videos")
    header, *rows = parse_cells(text, separator_in(text), path, key="data.videos") or [[]]
    if "filepath" not in header:
        raise InputError(
            f"data.videos: {path} has no column filepath; its columns are {header}. Call the column with the clips so."
        )
    has_sites = "site" in header
    sites: dict[str, str] = {}
    for row in rows:
        values = dict(zip(header, row, strict=False))  # a row may end early
        if name := values.get("filepath"):
            sites.setdefault(name, values.get("site", ""))
    if not sites:
        raise InputError(f"data.videos: {path} names no clip in its column filepath.")
    folder = path.parent if data_dir is None else Path(data_dir)
    names = list(sites)
    return Videos(names, PathsBelow(folder, names), list(sites.values()) if has_sites else None)


def _clips_below(folder: Path) -> Iterator[str]:
    """Yields the clips in a folder and its subfolders, relative to it, as they come."""
    for place, _, names in os.walk(folder):
        below = Path(place).relative_to(folder)
        for name in names:
            if os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES and os.path.isfile(os.path.join(place, name)):
                yield name if below == Path() else f"{below.as_posix()}/{name}"


def folder_beside(videos: str) -> Path:
    """Returns where predictions go if nothing is said: ``clips_predictions`` beside the folder, table or clip ``clips``.

    Raises:
        InputError: If there is nothing beside it.
    """
    path = Path(os.path.abspath(videos))  # a link stays a link: beside it is where people look
    name = path.name if path.is_dir() else path.stem
    if not name:
        raise InputError(
            f"data.videos: there is no place beside {path} for predictions. Give WritePredictions an output_dir."
        )
    return path.with_name(f"{name}_predictions")
