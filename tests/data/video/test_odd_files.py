"""Files as cameras and memory cards leave them: what frames are had of each, or which reason is given."""

import json
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from helpers.paths import TESTS
from helpers.video_files import ONE_THREAD, cut, damage, numbered, numbers_in, write_video
from zamba_lcli.data import EvenlySpaced, GivenFrames
from zamba_lcli.data.video.reading import UnreadableClipError, read_clip, read_timeline

SIZE = {"height": 48, "width": 64}


def had(path, frames, **kwargs):
    """Numbers of the frames that can be had, of those that are asked for one by one."""
    clip = read_clip(path, GivenFrames(list(range(frames))), **SIZE, max_damaged=1.0, **kwargs)
    return len(np.unique(clip.times))


def whole_packets(path, share):
    """How many frames end before a share of the file's bytes."""
    end = path.stat().st_size * share
    with av.open(str(path)) as file:
        return sum(packet.size > 0 and packet.pos + packet.size <= end for packet in file.demux(video=0))


def decoded_one_by_one(path):
    """How many good frames a loop over the packets finds that passes over errors.

    In one thread: with several, how many frames are good after damage depends on how many there are.
    """
    good = 0
    with av.open(str(path)) as file:
        file.streams.video[0].codec_context.thread_count = 1
        for packet in file.demux(video=0):
            try:
                good += sum(not frame.is_corrupt for frame in packet.decode())
            except av.error.FFmpegError:
                continue
    return good


def noisy(frames):
    pictures = numbered(frames).astype(int)
    pictures += np.random.default_rng(0).integers(-20, 20, pictures.shape)
    return pictures.clip(0, 255).astype(np.uint8)


def test_of_a_cut_mjpeg_avi_every_whole_frame_is_had(folder):
    path = write_video(folder / "a.avi", noisy(200), codec="mjpeg", pix_fmt="yuvj420p", fps=30)
    whole = whole_packets(path, 0.6)
    assert whole > 100
    assert had(cut(path, 0.6), 200) in (whole, whole + 1)  # the one that is cut may be decoded in part


def test_of_a_cut_mp4_with_its_index_in_front_every_whole_frame_is_had(folder):
    path = write_video(folder / "a.mp4", noisy(200), fps=30)
    whole = whole_packets(path, 0.6)
    assert whole > 80
    cut(path, 0.6)
    # frames are stored before those shown earlier: the last few may refer to what is cut off
    assert whole - 4 <= had(path, 200) <= whole + 1
    assert had(path, 200) >= decoded_one_by_one(path)


@pytest.mark.parametrize("seed", range(6))
def test_of_damaged_h264_every_good_frame_is_had(folder, seed):
    path = damage(write_video(folder / "a.mp4", noisy(200), fps=30, gop=30), seed=seed)
    good = decoded_one_by_one(path)
    assert 50 < good < 200
    assert had(path, 200) == good


def test_of_a_damaged_mjpeg_avi_every_good_frame_is_had(folder):
    path = damage(write_video(folder / "a.avi", noisy(200), codec="mjpeg", pix_fmt="yuvj420p", fps=30))
    assert had(path, 200) == decoded_one_by_one(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.asf", {"codec": "wmv2"}),
        ("a.wmv", {"codec": "wmv2"}),
        ("a.mkv", {}),
        ("a.webm", {"codec": "libvpx-vp9", "cpu-used": 8, "deadline": "realtime"}),
        ("a.mov", {}),
        ("a.ts", {}),
        ("A CLIP.MP4", {}),
        ("ünï/寺 été.AVI", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        ("xvid.avi", {"codec": "mpeg4"}),
        ("422.mp4", {"pix_fmt": "yuv422p"}),
        ("422.avi", {"codec": "mjpeg", "pix_fmt": "yuvj422p"}),
        ("10bit.mp4", {"pix_fmt": "yuv420p10le"}),
        ("hevc.mp4", {"codec": "libx265", "x265-params": ONE_THREAD}),
    ],
)
def test_all_frames_of_any_container_and_pixel_format(folder, name, options):
    (folder / name).parent.mkdir(exist_ok=True)
    path = write_video(folder / name, numbered(50), fps=10, **options)
    assert len(read_timeline(path).times) == 50
    clip = read_clip(path, GivenFrames(list(range(50))), **SIZE)
    assert numbers_in(clip.frames) == list(range(50))
    assert clip.times.tolist() == pytest.approx([i / 10 for i in range(50)], abs=2e-3)


