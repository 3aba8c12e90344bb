"""What the first bytes of a packet say of the picture in it, for what containers do not tell or tell wrongly."""

from __future__ import annotations  # PyAV's classes are named before it is imported

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

VOP = b"\x00\x00\x01\xb6"  # MPEG-4 part 2: begins a picture
PICTURE = b"\x00\x00\x01\x00"  # MPEG-1 and 2: begins a picture
LARGEST_EMPTY_VOP = 19  # bytes; FFmpeg's mpeg4_unpack_bframes takes no larger one for a picture that is not coded
SUPERFRAME = 0b110  # VP9: the upper bits of a superframe's last byte
SEQUENCE_HEADER, FRAME_HEADER, FRAME = 1, 3, 6  # AV1: kinds of OBU


class _Bits:
    """Reads numbers from bits, the highest of each byte first; beyond the end there are zeros."""

    def __init__(self, data: bytes) -> None:
        self.number, self.left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        self.left -= count
        if self.left < 0:
            return 0
        return self.number >> self.left & ((1 << count) - 1)

    def exp_golomb(self) -> int:
        zeros = 0
        while self.left > 0 and not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


def shows_nothing(codec: str, packet: bytes) -> bool:
    """Whether a packet holds nothing that is shown, but a picture that others refer to.

    Args:
        codec: FFmpeg's name of the codec.
        packet: All of it.
    """
    if codec == "vp8":
        return bool(packet) and not packet[0] >> 4 & 1
    if codec == "vp9":
        return not any(_vp9_shown(frame) for frame in _vp9_frames(packet))
    if codec == "av1":
        return _av1_hidden(packet)
    return False


def may_be_moved(codec: VideoCodecContext, packet: bytes) -> bool:
    """Whether a packet may hold a picture that is shown before others that are stored before it, as B-frames are."""
    name = codec.codec.canonical_name
    if name == "h264":
        return _h264_slice_type(packet, codec.extradata or b"") % 5 == 1
    if name == "mpeg4":
        return any(packet[at + 4] >> 6 == 2 for at in _all(VOP, packet[:-1]))
    if name in ("mpeg1video", "mpeg2video"):
        return any(packet[at + 5] >> 3 & 7 == 3 for at in _all(PICTURE, packet[:-2]))
    return True


def holds_one_picture(codec: str, packet: bytes) -> bool:
    """Whether a packet holds one picture; of MPEG-4 part 2, XviD and DivX pack two into one and none into the next."""
    return codec != "mpeg4" or (len(packet) > LARGEST_EMPTY_VOP and packet.count(VOP) == 1)


def _all(mark: bytes, data: bytes) -> list[int]:
    found, at = [], data.find(mark)
    while at >= 0:
        found.append(at)
        at = data.find(mark, at + 1)
    return found


def _h264_slice_type(packet: bytes, extradata: bytes) -> int:
    """Returns the type of the first slice, 1 or 6 for B; also where none is found: it may be one."""
    if extradata[:1] == b"\x01" and len(extradata) > 4:  # each unit has its length in front
        size, at = (extradata[4] & 3) + 1, 0
        units = []
        while at + size < len(packet):
            units.append(at + size)
            at += size + int.from_bytes(packet[at : at + size], "big")
    else:
        units = [at + 3 for at in _all(b"\x00\x00\x01", packet)]
    for at in units:
        if packet[at : at + 1] and packet[at] & 31 in (1, 2, 5):
            bits = _Bits(packet[at + 1 : at + 9])
            bits.exp_golomb()  # the number of its first macroblock
            return bits.exp_golomb()
    return 1


def _vp9_frames(packet: bytes) -> list[bytes]:
    """Returns the frames of a superframe, which has their sizes at its end; any other packet is one frame."""
    last = packet[-1] if packet else 0
    if last >> 5 == SUPERFRAME:
        width, count = (last >> 3 & 3) + 1, (last & 7) + 1
        table = packet[-(2 + width * count) :]
        if table[0] == last:
            frames, at = [], 0
            for number in range(count):
                size = int.from_bytes(table[1 + number * width : 1 + (number + 1) * width], "little")
                frames.append(packet[at : at + size])
                at += size
            return frames
    return [packet]


def _vp9_shown(frame: bytes) -> bool:
    bits = _Bits(frame[:2])
    if bits.take(2) != 2:  # no frame of VP9: the decoder decides
        return True
    profile = bits.take(1) + 2 * bits.take(1)
    if profile == 3:
        bits.take(1)
    shown_again = bits.take(1)
    bits.take(1)  # whether it is a key frame
    return bool(shown_again or bits.take(1))


def _av1_hidden(packet: bytes) -> bool:
    """Whether there are frames in the packet, and all of them are to be shown later."""
    at, hidden = 0, False
    while at < len(packet):
        header = packet[at]
        kind, extended, sized = header >> 3 & 15, header >> 2 & 1, header >> 1 & 1
        at += 1 + extended
        size, shift = 0, 0
        while sized and at < len(packet):
            size |= (packet[at] & 127) << shift
            shift += 7
            at += 1
            if not packet[at - 1] >> 7:
                break
        end = at + size if sized else len(packet)
        if kind == SEQUENCE_HEADER and packet[at : at + 1] and packet[at] >> 3 & 1:  # a still picture: a shorter header
            return False
        if kind in (FRAME_HEADER, FRAME):
            bits = _Bits(packet[at : at + 1])
            shown_again = bits.take(1)
            bits.take(2)  # the kind of frame
            if shown_again or bits.take(1):
                return False
            hidden = True
        at = end
    return hidden
