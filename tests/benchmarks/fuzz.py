"""Reads files with random damage: ``python tests/benchmarks/fuzz.py --count 5000`` prints what became of them, as JSON.

Whatever the damage, reading must end in time, with frames of the file or with a reason.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.video_files import mark_all_as_key_frames, numbered, remux, trim, write_video
from zamba_lcli.data import EvenlySpaced, KeyFrames, MostMotion
from zamba_lcli.data.video.reading import UnreadableClipError, read_clip, read_timeline

TIME_LIMIT = 10.0
STRATEGIES = (EvenlySpaced(6), KeyFrames(3), MostMotion(num_frames=3, preview_height=12, preview_width=16))


def write_originals(folder):
    pictures = numbered(40)
    write_video(folder / "source.mkv", pictures, gop=8, bf=2)
    remux(folder / "source.mkv", folder / "source.mp4")
    parts = [
        write_video(folder / f"part.{suffix}", pictures[:20], fps=25, gop=8, **options).read_bytes()
        for suffix, options in (("ts", {"bf": 2}), ("mpg", {"codec": "mpeg2video"}))
    ]
    joined = [folder / "j.ts", folder / "k.mpg"]
    for path, part in zip(joined, parts, strict=True):
        path.write_bytes(part * 3)
    return [
        write_video(folder / "a.mp4", pictures, gop=8),
        write_video(folder / "b.avi", pictures, codec="mjpeg", pix_fmt="yuvj422p"),
        write_video(folder / "c.mkv", pictures, gop=8),
        write_video(folder / "d.asf", pictures, codec="wmv2"),
        write_video(folder / "e.avi", pictures, codec="mpeg4", gop=8),
        write_video(folder / "f.ts", pictures, gop=8),
        trim(folder / "source.mp4", [(3, 0.6)], folder / "g.mp4"),
        trim(folder / "source.mp4", [(1, -1), (1, 2), (2, 1.1)], folder / "h.mp4"),
        write_video(folder / "i.avi", pictures, gop=8, bf=2),
        *joined,
        write_video(folder / "l.avi", pictures, codec="mpeg4", gop=8, bf=2),
        remux(
            write_video(folder / "source.flv", pictures, codec="flv", gop=8), folder / "m.flv", mark_all_as_key_frames
        ),
        write_video(folder / "n.webm", pictures, codec="libvpx", gop=8),
    ]


def mutated(content, rng):
    """Returns a copy of a file's bytes with one to four random damages."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        size = len(content)
        at, length = int(rng.integers(0, size)), int(rng.integers(1, max(2, size // 8)))
        kind = rng.integers(0, 7)
        if kind == 0:
            content[at : at + 16] = rng.bytes(len(content[at : at + 16]))
        elif kind == 1:
            content[at : at + length] = rng.bytes(len(content[at : at + length]))
        elif kind == 2:
            content[at : at + length] = bytes(len(content[at : at + length]))
        elif kind == 3:
            del content[at : at + length]
        elif kind == 4:
            content[at:at] = rng.bytes(length)
        elif kind == 5:
            content[at:at] = content[max(0, at - length) : at]
        else:
            for position in rng.integers(0, size, 8):
                content[position] ^= 1 << int(rng.integers(0, 8))
        if not content:
            content += b"\0"
    if rng.integers(0, 4) == 0:
        del content[int(rng.integers(1, len(content) + 1)) :]
    return bytes(content)


def read_one(path, sampling):
    """Returns what became of a file: ``ok``, or the kind of the reason."""
    try:
        clip = read_clip(path, sampling, height=24, width=32, time_limit=TIME_LIMIT)
    except UnreadableClipError as error:
        return "unreadable" if error.reason and "\n" not in error.reason else f"a bad reason: {error.reason}"
    assert clip.frames.shape == (sampling.num_frames, 24, 32, 3)
    # in a damaged file a decoder may give a frame another time than its packet had, but none outside the clip
    end = read_timeline(path).duration
    assert clip.times.min() > -1e-6, f"{path}: frames at {clip.times}"
    assert clip.times.max() < end + 1e-6, f"{path}: frames at {clip.times}, but it ends at {end}"
    assert (np.diff(clip.times) >= 0).all()
    return "ok"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    outcomes, slowest = Counter(), 0.0
    with tempfile.TemporaryDirectory() as name:
        originals = write_originals(Path(name))
        contents = [path.read_bytes() for path in originals]
        for number in range(args.count):
            which = number % len(originals)
            path = Path(name) / f"mutated{originals[which].suffix}"
            path.write_bytes(mutated(contents[which], rng))
            start = time.perf_counter()
            outcomes[read_one(path, STRATEGIES[number // len(originals) % len(STRATEGIES)])] += 1
            slowest = max(slowest, time.perf_counter() - start)
    print(json.dumps({**outcomes, "slowest": round(slowest, 2)}))


if __name__ == "__main__":
    main()