def test_variable_frame_rate_keeps_every_frame_and_its_time(folder):
    ticks = np.cumsum([1, 3, 1, 1, 7, 2, 1, 1, 1, 12] * 5).tolist()
    path = write_video(folder / "a.mp4", numbered(50), fps=30, ticks=ticks)
    clip = read_clip(path, GivenFrames(list(range(50))), **SIZE)
    assert numbers_in(clip.frames) == list(range(50))
    assert clip.times.tolist() == pytest.approx([(t - ticks[0]) / 30 for t in ticks], abs=2e-3)


def test_a_pixel_format_that_changes_in_the_middle(folder):
    path = folder / "a.avi"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj422p"
        other = av.CodecContext.create("mjpeg", "w")
        other.width, other.height, other.pix_fmt = 64, 48, "yuvj420p"
        other.time_base = stream.codec_context.time_base = Fraction(1, 10)
        for number, picture in enumerate(numbered(20)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            for packet in stream.encode(frame) if number < 10 else other.encode(frame.reformat(format="yuvj420p")):
                packet.stream = stream
                file.mux(packet)
    clip = read_clip(path, GivenFrames(list(range(20))), **SIZE)
    assert numbers_in(clip.frames) == list(range(20))
    colours = clip.frames.reshape(20, -1, 3).astype(int)
    assert np.abs(colours[:, :, 0] - colours[:, :, 1]).mean() < 3  # still grey


@pytest.mark.parametrize("options", [{"gop": 12, "bf": 3}, {"gop": 250}, {"codec": "mjpeg", "pix_fmt": "yuvj422p"}])
def test_pixels_are_those_of_ffmpegs_own_decode(folder, options):
    path = write_video(folder / "a.avi" if "codec" in options else folder / "a.mp4", noisy(60), fps=30, **options)
    with av.open(str(path)) as file:
        exact = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(exact) == 60
    for sampling in (GivenFrames(list(range(60))), GivenFrames([0, 7, 31, 59]), EvenlySpaced(5), GivenFrames([44])):
        clip = read_clip(path, sampling, **SIZE)
        for picture, time in zip(clip.frames, clip.times, strict=True):
            difference = np.abs(picture.astype(int) - exact[round(time * 30)])
            assert difference.mean() < 1


def test_too_much_damage_is_a_reason(folder):
    path = damage(write_video(folder / "a.avi", noisy(100), codec="mjpeg", pix_fmt="yuvj420p"), share=0.9)
    with pytest.raises(UnreadableClipError, match=r"\d+% of the frames to be looked at are damaged"):
        read_clip(path, GivenFrames(list(range(100))), **SIZE, max_damaged=0.01)
    assert read_clip(path, GivenFrames(list(range(100))), **SIZE, max_damaged=1.0).frames.shape == (100, 48, 64, 3)


def test_reading_has_a_time_limit(folder):
    path = write_video(folder / "a.mp4", numbered(50))
    with pytest.raises(UnreadableClipError, match="took more than"):
        read_clip(path, EvenlySpaced(5), **SIZE, time_limit=1e-6)


@pytest.mark.slow
def test_random_damage_never_crashes_hangs_or_invents_frames():
    command = [sys.executable, str(TESTS / "benchmarks/fuzz.py"), "--count", "200"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = json.loads(done.stdout)
    assert outcomes["ok"] + outcomes["unreadable"] == 200
    assert min(outcomes["ok"], outcomes["unreadable"]) > 20
