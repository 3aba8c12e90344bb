"""Boxes from a file of MegaDetector's results."""

import difflib
import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn

from zamba_lcli.data.crop.boxes import Detections
from zamba_lcli.data.crop.finders import VERSION, TableFinder, checked_boxes
from zamba_lcli.data.csv_tables import listing
from zamba_lcli.data.folders import VIDEO_SUFFIXES
from zamba_lcli.data.sampling.base import plain_value
from zamba_lcli.errors import InputError

OLDEST, NEWEST = 1.3, 2.0  # the format's versions: from, and below
_ENDINGS = "|".join(re.escape(suffix) for suffix in sorted(VIDEO_SUFFIXES))
# names of frames that MegaDetector takes out of videos: clip.mp4/frame000012.jpg, clip/frame000012.jpg
FRAME = re.compile(rf"(.*(?:{_ENDINGS}))[/_](?:frame)?_?(\d+)\.(?:jpe?g|png)|(.*[^/])/frame(\d+)\.(?:jpe?g|png)", re.I)


@dataclass(frozen=True)
class MegaDetectorBoxes(TableFinder):
    r"""Boxes from a file of MegaDetector's results, format 1.3 to 1.6, of videos or of frames taken out of them.

    https://lila.science/megadetector-output-format. Boxes of any category count: animals, people, vehicles. A clip and an entry
    belong together if the end of one path is the other, whatever the case of letters and with ``\`` for ``/``: the file may
    have been made in a folder above or below.

    Args:
        path: The file, JSON.
    """

    path: str

    def __post_init__(self) -> None:
        """Reads the file; refuses one that is not MegaDetector's."""
        self._file()
        object.__setattr__(self, "_entries", {})  # entries by the paths of clips

    def _file(self) -> "_ResultsFile":
        path = Path(self.path)
        try:
            status = path.stat()
        except OSError as error:
            raise InputError(
                f"data.crop: MegaDetectorBoxes: {path.absolute()}: {error.strerror}. Give the path of MegaDetector's results."
            ) from None
        return _read(path.absolute(), status.st_size, status.st_mtime_ns)

    def key(self) -> Any:
        """Returns the arguments, and a hash of the file's content."""
        return [plain_value(self, "data.crop"), self._file().digest, VERSION]

    def check(self, filepaths: Sequence[str], paths: Sequence[Path], all_needed: bool) -> None:
        """Finds the entry of each clip, and refuses a file of other clips."""
        file = self._file()
        found = [file.find(path, filepath) for filepath, path in zip(filepaths, paths, strict=True)]
        several = [
            f"{name}: {', '.join(file.names[i] for i in of)}"
            for name, of in zip(filepaths, found, strict=True)
            if len(of) > 1
        ]
        clips_of = Counter(of[0] for of in dict(zip(paths, found, strict=True)).values() if len(of) == 1)
        for number in (number for number, clips in clips_of.items() if clips > 1):
            of = [name for name, of in zip(filepaths, found, strict=True) if of == [number]]
            several.append(f"{file.names[number]}: {', '.join(of)}")
        if several:
            raise InputError(
                f"data.crop: {file.path} does not tell which boxes are those of which clip:\n{listing(several)}\n"
                "Run MegaDetector on the folder that holds all clips."
            )
        object.__setattr__(self, "_entries", {path: of[0] for path, of in zip(paths, found, strict=True) if of})
        lacking = [name for name, of in zip(filepaths, found, strict=True) if not of]
        for number in self._known.values():
            with suppress(LookupError):  # a row with a reason
                file.boxes(number)  # refuses wrong ones
        if not lacking:
            return
        text = (
            f"data.crop: {file.path} has the boxes of {len(found) - len(lacking)} of {len(found)} clips; it names "
            f"{len(file.names)} videos. Without boxes:\n{listing([f'{name}{file.nearest(name)}' for name in lacking[:20]])}\n"
        )
        if all_needed or len(lacking) == len(found):
            raise InputError(
                text + "Run MegaDetector on these clips, or give the file with their boxes as "
                "data.crop.init_args.finder.init_args.path"
                + ("; or set data.check_clips to false, and they are left out." if len(lacking) < len(found) else ".")
            )
        rank_zero_warn(text + "They cannot be cropped, and fail with that reason.")

    @property
    def _known(self) -> dict[Path, int]:
        known: dict[Path, int] = self.__dict__["_entries"]
        return known

    def boxes_of(self, path: Path, frames: int | None) -> Detections:
        """Returns the boxes of a clip."""
        file = self._file()
        number = self._known.get(path)
        if number is None:
            of = file.find(path, path.name)
            if len(of) != 1:
                raise LookupError(f"{file.path.name} has no boxes of it")
            number = of[0]
        found = file.boxes(number)
        last = int(found.numbers[-1]) if len(found.numbers) else 0
        if frames is not None and last >= frames * 1.02 + 2:  # other programs count damaged frames too
            raise LookupError(
                f"{file.path.name} has frame {last} of it, but it has {frames} frames: it is another file"
            )
        if frames is not None and last >= frames:
            numbers, inside = np.minimum(found.numbers, frames - 1), np.minimum(found.frames, frames - 1)
            return Detections(np.unique(numbers), inside, found.boxes, found.scores)
        return found


