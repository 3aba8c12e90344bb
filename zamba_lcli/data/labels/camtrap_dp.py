"""Labels from camera-trap platforms: packages in the Camera Trap Data Package format, https://camtrap-dp.tdwg.org."""

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pytorch_lightning.utilities import rank_zero_info

from zamba_lcli.data.csv_tables import (
    LabelRow,
    Problems,
    Record,
    check_columns,
    counted,
    parse_cells,
    read_text,
    records,
)
from zamba_lcli.data.labels.camtrap_observations import (
    URL,
    Events,
    add_labels,
    by_id,
    check_blank,
    find_videos,
    videos_in,
)
from zamba_lcli.data.labels.label_origin import is_machine_observation, tell_machine_labels
from zamba_lcli.errors import InputError

DESCRIPTOR = "datapackage.json"
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
        for name, (_, record) in by_id(deployments, "deploymentID", problems).items()
    }
    media_by_id = by_id(media, "mediaID", problems)
    videos = videos_in(media_by_id, sites, problems)
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
    events = Events(videos.values(), sites)
    for place, record, found, is_own in find_videos(by_people, videos, media_by_id, events, problems):
        add_labels([video.people for video in found], place, record, is_own, label_column, problems)
    # what is wrong with rows that do not count is not told
    told = problems if machine_labels else Problems(source)
    passed_over: Counter[str] = Counter()  # machine observations of videos, by who made them
    for place, record, found, is_own in find_videos(by_machines, videos, media_by_id, events, told):
        passed_over[record["classifiedBy"]] += bool(found)
        lacking = [video.machines for video in found if video.lacks_people]
        add_labels(lacking, place, record, is_own, label_column, told)
    rows = []
    for video in videos.values():
        predicts = machine_labels and video.lacks_people
        answers = video.machines if predicts else video.people
        check_blank(video, answers, problems)
        rows += [
            LabelRow(place, video.filepath, labels, "", video.site, is_predicted=predicts)
            for place, labels in answers.labels
        ]
    if not problems.found:
        predicted = [video for video in videos.values() if video.lacks_people and video.machines.labels]
        labelled = sum(bool(video.people.labels) for video in videos.values())
        authors = passed_over
        if machine_labels:
            authors = Counter(author for video in predicted for author in video.machines.classifiers)
        tell_machine_labels(problems, "observation", authors, len(predicted), labelled, counts=machine_labels)
        _tell_left_out(source, media, len(videos) - labelled - len(predicted), len(videos))
    return rows


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
            found.append((place, dict.fromkeys([*needed, *optional], "") | record))
    return found


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
