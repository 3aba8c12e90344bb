"""Which clips to predict."""

import csv
from pathlib import Path

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


def find_videos(videos: str, data_dir: str | None = None) -> tuple[list[str], list[Path]]:
    """Lists clips: those of a folder in sorted order, or those of a table in its order.

    Args:
        videos: A folder, searched with its subfolders for files with the endings of videos in any case; a ``.csv`` table
            with a column ``filepath``; or one clip.
        data_dir: Folder that the filepaths of a table are relative to; null for the folder of the table.

    Returns:
        The names as found (relative to the folder, or as written in the table) and the paths. The files of a table may be
        missing: that is told clip by clip.

    Raises:
        InputError: If there is no such folder or file, or nothing to predict in it.
    """
    path = Path(videos)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
        if not found:
            raise InputError(
                f"data.videos: no clip in {path.absolute()} or its subfolders; files with these endings count as clips: "
                f"{' '.join(sorted(VIDEO_SUFFIXES))}."
            )
        return [p.relative_to(path).as_posix() for p in found], found
    if not path.is_file():
        raise InputError(f"data.videos: there is no folder or file {path.absolute()}.")
    if path.suffix.lower() != ".csv":
        return [str(path)], [path]
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if "filepath" not in (rows.fieldnames or []):
            raise InputError(f"data.videos: {path} has no column filepath; its columns are {rows.fieldnames or []}.")
        filepaths = list(dict.fromkeys(name for row in rows if (name := (row["filepath"] or "").strip())))
    if not filepaths:
        raise InputError(f"data.videos: {path} names no clip in its column filepath.")
    folder = path.parent if data_dir is None else Path(data_dir)
    return filepaths, [folder / name for name in filepaths]
