"""Labels from camera-trap platforms: packages in the Camera Trap Data Package format, https://camtrap-dp.tdwg.org."""

import json
import re
import zipfile
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from pytorch_lightning.utilities import rank_zero_info

from zamba_lcli.data.label_origin import is_machine_observation, tell_machine_labels
from zamba_lcli.data.tables import (
    LabelRow,
    Place,
    Problems,
    Record,
    check_columns,
    counted,
    parse_cells,
    parse_label,
    read_text,
    records,
)
from zamba_lcli.errors import InputError

DESCRIPTOR = "datapackage.json"
OBSERVATION_TYPES = ("animal", "human", "vehicle", "blank", "unknown", "unclassified")
COLUMNS = {  # of the tables: those that are needed, those that may be there
    "deployments": (["deploymentID"], ["locationID", "locationName"]),
    "media": (["mediaID", "deploymentID", "timestamp", "filePath", "fileMediatype"], ["eventID"]),
    "observations": (
        ["observationType", "deploymentID", "eventStart", "eventEnd"],
        [
            *("observationLevel", "mediaID", "eventID", "count"),
            *("classificationMethod", "classificationProbability", "classifiedBy"),
        ],
    ),
}
MISSING_VALUES = frozenset(["NA", "NaN", "nan"])
URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


@dataclass
class _Answers:
    """What observations say of a clip: those of people, or those of machines."""

    own: list[tuple[Place, list[str]]] = field(default_factory=list)  # labels of media-level observations
    of_events: list[tuple[Place, list[str]]] = field(default_factory=list)  # labels of event-level observations
    unknown: bool = False  # whether someone looked and could not tell
    classifiers: set[str] = field(default_factory=set)

    @property
    def labels(self) -> list[tuple[Place, list[str]]]:
        """What was seen in the clip itself; else what was seen in its event, which may have been in another clip."""
        return self.own or self.of_events


@dataclass
class _Video:
    """A clip of the package and what observations say of it."""

    place: Place
    filepath: str
    deployment: str
    site: str
    timestamp: str
    events: set[str]
    people: _Answers = field(default_factory=_Answers)
    machines: _Answers = field(default_factory=_Answers)

    @property
    def lacks_people(self) -> bool:
        """Whether people say nothing of the clip, not even that they cannot tell."""
        return not self.people.labels and not self.people.unknown


def find_package(path: Path) -> Path | None:
    """Returns the ``datapackage.json`` or zip of the package at ``path``, or ``None`` if a table should be there.

    Raises:
        InputError: If ``path`` is a folder without a package.
    """
    if not path.is_dir():
        return path if path.suffix.lower() in (".json", ".zip") else None
    if not (path / DESCRIPTOR).exists():
        raise InputError(
            f"data.labels: {path.absolute()} is a folder without {DESCRIPTOR}. Give the table (CSV) with the columns "
            "filepath and label, or a package in Camtrap DP."
        )
    return path / DESCRIPTOR


