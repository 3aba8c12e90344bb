"""A clip's frames, their order and numbers are what a player shows, whatever the file says of them."""

import json
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.testing import assert_allclose

from helpers.field_pictures import write_field_coded
from helpers.tables import read_csv
from helpers.video_files import mark_all_as_key_frames, numbered, numbers_in, remux, shown, trim, write_video
from zamba_lcli.cli import main
from zamba_lcli.data import EvenlySpaced, FixedRate, GivenFrames, KeyFrames
from zamba_lcli.data.video.bitstream import shows_nothing
from zamba_lcli.data.video.deadline import Deadline
from zamba_lcli.data.video.packets import read_index
from zamba_lcli.data.video.reading import read_clip, read_timeline

SIZE = {"height": 48, "width": 64}
B_FRAMES = {"gop": 25, "bf": 3}


def read(path, sampling):
    return read_clip(path, sampling, **SIZE, max_damaged=0.0)


def assert_as_a_player_shows(path, expected=None):
    """Every way of reading gives the frames that FFmpeg's decoder gives, none of them damaged."""
    truth = shown(path)
    if expected is not None:
        assert truth == list(expected)
    timeline = read_timeline(path)
    assert len(timeline.times) == len(truth)
    assert timeline.times[0] == 0
    assert (np.diff(timeline.times) > 0).all()
    everything = read(path, GivenFrames(list(range(len(truth)))))
    assert numbers_in(everything.frames) == truth
    assert everything.numbers.tolist() == list(range(len(truth)))
    assert_allclose(everything.times, timeline.times)
    rng = np.random.default_rng(0)
    for count in (1, 1, 2, 4):
        wanted = np.sort(rng.integers(0, len(truth), count)).tolist()
        assert numbers_in(read(path, GivenFrames(wanted)).frames) == [truth[number] for number in wanted]
    for sampling in (EvenlySpaced(7), FixedRate(4, 9), KeyFrames(5)):
        clip = read(path, sampling)
        assert numbers_in(clip.frames) == [truth[number] for number in clip.numbers]
        assert_allclose(clip.times, timeline.times[clip.numbers])
    keys = read(path, KeyFrames(5)).numbers
    if timeline.keyframes.any():
        assert timeline.keyframes[keys].all()
    return timeline


@pytest.fixture(scope="module", params=["a.mp4", "b_frames.mp4", "b_frames.mov"])
def whole(request, tmp_path_factory):
    """100 frames at 8 a second, a key frame each 25, and the time of the first in the stream."""
    path = tmp_path_factory.mktemp("whole") / request.param
    options = B_FRAMES if "b_frames" in request.param else {"gop": 25, "bf": 0}
    write_video(path.with_suffix(".mkv"), numbered(100), **options, x264_params="scenecut=0")
    remux(path.with_suffix(".mkv"), path)
    data = path.read_bytes()
    at = data.find(b"elst")
    scale = data.index(b"mdhd") + 16
    start = int.from_bytes(data[at + 16 : at + 20], "big", signed=True) if at > 0 else 0
    return path, max(0, start) / int.from_bytes(data[scale : scale + 4], "big")


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ([(75, 30)], range(30, 100)),  # the start is cut off
        ([(20, 0)], range(20)),  # the end
        ([(20, 30)], range(30, 50)),
        ([(2, 98)], range(98, 100)),
        ([(1, 37)], [37]),
        ([(20, 25)], range(25, 45)),  # from a key frame on
        ([(20, 10), (20, 60)], [*range(10, 30), *range(60, 80)]),
        ([(20, 60), (20, 10)], [*range(60, 80), *range(10, 30)]),
        ([(10, 33), (10, 33)], [*range(33, 43)] * 2),
        ([(80, -1), (20, 30)], range(30, 50)),  # begins with nothing
        ([(10, 26.5)], None),  # between two frames
    ],
)
def test_of_a_trimmed_clip_only_what_is_shown_counts(folder, whole, edits, expected):
    path, first = whole
    edits = [(length / 8, -1 if start < 0 else start / 8 + first) for length, start in edits]
    out = trim(path, edits, folder / f"trimmed{path.suffix}")
    # with B-frames FFmpeg shows one more where an edit ends: its decoder has it in hand
    timeline = assert_as_a_player_shows(out, None if first else expected)
    if expected is not None and len(edits) == 1 and not first:
        assert timeline.duration == pytest.approx((len(expected) - 1) / 8, abs=1e-3)


