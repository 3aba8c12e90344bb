"""Pictures are those that a player shows: upright, not mirrored, as bright as they are."""

import shutil
import struct
import subprocess
from fractions import Fraction
from math import cos, radians, sin

import av
import numpy as np
import pytest
from numpy.testing import assert_allclose

from helpers.marks import some_slow
from helpers.video_files import write_video
from zamba_lcli.data import EvenlySpaced, ZambaVideoDataModule
from zamba_lcli.data.previews import read_preview
from zamba_lcli.data.video.reading import UnreadableClipError, read_clip, upright_size

# a, b, c, d of the display matrix -> what is done to the stored picture
UPRIGHT = {
    "as stored": ((1, 0, 0, 1), lambda x: x),
    "mirrored": ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    "upside down and mirrored": ((1, 0, 0, -1), lambda x: x[::-1]),
    "180": ((-1, 0, 0, -1), lambda x: x[::-1, ::-1]),
    "90": ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
    "270": ((0, -1, 1, 0), lambda x: np.rot90(x)),
    "90, then mirrored": ((0, 1, 1, 0), lambda x: x.transpose(1, 0, 2)),
    "270, then mirrored": ((0, -1, -1, 0), lambda x: x[::-1, ::-1].transpose(1, 0, 2)),
    "scaled": ((0, 2, -2, 0), lambda x: np.rot90(x, -1)),
    "no matrix at all": ((0, 0, 0, 0), lambda x: x),
    "a degree": ((cos(radians(1)), sin(radians(1)), -sin(radians(1)), cos(radians(1))), lambda x: x),
}
EXIF = {  # its orientations
    1: "as stored",
    2: "mirrored",
    3: "180",
    4: "upside down and mirrored",
    5: "90, then mirrored",
    6: "90",
    7: "270, then mirrored",
    8: "270",
}