def read_package(
    source: Path, label_column: str, problems: Problems, *, machine_labels: bool = False
) -> list[LabelRow]:
    """Returns what the observations of a Camtrap DP 1.0 package say of its videos, in the order of its media.

    An animal's label is in the column ``label_column`` of the observations, where ``|`` separates several. All else that
    is observed is its own label, the observationType: human, vehicle, blank. A video without an observation, or where
    all are ``unclassified`` or ``unknown`` (without a name), has no label and is left out; how many is told in the log.

    What people observed is the label. A machine's observations are predictions, at whatever level: they are passed over,
    which is told in the log, or with ``machine_labels`` count for videos of which people say nothing.

    A media-level observation tells of its media. An event-level observation tells of the videos of its deployment that
    have its eventID; where the observation or the video has none, of those from eventStart to eventEnd. But a video with
    media-level labels has these alone.

    A site is a locationID, or where that is missing a locationName, or a deploymentID.

    Args:
        source: The ``datapackage.json`` or zip.
        label_column: Column of the observations.
        problems: Gets what is wrong with rows of videos and their observations; other rows are not looked at.
        machine_labels: Whether a machine's observations count where people say nothing.

    Raises:
        InputError: If there is no such package, table or column, or no video with a label.
    """
    deployments, media, observations = _read_tables(source, label_column, problems)
    sites = {
        name: record["locationID"] or record["locationName"] or name
        for name, (_, record) in _by_id(deployments, "deploymentID", problems).items()
    }
    media_by_id = _by_id(media, "mediaID", problems)
    videos = _videos(media_by_id, sites, problems)
    by_people: list[Record] = []
    by_machines: list[Record] = []
    observed = {video.deployment for video in videos.values()}
    for place, record in observations:
        media_id = record["mediaID"]
        concerns_video = media_id in videos or (not media_id and record["deploymentID"] in observed)
        by_machine = concerns_video and is_machine_observation(record, place, problems)
        (by_machines if by_machine else by_people).append((place, record))
        if media_id in videos:  # which event a video belongs to is no prediction
            videos[media_id].events |= {record["eventID"]} - {""}
    events = _Events(videos.values(), sites)
    for place, record, found, is_own in _find_videos(by_people, videos, media_by_id, events, problems):
        _add([video.people for video in found], place, record, is_own, label_column, problems)
    # what is wrong with rows that do not count is not told
    told = problems if machine_labels else Problems(source)
    passed_over: Counter[str] = Counter()  # machine observations of videos, by who made them
    for place, record, found, is_own in _find_videos(by_machines, videos, media_by_id, events, told):
        passed_over[record["classifiedBy"]] += bool(found)
        lacking = [video.machines for video in found if video.lacks_people]
        _add(lacking, place, record, is_own, label_column, told)
    rows = []
    for video in videos.values():
        answers = video.machines if machine_labels and video.lacks_people else video.people
        _check_blank(video, answers, problems)
        rows += [LabelRow(place, video.filepath, labels, "", video.site) for place, labels in answers.labels]
    if not problems.found:
        predicted = [video for video in videos.values() if video.lacks_people and video.machines.labels]
        labelled = sum(bool(video.people.labels) for video in videos.values())
        authors = passed_over
        if machine_labels:
            authors = Counter(author for video in predicted for author in video.machines.classifiers)
        tell_machine_labels(problems, "observation", authors, len(predicted), labelled, counts=machine_labels)
        _tell_left_out(source, media, len(videos) - labelled - len(predicted), len(videos))
    return rows


def _find_videos(
    observations: Iterable[Record],
    videos: Mapping[str, _Video],
    media: Mapping[str, Record],
    events: "_Events",
    problems: Problems,
) -> Iterator[tuple[Place, dict[str, str], list[_Video], bool]]:
    """Yields each observation with the videos that it tells of, and whether it is media-level; these come first."""
    of_events = []
    for place, record in observations:
        if not (media_id := record["mediaID"]):
            of_events.append((place, record))
        elif media_id not in media:
            what = f"there is no media with the mediaID {media_id!r}"
            problems.add(place, what, "Correct the mediaID, or give the media a row in its table.")
        elif media_id in videos:
            yield place, record, [videos[media_id]], True
    for place, record in of_events:
        yield place, record, events.find(place, record, problems), False


def _add(
    answers: Sequence[_Answers],
    place: Place,
    record: Mapping[str, str],
    is_own: bool,
    label_column: str,
    problems: Problems,
) -> None:
    """Adds what an observation says of videos; an event-level one says nothing beside media-level labels."""
    wanted = [answer for answer in answers if is_own or not answer.own]
    if not wanted:
        return
    labels = _labels(place, record, label_column, problems)
    for answer in wanted:
        answer.unknown |= record["observationType"] == "unknown" and not labels
        if labels:
            (answer.own if is_own else answer.of_events).append((place, labels))
            answer.classifiers.add(record["classifiedBy"])


# ---- files of a package ----------------------------------------------------------------------------------------------