def test_key_frames_that_are_cut_off_serve_for_seeking(folder, whole):
    path, first = whole
    out = trim(path, [(60 / 8, 30 / 8 + first)], folder / "trimmed.mp4")
    index = read_index(out, Deadline(60))
    assert index.seekable
    assert index.key_before(0) == 0  # the stored frame 25, which is not shown
    assert index.key_before(25) == 25  # the one shown as number 20
    assert not index.timeline.keyframes[0]
    assert index.timeline.keyframes[[20, 45]].all()


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"bf": 2}),
        ("libx264", {"bf": 3, "x264-params": "b-pyramid=normal:scenecut=0"}),
        ("libx264", {"bf": 3, "x264-params": "open-gop=1:scenecut=0:b-adapt=0"}),
        ("libx264", {"bf": 0}),
        ("mpeg4", {"bf": 2}),
        ("mpeg4", {"bf": 0}),
        ("mpeg2video", {"bf": 2}),
    ],
)
@pytest.mark.parametrize("suffix", ["avi", "mkv", "mp4", "ts"])
def test_without_times_of_showing_the_decoder_tells_the_order(folder, codec, options, suffix):
    def as_stored(number, packet):
        packet.pts = packet.dts = number * round(1 / 8 / packet.time_base)

    source = folder / f"source.{'mkv' if suffix == 'mp4' else suffix}"
    write_video(source, numbered(60), codec=codec, gop=20, **options)
    path = remux(source, folder / f"a.{suffix}", as_stored)
    timeline = assert_as_a_player_shows(path, range(60))
    assert_allclose(timeline.times, np.arange(60) / 8, atol=2e-3)


def test_two_pictures_in_a_packet_and_none_in_the_next(folder):
    """As DivX and XviD pack a P- and a B-frame for AVI."""
    source = write_video(folder / "a.avi", numbered(40), codec="mpeg4", gop=12, bf=1)
    nothing = b"\0\0\1\xb6" + bytes([0b01010001, 0b00111111])  # a P-frame that is not coded
    with av.open(str(source)) as file, av.open(str(folder / "packed.avi"), "w") as out:
        stream = out.add_stream_from_template(file.streams.video[0])
        content = [bytes(packet) for packet in file.demux(video=0) if packet.size]
        kinds = [data[data.index(b"\0\0\1\xb6") + 4] >> 6 for data in content]
        at = content[0].index(b"\0\0\1\xb6")
        end = content[0].find(b"\0\0\1\xb2")
        content[0] = content[0][: at if end < 0 else end] + b"\0\0\1\xb2DivX503b1393p" + content[0][at:]
        for number, (data, kind) in enumerate(zip(content, kinds, strict=True)):
            if number + 1 < len(kinds) and kinds[number + 1] == 2:
                data += content[number + 1]
            packet = av.Packet(nothing if kind == 2 else data)
            packet.stream, packet.is_keyframe = stream, kind == 0
            packet.pts = packet.dts = number
            packet.time_base = file.streams.video[0].time_base
            out.mux(packet)
    assert 2 in kinds
    assert_as_a_player_shows(folder / "packed.avi", range(40))