def scene(height=48, width=80):
    """A picture that looks different whatever is done to it: uint8 (H, W, 3)."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.linspace(20, 230, width)[None]
    picture[..., 1] = np.linspace(230, 20, height)[:, None]
    picture[: height // 3, : width // 4] = 255
    picture[-height // 4 :, -width // 3 :] = 0
    return picture


def with_matrix(path, matrix):
    """Changes the display matrix of an MP4 or MOV."""
    content = path.read_bytes()
    one = (1 << 16).to_bytes(4, "big")
    at = content.index(one + bytes(12) + one, content.index(b"tkhd"))
    a, b, c, d = (round(value * (1 << 16)) for value in matrix)
    path.write_bytes(content[:at] + struct.pack(">6i", a, b, 0, c, d, 0) + content[at + 24 :])
    return path


def stored(folder, name, **options):
    options = {"codec": "libx264", "crf": 1, "pix_fmt": "yuv444p", **options}
    return write_video(folder / name, np.stack([scene()] * 3), **options)


def remuxed(path, to):
    with av.open(str(path)) as source, av.open(str(to), "w") as file:
        stream = file.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                file.mux(packet)
    return to


def pictures_of(path):
    height, width = upright_size(path)
    return read_clip(path, EvenlySpaced(3), height=height, width=width).frames


def by_ffmpeg(path, height, width, *options):
    """What ffmpeg shows: uint8 (T, H, W, 3)."""
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-threads",
        "1",
        "-i",
        path,
        *options,
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ]
    done = subprocess.run(command, capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("how", UPRIGHT)
def test_mirrored_and_turned_pictures_are_upright(folder, how, suffix):
    matrix, change = UPRIGHT[how]
    path = with_matrix(stored(folder, "a.mov" if suffix == ".mkv" else f"a{suffix}"), matrix)
    if suffix == ".mkv":
        path = remuxed(path, folder / "a.mkv")
        if how in ("a degree", "no matrix at all"):
            return  # Matroska keeps whole turns only
    frames = pictures_of(path)
    assert_allclose(frames.astype(int), np.stack([change(scene())] * 3), atol=6)
    preview = read_preview(path, num_frames=1, width=frames.shape[2])
    assert preview.frames.shape[1:] == frames.shape[1:]


def test_the_bottom_that_is_cut_off_is_that_of_the_upright_picture(folder):
    path = with_matrix(stored(folder, "a.mp4"), (0, 1, 1, 0))  # rows become columns
    frames = read_clip(path, EvenlySpaced(1), height=60, width=48, crop_bottom_pixels=20).frames
    assert_allclose(frames[0].astype(int), scene().transpose(1, 0, 2)[:60], atol=6)
    with pytest.raises(UnreadableClipError, match="80 rows"):
        read_clip(path, EvenlySpaced(1), height=60, width=48, crop_bottom_pixels=80)


@pytest.mark.parametrize("orientation", EXIF)
@pytest.mark.parametrize("suffix", [".jpg", ".avi"])
def test_what_exif_says_of_a_jpeg_counts(folder, orientation, suffix):
    """Exif comes with side data that PyAV has no name for."""
    write_video(folder / "a.avi", scene()[None], codec="mjpeg", pix_fmt="yuvj444p", qmin=1, qmax=1)
    with av.open("a.avi") as file:
        jpeg = bytes(next(file.demux(video=0)))
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tiff
    jpeg = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    path = folder / f"exif{suffix}"
    if suffix == ".jpg":
        path.write_bytes(jpeg)
    else:
        with av.open(str(path), "w") as file:
            stream = file.add_stream("mjpeg", rate=8)
            stream.width, stream.height, stream.pix_fmt = 80, 48, "yuvj444p"
            for number in range(3):
                packet = av.Packet(jpeg)
                packet.pts = packet.dts = number
                packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 8), stream, True
                file.mux(packet)
    expected = UPRIGHT[EXIF[orientation]][1](scene())
    assert_allclose(pictures_of(path).astype(int), np.stack([expected] * 3), atol=25)


@pytest.mark.slow
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0.3, 1, 2, 30, 45, 89, 89.7, 135, 179.4, 200, 300, 359])
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_any_angle_is_that_of_ffmpeg(folder, degrees, mirrored):
    c, s = cos(radians(degrees)), sin(radians(degrees))
    sign = -1 if mirrored else 1
    path = with_matrix(stored(folder, "a.mp4"), (sign * c, sign * s, -s, c))
    frames = pictures_of(path)
    difference = np.abs(frames.astype(int) - by_ffmpeg(path, *frames.shape[1:3]))
    assert difference.max() <= 4
    assert difference.mean() < 0.5


def test_a_turned_frame_keeps_its_time(folder):
    path = with_matrix(stored(folder, "a.mov", codec="png", pix_fmt="rgb24", crf=0), (cos(1), sin(1), -sin(1), cos(1)))
    clip = read_clip(path, EvenlySpaced(3), height=48, width=80)
    assert clip.numbers.tolist() == [0, 1, 2]
    assert clip.frames[0, 0, 0].tolist() == [0, 0, 0]  # what turning leaves free is black


FORMATS = [
    ("yuv420p", {}),
    ("yuv420p", {"colorspace": 1}),
    ("yuvj420p", {}),
    ("yuvj422p", {}),
    ("yuv422p", {"colorspace": 1}),
    ("yuv420p10le", {}),
    ("yuv420p10le", {"colorspace": 1}),
    ("yuv422p10le", {}),
    ("yuv444p", {}),
    ("gray", {}),
]


@pytest.mark.parametrize(("pix_fmt", "tags"), FORMATS)
@pytest.mark.parametrize("size", some_slow([(240, 426), (120, 160), (112, 112), (224, 224)], quick=[(120, 160)]))
def test_scaled_pictures_are_the_average_of_what_they_show(folder, pix_fmt, tags, size):
    frame = natural(480, 640, pix_fmt, **tags)
    with av.open("a.mkv", "w") as file:
        stream = file.add_stream("ffv1", rate=8)
        stream.height, stream.width, stream.pix_fmt = 480, 640, frame.format.name
        stream.codec_context.colorspace, stream.codec_context.color_range = frame.colorspace, frame.color_range
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    got = read_clip(folder / "a.mkv", EvenlySpaced(1), height=size[0], width=size[1]).frames[0]
    difference = got - average(exact(frame), *size)
    assert abs(difference.mean(axis=(0, 1))).max() < 0.1  # of 255, in each of the colours
    assert abs(difference).mean() < 0.5


def natural(height, width, pix_fmt, colorspace=5):
    """A frame with smooth colours and noise."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    smooth = av.VideoFrame.from_ndarray(small, format="rgb24").reformat(width, height, interpolation="BICUBIC")
    noise = rng.normal(0, 12, (height, width, 1))
    pixels = np.clip(smooth.to_ndarray() * 0.7 + 30 + noise, 0, 255).astype(np.uint8)
    full = pix_fmt.startswith("yuvj")
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    return frame.reformat(
        format=pix_fmt.replace("j", ""),
        dst_colorspace=colorspace,
        dst_color_range=2 if full or pix_fmt == "gray" else 1,
    )


