"""The frames that come out are the frames that were asked for."""

import wave
from dataclasses import dataclass

import av
import numpy as np
import pytest
from numpy.testing import assert_allclose

from helpers.video_files import cut, damage, numbered, numbers_in, write_video
from zamba_lcli.data.sampling import EvenlySpaced, FrameSampling
from zamba_lcli.data.video.reading import UnreadableClipError, probe, read_clip, read_timeline

SIZE = {"height": 48, "width": 64}


@dataclass(frozen=True)
class At(FrameSampling):
    """Given times."""

    seconds: tuple[float, ...]

    def times(self, timeline):
        return np.array(self.seconds)


FORMATS = {
    "h264_b_frames.mp4": {"codec": "libx264", "gop": 12, "bf": 3},
    "h264_one_key_frame.mp4": {"codec": "libx264", "gop": 500},
    "h264.mkv": {"codec": "libx264", "gop": 10},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "mpeg4.avi": {"codec": "mpeg4", "gop": 12},
    "mpeg4_b_frames.avi": {"codec": "mpeg4", "gop": 12, "bf": 2},
    "msmpeg4.asf": {"codec": "msmpeg4v3", "gop": 12},
    "yuv422_10bit.mp4": {"codec": "libx264", "pix_fmt": "yuv422p10le"},
    "upper case.MP4": {"codec": "libx264", "gop": 8},
    "ünïcode.mov": {"codec": "mjpeg", "pix_fmt": "yuvj422p"},
}


@pytest.fixture(params=FORMATS, scope="module")
def hundred(request, tmp_path_factory):
    """A clip of 100 numbered frames in each format."""
    return write_video(tmp_path_factory.mktemp("video") / request.param, numbered(100), **FORMATS[request.param])


def test_evenly_spaced_frames(hundred):
    clip = read_clip(hundred, EvenlySpaced(12), **SIZE)
    expected = np.linspace(0, 99, 12).astype(int)  # what is shown then: the frame before
    assert numbers_in(clip.frames) == list(expected)
    assert_allclose(clip.times, expected / 8, atol=1e-3)
    assert clip.frames.dtype == np.uint8
    assert clip.frames.shape == (12, 48, 64, 3)


def test_any_frame_can_be_had_alone_and_after_any_other(hundred):
    rng = np.random.default_rng(0)
    for count in (1, 2, 5):
        for _ in range(10):
            wanted = np.sort(rng.integers(0, 100, count))
            clip = read_clip(hundred, At(tuple(wanted / 8 + 0.01)), **SIZE)
            assert numbers_in(clip.frames) == list(wanted)


def test_all_frames_in_a_row(hundred):
    assert numbers_in(read_clip(hundred, EvenlySpaced(100), **SIZE).frames) == list(range(100))
    timeline = read_timeline(hundred)
    assert len(timeline.times) == 100
    assert timeline.keyframes[0]
    assert timeline.duration == pytest.approx(99 / 8, abs=2e-3)


def test_pixels_are_exact_without_loss(folder):
    pictures = np.random.default_rng(0).integers(0, 256, (6, 32, 48, 3), dtype=np.uint8)
    write_video("a.mkv", pictures, codec="ffv1", pix_fmt="bgr0")
    clip = read_clip(folder / "a.mkv", EvenlySpaced(6), height=32, width=48)
    assert np.array_equal(clip.frames, pictures)


def test_scaling_averages_areas(folder):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3), dtype=np.uint8)
    write_video("a.mkv", pictures, codec="ffv1", pix_fmt="bgr0")
    clip = read_clip(folder / "a.mkv", EvenlySpaced(2), height=8, width=16)
    expected = pictures.reshape(2, 8, 4, 16, 4, 3).mean(axis=(2, 4))
    assert_allclose(clip.frames, expected, atol=2)


def test_the_bottom_is_cut_off_before_scaling(folder):
    pictures = np.full((2, 60, 64, 3), 200, np.uint8)
    pictures[:, 40:] = 0
    write_video("a.mkv", pictures, codec="ffv1", pix_fmt="bgr0")
    assert read_clip(folder / "a.mkv", EvenlySpaced(2), height=20, width=32, crop_bottom_pixels=22).frames.min() == 200
    assert read_clip(folder / "a.mkv", EvenlySpaced(2), height=20, width=32, crop_bottom_pixels=10).frames.min() == 0
    with pytest.raises(UnreadableClipError, match="60 rows"):
        read_clip(folder / "a.mkv", EvenlySpaced(2), height=20, width=32, crop_bottom_pixels=60)


def test_variable_frame_rate_is_sampled_by_time(folder):
    ticks = [0, 1, 2, 3, 40, 41, 42, 80]
    write_video("vfr.mp4", numbered(8), ticks=ticks)
    clip = read_clip(folder / "vfr.mp4", At((0.0, 2 / 8, 20 / 8, 40 / 8, 79 / 8, 80 / 8, 100.0)), **SIZE)
    assert numbers_in(clip.frames) == [0, 2, 3, 4, 6, 7, 7]
    assert_allclose(clip.times * 8, [0, 2, 3, 40, 42, 80, 80], atol=1e-2)


