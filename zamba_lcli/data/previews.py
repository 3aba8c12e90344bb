"""Small moving pictures of clips for reports."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from zamba_lcli.data.sampling import EvenlySpaced
from zamba_lcli.data.video.deadline import NoAnswerError
from zamba_lcli.data.video.reading import TIME_LIMIT, UnreadableClipError, read_clip, upright_size

MAX_THREADS = 8  # each holds a clip's decoder, some hundred MB for large pictures


@dataclass(frozen=True)
class Preview:
    """Some frames of a clip."""

    frames: NDArray[np.uint8]  # (T, H, W, 3) RGB
    times: NDArray[np.float64]  # (T,) seconds: when they are shown

    def jpeg(self, quality: int = 70) -> str:
        """Returns the frames side by side as a JPEG, in base64."""
        from torchvision.io import encode_jpeg

        strip = torch.from_numpy(np.concatenate(list(self.frames), axis=1)).permute(2, 0, 1).contiguous()
        return base64.b64encode(encode_jpeg(strip, quality=quality).numpy().tobytes()).decode()


def read_preview(path: Path, num_frames: int = 6, width: int = 128, time_limit: float = TIME_LIMIT) -> Preview | None:
    """Returns small, evenly spaced frames of a clip, or ``None`` if it cannot be read.

    Args:
        path: The file.
        num_frames: Number of frames.
        width: Of a frame, in pixels; its height follows.
        time_limit: Seconds that each of the two readings may take: for the size, and for the frames.
    """
    try:
        height, full_width = upright_size(path, time_limit)
        height = max(1, round(height * width / full_width))
        sampling = EvenlySpaced(num_frames=num_frames)
        clip = read_clip(path, sampling, height=height, width=width, max_damaged=1.0, time_limit=time_limit)
    except (UnreadableClipError, NoAnswerError):  # a run is not lost by what only illustrates it
        return None
    return Preview(clip.frames, clip.times)


def read_previews(
    paths: Sequence[Path], num_frames: int = 6, width: int = 128, time_limit: float = TIME_LIMIT
) -> list[Preview | None]:
    """Returns a preview of each clip, or ``None`` where it cannot be read; reads one clip a core at a time, 8 at most."""
    read = partial(read_preview, num_frames=num_frames, width=width, time_limit=time_limit)
    with ThreadPool(min(MAX_THREADS, os.cpu_count() or 1)) as pool:  # decoding happens outside Python's lock
        return list(pool.imap(read, paths))