def _read_tables(source: Path, label_column: str, problems: Problems) -> list[list[Record]]:
    """Returns the deployments, media and observations."""
    with _open(source) as descriptor:
        resources = _resources(descriptor)
        tables = []
        for name, (needed, optional) in COLUMNS.items():
            chosen = label_column if name == "observations" else None
            tables.append(_read_table(descriptor, resources[name], needed, optional, chosen, problems))
        return tables


@dataclass(frozen=True)
class _Descriptor:
    """The datapackage.json and the folder, maybe in a zip, that paths in it start from."""

    folder: Path | zipfile.Path
    name: str

    def __str__(self) -> str:
        return str(self.folder / self.name)


@contextmanager
def _open(source: Path) -> Iterator[_Descriptor]:
    """Yields the datapackage.json; a zip is open meanwhile."""
    where = source.absolute()
    if source.suffix.lower() != ".zip":
        yield _Descriptor(where.parent, where.name)
        return
    try:
        archive = zipfile.ZipFile(where)
    except FileNotFoundError:
        raise InputError(f"data.labels: there is no file {where}. Correct the path.") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"data.labels: {where} cannot be read: {error}. Is it complete?") from None
    with archive:
        # packages are often zipped with their folder
        folders = [path.parent for name in archive.namelist() if (path := PurePosixPath(name)).name == DESCRIPTOR]
        highest = min((len(folder.parts) for folder in folders), default=0)
        folders = [folder for folder in folders if len(folder.parts) == highest]
        if len(folders) != 1:
            how_many = "several" if folders else "no"
            raise InputError(f"data.labels: {where} has {how_many} {DESCRIPTOR} in it. Give the zip of one package.")
        yield _Descriptor(zipfile.Path(archive, f"{folders[0]}/" if highest else ""), DESCRIPTOR)


def _resources(descriptor: _Descriptor) -> dict[str, dict[str, Any]]:
    """Returns what the datapackage.json says of each table."""
    text = read_text(descriptor.folder / descriptor.name)
    try:
        package = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"data.labels: {descriptor}, line {error.lineno}: {error.msg}. Correct it, or export the package anew."
        ) from None
    package = package if isinstance(package, dict) else {}
    if "detection_categories" in package or "predictions" in package:
        raise InputError(
            f"data.labels: {descriptor} has the results of MegaDetector or a program like it. They are predictions, and no "
            "labels. Give a table (CSV) with the columns filepath and label."
        )
    version = re.search(r"camtrap-dp/v?(0\.[^/]*)/", str(package.get("profile")))
    if version:
        raise InputError(
            f"data.labels: {descriptor} is Camtrap DP {version[1]}, and 1.0 is needed. Export the package anew."
        )
    listed = package.get("resources")
    resources = {
        str(resource.get("name")): resource
        for resource in (listed if isinstance(listed, list) else [])
        if isinstance(resource, dict)
    }
    if missing := [name for name in COLUMNS if not _paths(resources.get(name, {}))]:
        raise InputError(
            f"data.labels: {descriptor} names no file for {', '.join(missing)} in its resources. A Camtrap DP package has "
            f"the tables {', '.join(COLUMNS)}."
        )
    return resources


def _paths(resource: Mapping[str, Any]) -> list[str]:
    path = resource.get("path")
    paths = path if isinstance(path, list) else [path]
    return [name for name in paths if isinstance(name, str) and name]


