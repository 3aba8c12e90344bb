"""Writes small video files whose frames tell their own number."""

from fractions import Fraction

import av
import numpy as np

BITS = 8

# of libx265: with a pool of threads the encoder was seen to crash, once in many runs
ONE_THREAD = "log-level=none:pools=none:frame-threads=1"


def numbered(frames, height=48, width=64):
    """Pictures of which each shows its number as a bar code of black and white columns: uint8 (frames, H, W, 3)."""
    numbers = np.arange(frames)
    bits = numbers[:, None] >> np.arange(BITS) & 1  # (frames, 8)
    columns = np.repeat(bits * 200 + 20, width // BITS, axis=1).astype(np.uint8)  # (frames, W)
    return np.broadcast_to(columns[:, None, :, None], (frames, height, columns.shape[1], 3)).copy()


def noise(frames, height=48, width=64):
    """Pictures of noise, which make files of which the pictures are nearly all: uint8 (frames, H, W, 3)."""
    return np.random.default_rng(frames).integers(0, 256, (frames, height, width, 3), np.uint8)


def numbers_in(pictures):
    """Reads the numbers back: a list of ints."""
    width = pictures.shape[2] // BITS
    columns = pictures[:, pictures.shape[1] // 2, :, 1].reshape(len(pictures), BITS, width)
    bits = columns[:, :, width // 2] > 120
    return [int((row * (1 << np.arange(BITS))).sum()) for row in bits]


def write_video(
    path, pictures, *, fps=8, codec="libx264", pix_fmt="yuv420p", ticks=None, rotation=0, gop=None, **options
):
    """Encodes pictures, uint8 (T, H, W, 3); ``ticks`` are their times in units of 1/fps, if not 0, 1, 2 and so on."""
    with av.open(
        str(path), "w", options={"movflags": "faststart"} if str(path).lower().endswith("mp4") else {}
    ) as file:
        stream = file.add_stream(
            codec, rate=Fraction(fps), options={k.replace("_", "-"): str(v) for k, v in options.items()}
        )
        stream.height, stream.width, stream.pix_fmt = pictures.shape[1], pictures.shape[2], pix_fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, fps)
        if gop is not None:
            stream.codec_context.gop_size = gop
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number if ticks is None else ticks[number]
            frame.time_base = Fraction(1, fps)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def cut(path, share):
    """Cuts a file off after a share of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def damage(path, share=0.05, seed=0, start=0.2):
    """Overwrites a share of a file's bytes, in runs of 64, after its beginning."""
    rng = np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    for _ in range(max(1, int(len(data) * share / 64))):
        at = int(rng.uniform(start, 0.95) * len(data))
        data[at : at + 64] = rng.bytes(64)
    path.write_bytes(data)
    return path


def shown(path):
    """Numbers of the frames that a player shows, in its order: a plain loop over FFmpeg's decoder."""
    with av.open(str(path)) as file:
        file.streams.video[0].codec_context.thread_count = 1
        return numbers_in(np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]))


def remux(path, out, change=lambda number, packet: None):
    """Copies a video into another file, with ``change`` made to each packet."""
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size:
                change(number, packet)
                packet.stream = stream
                target.mux(packet)
    return out


def mark_all_as_key_frames(number, packet):
    """A change for ``remux``."""
    packet.is_keyframe = True


def trim(path, edits, out):
    """Gives an MP4 or MOV an edit list: pairs of how long and from where, in seconds; from -1 for nothing shown.

    The file must have its ``moov`` at the end.
    """
    data = bytearray(path.read_bytes())
    movie = data.index(b"moov")
    assert movie > data.index(b"mdat")

    def number(at):
        return int.from_bytes(data[at : at + 4], "big")

    ticks, media_ticks = number(data.index(b"mvhd") + 16), number(data.index(b"mdhd") + 16)
    entries = b"".join(
        round(length * ticks).to_bytes(4, "big")
        + (-1 if start < 0 else round(start * media_ticks)).to_bytes(4, "big", signed=True)
        + (1 << 16).to_bytes(4, "big")
        for length, start in edits
    )
    body = bytes(4) + len(edits).to_bytes(4, "big") + entries
    box = (16 + len(body)).to_bytes(4, "big") + b"edts" + (8 + len(body)).to_bytes(4, "big") + b"elst" + body
    at = data.find(b"edts", movie) - 4
    if at < 0:
        at = data.index(b"tkhd", movie) - 4
        at += number(at)
        old = 0
    else:
        old = number(at)
    data[at : at + old] = box
    for name in (b"moov", b"trak"):
        size = data.index(name, movie) - 4
        data[size : size + 4] = (number(size) + len(box) - old).to_bytes(4, "big")
    out.write_bytes(data)
    return out
