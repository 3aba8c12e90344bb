"""The kind of picture in a packet, from its first bytes, where containers give it wrongly or not at all."""

from __future__ import annotations  # PyAV's classes are named before it is imported

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

VOP = b"\x00\x00\x01\xb6"  # MPEG-4 part 2: begins a picture
DIRAC_UNIT = b"BBCD"
PICTURE = b"\x00\x00\x01\x00"  # MPEG-1 and 2: begins a picture
LARGEST_EMPTY_VOP = 19  # bytes; FFmpeg's mpeg4_unpack_bframes takes no larger one for a picture that is not coded
SUPERFRAME = 0b110  # VP9: the upper bits of a superframe's last byte
SEQUENCE_HEADER, FRAME_HEADER, FRAME = 1, 3, 6  # AV1: kinds of OBU
SLICES, SPS, PPS = (1, 2, 5), 7, 8  # H.264: kinds of NAL unit
SLICE_HEADER = 16  # bytes; enough for what is read of it
WITH_CHROMA = (
    44,
    83,
    86,
    100,
    110,
    118,
    122,
    128,
    134,
    135,
    138,
    139,
    244,
)  # H.264: profiles whose SPS has more fields


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

    def signed_exp_golomb(self) -> int:
        number = self.exp_golomb()
        return (number + 1) // 2 if number % 2 else -(number // 2)


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
    if codec == "theora":  # a header, which stands in the midst of the frames where recordings were joined
        return bool(packet) and bool(packet[0] >> 7)
    if codec == "dirac":  # the end of a sequence, maybe
        return packet[:4] == DIRAC_UNIT and not any(packet[at + 4] & 8 for at in _all(DIRAC_UNIT, packet[:-1]))
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


def _h264_units(packet: bytes, extradata: bytes) -> list[int]:
    """Returns where the NAL units of a packet begin."""
    if extradata[:1] != b"\x01" or len(extradata) < 5:
        return [at + 3 for at in _all(b"\x00\x00\x01", packet)]
    size, at = (extradata[4] & 3) + 1, 0  # each unit has its length in front
    units = []
    while at + size < len(packet):
        units.append(at + size)
        at += size + int.from_bytes(packet[at : at + size], "big")
    return units


def _h264_slice_type(packet: bytes, extradata: bytes) -> int:
    """Returns the type of the first slice, 1 or 6 for B; also where none is found: it may be one."""
    for at in _h264_units(packet, extradata):
        if packet[at : at + 1] and packet[at] & 31 in SLICES:
            bits = _Bits(packet[at + 1 : at + 9])
            bits.exp_golomb()  # the number of its first macroblock
            return bits.exp_golomb()
    return 1


class _SequenceParameters(NamedTuple):
    """What is needed of H.264's SPS to read in a slice whether it is one of a field."""

    frame_num_bits: int
    separate_planes: bool
    frames_only: bool


