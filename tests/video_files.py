"""Writes small video files whose frames tell their own number."""

from fractions import Fraction

import av
import numpy as np

BITS = 8


def numbered(frames, height=48, width=64):
    """Pictures of which each shows its number as a bar code of black and white columns: uint8 (frames, H, W, 3)."""
    numbers = np.arange(frames)
    bits = numbers[:, None] >> np.arange(BITS) & 1  # (frames, 8)
    columns = np.repeat(bits * 200 + 20, width // BITS, axis=1).astype(np.uint8)  # (frames, W)
    return np.broadcast_to(columns[:, None, :, None], (frames, height, columns.shape[1], 3)).copy()


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
