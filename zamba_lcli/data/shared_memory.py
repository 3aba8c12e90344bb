"""Number of processes that the shared memory of the machine has room for.

Workers of a torch DataLoader hand over their batches in shared memory. Where that is full, a worker drops its batch and the
training process waits for it without end (pytorch#5040); a container has 64 MB of it if nothing else is stated.
"""

import os
import sys
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # where Linux has it
HANDED_OUT = 2  # batches that the training process holds: the one it computes with, and the one before


def workers_with_room(workers: int, batch_bytes: int, prefetched: int, free: int) -> int:
    """Returns the number of workers that shared memory has room for, at most ``workers``.

    Args:
        workers: How many are wanted.
        batch_bytes: Size of a batch of frames.
        prefetched: Batches that each worker holds ready.
        free: Bytes of shared memory that there are for the batches of this loader.
    """
    if sys.platform != "linux" or not workers:
        return workers
    import resource

    largest, _ = resource.getrlimit(resource.RLIMIT_FSIZE)  # which shared memory is subject to, too
    if largest != resource.RLIM_INFINITY and batch_bytes > largest:
        return 0
    return max(0, min(workers, (free - HANDED_OUT * batch_bytes) // (prefetched * batch_bytes)))


def free_bytes() -> int:
    """Returns the bytes of shared memory that are free; 0 where there is none."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:  # not mounted
        return 0
    return found.f_bavail * found.f_frsize