@dataclass
class _ResultsFile:
    """What a file says, by video."""

    path: Path
    digest: str
    names: list[str] = field(default_factory=list)  # of the videos, as written
    entries: list[list[tuple[int | None, dict[str, Any]]]] = field(
        default_factory=list
    )  # of each: its frame, and the entry
    by_name: dict[str, list[int]] = field(default_factory=dict)  # by the last part of the name

    def add(self, name: str, frame: int | None, entry: dict[str, Any], numbers: dict[str, int]) -> None:
        """Adds an entry of a video or of one of its frames."""
        if name not in numbers:
            numbers[name] = len(self.names)
            self.names.append(name)
            self.entries.append([])
            self.by_name.setdefault(_parts(name)[-1], []).append(numbers[name])
        self.entries[numbers[name]].append((frame, entry))

    def find(self, path: Path, filepath: str) -> list[int]:
        """Returns the entries of a clip: mostly one, or none; several if they cannot be told apart."""
        places = [_parts(str(path.absolute())), _parts(filepath)]
        last = places[0][-1]
        candidates = [*self.by_name.get(last, ()), *self.by_name.get(last.rpartition(".")[0], ())]
        common = {
            number: max(_common(_parts(self.names[number]), place, last) for place in places) for number in candidates
        }
        best = max(common.values(), default=0)
        chosen = [number for number, length in common.items() if length == best and best]
        if len(chosen) > 1:  # names that differ in the case of letters
            exact = [
                number for number in chosen if str(path.absolute()).endswith(self.names[number].replace("\\", "/"))
            ]
            chosen = exact if len(exact) == 1 else chosen
        return chosen

    def nearest(self, filepath: str) -> str:
        """Returns the name most like that of a clip, as a note."""
        near = difflib.get_close_matches(filepath, self.names, n=1, cutoff=0.4)
        return f" (the nearest name is {near[0]})" if near else ""

    def boxes(self, number: int) -> Detections:
        """Returns the boxes of a video.

        Raises:
            InputError: If they are no boxes in the picture.
            LookupError: If MegaDetector failed.
        """
        looked_at: set[int] = set()
        rows, frames = [], []
        for frame, entry in self.entries[number]:
            looked_at |= {frame} if frame is not None else set(entry.get("frames_processed") or ())
            if entry.get("failure") and frame is None:
                raise LookupError(f"MegaDetector failed on it: {entry['failure']}")
            for detection in entry.get("detections") or ():
                frames.append(detection.get("frame_number", 0) if frame is None else frame)
                rows.append(_row(detection, self.path, self.names[number]))
        if not all(isinstance(frame, int) and frame >= 0 for frame in [*looked_at, *frames]):
            raise InputError(f"data.crop: {self.path}: {self.names[number]} has frames that are not numbers from 0 on.")
        boxes = checked_boxes(np.array(rows, np.float64).reshape(-1, 5), f"{self.path}: {self.names[number]}")
        order = np.argsort(frames, kind="stable")
        numbers = np.array(sorted({*looked_at, *frames}), np.int64)
        return Detections(numbers, np.array(frames, np.int64)[order], boxes[order, :4], boxes[order, 4])


def _row(detection: Any, path: Path, name: str) -> list[float]:
    try:
        return [*map(float, detection["bbox"]), float(detection["conf"])]
    except (TypeError, ValueError, KeyError):
        raise InputError(
            f"data.crop: {path}: {name} has a detection without a bbox of 4 numbers and a conf: {json.dumps(detection)[:200]}."
        ) from None


@lru_cache(maxsize=4)
def _read(path: Path, size: int, time: int) -> _ResultsFile:
    """Reads a file; its size and the time of its last change tell when to read it again."""
    remedy = "Give MegaDetector's results, with info, detection_categories and images."
    content = path.read_bytes()
    try:
        results = json.loads(content.decode("utf-8-sig"))
    except ValueError as error:
        raise InputError(f"data.crop: {path} is not JSON ({error}). {remedy}") from None
    lacking = (
        [key for key in ("info", "detection_categories", "images") if key not in results]
        if isinstance(results, dict)
        else ["info"]
    )
    if lacking or not isinstance(results["images"], list) or not isinstance(results["info"], dict):
        what = f"has no {lacking[0]}" if lacking else "has images or info of another kind"
        raise InputError(f"data.crop: {path} is not MegaDetector's results: it {what}. {remedy}")
    version = results["info"].get("format_version")
    try:
        known = OLDEST <= float(str(version)) < NEWEST
    except ValueError:
        known = False
    if not known:
        raise InputError(
            f"data.crop: {path} has the format_version {version!r}, not 1.3 to 1.6. Convert it, or run MegaDetector again."
        )
    file = _ResultsFile(path, hashlib.sha256(content).hexdigest())
    numbers: dict[str, int] = {}
    for i, entry in enumerate(results["images"]):
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
            raise InputError(f"data.crop: {path} is not MegaDetector's results: images[{i}] has no file. {remedy}")
        if not isinstance(entry.get("detections") or [], list):
            raise InputError(f"data.crop: {path}: the detections of {entry['file']} are no list. {remedy}")
        name = entry["file"].replace("\\", "/")
        if name.lower().endswith(tuple(VIDEO_SUFFIXES)):
            file.add(name, None, entry, numbers)
        elif match := FRAME.fullmatch(name):
            file.add(match[1] or match[3], int(match[2] or match[4]), entry, numbers)
    if not file.names:
        raise InputError(
            f"data.crop: {path} has boxes of {len(results['images'])} pictures, none of which is a video or a frame of one, "
            "such as clip.mp4/frame000012.jpg. Run MegaDetector's process_video on the clips."
        )
    return file


def _parts(name: str) -> list[str]:
    """Returns the parts of a path without the differences between systems."""
    name = unicodedata.normalize("NFC", name).casefold().replace("\\", "/")
    return [part for part in name.split("/") if part not in ("", ".")]


def _common(name: Sequence[str], place: Sequence[str], last: str) -> int:
    """Returns how many parts two paths share at their ends if all of one is the end of the other, or else 0."""
    length = min(len(name), len(place))
    ends = (
        [*name[-length:-1], last] if length else []
    )  # a folder of frames may be called like the clip without its ending
    return length if ends == list(place[-length:]) else 0