def exact(frame):
    """The colours of a frame by the formulas of BT.601 and BT.709: float (H, W, 3)."""
    bits = frame.format.components[0].bits
    planes = []
    for plane in frame.planes:
        row = np.frombuffer(plane, np.uint8 if bits == 8 else np.uint16).reshape(plane.height, -1)[:, : plane.width]
        planes.append(row / 2.0 ** (bits - 8))
    y = planes[0]
    if len(planes) == 1:
        return np.repeat(y[..., None], 3, axis=2)
    cb, cr = (c.repeat(y.shape[0] // c.shape[0], 0).repeat(y.shape[1] // c.shape[1], 1) - 128 for c in planes[1:])
    if frame.color_range != 2:
        y, cb, cr = (y - 16) * 255 / 219, cb * 255 / 224, cr * 255 / 224
    of_red, of_blue = (0.2126, 0.0722) if frame.colorspace == 1 else (0.299, 0.114)
    red, blue = y + 2 * (1 - of_red) * cr, y + 2 * (1 - of_blue) * cb
    green = (y - of_red * red - of_blue * blue) / (1 - of_red - of_blue)
    return np.clip(np.stack([red, green, blue], axis=2), 0, 255)


def average(pixels, height, width):
    """Averages the areas that fall into one pixel each, parts of pixels counted as such."""

    def shares(length, parts):
        edges = np.arange(parts + 1) * length / parts
        left, right = edges[:-1, None], edges[1:, None]
        place = np.arange(length)[None]
        return np.clip(np.minimum(right, place + 1) - np.maximum(left, place), 0, 1) * parts / length

    return np.einsum(
        "ij,jkc,lk->ilc", shares(len(pixels), height), pixels, shares(pixels.shape[1], width), optimize=True
    )


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p"])
@pytest.mark.parametrize("colorspace", [1, 5, 8, 12, 14])  # those from 8 on FFmpeg does not convert
def test_pictures_that_are_not_scaled_are_ffmpegs_own(folder, pix_fmt, colorspace):
    path = write_video(folder / "a.mp4", np.stack([scene()] * 3), pix_fmt=pix_fmt, colorspace=colorspace, crf=1)
    got = read_clip(path, EvenlySpaced(3), height=48, width=80).frames
    with av.open(str(path)) as file:
        expected = [
            f.to_ndarray(format="rgb24", src_colorspace=5 if colorspace > 5 else colorspace) for f in file.decode()
        ]
    assert np.array_equal(got, expected)


def test_what_was_kept_of_other_pictures_is_not_used_again(monkeypatch):
    before = ZambaVideoDataModule().reader.stated()
    monkeypatch.setattr("zamba_lcli.data.video.pictures.VERSION", 99)
    assert ZambaVideoDataModule().reader.stated() != before