class H264Fields:
    """Tells second fields from first ones, where pictures are coded field by field; a pair of fields is one frame.

    FFmpeg's parser makes a packet of each field, and its decoder gives a frame that belongs to the first of them. Source: ITU-T
    H.264, 7.3.2.1 (SPS), 7.3.2.2 (PPS), 7.3.3 (slice header), 3.30 (complementary field pair).

    Args:
        extradata: What the container or the parser has of SPS and PPS.
    """

    def __init__(self, extradata: bytes) -> None:
        """Reads the parameters."""
        self.extradata = extradata
        self.sequences: dict[int, _SequenceParameters] = {}
        self.sequence_of: dict[int, int] = {}  # of each PPS
        self._first: tuple[int, int] | None = None  # frame number and parity of a field that waits for its second
        if extradata[:1] == b"\x01":
            at = 6
            for _ in range(extradata[5] & 31 if len(extradata) > 5 else 0):
                at = self._sized_unit(at)
            count, at = (extradata[at], at + 1) if len(extradata) > at else (0, at)
            for _ in range(count):
                at = self._sized_unit(at)
        else:
            for at in _h264_units(extradata, extradata):
                self._parameters(extradata[at:])

    @property
    def possible(self) -> bool:
        """Whether fields may be coded apart."""
        return any(not sequence.frames_only for sequence in self.sequences.values())

    def is_second(self, packet: bytes) -> bool:
        """Whether a packet holds the second field of the frame whose first one the packet before held."""
        fields = [field for field in map(self._field, self._slices(packet)) if field is not None]
        first, self._first = self._first, None
        if not fields:
            return False
        frame_num, parity = fields[0]
        if len({parity for _, parity in fields}) > 1 or parity < 0:  # both fields, or a frame
            return False
        if first is not None and first == (frame_num, 1 - parity):
            return True
        self._first = (frame_num, parity)
        return False

    def _slices(self, packet: bytes) -> list[bytes]:
        units = _h264_units(packet, self.extradata)
        return [packet[at : at + SLICE_HEADER] for at in units if packet[at : at + 1] and packet[at] & 31 in SLICES]

    def _field(self, unit: bytes) -> tuple[int, int] | None:
        """Returns of a slice its frame number and its parity: 0 top, 1 bottom, -1 where it is one of a frame."""
        bits = _Bits(_without_emulation(unit[1:]))
        bits.exp_golomb()  # the number of its first macroblock
        bits.exp_golomb()  # its type
        sequence = self.sequences.get(self.sequence_of.get(bits.exp_golomb(), -1))
        if sequence is None:
            return None
        if sequence.separate_planes:
            bits.take(2)
        frame_num = bits.take(sequence.frame_num_bits)
        if sequence.frames_only or not bits.take(1):
            return frame_num, -1
        return frame_num, bits.take(1)

    def _sized_unit(self, at: int) -> int:
        """Reads the unit whose length stands in two bytes; returns where it ends."""
        size = int.from_bytes(self.extradata[at : at + 2], "big")
        self._parameters(self.extradata[at + 2 : at + 2 + size])
        return at + 2 + size

    def _parameters(self, unit: bytes) -> None:
        kind = unit[0] & 31 if unit else 0
        bits = _Bits(_without_emulation(unit[1:]))
        if kind == PPS:
            self.sequence_of[bits.exp_golomb()] = bits.exp_golomb()
        elif kind == SPS:
            profile = bits.take(8)
            bits.take(16)  # constraints, level
            number = bits.exp_golomb()
            separate = _skip_chroma(bits) if profile in WITH_CHROMA else False
            frame_num_bits = bits.exp_golomb() + 4
            _skip_order(bits)
            bits.exp_golomb()  # reference frames
            bits.take(1)  # gaps
            bits.exp_golomb()  # width
            bits.exp_golomb()  # height
            self.sequences[number] = _SequenceParameters(frame_num_bits, separate, bool(bits.take(1)))


def _skip_chroma(bits: _Bits) -> bool:
    """Passes over what an SPS says of chroma, depth and scaling; returns whether the colour planes are coded apart."""
    chroma = bits.exp_golomb()
    separate = bool(chroma == 3 and bits.take(1))
    bits.exp_golomb()  # depth of luma
    bits.exp_golomb()  # depth of chroma
    bits.take(1)  # lossless
    if bits.take(1):
        for number in range(8 if chroma != 3 else 12):
            if bits.take(1):
                last = following = 8
                for _ in range(16 if number < 6 else 64):
                    if following:
                        following = (last + bits.signed_exp_golomb()) % 256
                    last = following or last
    return separate


def _skip_order(bits: _Bits) -> None:
    """Passes over what an SPS says of the order of pictures."""
    kind = bits.exp_golomb()
    if kind == 0:
        bits.exp_golomb()
    elif kind == 1:
        bits.take(1)
        bits.exp_golomb()
        bits.exp_golomb()
        for _ in range(bits.exp_golomb()):
            bits.exp_golomb()


def _without_emulation(unit: bytes) -> bytes:
    """Returns a NAL unit without the bytes that keep it from looking like the beginning of another."""
    return unit.replace(b"\x00\x00\x03", b"\x00\x00")


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