def _read_table(
    descriptor: _Descriptor,
    resource: Mapping[str, Any],
    needed: list[str],
    optional: list[str],
    label_column: str | None,
    problems: Problems,
) -> list[Record]:
    """Returns the rows of a table, which may consist of several files, with where they are; missing values are empty."""
    dialect = resource.get("dialect")
    dialect = dialect if isinstance(dialect, dict) else {}
    separator = str({**dialect, **(dialect.get("csv") or {})}.get("delimiter", ","))  # frictionless 5 writes it in csv
    if len(separator) != 1:
        raise InputError(f"data.labels: {descriptor}: the delimiter {separator!r} is not one character. Correct it.")
    encoding = str(resource.get("encoding", "utf-8"))
    needed = needed if label_column is None else [*needed, label_column]
    found: list[Record] = []
    header: list[str] = []
    for name in _paths(resource):
        if URL.match(name) or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(
                f"data.labels: {descriptor}: the table {name} is not in the package. Download the whole package, and give "
                "paths within it."
            )
        file = descriptor.folder / name
        cells = parse_cells(read_text(file, encoding), separator, str(file))
        if not cells and not header:
            raise InputError(f"data.labels: {file} is empty. It needs a header with {', '.join(needed)}.")
        has_header = not header or (cells and set(cells[0]) == set(header))  # the first of several files may do for all
        if has_header:
            header = cells.pop(0)
            check_columns(
                header, str(file), needed=needed, optional=optional, other_names={}, label_column=label_column
            )
        for place, record in records(header, cells, problems, file=name, first=2 if has_header else 1):
            missing = {column: "" for column, value in record.items() if value in MISSING_VALUES}
            found.append((place, dict.fromkeys([*needed, *optional], "") | record | missing))
    return found


# ---- videos and observations -----------------------------------------------------------------------------------------


def _by_id(table: Iterable[Record], column: str, problems: Problems) -> dict[str, Record]:
    """Returns the rows by their identifiers, in the order of the table."""
    found: dict[str, Record] = {}
    for place, record in table:
        first, _ = found.setdefault(record[column], (place, record))
        if not record[column]:
            problems.add(place, f"the {column} is empty", f"Give every row a {column}.")
        elif first != place:
            problems.add(
                place, f"the {column} {record[column]!r} is in {first} too", f"Give every row its own {column}."
            )
    return found


def _videos(media: Mapping[str, Record], sites: Mapping[str, str], problems: Problems) -> dict[str, _Video]:
    """Returns the media that are videos."""
    videos = {}
    for media_id, (place, record) in media.items():
        filepath, deployment, kind = record["filePath"], record["deploymentID"], record["fileMediatype"]
        if not kind.lower().startswith("video/"):
            if not kind.lower().startswith(("image/", "audio/")):
                remedy = "Write what a file is in the column fileMediatype, such as video/mp4 or image/jpeg."
                problems.add(place, f"unknown fileMediatype {kind!r}", remedy)
            continue
        if not filepath:
            problems.add(place, "the filePath is empty", "Give every video a filePath.")
        elif URL.match(filepath):
            remedy = (
                "Download the clips, and write their paths in place of the URLs, relative to the folder of the package or "
                "to data.data_dir."
            )
            problems.add(place, f"the filePath {filepath!r} is a URL", remedy)
        if deployment not in sites:
            _add_unknown_deployment(place, deployment, problems)
        events = {record["eventID"]} - {""}
        site = sites.get(deployment, "")
        videos[media_id] = _Video(place, filepath, deployment, site, record["timestamp"], events)
    return videos


def _labels(place: Place, record: Mapping[str, str], column: str, problems: Problems) -> list[str]:
    """Returns the labels that an observation gives; none if it tells nothing."""
    kind, text = record["observationType"], record[column]
    if kind not in OBSERVATION_TYPES:
        remedy = f"Write one of {', '.join(OBSERVATION_TYPES)} in the column observationType."
        problems.add(place, f"unknown observationType {kind!r}", remedy)
        return []
    if kind == "unclassified" or (kind == "unknown" and text in ("", "unknown")):
        return []
    if kind not in ("animal", "unknown"):
        return [kind]
    if record["count"] in ("0", "0.0"):
        remedy = "Delete observations of what was not there, or correct the count; blank is an observationType."
        problems.add(place, f"an observation of {text or 'an animal'} with the count 0", remedy)
        return []
    if not text:
        remedy = f"Fill in {column} for every animal, or name another column in data.label_column."
        problems.add(place, f"an animal, but {column} is empty", remedy)
        return []
    return parse_label(text.replace("|", ";"), place, problems)  # Camtrap DP joins values by |


