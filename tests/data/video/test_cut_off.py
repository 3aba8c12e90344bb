"""Files that end before the length that they declare."""

import shutil

import pytest

from helpers.video_files import cut, noise, write_video
from zamba_lcli.data import EvenlySpaced
from zamba_lcli.data.video.reading import UnreadableClipError, decode_all, read_clip, try_clip

KINDS = [("a.mp4", "libx264", {}), ("a.mov", "mpeg4", {"bf": 2}), ("a.avi", "mjpeg", {"pix_fmt": "yuvj420p"})]
KINDS += [("a.avi", "mpeg4", {"bf": 2}), ("a.mkv", "libx264", {})]


@pytest.mark.parametrize(("name", "codec", "options"), KINDS)
def test_what_is_missing_is_a_share_of_the_declared_length(folder, name, codec, options):
    path = write_video(folder / name, noise(90), codec=codec, **options)
    if name == "a.mov":
        faststart(path)
    assert try_clip(path).missing == 0
    for share in (0.8, 0.4):
        index = try_clip(cut(path, share))
        assert index.missing == pytest.approx(1 - len(index.timeline.times) / 90, abs=0.05)
        assert index.missing > 0.1


def faststart(path):
    with_index = path.with_suffix(".mp4")
    import av

    with av.open(str(path)) as source, av.open(str(with_index), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    shutil.move(with_index, path)


def test_headers_that_are_wrong_are_not_believed(folder):
    path = write_video(folder / "a.avi", noise(60), codec="mjpeg", pix_fmt="yuvj420p")
    content = bytearray(path.read_bytes())
    place = content.index(b"strh") + 8 + 32  # dwLength of the stream
    assert int.from_bytes(content[place : place + 4], "little") == 60
    content[place : place + 4] = (600).to_bytes(4, "little")  # as cameras write that were meant to record for longer
    path.write_bytes(content)
    assert try_clip(path).missing == 0
    assert len(try_clip(path).timeline.times) == 60
    gaps = write_video(folder / "gaps.mp4", noise(20), ticks=[*range(10), *range(80, 90)])
    assert try_clip(gaps).missing == 0
    assert try_clip(cut(write_video(folder / "a.ts", noise(60)), 0.5)).missing == 0  # declares nothing


def test_a_note_says_how_much_could_be_read(folder):
    sampling, size = EvenlySpaced(num_frames=4), {"height": 48, "width": 64}
    path = write_video(folder / "a.mp4", noise(90), gop=10)
    assert read_clip(path, sampling, **size).note == ""
    index = try_clip(cut(path, 0.8))
    left, said = len(index.timeline.times), f"{len(index.timeline.times) / 8:.1f} of 11."
    assert 50 < left < 80
    note = read_clip(path, sampling, **size).note
    assert note.startswith(f"cut off: only {said}")
    assert f"({left / 90:.0%} of the frames)" in note
    with pytest.raises(UnreadableClipError, match="cut off: only"):
        read_clip(path, sampling, max_damaged=0.1, **size)
    cut(path, 0.4)
    with pytest.raises(UnreadableClipError, match="cut off: only"):
        read_clip(path, sampling, **size)
    assert "cut off" in read_clip(path, sampling, max_damaged=1.0, **size).note


def test_damage_in_the_middle_is_found_by_decoding_everything(folder):
    path = write_video(folder / "a.mp4", noise(60), gop=1)
    assert decode_all(path)[1] == 0
    content = bytearray(path.read_bytes())
    begin = len(content) // 3
    content[begin : begin + len(content) // 3] = bytes(len(content) // 3)
    path.write_bytes(content)
    index, damaged = decode_all(path)
    assert index.missing == try_clip(path).missing == 0
    assert 0.2 < damaged < 0.5