@pytest.mark.parametrize("lengths", [(40, 40), (40, 12, 30), (6, 6, 6)])
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("ts", {"bf": 0}),
        ("ts", {"bf": 2}),
        ("mpg", {"codec": "mpeg2video", "bf": 2}),
        ("flv", {}),
        ("flv", {"codec": "flv"}),
    ],
)
def test_joined_recordings_are_shown_one_after_the_other(folder, suffix, options, lengths):
    pictures = numbered(sum(lengths))
    ends = np.cumsum([0, *lengths])
    parts = [
        write_video(folder / f"part.{suffix}", pictures[start:end], fps=25, gop=10, **options).read_bytes()
        for start, end in pairwise(ends)
    ]
    path = folder / f"joined.{suffix}"
    path.write_bytes(b"".join(parts))
    timeline = assert_as_a_player_shows(path)
    if suffix != "flv":  # of which FFmpeg shows the first recording alone
        assert len(timeline.times) >= sum(lengths) - len(lengths)
    assert_allclose(np.diff(timeline.times), 1 / 25, atol=0.021)
    if suffix == "ts":
        assert read_index(path, Deadline(60)).restarts == ends[1:-1].tolist()


def test_frames_with_one_time_each_can_be_had(folder):
    path = write_video(folder / "source.mkv", numbered(30), gop=10, bf=0)

    def in_threes(number, packet):
        packet.pts = packet.dts = number // 3 * round(3 / 8 / packet.time_base)

    timeline = assert_as_a_player_shows(remux(path, folder / "a.mkv", in_threes), range(30))
    assert_allclose(timeline.times, np.arange(30) / 8, atol=2e-3)


def test_negative_times(folder):
    def earlier(number, packet):
        packet.pts -= round(5 / packet.time_base)
        packet.dts = packet.pts

    source = write_video(folder / "source.mkv", numbered(30), gop=10, bf=0)
    assert_as_a_player_shows(remux(source, folder / "a.nut", earlier), range(30))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mpeg4.mp4", {"codec": "mpeg4"}),
        ("mpeg4.avi", {"codec": "mpeg4"}),
        ("mpeg4.mkv", {"codec": "mpeg4", "bf": 2}),
        ("flv1.flv", {"codec": "flv"}),
        ("wmv2.asf", {"codec": "wmv2"}),
        ("msmpeg4.avi", {"codec": "msmpeg4v3"}),
        ("h263.3gp", {"codec": "h263"}),
        ("h263.avi", {"codec": "h263"}),
        ("h264.mp4", {"bf": 0}),
        ("h264.mkv", {"bf": 3}),
        ("mpeg2.mkv", {"codec": "mpeg2video", "bf": 2}),
    ],
)
def test_marks_of_key_frames_that_are_none_are_not_believed(folder, name, options):
    pictures = numbered(80, 96, 128) if options.get("codec") == "h263" else numbered(80)
    source = write_video(folder / f"source{Path(name).suffix}", pictures, gop=20, **options)
    true = read_timeline(source).keyframes
    path = remux(source, folder / name, mark_all_as_key_frames)
    timeline = assert_as_a_player_shows(path)
    assert timeline.keyframes.tolist() == true.tolist()
    with av.open(str(path)) as file:  # FFmpeg corrects the marks of some codecs
        marked = sum(packet.is_keyframe for packet in file.demux(video=0) if packet.size)
    assert read_index(path, Deadline(60)).marks_wrong == (marked == 80)


@pytest.mark.parametrize(
    "options", [{"gop": 1}, {"codec": "mpeg4", "gop": 1}, {"codec": "mjpeg", "pix_fmt": "yuvj420p"}]
)
def test_where_every_frame_is_a_key_frame_the_marks_are_right(folder, options):
    path = write_video(folder / "a.mp4", numbered(40), **options)
    assert assert_as_a_player_shows(path, range(40)).keyframes.all()
    index = read_index(path, Deadline(60))
    assert not index.marks_wrong
    assert index.key_before(30) == 30


