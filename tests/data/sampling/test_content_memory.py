"""Sampling by content looks at the pictures one by one: it takes the same memory for any clip, or the clip fails."""

import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from helpers.video_files import damage, numbered, write_video
from zamba_lcli.data.sampling import ContentSampling, HighestScores, MostMotion, SceneChanges, base
from zamba_lcli.data.video.reading import UnreadableClipError, read_clip

SIZE = {"height": 24, "width": 32}


def brightness(frames):
    """Scores pictures."""
    brightness.given.append(len(frames))
    return frames.mean(axis=(1, 2, 3))


brightness.given = []


@dataclass(frozen=True)
class MostRed(ContentSampling):
    """A user's own, which knows nothing of watching."""

    num_frames: int = 3
    preview_fps: float = 30.0
    preview_height: int = 12
    preview_width: int = 16
    too_short: str = field(default="repeat_last")

    def choose(self, times, frames):
        assert frames.dtype == np.uint8
        assert frames.shape == (len(times), 12, 16, 3)
        return np.sort(times[np.argsort(-frames[..., 0].mean(axis=(1, 2)), kind="stable")[: self.num_frames]])


SMALL = {"num_frames": 3, "preview_fps": 30.0, "preview_height": 12, "preview_width": 16}
STRATEGIES = [
    SceneChanges(threshold=0.01, **SMALL),
    MostMotion(**SMALL),
    HighestScores(brightness, **SMALL),
    MostRed(),
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("damaged", [False, True])
def test_what_is_chosen_one_by_one_is_what_is_chosen_of_all(folder, strategy, damaged, monkeypatch):
    path = write_video(folder / "a.avi", numbered(60), codec="mjpeg", pix_fmt="yuvj420p", fps=10)
    if damaged:
        damage(path, share=0.3)
    one_by_one = read_clip(path, strategy, **SIZE)
    monkeypatch.setattr(type(strategy), "watch", ContentSampling.watch)
    of_all = read_clip(path, strategy, **SIZE)
    assert np.array_equal(one_by_one.times, of_all.times)
    assert np.array_equal(one_by_one.frames, of_all.frames)


def test_a_scorer_is_given_some_pictures_at_a_time(folder):
    path = write_video(folder / "a.avi", numbered(40), codec="mjpeg", pix_fmt="yuvj420p", fps=10)
    brightness.given.clear()
    read_clip(path, HighestScores(brightness, **SMALL), **SIZE)
    assert brightness.given == [16, 16, 8]


@pytest.mark.parametrize("strategy", [SceneChanges(preview_fps=1000), HighestScores(brightness, preview_fps=1000)])
def test_memory_does_not_grow_with_the_clip(folder, strategy):
    peaks = []
    for frames in (40, 400):
        path = write_video(folder / f"{frames}.avi", numbered(1).repeat(frames, 0), codec="mjpeg", pix_fmt="yuvj420p")
        tracemalloc.start()
        read_clip(path, strategy, **SIZE)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2_000_000  # bytes; 360 pictures more would be 5 or 249 million


def test_a_clip_with_more_pictures_than_may_be_kept_fails_alone(folder, monkeypatch):
    monkeypatch.setattr(base, "KEPT_BYTES", 20 * 60 * 80 * 3)
    with pytest.raises(UnreadableClipError, match=r"too long: 40 pictures of 60 x 80 pixels .* Lower preview_fps"):
        read_clip(
            write_video(folder / "a.avi", numbered(40), codec="mjpeg", pix_fmt="yuvj420p"),
            MostMotion(preview_fps=100),
            **SIZE,
        )
    read_clip(Path("a.avi"), MostMotion(preview_fps=4), **SIZE)


def test_a_clip_that_takes_more_memory_than_there_is_fails_alone(folder, monkeypatch):
    path = write_video(folder / "a.mp4", numbered(8))

    def full(self, frame):
        raise MemoryError

    monkeypatch.setattr("zamba_lcli.data.video.pictures.PictureMaker.__call__", full)
    with pytest.raises(UnreadableClipError, match="not enough memory"):
        read_clip(path, MostMotion(), **SIZE)
