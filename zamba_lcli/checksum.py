"""Files whose last four bytes are a checksum of all before, which shows any damage; and a hash of weights."""

import hashlib
import mmap
import os
import zlib
from pathlib import Path

import torch
from torch import nn

SIZE = 4  # bytes


def seal(content: bytes) -> bytes:
    """Returns ``content`` with its CRC-32 appended; formats that state their own end, such as zip, are read as before."""
    return content + zlib.crc32(content).to_bytes(SIZE, "little")


def unseal(sealed: bytes) -> bytes | None:
    """Returns the content, or None if it was damaged; any wrong bit, and any run of up to 32, is detected."""
    content, checksum = sealed[:-SIZE], sealed[-SIZE:]
    return content if zlib.crc32(content).to_bytes(SIZE, "little") == checksum else None


def seal_file(path: Path) -> None:
    """Appends the checksum to a file."""
    checksum = 0
    with path.open("r+b") as file:
        while part := file.read(1 << 20):
            checksum = zlib.crc32(part, checksum)
        file.write(checksum.to_bytes(SIZE, "little"))


def is_sealed(path: Path) -> bool:
    """Returns whether a file ends with the checksum of its content.

    Raises:
        OSError: If it cannot be read.
    """
    if os.stat(path).st_size <= SIZE:
        return False
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole,
        memoryview(whole) as view,
        view[:-SIZE] as content,
    ):
        return zlib.crc32(content).to_bytes(SIZE, "little") == whole[-SIZE:]


def fingerprint(layers: nn.Module) -> str:
    """Returns the SHA-256 of the names and bytes of all weights and buffers of a state dict, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in layers.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