def test_frames_that_only_others_refer_to_are_not_counted(folder):
    hidden = (1, 7, 8, 30, 59)

    def hide(number, packet):
        if number in hidden:
            content = bytearray(bytes(packet))
            content[0] &= 0b11101111  # whether it is shown
            packet.update(content)

    source = write_video(folder / "source.webm", numbered(60), codec="libvpx", gop=20)
    for name in ("a.webm", "a.avi"):
        path = remux(source, folder / name, hide)
        timeline = assert_as_a_player_shows(path, [number for number in range(60) if number not in hidden])
        assert timeline.times[1] == pytest.approx(2 / 8, abs=2e-3)


@pytest.mark.parametrize(
    ("codec", "packet", "nothing"),
    [
        ("vp8", bytes([0b00010000]), False),
        ("vp8", bytes([0b00000001]), True),
        ("vp9", bytes([0b10000010]), False),
        ("vp9", bytes([0b10000000]), True),
        ("vp9", bytes([0b10001000]), False),  # shows one that came before
        ("vp9", bytes([0b10110001]), False),  # profile 3
        ("vp9", bytes([0b10110000, 0]), True),
        ("vp9", bytes([0b10000000, 0b10000010, 0b11000001, 1, 1, 0b11000001]), False),  # two frames, the second shown
        ("vp9", bytes([0b10000000, 0b10000000, 0b11000001, 1, 1, 0b11000001]), True),
        ("av1", bytes([0b00010010, 0, 0b00110010, 1, 0b00110000]), False),
        ("av1", bytes([0b00010010, 0, 0b00110010, 1, 0b00100000]), True),
        ("av1", bytes([0b00010010, 0, 0b00110010, 1, 0b00100000, 0b00011010, 1, 0b10000000]), False),
        ("av1", bytes([0b00010010, 0]), False),  # no frame
        ("h264", bytes([0, 0, 0, 1]), False),
        ("dirac", b"BBCD\x10" + bytes(8), True),  # the end of a sequence
        ("dirac", b"BBCD\x00" + bytes(8) + b"BBCD\xe8" + bytes(8), False),
    ],
)
def test_what_the_first_bits_say(codec, packet, nothing):
    assert shows_nothing(codec, packet) is nothing


def test_outputs_count_the_frames_that_are_shown(fitted, folder):
    videos = folder / "videos"
    videos.mkdir()
    write_video(folder / "source.mkv", numbered(100), gop=25, bf=0)
    remux(folder / "source.mkv", folder / "source.mp4")
    trim(folder / "source.mp4", [(20 / 8, 40 / 8)], videos / "a.mp4")
    trim(folder / "source.mp4", [(1 / 8, 37 / 8)], videos / "b.mov")
    part = write_video(folder / "part.ts", numbered(40), bf=2).read_bytes()
    (videos / "c.ts").write_bytes(part * 2)
    write_video(videos / "d.avi", numbered(50), bf=2)
    classes = ("CSVPredictions", "ClipTimelines", "MegaDetectorJSON")
    formats = ", ".join(f"{{class_path: zamba_lcli.callbacks.{name}}}" for name in classes)
    options = ["+=WritePredictions", ".output_dir=out", f".formats=[{formats}]"]
    checkpoint = fitted / "checkpoints/last.ckpt"
    main(
        [
            "predict",
            f"--ckpt_path={checkpoint}",
            f"--data.videos={videos}",
            *(f"--trainer.callbacks{option}" for option in options),
        ]
    )
    rows = {row["filepath"]: row for row in read_csv("out/timelines.csv")}
    assert {row["status"] for row in rows.values()} == {"ok"}
    shown_frames = {"a.mp4": 20, "b.mov": 1, "c.ts": 80, "d.avi": 50}
    for name, frames in shown_frames.items():
        assert (rows[name]["start"], float(rows[name]["end"])) == ("0.000", pytest.approx((frames - 1) / 8, abs=2e-3))
    for image in json.loads(Path("out/megadetector.json").read_text())["images"]:
        frames = shown_frames[image["file"]]
        assert image["frame_rate"] == pytest.approx(8 if frames > 1 else 1, abs=0.01)
        expected = np.linspace(0, frames - 1, 8).astype(int)  # EvenlySpaced(8)
        assert set(image["frames_processed"]) <= {*expected, *(expected + 1)}
        assert len(image["frames_processed"]) == min(frames, 8)


