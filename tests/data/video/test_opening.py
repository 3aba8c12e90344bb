"""A clip's path is always that of a file, and no other file is opened for it."""

import csv
import os
import shutil
import socket
import stat
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from helpers.tables import read_csv
from helpers.video_files import ONE_THREAD, numbered, numbers_in, write_video
from zamba_lcli.cli import main
from zamba_lcli.data import DemoClips
from zamba_lcli.data.previews import read_preview, read_previews
from zamba_lcli.data.sampling import EvenlySpaced
from zamba_lcli.data.video.reading import UnreadableClipError, probe, read_clip, read_timeline, try_clip, upright_size

SIZE = {"height": 48, "width": 64}
ODD_NAMES = [
    "2024-05-01T10:20:30.mp4",
    "10:20:31.mp4",
    "cam1:0001.mp4",
    "http:x.mp4",
    "tcp:x.mp4",
    "concat:a.mp4|b.mp4",
    "subfile,,start,0,end,9,,:x.mp4",
    "data:x.mp4",
    "file:x.mp4",
    "fd:0.mp4",
    "pipe:0.mp4",
    "crypto+file:x.mp4",
    "-start.mp4",
    "-i.mp4",
    "a b%03d#?&.mp4",
    "%d.avi",
    "a*[0-9]{x}.mkv",
    "a|b.mov",
    "a\\b.mp4",
    "rtsp:/x/y.mp4",
    "http:/127.0.0.1/x.mp4",
    "cam:2/%02d/1.ts",
    "subfile,/x.mp4",
    "é\u0301\udcff.mp4",
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", numbered(6))


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_path_is_a_file_whatever_its_name(folder, clip, name, absolute):
    path = folder / name if absolute else Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(clip, path)
    assert numbers_in(read_clip(path, EvenlySpaced(6), **SIZE).frames) == list(range(6))
    assert len(read_timeline(path).times) == 6
    assert upright_size(path) == (48, 64)
    assert read_preview(path) is not None
    probe(path)
    try_clip(path)
    path.unlink()
    with pytest.raises(UnreadableClipError, match="no such file"):
        probe(path)


def test_a_picture_with_a_pattern_as_its_name_is_that_picture(folder):
    write_video(folder / "other.mp4", numbered(6))
    for number in range(3):
        write_video(folder / f"{number}.png", numbered(6)[number : number + 1], codec="png", pix_fmt="rgb24")
    shutil.copy(folder / "2.png", folder / "%d.png")
    assert numbers_in(read_clip(Path("%d.png"), EvenlySpaced(2), **SIZE).frames) == [2, 2]
    os.unlink("%d.png")
    with pytest.raises(UnreadableClipError, match="no such file"):
        read_clip(Path("%d.png"), EvenlySpaced(2), **SIZE)


@pytest.mark.parametrize("scheme", ["tcp", "http", "udp", "rtmp"])
def test_nothing_is_sent_anywhere(folder, clip, scheme):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        path = Path(f"{scheme}:/127.0.0.1:{server.getsockname()[1]}/x.mp4")
        path.parent.mkdir(parents=True)
        shutil.copy(clip, path)
        probe(path)
        shutil.copy(clip, f"{scheme}:x.mp4")
        probe(Path(f"{scheme}:x.mp4"))
        with pytest.raises(BlockingIOError):
            server.accept()


def test_odd_names_in_a_fit_with_a_cache_a_check_and_predictions(zamba, predict, folder, clip, capfd):
    names = ["2024-05-01T10:20:30.mp4", "cam1:0001.mp4", "concat:x.mp4", "-start.mp4", "cam:2/%03d.mp4", "http:x.mp4"]
    for name in names:
        Path(name).parent.mkdir(exist_ok=True)
        shutil.copy(clip, name)
    rows = [[name, "fox" if i % 2 else "deer", "train" if i < 4 else "val"] for i, name in enumerate(names)]
    with open("labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([["filepath", "label", "split"], *rows])
    main(["check", "--data.labels", "labels.csv"])
    assert "Nothing needs fixing" in capfd.readouterr().out  # the clips have no sites
    zamba("fit", "--data.cache_dir=cache", "--trainer.max_epochs=1", labels="labels.csv")
    assert not Path("runs/tiny/version_0/failed.csv").exists()
    checkpoint = "runs/tiny/version_0/checkpoints/last.ckpt"
    for given in ("labels.csv", "cam1:0001.mp4"):
        predicted = predict(checkpoint, given, output_dir=f"of_{given[:3]}")
        assert {row["status"] for row in predicted} == {"ok"}
        assert len(predicted) == (6 if given == "labels.csv" else 1)


def test_demo_clips_in_a_folder_with_a_colon(folder):
    demo = DemoClips("tcp:1/demo", clips_per_class=3)
    demo.render()
    names = [row["filepath"] for row in read_csv(demo.labels)]
    assert names
    for name in names:
        probe(Path(demo.data_dir) / name)


LISTS = {
    "ffconcat": b"ffconcat version 1.0\nfile 'real.mp4'\n",
    "ffconcat of an HLS playlist": b"ffconcat version 1.0\nfile 'list.m3u8'\n",
    "ffconcat of a pipe": b"ffconcat version 1.0\nfile 'pipe'\n",
    "HLS": b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nreal.mp4\n#EXT-X-ENDLIST\n",
    "SDP": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "DASH": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    b'<Representation id="0" mimeType="video/mp4" bandwidth="1"><BaseURL>real.mp4</BaseURL></Representation>'
    b"</AdaptationSet></Period></MPD>",
    "IMF": b'<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"></CompositionPlaylist>',
    "RTSP": b"rtsp://127.0.0.1/x\n",
    "subtitles": b"1\n00:00:00,000 --> 00:00:02,000\nhello\n\n" * 3,
    "vobsub": b"# VobSub index file, v7 (do not modify this line!)\n",
    "VapourSynth": b"import vapoursynth\n",
    "web page": b"<!DOCTYPE html><html><body>403 Forbidden</body></html>\n",
    "LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
}


@pytest.mark.parametrize("suffix", [".mp4", ".avi", None])
@pytest.mark.parametrize("kind", LISTS)
def test_a_text_that_names_other_files_opens_none_of_them(folder, clip, kind, suffix):
    own = {"ffconcat": ".ffconcat", "HLS": ".m3u8", "SDP": ".sdp", "DASH": ".mpd", "vobsub": ".idx"}
    shutil.copy(clip, "real.mp4")
    os.mkfifo("pipe")  # who opens it to read never comes back
    Path("list.m3u8").write_bytes(LISTS["HLS"])
    path = folder / f"clip{own.get(kind, '.txt') if suffix is None else suffix}"
    path.write_bytes(LISTS[kind])
    for read in (probe, read_timeline, lambda p: read_clip(p, EvenlySpaced(2), **SIZE)):
        with pytest.raises(UnreadableClipError, match=r"not a video|no video|cannot be decoded") as error:
            read(path)
        assert "\n" not in error.value.reason


def test_the_reason_names_what_ffmpeg_takes_the_content_for(folder):
    Path("clip.mp4").write_bytes(LISTS["ffconcat"])
    with pytest.raises(UnreadableClipError, match=r"not a video, or not in a format that clips come in .* is concat"):
        probe(Path("clip.mp4"))


def test_what_a_movie_refers_to_outside_of_itself_is_not_opened(folder, clip):
    write_video(folder / "outside.mov", numbered(6))
    os.mkfifo("pipe")
    for target in (b"outside.mov", b"pipe"):
        path = folder / f"refers_to_{target.decode()}"
        path.write_bytes(with_external_data(write_video(folder / "a.mov", numbered(6)).read_bytes(), folder, target))
        with pytest.raises(UnreadableClipError):
            read_clip(path, EvenlySpaced(2), **SIZE)


def with_external_data(movie, folder, target):
    """Returns a movie whose data reference is an alias record that names another file, as QuickTime writes them."""
    where = os.fsencode(folder / os.fsdecode(target))
    alias = bytearray(150)
    alias[4:6] = len(alias).to_bytes(2, "big")
    alias[6:8] = (2).to_bytes(2, "big")  # version
    alias[10] = 3
    alias[11:14] = b"mac"
    alias[50] = len(target)
    alias[51 : 51 + len(target)] = target
    alias += (2).to_bytes(2, "big") + len(where).to_bytes(2, "big") + where + bytes(len(where) % 2)
    alias += (0xFFFF).to_bytes(2, "big") + bytes(2)
    entry = b"alis" + bytes(4) + bytes(alias)  # flags 0: the data are not in this file
    entry = (len(entry) + 4).to_bytes(4, "big") + entry
    reference = b"dref" + bytes(4) + (1).to_bytes(4, "big") + entry
    reference = (len(reference) + 4).to_bytes(4, "big") + reference
    at = movie.index(b"dref") - 4
    size = int.from_bytes(movie[at : at + 4], "big")
    grown = bytearray(movie[:at] + reference + movie[at + size :])
    for name in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        place = max(grown.rfind(name, 0, at), 0) - 4 if name != b"moov" else grown.index(b"moov") - 4
        held = int.from_bytes(grown[place : place + 4], "big") + len(reference) - size
        grown[place : place + 4] = held.to_bytes(4, "big")
    return bytes(grown)


def test_what_is_no_regular_file_is_refused_before_it_is_opened(folder):
    os.mkfifo("pipe.mp4")
    os.symlink("pipe.mp4", "linked.mp4")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.mp4")
        kinds = {"pipe.mp4": "a named pipe", "linked.mp4": "a named pipe", "socket.mp4": "a socket"}
        for name, kind in {**kinds, "/dev/zero": "a device", ".": "a folder"}.items():
            for read in (probe, read_timeline, try_clip, lambda p: read_clip(p, EvenlySpaced(2), **SIZE)):
                with pytest.raises(UnreadableClipError, match=f"not a regular file but {kind}"):
                    read(Path(name))
            assert read_preview(Path(name)) is None
    assert stat.S_ISFIFO(os.stat("pipe.mp4").st_mode)


@pytest.mark.parametrize("name", ["a\0b.mp4", "x" * 300 + ".mp4", "loop.mp4"])
def test_a_path_that_no_file_can_have_gives_a_reason(folder, name):
    os.symlink("loop.mp4", "loop.mp4")
    with pytest.raises(UnreadableClipError, match="cannot be looked at"):
        probe(Path(name))


def test_a_sound_recording_is_told_from_a_broken_video(folder):
    with wave.open("a.mp4", "wb") as file:
        file.setparams((1, 2, 8000, 8000, "NONE", ""))
        file.writeframes(bytes(16000))
    with pytest.raises(UnreadableClipError, match="sound recording"):
        probe(Path("a.mp4"))


def with_picture_first(folder, name, disposition, frames=6):
    """A clip of frames whose first stream is a single picture, red."""
    red = np.zeros((1, 48, 64, 3), np.uint8) + np.array([250, 0, 0], np.uint8)
    with av.open(str(folder / name), "w") as file:
        streams = []
        for codec, pix_fmt in [("mjpeg", "yuvj420p"), ("mpeg4", "yuv420p")][: 1 + bool(frames)]:
            stream = file.add_stream(codec, rate=8)
            stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
            streams.append(stream)
        streams[0].disposition = disposition
        for stream, pictures in zip(streams, (red, numbered(frames)), strict=False):
            for number, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 8)
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    return folder / name


@pytest.mark.parametrize("name", ["a.avi", "a.mov", "a.mkv", "a.mp4"])
@pytest.mark.parametrize("disposition", [Disposition(0), Disposition.default, Disposition.attached_pic])
def test_of_several_videos_the_one_that_ffmpeg_takes_is_the_clip(folder, name, disposition):
    path = with_picture_first(folder, name, disposition)
    with av.open(str(path)) as file:
        best = file.streams.best("video").codec_context.name
    assert len(read_timeline(path).times) == (1 if best == "mjpeg" else 6)
    if best == "mpeg4":
        clip = read_clip(path, EvenlySpaced(6), **SIZE)
        assert numbers_in(clip.frames) == list(range(6))
    try_clip(path)


def test_an_attached_picture_before_the_video_is_not_the_clip(folder):
    """As programs for music write it: FFmpeg's writer of MP4 would put it last."""
    write_video(folder / "real.mkv", numbered(6), codec="mpeg4")
    red = np.zeros((1, 48, 64, 3), np.uint8) + np.array([250, 0, 0], np.uint8)
    write_video(folder / "red.avi", red, codec="mjpeg", pix_fmt="yuvj420p")
    with av.open("red.avi") as picture, av.open("real.mkv") as real, av.open("a.mkv", "w") as file:
        image = file.add_attachment("cover.jpg", "image/jpeg", bytes(next(picture.demux(video=0))))
        assert image is not None
        stream = file.add_stream_from_template(real.streams.video[0])
        for packet in real.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                file.mux(packet)
    clip = read_clip(Path("a.mkv"), EvenlySpaced(6), **SIZE)
    assert numbers_in(clip.frames) == list(range(6))


def test_a_picture_that_is_attached_to_sound_is_no_clip(folder):
    with_picture_first(folder, "cover.mp4", Disposition.attached_pic, frames=0)
    with pytest.raises(UnreadableClipError, match="only an attached picture"):
        probe(Path("cover.mp4"))


RAW = {
    "a.h264": {"codec": "libx264", "bf": 0},
    "b.h264": {"codec": "libx264", "bf": 3},
    "a.hevc": {"codec": "libx265", "x265-params": ONE_THREAD},
    "a.mjpeg": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "h264_named.mp4": {"codec": "libx264", "bf": 3},
}


@pytest.mark.parametrize("name", RAW)
def test_a_stream_without_a_container_has_times_by_its_rate(folder, name):
    path = raw(folder, name)
    with pytest.warns(UserWarning, match=r"stream without a container.* its rate, \d+ frames a second"):
        clip = read_clip(path, EvenlySpaced(40), **SIZE)
    assert numbers_in(clip.frames) == list(range(40))
    assert clip.numbers.tolist() == list(range(40))
    rate = 10 if RAW[name]["codec"] in ("libx264", "libx265") else clip.frame_rate  # these tell it
    assert clip.times.tolist() == pytest.approx((np.arange(40) / rate).tolist(), abs=1e-3)


def raw(folder, name):
    suffix = {"libx264": "h264", "libx265": "hevc", "mjpeg": "mjpeg"}[RAW[name]["codec"]]
    return write_video(folder / f"made.{suffix}", numbered(40), fps=10, **RAW[name]).rename(folder / name)


def test_check_warns_of_single_pictures_and_of_streams_without_a_container(folder, clip):
    raw(folder, "a.h264")
    write_video(folder / "one.mp4", numbered(1))
    shutil.copy(clip, "good.mp4")
    with wave.open("sound.mp4", "wb") as file:
        file.setparams((1, 2, 8000, 8000, "NONE", ""))
        file.writeframes(bytes(16000))
    rows = ["a.h264,x,train", "one.mp4,x,val", "good.mp4,x,train", "sound.mp4,x,train"]
    Path("labels.csv").write_text("\n".join(["filepath,label,split", *rows]))
    with pytest.raises(SystemExit):
        main(["check", "--data.labels", "labels.csv"])
    found = {row["file"]: row for row in read_csv("check.csv")}
    assert set(found) == {"a.h264", "one.mp4", "sound.mp4"}
    assert {name: row["severity"] for name, row in found.items()} == {
        "a.h264": "warning",
        "one.mp4": "warning",
        "sound.mp4": "problem",
    }
    assert "without a container" in found["a.h264"]["what"]
    assert "10 frames a second" in found["a.h264"]["remedy"]
    assert "one picture" in found["one.mp4"]["what"]
    assert "sound recording" in found["sound.mp4"]["what"]


def test_previews_keep_to_the_time_limit(folder, clip):
    assert read_preview(clip, time_limit=1e-6) is None
    assert read_previews([clip] * 20, time_limit=1e-6) == [None] * 20
    assert all(preview is not None for preview in read_previews([clip] * 20))