class _Events:
    """Finds the videos that event-level observations tell of.

    Args:
        videos: All of the package; their eventIDs are known.
        sites: The deployments.
    """

    def __init__(self, videos: Iterable[_Video], sites: Mapping[str, str]) -> None:
        """Sorts the videos by deployment."""
        self._sites = sites
        self._videos: dict[str, list[_Video]] = {}
        for video in videos:
            self._videos.setdefault(video.deployment, []).append(video)
        self._timelines: dict[str, list[tuple[datetime, _Video]]] = {}

    def find(self, place: Place, record: Mapping[str, str], problems: Problems) -> list[_Video]:
        """Returns the videos of an observation's event."""
        deployment = record["deploymentID"]
        if record["observationLevel"] == "media":
            remedy = "Fill in the mediaID of observations with the observationLevel media."
            problems.add(place, "a media-level observation without a mediaID", remedy)
            return []
        if deployment not in self._sites:
            _add_unknown_deployment(place, deployment, problems)
        if deployment not in self._videos:
            return []
        start = _time("eventStart", record["eventStart"], place, problems)
        end = _time("eventEnd", record["eventEnd"], place, problems)
        timeline = self._timeline(deployment, problems)
        if start is None or end is None:
            return []
        if end < start:
            problems.add(place, "the eventEnd is before the eventStart", "Correct the times of the event.")
        first = bisect_left(timeline, start, key=lambda pair: pair[0])
        last = bisect_right(timeline, end, key=lambda pair: pair[0])
        within = [video for _, video in timeline[first:last]]
        event = record["eventID"]
        if not event:
            return within
        # of two events at one time each has its own videos
        found = [video for video in within if not video.events or event in video.events]
        known = {id(video) for video in found}
        return found + [v for v in self._videos[deployment] if event in v.events and id(v) not in known]

    def _timeline(self, deployment: str, problems: Problems) -> list[tuple[datetime, _Video]]:
        if deployment not in self._timelines:
            times = [(_time("timestamp", v.timestamp, v.place, problems), v) for v in self._videos[deployment]]
            self._timelines[deployment] = sorted([(t, v) for t, v in times if t], key=lambda pair: pair[0])
        return self._timelines[deployment]


def _time(name: str, text: str, place: Place, problems: Problems) -> datetime | None:
    """Returns a point in time; ``None`` if ``text`` does not tell one."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        what = f"the {name} {text!r} is no time" if time is None else f"the {name} {text!r} has no time zone"
        problems.add(
            place, what, "Write times with their zone, such as 2020-05-30T04:57:37Z or 2020-05-30T04:57:37+02:00."
        )
        return None
    return time


def _add_unknown_deployment(place: Place, deployment: str, problems: Problems) -> None:
    what = f"there is no deployment with the deploymentID {deployment!r}"
    problems.add(place, what, "Correct the deploymentID, or give the deployment a row in its table.")


def _check_blank(video: _Video, answers: _Answers, problems: Problems) -> None:
    """Refuses a clip where nothing and something was seen, as of observers who did not agree."""
    others = sorted({label for _, labels in answers.labels for label in labels if label != "blank"})
    for place, labels in answers.labels:
        if "blank" in labels and others:
            what = f"{video.filepath} is blank here, but {', '.join(others)} elsewhere"
            problems.add(place, what, "Keep the observations that are right.")


def _tell_left_out(source: Path, media: Iterable[Record], unlabelled: int, videos: int) -> None:
    """Says in the log how many media are no labelled clips; refuses a package where none is."""
    others = Counter(kind for _, record in media if not (kind := record["fileMediatype"].lower()).startswith("video/"))
    told = []
    if others:
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(others.items()))
        told.append(f"{counted(others.total(), 'file')} other than videos ({kinds})")
    if unlabelled:
        told.append(
            f"{counted(unlabelled, 'video')} without a label (unclassified, unknown, or without an observation)"
        )
    if unlabelled == videos:
        raise InputError(
            f"data.labels: {source.absolute()} has no video with a label: {' and '.join(told) or 'it has no media'}. "
            "Classify videos first."
        )
    for what in told:
        rank_zero_info(f"{source}: left out {what}.")