@pytest.mark.parametrize("mixed", [False, True], ids=["fields", "mixed"])
@pytest.mark.parametrize(
    ("name", "packet_each", "reordered"),
    [
        ("clip.ts", "field", False),
        ("clip.ts", "field", True),
        ("clip.ts", "picture", False),
        ("clip.ts", "picture", True),
        ("clip.m2ts", "picture", True),
        ("clip.mkv", "field", False),
        ("clip.mp4", "picture", True),
        ("clip.h264", None, False),
        ("clip.h264", None, True),
    ],
)
def test_two_fields_are_one_frame(tmp_path, name, packet_each, reordered, mixed):
    options = {"packet_each": packet_each, "reordered": reordered, "mixed": mixed}
    path = tmp_path / name
    if path.suffix == ".mkv":
        remux(write_field_coded(tmp_path / "clip.ts", numbered(40, 64, 64), **options), path)
    else:
        write_field_coded(path, numbered(40, 64, 64), **options)
    assert numbers_in(shown_in(path)) == list(range(40))
    timeline = read_timeline(path)
    assert_allclose(timeline.times, np.arange(40) / 25, atol=1e-6)
    whole = read_clip(path, GivenFrames(list(range(40))), height=64, width=64, max_damaged=0.0)
    assert numbers_in(whole.frames) == list(range(40))
    for wanted in ([7], [13, 14], [38, 39], [1, 22]):
        assert numbers_in(read_clip(path, GivenFrames(wanted), height=64, width=64, max_damaged=0.0).frames) == wanted
    clip = read_clip(path, FixedRate(5, 6), height=64, width=64, max_damaged=0.0)
    assert clip.numbers.tolist() == numbers_in(clip.frames) == [0, 5, 10, 15, 20, 25]
    assert clip.duration == pytest.approx(1.6)


