"""Opens the file of a clip: that file, nothing that it names, and only if it is in a format that clips come in."""

from __future__ import annotations  # PyAV's classes are named before it is imported

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, cast

from zamba_lcli.data.video.deadline import Deadline, UnreadableClipError

if TYPE_CHECKING:  # imported by the functions that need it: --help reads no clip
    from av.container import InputContainer
    from av.error import FFmpegError
    from av.video.stream import VideoStream

# Names of FFmpeg's demuxers. None of them opens a second file; playlists (concat, hls, dash, imf, sdp), patterns of file names
# and devices, which do, are not among them. The options that make a MOV follow references to others are off unless set.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    "avi",
    "mpegts",
    "mpeg",
    "asf",
    "asf_o",
    "flv",
    "live_flv",
    "ogg",
    "mxf",
    "gxf",
    "dv",
    "nut",
    "wtv",
    "rm",
    "dhav",  # recorders of Dahua
    "lxf",
    "nsv",
    "nuv",
    "pva",
    "ty",
    "smjpeg",
    "yuv4mpegpipe",
    "gif",
    "apng",
)
ELEMENTARY = (  # streams without a container
    "h264",
    "hevc",
    "vvc",
    "m4v",
    "mpegvideo",
    "mjpeg",
    "mjpeg_2000",
    "h261",
    "h263",
    "ivf",
    "obu",
    "av1",
    "vc1",
    "vc1test",
    "dirac",
    "cavsvideo",
    "dnxhd",
)
PICTURES = ("jpeg_pipe", "png_pipe", "bmp_pipe", "tiff_pipe", "webp_pipe", "gif_pipe", "j2k_pipe")
SOUND = ("wav", "w64", "mp3", "aac", "flac", "aiff", "caf", "au", "amr", "ac3")  # opened to say that there is no video
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jp2")
SPECIAL_FILES = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def file_url(path: Path) -> str:
    """Returns what FFmpeg is to be given for a path: without a protocol in front it would find one in some names."""
    return f"file:{path}"


def open_clip(path: Path, deadline: Deadline) -> tuple[InputContainer, VideoStream]:
    """Opens a file and returns it with the video that FFmpeg thinks best, set to decode in one thread.

    The loader's processes each read a clip of their own; threads inside them would only compete.

    Raises:
        UnreadableClipError: If it is no regular file, if there is no video in it or if it cannot be opened in time.
    """
    import av
    from av.stream import Disposition

    _check_file(path)
    # FFmpeg prints what it thinks of each damaged packet; what matters becomes the reason of an UnreadableClipError.
    av.logging.set_level(av.logging.PANIC)
    formats = [*CONTAINERS, *ELEMENTARY, *PICTURES, *SOUND]
    if path.suffix.lower() in PICTURE_SUFFIXES:
        formats.append("image2")  # what FFmpeg takes a % in the name of a picture for
    options = {"protocol_whitelist": "file", "format_whitelist": ",".join(formats), "pattern_type": "none"}
    try:
        container = av.open(
            file_url(path), metadata_errors="ignore", timeout=deadline.seconds, container_options=options
        )
    except PermissionError:
        raise UnreadableClipError("no permission to read the file") from None
    except (av.error.FFmpegError, OSError) as error:
        deadline.check()
        raise UnreadableClipError(_reason(error)) from None
    stream = cast("VideoStream | None", container.streams.best("video"))
    reason = None
    if stream is None:
        has_others = len(container.streams) > 0
        reason = (
            "no video in the file (it may be a sound recording)"
            if has_others
            else "not a video, or its index is missing"
        )
    elif Disposition.attached_pic in Disposition(stream.disposition):
        reason = "no video in the file, only an attached picture (it may be a sound recording)"
    elif stream.codec_context is None:
        reason = "the video is in a format that cannot be decoded"
    if stream is None or reason is not None:
        container.close()
        raise UnreadableClipError(reason or "")
    stream.codec_context.thread_count = 1
    return container, stream


def _check_file(path: Path) -> None:
    """Refuses what is no regular file before it is opened: that of a pipe, for example, might never return."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise UnreadableClipError("there is no such file") from None
    except PermissionError:
        raise UnreadableClipError("no permission to read the file") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise UnreadableClipError(
            f"the file cannot be looked at ({getattr(error, 'strerror', None) or error})"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in SPECIAL_FILES if is_kind(status.st_mode)), "something else")
        raise UnreadableClipError(f"not a video: not a regular file but {kind}")
    if status.st_size == 0:
        raise UnreadableClipError("the file is empty")


def _reason(error: FFmpegError | OSError) -> str:
    """Returns why a file cannot be opened."""
    log = getattr(error, "log", None)  # level, part of FFmpeg, message
    if log and "not on whitelist" in log[2]:
        return f"not a video, or not in a format that clips come in (FFmpeg's name for its content is {log[1]})"
    return f"not a video, or its index is missing ({error.strerror})"
