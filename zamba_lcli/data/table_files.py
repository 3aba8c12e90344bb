"""Reads the text of tables, encoded and compressed in any usual way; refuses other kinds of files."""

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, TypeAlias

from zamba_lcli.data.video.deadline import TIME_LIMIT, Looks, NoAnswerError, look_within
from zamba_lcli.errors import InputError

MAX_BYTES = 512 * 2**20  # of a table, unpacked: some five million rows
CHUNK = 2**20
PACKED_ENDINGS = (".gz", ".bz2", ".xz")
KINDS = (
    "Tables are text (CSV): columns separated by commas, semicolons, tabs or |, the file named .csv, .tsv or .txt, or "
    "packed as .gz, .bz2 or .xz"
)
ZIPPED = {".xlsx": "a workbook of Excel", ".xlsm": "a workbook of Excel", ".xlsb": "a workbook of Excel"}
ZIPPED |= {".ods": "a workbook (OpenDocument)", ".numbers": "a workbook of Numbers"}
BYTE_ORDER_MARKS = (  # in this order: that of UTF-32 begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),  # of Excel, before the first column name
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
Unpacked: TypeAlias = gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile
UNPACKERS: tuple[tuple[bytes, Callable[[IO[bytes]], Unpacked]], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\x00", lzma.LZMAFile),
)
OTHER_KINDS = (  # how files begin that are often meant to be tables
    (b"PK\x03\x04", "a zip archive"),
    (b"\xd0\xcf\x11\xe0", "a workbook of old Excel (.xls)"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "a Feather file"),
    (b"%PDF", "a PDF"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x28\xb5\x2f\xfd", "packed as .zst"),
    (b"7z\xbc\xaf\x27\x1c", "packed as .7z"),
)


def read_text(file: Path | zipfile.Path, encoding: str = "utf-8", key: str = "data.labels") -> str:
    """Returns the text of a file, which may be in a zip, or packed with gzip, bzip2 or xz.

    Args:
        file: The file.
        encoding: Of the text; a byte order mark, or the pattern of UTF-16, takes precedence.
        key: The argument that named it, for messages.

    Raises:
        InputError: Names the file that is not there, cannot be read or is no text, and says what to do.
    """
    where = file.absolute() if isinstance(file, Path) else file

    try:
        content = look_within(TIME_LIMIT, key, partial(_read, file))
    except NoAnswerError:
        raise
    except _NoRegularFileError:
        raise InputError(
            f"{key}: {where} is not a regular file. {KINDS}: write what comes from there to one."
        ) from None
    except FileNotFoundError:
        raise InputError(f"{key}: there is no file {where}. Correct the path.") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
        # RuntimeError: a zip with a password
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{key}: {where} cannot be read: {reason}.") from None
    if len(content) > MAX_BYTES:
        raise InputError(
            f"{key}: {where} holds more than {MAX_BYTES // 2**20} MB, unpacked. Is it the table? Split larger ones."
        )
    kind = next((kind for start, kind in OTHER_KINDS if content.startswith(start)), None)
    if kind is not None:
        kind = ZIPPED.get(ending := Path(file.name).suffix.lower(), kind)
        remedy = "save or export it as 'CSV UTF-8'"
        if ending in (".zip", ".7z"):
            remedy = "unpack it, and give the folder or table that was in it"
        raise InputError(f"{key}: {where} is {kind}. {KINDS}: {remedy}.")
    encoding = _encoding_of(content) or encoding
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{key}: {where} is not {encoding.upper()} text (line {line}: {content[error.start : error.start + 1]!r}). "
            "Save it as 'CSV UTF-8'."
        ) from None
    except LookupError:
        raise InputError(f"{key}: {where}: unknown encoding {encoding!r}. Save it as 'CSV UTF-8'.") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(
            f"{key}: {where}, line {line}: there are null characters. The file is damaged or no table: save it anew as "
            "'CSV UTF-8'."
        )
    return text


def looks_like_table(start: bytes) -> bool:
    """Returns the kind of a file that may be mistaken for a table, by its first bytes."""
    if start.startswith((*(magic for magic, _ in UNPACKERS), *(magic for magic, _ in OTHER_KINDS))):
        return True
    decoder = codecs.getincrementaldecoder(_encoding_of(start) or "utf-8")()  # the last character may be cut
    try:
        text = decoder.decode(start)
    except UnicodeDecodeError:
        return False
    return bool(text) and all(c.isprintable() or c.isspace() for c in text.lstrip("\ufeff"))


class _NoRegularFileError(Exception):
    """To open it, as a named pipe, might never return."""


def _read(file: Path | zipfile.Path, looks: Looks) -> bytes:
    """Returns the content, unpacked, or a little more than ``MAX_BYTES`` of it: what is packed may be of any size."""
    looks.at(str(file))
    if isinstance(file, Path) and file.exists() and not file.is_file() and not file.is_dir():
        raise _NoRegularFileError
    with file.open("rb") as stream:
        content = _up_to_limit(stream, looks)
    for magic, unpacked in UNPACKERS:
        if content.startswith(magic):
            with unpacked(io.BytesIO(content)) as packed:
                return _up_to_limit(packed, looks)
    if file.name.lower().endswith(PACKED_ENDINGS):
        raise OSError("it is not packed, though its name ends so")
    return content


def _up_to_limit(stream: IO[bytes] | Unpacked, looks: Looks) -> bytes:
    content = bytearray()
    while len(content) <= MAX_BYTES and (part := stream.read(CHUNK)):
        content += part
        looks.go_on()
    return bytes(content)


def _encoding_of(content: bytes) -> str | None:
    """Returns the encoding by the first bytes; ``None`` if they do not show it."""
    for mark, encoding in BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return encoding
    even, odd = content[:8:2], content[1:8:2]  # the first column is named in ASCII, in two bytes each
    if odd and not any(odd) and all(even):
        return "utf-16-le"
    if odd and not any(even) and all(odd):
        return "utf-16-be"
    return None