def test_first_frame_need_not_be_at_time_zero(folder):
    write_video("late.mkv", numbered(10), ticks=range(50, 60))
    clip = read_clip(folder / "late.mkv", EvenlySpaced(10), **SIZE)
    assert numbers_in(clip.frames) == list(range(10))
    assert clip.times[0] == 0


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_clips_repeat_frames(folder, frames):
    write_video("short.mp4", numbered(frames), fps=1)
    clip = read_clip(folder / "short.mp4", EvenlySpaced(8), **SIZE)
    assert len(clip.frames) == 8
    assert numbers_in(clip.frames) == sorted(numbers_in(clip.frames))
    assert set(numbers_in(clip.frames)) == set(range(frames))


def test_a_still_image_is_a_clip_of_one_frame(folder):
    picture = numbered(6)[5]
    with av.open("still.jpg", "w", format="image2") as file:
        stream = file.add_stream("mjpeg", rate=1)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    assert numbers_in(read_clip(folder / "still.jpg", EvenlySpaced(3), **SIZE).frames) == [5, 5, 5]


def test_odd_sizes(folder):
    write_video("odd.avi", numbered(4, 35, 65 + 7), codec="mjpeg", pix_fmt="yuvj444p")
    assert numbers_in(read_clip(folder / "odd.avi", EvenlySpaced(4), height=33, width=72).frames) == [0, 1, 2, 3]


def test_rotated_pictures_are_turned_upright(folder):
    pictures = np.zeros((3, 32, 64, 3), np.uint8)
    pictures[:, :8, :8] = 250  # a mark at the top left
    path = write_video("turned.mp4", pictures)
    data = path.read_bytes() if hasattr(path, "read_bytes") else (folder / path).read_bytes()
    one, matrix = (1 << 16).to_bytes(4, "big"), data.index(b"tkhd")
    at = data.index(one + bytes(12) + one, matrix)  # the unit matrix a b u c d v
    minus = (-(1 << 16)).to_bytes(4, "big", signed=True)
    turned = bytes(4) + one + bytes(4) + minus + bytes(4) * 2  # shown turned by 90 degrees to the right
    (folder / "turned.mp4").write_bytes(data[:at] + turned + data[at + 24 :])
    frames = read_clip(folder / "turned.mp4", EvenlySpaced(2), height=64, width=32).frames
    assert frames[0, :6, -6:].mean() > 200  # the mark is at the top right now
    assert frames[0, :6, :6].mean() < 50
    assert frames[0, -6:].mean() < 50


def test_a_cut_avi_gives_the_frames_it_holds(folder):
    path = cut(write_video(folder / "cut.avi", numbered(200), codec="mjpeg", pix_fmt="yuvj420p"), 0.6)
    held = len(read_timeline(path).times)
    assert 100 < held < 140
    numbers = numbers_in(read_clip(path, EvenlySpaced(20), **SIZE).frames)
    assert numbers[0] == 0
    assert held - 2 <= numbers[-1] < held
    assert numbers == sorted(numbers)


def test_a_cut_mp4_with_its_index_in_front_gives_the_frames_it_holds(folder):
    path = cut(write_video(folder / "cut.mp4", noisy(200), gop=25), 0.6)
    clip = read_clip(path, EvenlySpaced(20), **SIZE)
    numbers = numbers_in(clip.frames)
    assert numbers == sorted(numbers)
    assert 90 < numbers[-1] < 150
    # each frame is the one that its time says, none is invented
    assert_allclose(clip.times * 8, numbers, atol=1e-2)


def noisy(frames):
    """Numbered pictures with noise, so that every frame takes its share of the file."""
    pictures = numbered(frames).astype(int)
    pictures += np.random.default_rng(0).integers(-20, 20, pictures.shape)
    return pictures.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["a.avi", "a.mp4"])
def test_of_a_damaged_file_the_good_frames_are_used(folder, name, seed):
    codec = {"codec": "mjpeg", "pix_fmt": "yuvj420p"} if name == "a.avi" else {"gop": 10}
    path = damage(write_video(folder / name, noisy(100), **codec), seed=seed)
    clip = read_clip(path, EvenlySpaced(20), **SIZE)
    assert clip.frames.shape == (20, 48, 64, 3)
    assert (np.diff(clip.times) >= 0).all()
    assert len(set(clip.times)) > 10


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.touch(), "empty"),
        (lambda path: path.write_text("not a video"), "not a video"),
        (lambda path: path.mkdir(), "not a video"),
        (lambda path: None, "no such file"),
        (lambda path: cut(write_moov_last(path), 0.6), "index is missing"),
        (lambda path: write_sound(path), "sound recording"),
    ],
    ids=["empty", "text", "folder", "missing", "no index", "sound"],
)
def test_what_is_no_video_gives_the_reason(folder, make, reason):
    path = folder / "clip.mp4"
    make(path)
    for read in (probe, read_timeline, lambda p: read_clip(p, EvenlySpaced(4), **SIZE)):
        with pytest.raises(UnreadableClipError, match=reason) as error:
            read(path)
        assert "\n" not in error.value.reason


def write_moov_last(path):
    write_video(path.with_suffix(".mov"), numbered(50))
    return path.with_suffix(".mov").rename(path)


def write_sound(path):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))


def test_a_file_without_one_good_frame_gives_the_reason(folder):
    path = write_video(folder / "a.avi", numbered(20), codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray(path.read_bytes())
    data[data.index(b"movi") + 12 : data.index(b"idx1")] = bytes(data.index(b"idx1") - data.index(b"movi") - 12)
    path.write_bytes(data)
    with pytest.raises(UnreadableClipError, match="frame"):
        read_clip(path, EvenlySpaced(4), **SIZE)


def test_probe_takes_what_can_be_read(hundred):
    probe(hundred)
