"""What is kept is what was read; nothing stale, nothing half written, within its size."""

import os
import time

import numpy as np
import pytest
import torch

from helpers.video_files import numbered, write_video
from zamba_lcli.checksum import unseal
from zamba_lcli.data.cache import GB, FrameCache
from zamba_lcli.data.sampling import EvenlySpaced
from zamba_lcli.data.video.reading import Clip, UnreadableClipError, read_clip
from zamba_lcli.errors import InputError

LOADING = {"sampling": EvenlySpaced(4).stated(), "size": [48, 64]}


@pytest.fixture
def reads():
    """A reader that counts."""

    def read(path):
        read.count += 1
        return read_clip(path, EvenlySpaced(4), height=48, width=64)

    read.count = 0
    return read


def test_a_clip_is_read_once(folder, reads):
    path = write_video(folder / "a.avi", numbered(9), codec="libx264rgb", pix_fmt="rgb24", qp=0)
    first = FrameCache("cache", None, LOADING).get(path, reads)
    second = FrameCache("cache", None, LOADING).get(path, reads)
    assert reads.count == 1
    assert np.array_equal(first.frames, second.frames)
    assert np.array_equal(first.times, second.times)
    assert not [p for p in (folder / "cache").rglob("*") if p.suffix == ".part"]


def test_another_file_or_another_way_of_loading_is_read_anew(folder, reads):
    path = write_video(folder / "a.avi", numbered(9), codec="libx264rgb", pix_fmt="rgb24", qp=0)
    FrameCache("cache", None, LOADING).get(path, reads)
    FrameCache("cache", None, {**LOADING, "crop_bottom_pixels": 1}).get(path, reads)
    assert reads.count == 2
    write_video(folder / "a.avi", numbered(9)[::-1], codec="libx264rgb", pix_fmt="rgb24", qp=0)
    os.utime(path, ns=(1, 1))
    changed = FrameCache("cache", None, LOADING).get(path, reads)
    assert reads.count == 3
    assert np.array_equal(changed.frames[0], numbered(9)[8])


@pytest.mark.parametrize("how", ["cut", "bits", "emptied", "text"])
def test_a_damaged_entry_is_made_anew(folder, reads, how):
    path = write_video(folder / "a.avi", numbered(9), codec="libx264rgb", pix_fmt="rgb24", qp=0)
    cache = FrameCache("cache", None, LOADING)
    whole = cache.get(path, reads)
    entry = cache.entry(path)
    content = bytearray(entry.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    elif how == "bits":
        content[len(content) // 2] ^= 255
    else:
        content = b"" if how == "emptied" else b"no frames"
    entry.write_bytes(content)
    assert np.array_equal(cache.get(path, reads).frames, whole.frames)
    assert reads.count == 2
    cache.get(path, reads)
    assert reads.count == 2


def test_any_single_bit_of_an_entry_may_be_wrong(folder):
    clip = Clip(np.zeros((2, 4, 5, 3), np.uint8), np.arange(2.0), np.arange(2), 8.0, 2.0)
    (folder / "a.mp4").write_text("a clip")
    cache = FrameCache("cache", None, LOADING)
    read = []

    def reader(path):
        read.append(path)
        return clip

    cache.get(folder / "a.mp4", reader)
    entry = cache.entry(folder / "a.mp4")
    content = entry.read_bytes()
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        assert unseal(bytes(damaged)) is None, f"bit {bit}"
        if bit % 50 == 0 or bit > 8 * len(content) - 32:
            entry.write_bytes(damaged)
            before = len(read)
            assert np.array_equal(cache.get(folder / "a.mp4", reader).frames, clip.frames)
            assert len(read) == before + 1, f"bit {bit} was not noticed"
    before = len(read)
    again = cache.get(folder / "a.mp4", reader)
    assert len(read) == before
    assert (again.frame_rate, again.duration) == (8.0, 2.0)
    assert type(again.frame_rate) is float


def test_what_was_not_used_for_longest_goes_first(folder, reads):
    paths = [write_video(folder / f"{i}.avi", numbered(9), codec="libx264rgb", pix_fmt="rgb24", qp=0) for i in range(4)]
    size = 4 * 48 * 64 * 3 + 1500
    cache = FrameCache("cache", 3.3 * size / GB, LOADING)
    for path in paths[:3]:
        cache.get(path, reads)
        time.sleep(0.01)
    cache.get(paths[0], reads)  # used again
    assert reads.count == 3
    time.sleep(0.01)
    cache.get(paths[3], reads)
    kept = [cache.entry(path).exists() for path in paths]
    assert kept == [True, False, True, True]
    assert sum(p.stat().st_size for p in (folder / "cache").rglob("*.npz")) < 3.3 * size


def test_what_cannot_be_read_is_not_kept(folder, reads):
    (folder / "a.avi").write_text("no video")
    cache = FrameCache("cache", None, LOADING)
    for path in (folder / "a.avi", folder / "missing.avi"):
        with pytest.raises(UnreadableClipError):
            cache.get(path, reads)
    assert not list((folder / "cache").rglob("*.npz"))


def test_a_disk_that_cannot_hold_it_is_refused_before_the_run(folder):
    with pytest.raises(InputError, match=r"GB free, but the cache needs up to .* GB"):
        FrameCache("cache", None, LOADING).announce(10**9, 10**9)
    FrameCache("cache", 0.001, LOADING).announce(10**9, 10**9)  # bounded


def test_a_folder_that_cannot_be_made_is_refused(folder):
    (folder / "file").write_text("")
    with pytest.raises(InputError, match="cache_dir"):
        FrameCache(folder / "file" / "cache", None, LOADING)


def test_a_full_disk_does_not_end_the_run(folder, reads, monkeypatch):
    path = write_video(folder / "a.avi", numbered(9), codec="libx264rgb", pix_fmt="rgb24", qp=0)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    cache = FrameCache("cache", None, LOADING)
    with pytest.warns(UserWarning, match="No space left on device"):
        assert cache.get(path, reads).frames.shape == (4, 48, 64, 3)
    assert not [p for p in (folder / "cache").rglob("*") if p.is_file()]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_fit_with_a_cache_is_the_same_fit(zamba, folder, workers):
    zamba("fit", "--trainer.logger.name=plain")
    zamba("fit", "--trainer.logger.name=first", "--data.cache_dir=cache", f"--data.num_workers={workers}")
    assert len(list((folder / "cache").rglob("*.npz"))) == 12
    zamba("fit", "--trainer.logger.name=second", "--data.cache_dir=cache")
    plain, first, second = (
        torch.load(folder / f"runs/{name}/version_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("plain", "first", "second")
    )
    assert all(torch.equal(plain[key], first[key]) and torch.equal(plain[key], second[key]) for key in plain)
