"""The videos that observations of a Camera Trap Data Package refer to, and their labels."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from zamba_lcli.data.csv_tables import Place, Problems, Record, counted, parse_label
from zamba_lcli.data.labels.camtrap_package import URL
from zamba_lcli.data.labels.camtrap_terms import read_time
from zamba_lcli.data.labels.spellings import first_places, number_spelling

OBSERVATION_TYPES = ("animal", "human", "vehicle", "blank", "unknown", "unclassified")


@dataclass
class Answers:
    """What observations say of a clip: those of people, or those of machines."""

    own: list[tuple[Place, list[str]]] = field(default_factory=list)  # labels of media-level observations
    of_events: list[tuple[Place, list[str]]] = field(default_factory=list)  # labels of event-level observations
    unknown: bool = False  # whether someone looked and could not identify it
    classifiers: set[str] = field(default_factory=set)
    unstated: dict[str, tuple[Place, set[str]]] = field(
        default_factory=dict
    )  # labels by who gave them, a person or not

    @property
    def labels(self) -> list[tuple[Place, list[str]]]:
        """What was seen in the clip itself; else what was seen in its event, which may have been in another clip."""
        return self.own or self.of_events


@dataclass
class Video:
    """A clip of the package and what observations say of it."""

    place: Place
    filepath: str
    deployment: str
    site: str
    timestamp: str
    events: set[str]
    people: Answers = field(default_factory=Answers)
    machines: Answers = field(default_factory=Answers)

    @property
    def lacks_people(self) -> bool:
        """Whether people gave nothing on the clip, not even ``unknown``."""
        return not self.people.labels and not self.people.unknown


def by_id(table: Iterable[Record], column: str, problems: Problems) -> dict[str, Record]:
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


def videos_in(media: Mapping[str, Record], sites: Mapping[str, str], problems: Problems) -> dict[str, Video]:
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
        videos[media_id] = Video(place, filepath, deployment, site, record["timestamp"], events)
    return videos


def check_event_ids(videos: Iterable[Video], observations: Iterable[Record], problems: Problems) -> None:
    """Refuses videos of an event that no observation names, where one names it in another spelling, such as 1 for 1.0."""
    known = first_places((record["eventID"], place) for place, record in observations)
    alike = {number_spelling(event): event for event in known}
    for video in videos:
        for event in video.events.difference(known):
            if other := alike.get(number_spelling(event)):
                what = f"the eventID {event!r} is {other!r} in {known[other]}"
                problems.add(video.place, what, "Spell each eventID in one way.")


def labels_of(place: Place, record: Mapping[str, str], column: str, problems: Problems) -> list[str]:
    """Returns the labels of an observation; none if it has none."""
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


class Events:
    """Finds the videos of event-level observations.

    Args:
        videos: All of the package; their eventIDs are known.
        sites: The deployments.
    """

    def __init__(self, videos: Iterable[Video], sites: Mapping[str, str]) -> None:
        """Sorts the videos by deployment."""
        self._sites = sites
        self._videos: dict[str, list[Video]] = {}
        for video in videos:
            self._videos.setdefault(video.deployment, []).append(video)
        self._timelines: dict[str, list[tuple[datetime, Video]]] = {}

    def find(self, place: Place, record: Mapping[str, str], problems: Problems) -> list[Video]:
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
        start = read_time("eventStart", record["eventStart"], place, problems)
        end = read_time("eventEnd", record["eventEnd"], place, problems)
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

    def _timeline(self, deployment: str, problems: Problems) -> list[tuple[datetime, Video]]:
        if deployment not in self._timelines:
            times = [(read_time("timestamp", v.timestamp, v.place, problems), v) for v in self._videos[deployment]]
            self._timelines[deployment] = sorted([(t, v) for t, v in times if t], key=lambda pair: pair[0])
        return self._timelines[deployment]


def _add_unknown_deployment(place: Place, deployment: str, problems: Problems) -> None:
    what = f"there is no deployment with the deploymentID {deployment!r}"
    problems.add(place, what, "Correct the deploymentID, or give the deployment a row in its table.")


def check_blank(video: Video, answers: Answers, problems: Problems) -> None:
    """Refuses a clip where nothing and something was seen, as of observers who did not agree."""
    others = sorted({label for _, labels in answers.labels for label in labels if label != "blank"})
    for place, labels in answers.labels:
        if "blank" in labels and others:
            what = f"{video.filepath} is blank here, but {', '.join(others)} elsewhere"
            problems.add(place, what, "Keep the observations that are right.")


def warn_of_disagreement(videos: Iterable[Video], problems: Problems) -> None:
    """Warns of clips that get other labels from one who classified than from another, of whom nothing says who is a person."""
    apart = []
    for video in videos:
        (place, labels), *others = video.people.unstated.values() or [(video.place, set())]
        if any(theirs != labels for _, theirs in others):
            apart.append((place, video))
    if apart:
        place, video = apart[0]
        said = "; ".join(f"{who}: {', '.join(sorted(labels))}" for who, (_, labels) in video.people.unstated.items())
        rest = f", and {counted(len(apart) - 1, 'other clip')} likewise" if len(apart) > 1 else ""
        told = f"{video.filepath} gets the labels of all who classified it ({said}){rest}; who of them is a person is unknown"
        remedy = "Write human or machine in the column classificationMethod: a machine's answers are predictions."
        problems.warn(place, told, remedy)


def find_videos(
    observations: Iterable[Record],
    videos: Mapping[str, Video],
    media: Mapping[str, Record],
    events: Events,
    problems: Problems,
) -> Iterator[tuple[Place, dict[str, str], list[Video], bool]]:
    """Yields each observation with its videos, and whether it is media-level; these come first."""
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


def add_labels(
    answers: Sequence[Answers],
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
    labels = labels_of(place, record, label_column, problems)
    for answer in wanted:
        answer.unknown |= record["observationType"] == "unknown" and not labels
        if labels:
            (answer.own if is_own else answer.of_events).append((place, labels))
            answer.classifiers.add(record["classifiedBy"])
            if record["classifiedBy"] and not record["classificationMethod"]:
                answer.unstated.setdefault(record["classifiedBy"], (place, set()))[1].update(labels)
