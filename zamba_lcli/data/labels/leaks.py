"""Leaks between splits: clips of one camera or event, without a site, that are in several splits."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from zamba_lcli.data.csv_tables import LabelRow, Problems, counted

TIME_COLUMNS = ("timestamp", "datetime", "datetimeoriginal", "eventstart", "starttime", "recorded", "time")
DAYS = ("%Y:%m:%d", "%Y-%m-%d", "%Y/%m/%d", "%d-%b-%Y", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y")
CLOCKS = ("%H:%M:%S", "%H:%M", "%I:%M:%S %p", "%I:%M %p")
TIME_FORMATS = tuple(f"{day} {clock}" for day in DAYS for clock in CLOCKS)  # besides ISO 8601: Exif's, spreadsheets'
TIME_IN_NAME = re.compile(
    r"(?<!\d)((?:19|20)\d\d)[-_.]?([01]\d)[-_.]?([0-3]\d)[-_.T ]*([0-2]\d)[-_.:hH]?([0-5]\d)(?:[-_.:mM]?([0-5]\d))?(?!\d)"
)
LAST_NUMBER = re.compile(r"(.*?)(\d{1,18})(\D*)$", re.S)
COPY = re.compile(r"(?: *\(\d+\)| *-? *copy)+$", re.I)  # suffixes of copies and repeated downloads
ONE_EVENT = timedelta(seconds=60)  # between clips that a passing animal sets off
KINDS = {"folder": "in one folder", "time": "within a minute", "number": "with consecutive numbers"}


def time_column(names: Iterable[str]) -> str | None:
    """Returns the column with the time of recording, or ``None``."""
    plain = {re.sub(r"[\W_]+", "", name).lower(): name for name in names}
    return next((plain[name] for name in TIME_COLUMNS if name in plain), None)


def warn_of_leaks(clips: Sequence[LabelRow], problems: Problems) -> str:
    """Warns of clips without a site whose camera or event seems to have clips in another split.

    Clips belong together if they are in one folder, were recorded within a minute (by a time column or their names), or have
    consecutive numbers in their names. Drawn splits keep sites together, and nothing else.

    Args:
        clips: All clips of a table, with their splits.
        problems: Gets a warning.

    Returns:
        The warning; empty if there is none.
    """
    alone = [clip for clip in clips if not clip.site]
    if not alone or len({clip.split for clip in clips}) < 2:
        return ""
    numbers: Counter[str] = Counter()
    found: dict[int, LabelRow] = {}
    example = None
    for kind, groups in (("folder", _folders(alone)), ("time", _times(alone)), ("number", _numbers(alone))):
        parted: dict[int, LabelRow] = {}
        for group in groups:
            other = next((clip for clip in group if clip.split != group[0].split), None)
            if other is not None:
                parted |= {id(clip): clip for clip in group}
                example = example or (group[0], other)
        if parted:
            numbers[kind] = len(parted)
            found |= parted
    what = f"{len(alone)} of {counted(len(clips), 'clip')} have no site"
    if example is not None:
        kinds = ", ".join(f"{number} {KINDS[kind]}" for kind, number in numbers.items())
        names = " and ".join(f"{clip.filepath} ({clip.split})" for clip in example)
        what += f", and {len(found)} of them are in other splits than related clips ({kinds}), such as {names}"
    elif len(alone) == len(clips):
        return ""
    remedy = (
        "Fill in the column site for all clips, or a column split that keeps each camera in one split: otherwise val and "
        "holdout scores may be too high."
    )
    problems.warn((example or alone)[0].place, what, remedy)
    return what


def _folders(clips: Iterable[LabelRow]) -> Iterator[list[LabelRow]]:
    """Yields the clips of each folder, if there are several folders."""
    by_folder: dict[str, list[LabelRow]] = {}
    for clip in clips:
        by_folder.setdefault(_split(clip)[0], []).append(clip)
    if len(by_folder) > 1:
        yield from by_folder.values()


def _times(clips: Iterable[LabelRow]) -> Iterator[list[LabelRow]]:
    """Yields pairs of clips recorded within a minute by one camera, judged by their names."""
    timed: dict[tuple[str, tuple[str, str], bool], list[tuple[datetime, int, LabelRow]]] = {}
    for number, clip in enumerate(clips):
        folder, stem = _split(clip)
        match = TIME_IN_NAME.search(stem)
        time = _time(clip.time) or (_time_of(match) if match else None)
        if time is not None:
            numbered = _numbered(stem)
            # without a number, a name does not identify the camera
            prefix = (stem[: match.start()], "") if match else numbered[0] if numbered else ("", "")
            has_zone = time.tzinfo is not None  # an hour comes twice where a camera observes daylight saving time
            timed.setdefault((folder, prefix, has_zone), []).append((time, number, clip))
    for group in timed.values():
        group.sort()
        for (before, _, one), (after, _, other) in pairwise(group):
            if after - before <= ONE_EVENT:
                yield [one, other]


def _numbers(clips: Iterable[LabelRow]) -> Iterator[list[LabelRow]]:
    """Yields pairs of clips with consecutive numbers in their names."""
    numbered: dict[tuple[str, tuple[str, str]], dict[int, LabelRow]] = {}
    for clip in clips:
        folder, stem = _split(clip)
        if found := _numbered(stem):
            numbered.setdefault((folder, found[0]), {})[found[1]] = clip
    for group in numbered.values():
        for number in sorted(group):
            if number + 1 in group:
                yield [group[number], group[number + 1]]


def _numbered(stem: str) -> tuple[tuple[str, str], int] | None:
    """Returns the last number of a name, after what stands before and after it; None if it has none."""
    match = LAST_NUMBER.match(COPY.sub("", stem))
    return ((match[1], match[3]), int(match[2])) if match else None


def _split(clip: LabelRow) -> tuple[str, str]:
    """Returns the folder of a clip and its name without the ending."""
    folder, _, name = clip.filepath.replace("\\", "/").rpartition("/")
    return os.path.normpath(folder), os.path.splitext(name)[0]


def _time_of(match: re.Match[str]) -> datetime | None:
    try:
        return datetime(*(int(part or 0) for part in match.groups()))  # type: ignore[arg-type]
    except ValueError:
        return None


def _time(text: str) -> datetime | None:
    if ":" not in text:  # a day is no event
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    for form in TIME_FORMATS:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    return None
