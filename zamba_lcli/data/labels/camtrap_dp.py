"""Labels from camera-trap platforms: packages in the Camera Trap Data Package format, https://camtrap-dp.tdwg.org."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_info

from zamba_lcli.data.clip_files import check_inside
from zamba_lcli.data.csv_tables import LabelRow, Problems, Record, check_columns, counted
from zamba_lcli.data.labels.camtrap_observations import (
    Events,
    add_labels,
    by_id,
    check_blank,
    check_event_ids,
    find_videos,
    videos_in,
    warn_of_disagreement,
)
from zamba_lcli.data.labels.camtrap_package import open_package
from zamba_lcli.data.labels.label_origin import is_machine_observation, tell_machine_labels
from zamba_lcli.errors import InputError

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


def read_package(
    source: Path,
    label_column: str,
    problems: Problems,
    *,
    machine_labels: bool = False,
    folder: Path | None = None,
) -> list[LabelRow]:
    """Returns what the observations of a Camtrap DP 1.0 package say of its videos, in the order of its media.

    An animal's label is in the column ``label_column`` of the observations, where ``|`` separates several. All else that
    is observed is its own label, the observationType: human, vehicle, blank. A video without an observation, or where
    all are ``unclassified`` or ``unknown`` (without a name), has no label and is left out; the log says how many.

    What people observed is the label. A machine's observations are predictions, at whatever level: they are passed over,
    with a line in the log, or with ``machine_labels`` count for videos that people did not classify.

    A media-level observation applies to its media. An event-level observation applies to the videos of its deployment that
    have its eventID; where the observation or the video has none, of those from eventStart to eventEnd. But a video with
    media-level labels has these alone.

    A site is a locationID, or where that is missing a locationName, or a deploymentID.

    Args:
        source: The ``datapackage.json`` or zip.
        label_column: Column of the observations.
        problems: Gets what is wrong with rows of videos and their observations; other rows are not looked at.
        machine_labels: Whether a machine's observations count where people say nothing.
        folder: Folder that no filePath may lead out of; ``None`` to allow it.

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
    if folder is not None:
        check_inside([(video.place, video.filepath) for video in videos.values()], folder, problems)
    check_event_ids(videos.values(), observations, problems)
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
    # problems of rows that do not count are not reported
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
        warn_of_disagreement(videos.values(), problems)
        predicted = [video for video in videos.values() if video.lacks_people and video.machines.labels]
        labelled = sum(bool(video.people.labels) for video in videos.values())
        authors = passed_over
        if machine_labels:
            authors = Counter(author for video in predicted for author in video.machines.classifiers)
        tell_machine_labels(problems, "observation", authors, len(predicted), labelled, counts=machine_labels)
        _tell_left_out(source, media, len(videos) - labelled - len(predicted), len(videos))
    return rows


def _read_tables(source: Path, label_column: str, problems: Problems) -> list[list[Record]]:
    """Returns the rows of deployments, media and observations, with all columns of ``COLUMNS``; missing values are empty."""
    tables = []
    with open_package(source, "data.labels") as package:
        for name, (needed, optional) in COLUMNS.items():
            chosen = label_column if name == "observations" else None
            needed = needed if chosen is None else [*needed, chosen]
            header, rows = package.read_table(name, problems)
            where = package.folder / package.paths(name)[0]
            check_columns(header, str(where), needed=needed, optional=optional, other_names={}, label_column=chosen)
            tables.append([(place, dict.fromkeys([*needed, *optional], "") | record) for place, record in rows])
    return tables


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
