"""Writes H.264 whose pictures are coded field by field, as camcorders do; all macroblocks are stored as they are (I_PCM)."""

from fractions import Fraction

import av

SIDE, REFERENCES = 64, 2
FIELD_MARKER = b"\0\0\0\1\x09\x30"  # an access unit delimiter


class Bits:
    def __init__(self):
        self.text = ""

    def plain(self, count, value):
        self.text += format(value, f"0{count}b")
        return self

    def golomb(self, *values):
        for value in values:
            digits = format(value + 1, "b")
            self.text += "0" * (len(digits) - 1) + digits
        return self

    def bytes(self, stop="1"):
        text = self.text + stop
        text += "0" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big")


def unit(header, payload):
    """A NAL unit; a zero byte that would look like the beginning of another is followed by a 3."""
    out, zeros = bytearray([header]), 0
    for byte in payload:
        if zeros >= 2 and byte <= 3:
            out.append(3)
            zeros = 0
        out.append(byte)
        zeros = 0 if byte else zeros + 1
    return b"\0\0\0\1" + bytes(out)


def parameters(reordered):
    """SPS and PPS: Main profile, 64 x 64, 25 frames/s, fields allowed."""
    sps = Bits().plain(8, 77).plain(8, 0).plain(8, 30).golomb(0, 0, 0, 4, REFERENCES).plain(1, 0).golomb(3, 1)
    sps.plain(5, 0b00101)  # fields allowed, no mixing of macroblocks, no cropping, VUI
    sps.plain(4, 0).plain(1, 1).plain(32, 1).plain(32, 50).plain(1, 1)  # times of fields in the VUI
    sps.plain(3, 0).plain(1, 1).plain(1, 1).golomb(0, 0, 8, 8, int(reordered), REFERENCES)
    pps = Bits().golomb(0, 0).plain(2, 0).golomb(0, 0, 0).plain(3, 0).golomb(0, 0, 0).plain(3, 0b100)
    return unit(0x67, sps.bytes()) + unit(0x68, pps.bytes())


def coded(luma, *, first, reference, frame_num, order, bottom=None, group=0):
    """One picture of a field, or with ``bottom`` None of a frame: (rows, 64) luma, stored as it is."""
    head = Bits().golomb(0, 7, 0).plain(4, frame_num % 16)
    head.plain(1, 0) if bottom is None else head.plain(1, 1).plain(1, bottom)
    if first:
        head.golomb(group % 2)
    head.plain(8, order % 256)
    if reference:
        head.plain(2, 0) if first else head.plain(1, 0)
    head.golomb(0, 1)
    data, text = bytearray(), head.text
    for row in range(luma.shape[0] // 16):
        for column in range(SIDE // 16):
            part = Bits()
            part.text = text
            data += part.golomb(25).bytes(stop="")  # I_PCM
            text = ""
            data += luma[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16].tobytes() + b"\x80" * 128
    return unit((0x60 if reference else 0) | (5 if first else 1), bytes(data) + b"\x80")


def field_coded(pictures, *, reordered=False, mixed=False, gop=12):
    """Yields each picture as stored: its fields (one where it is coded as a frame), its place in time, if it is a key."""
    frames = (16 + pictures[..., 1].astype(int) * 219 // 255).astype("uint8")
    for start in range(0, len(frames), gop):
        size = min(gop, len(frames) - start)
        order = list(range(size))
        if reordered:
            order = [
                0,
                *(at for pair in range(2, size, 2) for at in (pair, pair - 1)),
                *([size - 1] if size % 2 == 0 else []),
            ]
        number = 0
        for place, shown in enumerate(order):
            luma, first = frames[start + shown], place == 0
            reference = not (reordered and shown % 2 == 1 and shown != size - 1)
            kwargs = {"reference": reference, "frame_num": number, "group": start // gop}
            if mixed and shown % 3 == 1:
                fields = [coded(luma, first=first, order=2 * shown, **kwargs)]
            else:
                fields = [
                    coded(
                        luma[parity::2], first=first and not parity, order=2 * shown + parity, bottom=parity, **kwargs
                    )
                    for parity in (0, 1)
                ]
            fields[0] = (parameters(reordered) if first else b"") + fields[0]
            yield [FIELD_MARKER + field for field in fields], start + shown, first
            number += reference


def write_field_coded(path, pictures, *, packet_each="field", **options):
    """Writes pictures, uint8 (T, 64, 64, 3), 25 a second; ``packet_each``: what a packet of a TS or MP4 holds."""
    if path.suffix == ".h264":
        path.write_bytes(b"".join(field for fields, _, _ in field_coded(pictures, **options) for field in fields))
        return path
    tick = Fraction(1, 90000)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width = stream.height = SIDE
        stream.pix_fmt, stream.time_base = "yuv420p", tick
        stream.codec_context.time_base = Fraction(1, 25)
        for stored, (fields, shown, key) in enumerate(field_coded(pictures, **options)):
            for parity, data in enumerate(fields if packet_each == "field" else [b"".join(fields)]):
                packet = av.Packet(data)
                packet.stream, packet.time_base = stream, tick
                packet.dts, packet.pts = stored * 3600 + parity * 1800, (shown + 1) * 3600 + parity * 1800
                packet.is_keyframe = key and not parity
                file.mux(packet)
    return path
