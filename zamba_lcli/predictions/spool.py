"""Predictions on disk as they are made, so that a run that is killed at any moment can be continued."""

import errno
import json
import shutil
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from zamba_lcli.errors import InputError
from zamba_lcli.files import lock_file, replacing
from zamba_lcli.predictions.formats import PredictedClip, PredictedPart, PredictedRow

HEADER = "header.json"
LOCK = "lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)  # of file systems
CHECKSUM = b'{"checksum": "%08x", '  # how each line begins
OPEN_FILES = 200  # at a time; systems allow a process some hundred


@dataclass(frozen=True)
class FoundRows:
    """Positions of the clips' rows in the files; no row is held in memory."""

    files: list[Path]
    file: NDArray[np.int32]  # (clips,) position in ``files``, -1 without a row
    offset: NDArray[np.int64]  # (clips,) bytes
    failed: NDArray[np.bool_]  # (clips,) whether the clip could not be read
    in_part: NDArray[np.bool_]  # (clips,) whether the clip is damaged or cut off

    @property
    def there(self) -> NDArray[np.bool_]:
        """Whether a clip has a row, (clips,)."""
        return self.file >= 0


class Spool:
    """A folder with rows as lines of JSON; each process of each start of a run appends to a file of its own.

    The clip of a torn line, such as the last one of a killed process, or of a damaged one, which its checksum shows, is
    predicted again. So is a clip that could not be read: the disk may have been at fault.

    Args:
        folder: Of the files.
    """

    def __init__(self, folder: Path) -> None:
        """Keeps the path."""
        self.folder = folder
        self._lock: IO[bytes] | None = None

    def claim(self) -> None:
        """Makes the folder and takes it for this process, until it is removed or the process ends.

        Raises:
            InputError: If another process has it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = lock_file(self.folder / LOCK)
        except BlockingIOError:
            raise InputError(
                f"{self.folder}: another process is predicting into it. Wait for it, or stop it; or give WritePredictions "
                "another output_dir, or another shard."
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            warnings.warn(
                f"{self.folder}: the file system has no locks. Let no other process predict into it.", stacklevel=2
            )

    def is_claimed(self) -> bool:
        """Returns whether another process has the folder."""
        try:
            lock_file(self.folder / LOCK).close()
        except BlockingIOError:
            return True
        except OSError:  # no locks, or read-only
            return False
        return False

    def differing(self, header: Mapping[str, Any]) -> list[str]:
        """Returns the names in which the header of the rows, if there are any, differs from another; of a damaged one, all."""
        theirs = self._header()
        if theirs is None:
            return sorted(header) if self._files() else []
        return sorted(key for key in {*header, *theirs} if header.get(key) != theirs.get(key))

    def _header(self) -> dict[str, Any] | None:
        try:
            return _parse((self.folder / HEADER).read_bytes())
        except FileNotFoundError:
            return None

    def begin(self, header: Mapping[str, Any], discard: bool) -> int:
        """Claims the folder, and begins rows in it or continues with those that are there.

        Args:
            header: Plain values that the rows depend on.
            discard: Whether to delete rows with another header.

        Returns:
            The number of this start, 0 for the first.

        Raises:
            InputError: If there are rows with another header, or another process has the folder.
        """
        if self._lock is None:
            self.claim()
        theirs = self._header()
        if theirs is not None and theirs != header and not discard:
            raise InputError(
                f"{self.folder} holds predictions of a run that was not finished, or not merged, and differed in: "
                f"{', '.join(self.differing(header))}. "
                "Finish that run with the arguments it had; or delete the folder; or give WritePredictions another output_dir, "
                "or overwrite: true."
            )
        if theirs != header:
            for path in self._files():
                path.unlink()
            with replacing(self.folder / HEADER) as partial:
                partial.write_bytes(_line(header))
        return 1 + max((int(path.name.split("-")[0]) for path in self._files()), default=-1)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*-*.jsonl"))

    @property
    def _done(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.done")

    def open(self, start: int, rank: int) -> IO[bytes]:
        """Opens the file that a process appends to, for ``append``."""
        return (self.folder / f"{start:06d}-{rank:06d}.jsonl").open("xb")

    def find(self, filepaths: Sequence[str]) -> FoundRows:
        """Finds the row of each clip; of several, the first of a clip that could be read, or else the last."""
        files, clips = self._files(), len(filepaths)
        position_of = {filepath: position for position, filepath in enumerate(filepaths if files else ())}
        found = FoundRows(
            files, np.full(clips, -1, np.int32), np.zeros(clips, np.int64), *np.zeros((2, clips), np.bool_)
        )
        for number, path in enumerate(files):
            offset = 0
            with path.open("rb") as file:
                for line in file:
                    row = _parse(line)
                    position = None if row is None else position_of.get(row["filepath"])
                    if row is not None and position is not None and (found.failed | ~found.there)[position]:
                        found.file[position], found.offset[position] = number, offset
                        found.failed[position], found.in_part[position] = bool(row["error"]), bool(row["note"])
                    offset += len(line)
        return found

    def read(
        self, found: FoundRows, filepaths: Sequence[str], paths: Sequence[Path], sites: Sequence[str] | None
    ) -> Iterator[PredictedClip]:
        """Yields the clips that have a row, in the order of ``filepaths``."""
        with ExitStack() as stack:
            opened: dict[int, IO[bytes]] = {}
            for position in map(int, np.flatnonzero(found.there)):
                number = int(found.file[position])
                if number not in opened:
                    if len(opened) == OPEN_FILES:
                        stack.close()
                        opened.clear()
                    opened[number] = stack.enter_context(found.files[number].open("rb"))
                file = opened[number]
                file.seek(found.offset[position])
                row = _parse(file.readline())
                if row is None:
                    raise InputError(
                        f"{found.files[number]} was changed or damaged while it was read. Start again: missing clips "
                        "are predicted again."
                    )
                parts = [PredictedPart(**part) for part in row.pop("parts")]
                site = None if sites is None else sites[position]
                yield PredictedClip(**row, parts=parts, path=paths[position], site=site)

    def remove_done(self) -> None:
        """Deletes what is left of a run that was killed when it was done."""
        shutil.rmtree(self._done, ignore_errors=True)

    def remove(self) -> None:
        """Deletes the folder; what an interruption leaves of it is never read as rows."""
        if self._lock is not None:
            self._lock.close()  # some systems do not move what is locked
        self.folder.rename(self._done)
        shutil.rmtree(self._done)


def append(file: IO[bytes], rows: Sequence[PredictedRow]) -> None:
    """Appends rows and hands them to the system, which keeps them whatever happens to the process."""
    file.write(b"".join(_line(asdict(row)) for row in rows))
    file.flush()


def _line(content: Mapping[str, Any]) -> bytes:
    """Returns a line of JSON that begins with a checksum of the rest."""
    rest = json.dumps(content)[1:].encode()
    return b"%b%b\n" % (CHECKSUM % zlib.crc32(rest), rest)


def _parse(line: bytes) -> dict[str, Any] | None:
    """Returns the content of a line, or None if it is torn or damaged."""
    rest = line[len(CHECKSUM % 0) : -1]
    if line != b"%b%b\n" % (CHECKSUM % zlib.crc32(rest), rest):
        return None
    content: dict[str, Any] = json.loads(b"{" + rest)
    return content
