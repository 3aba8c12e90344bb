"""Files that are written whole or not at all, and the identity of a file."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

PARTIAL = ".part"  # ends the name of a file that is being written
REPLACED = ".old"  # ends the name of a folder whose place is taken


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yields a path beside ``path`` to write a file or folder to, which is then moved into the place of ``path``.

    Readers find the old file or the whole new one, whatever happens to the process or the machine; of a folder, for a moment,
    none. If the block raises, nothing is left. Processes may write the same ``path`` at a time: the last one wins.

    Args:
        path: The file or folder; its own folder must exist.
        durable: Whether the content is on the disk before it is moved. False saves the wait for files whose checksum shows
            whether they are whole.

    Raises:
        OSError: If it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    _remove(partial)
    try:
        yield partial
        if durable:
            _sync(partial)
        _move(partial, path)
    except BaseException:
        with suppress(OSError):
            _remove(partial)
        raise
    if durable:
        _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a text in UTF-8, its line ends as they are, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def lock_file(path: Path) -> IO[bytes]:
    """Locks a file for this process until it is closed or the process ends, however that happens.

    A record lock: worker processes do not inherit it, so that it ends with the process that took it.

    Raises:
        BlockingIOError: If another process has it.
        OSError: If the file cannot be made, or its file system has no locks.
    """
    file = path.open("ab")
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        file.close()
        if isinstance(error, PermissionError):  # as systems may call it
            raise BlockingIOError(*error.args) from None
        raise
    return file


def remove_partial(path: Path) -> None:
    """Deletes what killed processes left of writing ``path``; no other process may be writing it."""
    name = re.compile(rf"\.{re.escape(path.name)}\.\d+({re.escape(PARTIAL)}|{re.escape(REPLACED)})")
    for entry in [entry for entry in path.parent.iterdir() if name.fullmatch(entry.name)]:
        _remove(entry)


def file_identity(path: Path) -> list[str | int]:
    """Returns the absolute path of a file, its size in bytes and the time of its last change in ns.

    For caches, which must not read the file. Two identities have another meaning: ``data.labels.split_record`` identifies
    files by their content, whatever their names, and ``data.clip_files`` finds the names of one file.

    Raises:
        OSError: If there is no such file.
    """
    status = path.stat()
    return [str(path.absolute()), status.st_size, status.st_mtime_ns]


def _move(source: Path, target: Path) -> None:
    """Moves a file or folder into the place of another."""
    if not target.is_dir() or target.is_symlink():
        source.replace(target)
        return
    old = target.with_name(f".{target.name}.{os.getpid()}{REPLACED}")  # nothing takes the place of a folder in one step
    _remove(old)
    target.rename(old)
    source.rename(target)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Waits until a file, or all that is in a folder, is on the disk."""
    if path.is_dir():
        for entry in path.iterdir():
            _sync(entry)
        _sync_folder(path)
        return
    with path.open("r+b") as file:  # Windows syncs only what is open for writing
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk, where the system can: Windows and some network drives cannot."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