def shown_in(path):
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def test_frames_at_a_seam_within_groups_are_those_of_the_decoder(tmp_path):
    source = write_video(tmp_path / "source.ts", numbered(100), fps=12, gop=12, bf=2)
    packet = 188
    data = source.read_bytes()
    count = len(data) // packet
    joined = tmp_path / "joined.ts"
    pieces = [(count // 3, 2 * count // 3), (count // 5, count // 2)]
    joined.write_bytes(b"".join(data[a * packet : b * packet] for a, b in pieces))
    truth = numbers_in(shown_in(joined))
    everything = read(joined, GivenFrames(list(range(len(truth)))))
    assert numbers_in(everything.frames) == truth


def test_headers_of_a_second_theora_recording_are_no_frames():
    assert [shows_nothing("theora", start) for start in (b"\x81theora", b"\x82theora")] == [True, True]
    assert [shows_nothing("theora", start) for start in (b"\x3f\x00", b"")] == [False, False]


@pytest.mark.parametrize("suffix", ["avi", "mov", "nut"])
def test_a_palette_comes_with_the_first_packet_alone(folder, suffix):
    path = folder / f"clip.{suffix}"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("rawvideo", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "pal8"
        for picture in numbered(12):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="gray")
            indices = frame.to_ndarray()
            palette = np.repeat(np.arange(255, -1, -1, dtype=np.uint8)[:, None], 4, 1)  # inverted: ARGB
            palette[:, 3] = 255
            file.mux(stream.encode(av.VideoFrame.from_ndarray((255 - indices, palette), format="pal8")))
        file.mux(stream.encode(None))
    assert_as_a_player_shows(path, range(12))


ENCODERS = {
    "h264.mp4": "-c:v libx264 -pix_fmt yuv420p -g 25 -bf 3",
    "h264.mov": "-c:v libx264 -pix_fmt yuv420p -g 25 -bf 0",
    "hevc.mp4": "-c:v libx265 -pix_fmt yuv420p -x265-params log-level=none:keyint=25",
    "mpeg4.mp4": "-c:v mpeg4 -q:v 2 -g 25 -bf 2",
    "mpeg2.mov": "-c:v mpeg2video -q:v 2 -g 25 -bf 2",
    "mjpeg.mov": "-c:v mjpeg -q:v 2",
}


def ffmpeg(*arguments):
    command = ["ffmpeg", "-loglevel", "error", "-y", "-threads", "1", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def as_ffmpeg_shows(path):
    raw = ffmpeg("-i", path, "-map", "0:V:0", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return numbers_in(np.frombuffer(raw, np.uint8).reshape(-1, 48, 64, 3))


def render(path, options, frames=100):
    numbered(frames).tofile("pictures")
    ffmpeg("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "64x48", "-r", 10, "-i", "pictures", *options.split(), path)
    return path


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs the program ffmpeg")
class TestBesideFFmpeg:
    def all_frames(self, path):
        frames = as_ffmpeg_shows(path)
        clip = read(path, GivenFrames(list(range(len(frames)))))
        assert len(read_timeline(path).times) == len(frames)
        assert numbers_in(clip.frames) == frames

    @pytest.mark.parametrize("name", ENCODERS)
    @pytest.mark.parametrize("start", [0.5, 2.5, 3.3, 7.8])
    @pytest.mark.parametrize("suffix", [None, "mkv"])
    def test_trimmed_without_encoding_anew(self, folder, name, start, suffix):
        source = render(folder / name, ENCODERS[name])
        out = folder / f"trimmed.{suffix or source.suffix[1:]}"
        ffmpeg("-ss", start, "-t", 2, "-i", source, "-c", "copy", out)
        self.all_frames(out)

    @pytest.mark.parametrize("codec", ["libx264 -pix_fmt yuv420p", "mpeg4 -vtag XVID -q:v 2"])
    @pytest.mark.parametrize("more", ["", "-fflags +genpts"])
    @pytest.mark.parametrize("suffix", ["avi", "mp4", "mov", "mkv"])
    def test_b_frames_taken_over_from_avi(self, folder, codec, more, suffix):
        source = render(folder / "source.avi", f"-c:v {codec} -g 20 -bf 2")
        out = folder / f"out.{suffix}"
        try:
            ffmpeg(*more.split(), "-i", source, "-c", "copy", out)
        except subprocess.CalledProcessError:
            return  # some containers take no packets without times
        self.all_frames(out)

    @pytest.mark.parametrize("name", ["a.ts", "a.mpg", "a.mkv", "a.flv", "a.avi", "a.mp4"])
    def test_joined_byte_by_byte(self, folder, name):
        codec = "mpeg2video -q:v 2 -r 25" if name == "a.mpg" else "libx264 -pix_fmt yuv420p"
        fragments = " -movflags frag_keyframe+empty_moov+default_base_moof" if name == "a.mp4" else ""
        part = render(folder / name, f"-c:v {codec} -g 10 -bf 2{fragments}", 40).read_bytes()
        (folder / f"joined{name[1:]}").write_bytes(part * 3)
        self.all_frames(folder / f"joined{name[1:]}")

    @pytest.mark.parametrize("name", ["a.vc2", "a.ts", "a.mkv"])
    def test_vc2_without_a_container_has_numbers_in_place_of_times(self, folder, name):
        """The mark at the end of a stream is no frame."""
        path = render(folder / name, "-c:v vc2", 30)
        self.all_frames(path)
        assert_allclose(read_timeline(path).times, np.arange(30) / 10, atol=1e-4)
