"""The clips in a folder: all that can be seen, or an error; what systems put beside clips is passed over, and counted."""

import errno
import os
import re
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from zamba_lcli.data.csv_tables import UNSEEN, counted
from zamba_lcli.data.video.deadline import TIME_LIMIT, Looks, look_within
from zamba_lcli.errors import InputError

VIDEO_SUFFIXES = frozenset(
    [
        ".264",
        ".265",
        ".3g2",
        ".h264",
        ".h265",
        ".hevc",
        ".ivf",
        ".mxf",
        ".vob",
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
SYSTEM_FOLDERS = re.compile(  # of macOS, Windows, Linux, and of network drives: trash, thumbnails, snapshots, rescued pieces
    r"__macosx|\$recycle\.bin|recycle[rd]|recycle bin|system volume information|found\.\d{3}|lost\+found|lost\.dir|~\$.*"
    r"|#recycle|#snapshot|~snapshot|@gmt-[\d.-]+|@eadir|@recycle|@recently-snapshot|@tmp|@transcode|@synoeastream"
    r"|@sharebin|@__thumb|files_trashbin|files_versions|\$extend|network trash folder|temporary items|trashbox",
    re.IGNORECASE,
)
TRASH = ("files", "info")  # in a folder that is called Trash only: what the desktops of Linux have in theirs
MAX_INODE = 2**64 - 1
HIDDEN = (".", "~$")  # how names of hidden files begin, and of those that Office holds open


@dataclass
class Listing:
    """The clips of a folder, and what else is in it."""

    names: list[str] = field(default_factory=list)  # of clips, relative to the folder, with /
    system_folders: int = 0  # with all that is in them
    hidden_files: int = 0  # with the ending of a video
    repeated_links: int = 0  # to clips that are listed already; hard links too
    broken_links: list[str] = field(default_factory=list)  # with the ending of a video
    links_up: int = 0  # to folders that the listed one is in
    endings: Counter[str] = field(default_factory=Counter)  # of files that are no clips

    def passed_over(self) -> str:
        """Returns what was passed over, in words; empty if nothing was."""
        kinds = [f"{number} {ending or 'without'}" for ending, number in self.endings.most_common(5)]
        kinds += ["..."] if len(self.endings) > 5 else []
        others, broken = self.endings.total(), len(self.broken_links)
        told = [
            (self.system_folders, counted(self.system_folders, "folder") + " of the system or hidden, such as trash"),
            (self.hidden_files, counted(self.hidden_files, "hidden file")),
            (others, f"{counted(others, 'file')} with other endings ({', '.join(kinds)})"),
            (self.repeated_links, counted(self.repeated_links, "link") + " to clips that are there anyway"),
            (broken, f"{counted(broken, 'link')} to clips that are not there ({', '.join(self.broken_links[:3])})"),
            (self.links_up, counted(self.links_up, "link") + " to folders above"),
        ]
        return ", ".join(text for number, text in told if number)


def list_clips(folder: Path, time_limit: float = TIME_LIMIT) -> Listing:
    """Lists the files in a folder and its subfolders that have the endings of videos, in any case, a folder at a time.

    Hidden files and folders, and those of the system, are passed over. Linked folders are listed too, but each folder once,
    under its own name where it is below ``folder``. Files that cannot be looked at are clips: that they cannot be read is
    reported for each clip.

    Args:
        folder: The folder.
        time_limit: Seconds that looking at a file or folder may take.

    Raises:
        InputError: Names a folder that cannot be listed to its end: the clips in it would just not be there.
        NoAnswerError: If the disk of a folder does not answer.
    """
    return look_within(time_limit, "data.videos", lambda looks: _list_clips(folder, looks))


def _list_clips(folder: Path, looks: Looks) -> Listing:
    listing = Listing()
    root = os.path.realpath(folder)
    listed: set[str] = set()  # real paths
    links: list[tuple[str, str]] = []  # to folders: names and real paths
    linked_files: list[str] = []
    inodes = _Inodes()
    pending = [("", root)]
    while pending or links:
        name, real = pending.pop() if pending else links.pop()
        if real in listed:
            continue
        if root.startswith(os.path.join(real, "")):
            listing.links_up += 1
            continue
        listed.add(real)
        folders, linked = _list(folder, name, listing, linked_files, inodes, looks)
        pending += [(f"{name}{below}/", os.path.join(real, below)) for below in folders]
        links += [(f"{name}{below}/", os.path.realpath(folder / name / below)) for below in linked]
        links.sort(reverse=True)
    _leave_out_hard_links(folder, listing, inodes, looks)
    for name in linked_files:  # each under the name that it has here, unless the clip itself is listed
        target = os.path.realpath(looks.at(folder / name))
        if os.path.dirname(target) in listed and _is_clip(os.path.basename(target)):
            listing.repeated_links += 1
        else:
            listing.names.append(name)
    _check_names(folder, listing.names)
    listing.names.sort(key=_in_order)
    return listing


def _list(
    folder: Path, name: str, listing: Listing, linked_files: list[str], inodes: "_Inodes", looks: Looks
) -> tuple[list[str], list[str]]:
    """Notes the clips of one folder; returns its subfolders and its links to folders."""
    folders: list[str] = []
    links: list[str] = []
    try:
        device = os.stat(looks.at(folder / name)).st_dev
        with os.scandir(folder / name) as entries:
            for entry in entries:
                looks.at(entry.path)
                kind = _kind(entry)
                is_hidden = entry.name.startswith(HIDDEN)
                if kind == "folder" or (kind == "unknown" and not _is_clip(entry.name)):
                    if _is_of_system(entry):
                        listing.system_folders += 1
                    else:
                        (links if entry.is_symlink() else folders).append(entry.name)
                elif is_hidden:
                    listing.hidden_files += has_video_ending(entry.name)
                elif kind == "nowhere" and not os.path.splitext(entry.name)[1]:
                    raise InputError(
                        f"data.videos: the link {entry.path} leads to {os.readlink(entry.path)}, which is not there. Clips in "
                        "it would be missing from the predictions: connect the drive, or delete the link."
                    )
                elif kind == "nowhere" and has_video_ending(entry.name):
                    listing.broken_links.append(name + entry.name)
                elif not has_video_ending(entry.name) or kind == "other":
                    listing.endings[os.path.splitext(entry.name)[1].lower()] += 1
                elif entry.is_symlink():
                    linked_files.append(name + entry.name)
                else:
                    listing.names.append(name + entry.name)
                    inodes.add(device, entry.inode())
    except OSError as error:
        raise InputError(
            f"data.videos: the folder {(folder / name).absolute()} cannot be listed: {error.strerror or error}. Its clips "
            "would be missing from the predictions. Make it readable, or move it elsewhere."
        ) from None
    return folders, links


def _is_of_system(entry: "os.DirEntry[str]") -> bool:
    """Returns whether a folder is hidden, or one that systems make."""
    name = entry.name.strip(UNSEEN)
    if name.casefold() == "trash":
        return all(os.path.isdir(os.path.join(entry.path, below)) for below in TRASH)
    return name.startswith(".") or SYSTEM_FOLDERS.fullmatch(name) is not None


class _Inodes:
    """The numbers of files as a folder lists them, which opens none: files with other numbers are not the same."""

    def __init__(self) -> None:
        self.devices = array("Q")
        self.numbers = array("Q")

    def add(self, device: int, number: int) -> None:
        self.devices.append(device & MAX_INODE)
        self.numbers.append(number & MAX_INODE)

    def repeated(self) -> list[list[int]]:
        """Returns the places of files that may be the same."""
        numbers, of, times = np.unique(np.array(self.numbers, np.uint64), return_inverse=True, return_counts=True)
        groups: dict[tuple[int, int], list[int]] = {}
        for place in np.flatnonzero(((times > 1) & (numbers > 0))[of]).tolist():  # 0: the drive gives no numbers
            groups.setdefault((self.devices[place], self.numbers[place]), []).append(place)
        return [group for group in groups.values() if len(group) > 1]


def _leave_out_hard_links(folder: Path, listing: Listing, inodes: _Inodes, looks: Looks) -> None:
    """Keeps of each file the name that is sorted first."""
    again = set()
    for places in inodes.repeated():
        looks.at(folder / listing.names[places[0]])
        places.sort(key=lambda place: _in_order(listing.names[place]))
        again |= {
            place
            for place in places[1:]
            if _same_file(folder / listing.names[places[0]], folder / listing.names[place])
        }
    listing.repeated_links += len(again)
    if again:
        listing.names = [name for place, name in enumerate(listing.names) if place not in again]


def _same_file(one: Path, other: Path) -> bool:
    """Returns whether two names are of one file: some drives give files numbers that they share."""
    try:
        status = os.stat(one)
        return status.st_nlink > 1 and os.path.samestat(status, os.stat(other))
    except OSError:  # reported when it is read as a clip
        return False


def _in_order(name: str) -> str:
    return name.replace("/", "\0")


def _kind(entry: "os.DirEntry[str]") -> str:
    """Returns what an entry is or links to: folder, file, other (such as a pipe), nowhere, or unknown if that is hidden."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError as error:
        return "other" if error.errno == errno.ELOOP else "unknown"  # a link that leads to itself
    return "nowhere" if entry.is_symlink() and not os.path.exists(entry.path) else "other"


def has_video_ending(name: str) -> bool:
    """Returns whether a file is a clip by its name."""
    return os.path.splitext(name.rstrip())[1].lower() in VIDEO_SUFFIXES


def cut_name(filepath: str, cells: Iterable[str]) -> str | None:
    """Returns the rest of a clip's name that a separator cut in two, from the row of a table; ``None`` if it is whole."""
    return None if has_video_ending(filepath) else next(filter(has_video_ending, cells), None)


def _is_clip(name: str) -> bool:
    return has_video_ending(name) and not name.startswith(HIDDEN)


def _check_names(folder: Path, names: list[str]) -> None:
    """Refuses names that no table of predictions can hold."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"data.videos: the name {name!a} in {folder.absolute()} is not UTF-8, so no table can hold it. Rename it; "
                "convmv renames many at once."
            ) from None
