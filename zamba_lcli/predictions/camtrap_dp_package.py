"""Predictions as a new Camera Trap Data Package, from a table of deployments and one of the clips."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

from zamba_lcli.data.csv_tables import Problems, Record, check_columns, read_table, records
from zamba_lcli.data.labels import camtrap_terms as terms
from zamba_lcli.data.labels.camtrap_package import CamtrapTable
from zamba_lcli.data.labels.camtrap_terms import format_time, parse_time
from zamba_lcli.errors import InputError
from zamba_lcli.predictions.camtrap_dp import CamtrapDP, Media, media_in, write_table
from zamba_lcli.predictions.formats import PredictionRun

SamplingDesign: TypeAlias = Literal[
    "simpleRandom", "systematicRandom", "clusteredRandom", "experimental", "targeted", "opportunistic"
]
CaptureMethod: TypeAlias = Literal["activityDetection", "timeLapse"]
SCHEMAS = f"https://raw.githubusercontent.com/tdwg/camtrap-dp/{terms.version()}"
FILLED_IN = {"mediaID", "filePublic", "fileMediatype"}  # required by the standard, with defaults here
EMAIL = re.compile(r"[^@\s<>()]+@[^@\s<>()]+\.[^@\s<>().]+")
LOCATION = re.compile(r"(?![./~])(?!.*\.\.).+")  # of a contributor: a URL, or a file of the package
MEDIATYPES = {
    ".264": "h264",
    ".265": "h265",
    ".3g2": "3gpp2",
    ".3gp": "3gpp",
    ".asf": "x-ms-asf",
    ".avi": "x-msvideo",
    ".divx": "x-msvideo",
    ".flv": "x-flv",
    ".h264": "h264",
    ".h265": "h265",
    ".hevc": "h265",
    ".ivf": "x-ivf",
    ".m2ts": "mp2t",
    ".m4v": "mp4",
    ".mjpeg": "x-motion-jpeg",
    ".mkv": "x-matroska",
    ".mov": "quicktime",
    ".mp4": "mp4",
    ".mpeg": "mpeg",
    ".mpg": "mpeg",
    ".mts": "mp2t",
    ".mxf": "mxf",
    ".ogv": "ogg",
    ".ts": "mp2t",
    ".vob": "mpeg",
    ".webm": "webm",
    ".wmv": "x-ms-wmv",
}


@dataclass(frozen=True)
class CamtrapDPPackage(CamtrapDP):
    """Makes a package from a table of deployments and one of the clips.

    The tables are separated by commas, semicolons or tabs. Rows that would make the package invalid are refused before anything
    is predicted: values that the standard does not know, deployments that end before they start, clips recorded outside of
    their deployment.

    Args:
        deployments: Table (CSV) with the columns that Camtrap DP requires of deployments, ``deploymentID``, ``latitude``,
            ``longitude``, ``deploymentStart`` and ``deploymentEnd``, and any of the others.
        media: Table (CSV) with ``filePath``, ``deploymentID`` and ``timestamp`` of each clip, and any of the other columns
            of Camtrap DP's media. Times have a zone, as in 2020-05-30T04:57:37+02:00. Default of ``mediaID``: the
            filePath; of ``fileMediatype``: by the suffix of the file.
        title: Title of the project.
        sampling_design: How the places of the cameras were chosen.
        capture_method: What triggers the cameras: ``activityDetection``, ``timeLapse`` or both.
        contributors: Authors of the package: for each a ``title``, the name, and optionally ``role`` (``contact``,
            ``principalInvestigator``, ``rightsHolder``, ``publisher`` or ``contributor``), ``email``, ``path`` and
            ``organization``.
        individual_animals: Whether the project identifies individuals.
        file_public: Whether the clips are public, for tables of media without ``filePublic``.
        threshold: See ``CamtrapDP``, as for all the following.
        observation_types: See there.
        scientific_names: See there.
        media_dir: See there.
    """

    deployments: str
    media: str
    title: str
    sampling_design: SamplingDesign
    capture_method: list[CaptureMethod]
    contributors: list[dict[str, str]]
    individual_animals: bool = False
    file_public: bool = False

    def check(self, run: PredictionRun) -> None:
        """Refuses arguments and tables that would make the package invalid."""
        for argument, path in (("deployments", self.deployments), ("media", self.media)):
            self._refuse_to_lose(argument, Path(path), run)
        self._check_project()
        self._deployments()
        super().check(run)

    def _check_project(self) -> None:
        """Refuses values that the profile of the standard does not know."""
        if not self.title.strip():
            raise InputError("title: give the project a title.")
        if self.sampling_design not in (designs := terms.project_terms("samplingDesign")):
            raise InputError(f"sampling_design: {self.sampling_design!r} is none of {', '.join(designs)}.")
        methods = terms.project_terms("captureMethod")
        wrong = [method for method in self.capture_method if method not in methods]
        if wrong or not self.capture_method or len(set(self.capture_method)) < len(self.capture_method):
            raise InputError(f"capture_method: {self.capture_method}: give one or each once of {', '.join(methods)}.")
        if not self.contributors or any(not person.get("title", "").strip() for person in self.contributors):
            raise InputError("contributors: give at least one, each with a title, the name.")
        for person in self.contributors:
            who, roles = f"contributors: {person['title']!r}", terms.contributor_roles()
            if person.get("role", roles[0]) not in roles:
                raise InputError(f"{who}: the role {person['role']!r} is none of {', '.join(roles)}.")
            if not EMAIL.fullmatch(person.get("email", "a@b.org")):
                raise InputError(
                    f"{who}: {person['email']!r} is no email address, such as a.b@example.org. Or leave it out."
                )
            if not LOCATION.fullmatch(person.get("path", "a")):
                raise InputError(
                    f"{who}: the path {person['path']!r} is no URL, such as https://example.org. Or leave it out."
                )

    def _source(self) -> Path:
        return Path(self.media)

    def _read(self, name: terms.Table, path: str, optional: set[str]) -> tuple[CamtrapTable, Problems]:
        """Returns a table with columns of the standard alone, and its problems so far."""
        problems = Problems(Path(path), name)
        columns = terms.columns(name)
        header, cells, first = read_table(Path(path), [column.name for column in columns], key=name)
        table = CamtrapTable(header, list(records(header, cells, problems, file=path, first=first, as_written=header)))
        needed = [c.name for c in columns if c.constraints.get("required") and c.name not in optional]
        others = [c.name for c in columns if c.name not in needed]
        check_columns(table.names, path, needed=needed, optional=others, other_names={}, key=name)
        if unknown := [column for column in table.names if column not in terms.column_names(name)]:
            raise InputError(
                f"{name}: {path}: the columns {unknown} are none of Camtrap DP's {name}. Take them out; its tags and comments "
                "have room for their values."
            )
        return table, problems

    def _deployments(self) -> list[Record]:
        table, problems = self._read("deployments", self.deployments, set())
        rows = terms.check_rows("deployments", table.rows, problems)
        for place, row in rows:
            start, end = parse_time(row["deploymentStart"]), parse_time(row["deploymentEnd"])
            if start and end and end < start:
                what = (
                    f"the deploymentEnd {row['deploymentEnd']} is before the deploymentStart {row['deploymentStart']}"
                )
                problems.add(place, what, "Correct the times of the deployment.")
        problems.raise_if_any()
        return rows

    def _media_folder(self) -> Path:
        return Path(self.media).parent if self.media_dir is None else Path(self.media_dir)

    def _media_rows(self) -> tuple[list[Record], Problems]:
        table, problems = self._read("media", self.media, FILLED_IN)
        filled = [(place, self._filled_in(record, table.names)) for place, record in table.rows]
        for place, record in filled:
            if not record["fileMediatype"] and "fileMediatype" not in table.names:
                what = f"the ending of {record['filePath']!r} does not say what the file is"
                problems.add(place, what, "Give the table a column fileMediatype, with such as video/mp4.")
                record["fileMediatype"] = "video/*"  # for one message, not two
        return terms.check_rows("media", filled, problems), problems

    def _filled_in(self, record: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
        """Returns a row with defaults for missing columns, and with a path as the standard writes it."""
        filepath = record.get("filePath", "")
        if "\\" in filepath and not (self._media_folder() / filepath).exists():
            filepath = filepath.replace("\\", "/")
        while filepath.startswith("./"):
            filepath = filepath[2:].lstrip("/")
        kind = MEDIATYPES.get(PurePosixPath(filepath).suffix.lower())
        follows = {
            "mediaID": filepath,
            "filePublic": str(self.file_public).lower(),
            "fileName": PurePosixPath(filepath).name,
            "fileMediatype": f"video/{kind}" if kind else "",
        }
        return {**{name: value for name, value in follows.items() if name not in names}, **record, "filePath": filepath}

    def _media(self) -> dict[str, Media]:
        rows, problems = self._media_rows()
        deployments = {row["deploymentID"]: row for _, row in self._deployments()}
        problems.raise_if_any()
        self._check_times(rows, deployments, problems)
        found = media_in(rows, self._media_folder(), deployments, problems)
        problems.raise_if_any()
        return found

    def _check_times(
        self, rows: Sequence[Record], deployments: Mapping[str, Mapping[str, str]], problems: Problems
    ) -> None:
        """Finds clips recorded outside of their deployment, unless its clock is known to be wrong."""
        spans = {
            name: [parse_time(row[f"deployment{end}"]) for end in ("Start", "End")] for name, row in deployments.items()
        }
        for place, record in rows:
            deployment = deployments.get(record["deploymentID"])
            if deployment is None or deployment["timestampIssues"] == "true":
                continue
            start, end = spans[record["deploymentID"]]
            time = parse_time(record["timestamp"])
            if start and end and time and not start <= time <= end:
                what = (
                    f"the timestamp {record['timestamp']} is outside of the deployment {record['deploymentID']}, "
                    f"{deployment['deploymentStart']} to {deployment['deploymentEnd']}"
                )
                remedy = (
                    "Correct the timestamp, or the times of the deployment. Where the camera's clock was wrong for good, write "
                    "true in the deployment's column timestampIssues."
                )
                problems.add(place, what, remedy)

    def _begin(self, folder: Path) -> list[str]:
        media, _ = self._media_rows()
        rows: dict[terms.Table, list[Record]] = {"deployments": self._deployments(), "media": media, "observations": []}
        for name, of_table in rows.items():
            write_table(folder / f"{name}.csv", terms.column_names(name), (record for _, record in of_table))
        return terms.column_names("observations")

    def _descriptor(self, scientific_names: Sequence[str]) -> dict[str, Any]:
        deployments = [row for _, row in self._deployments()]
        west, east = (f(float(row["longitude"]) for row in deployments) for f in (min, max))
        south, north = (f(float(row["latitude"]) for row in deployments) for f in (min, max))
        corners = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        start = min(_times(deployments, "deploymentStart"))
        end = max(_times(deployments, "deploymentEnd"))
        resources = [
            {
                "name": name,
                "path": f"{name}.csv",
                "profile": "tabular-data-resource",
                "format": "csv",
                "mediatype": "text/csv",
                "encoding": "utf-8",
                "schema": f"{SCHEMAS}/{name}-table-schema.json",
            }
            for name in terms.TABLES
        ]
        project = {
            "title": self.title,
            "samplingDesign": self.sampling_design,
            "captureMethod": list(self.capture_method),
            "individualAnimals": self.individual_animals,
            "observationLevel": ["media"],
        }
        return {
            "resources": resources,
            "profile": f"{SCHEMAS}/camtrap-dp-profile.json",
            "created": format_time(datetime.now(UTC)),
            "contributors": self.contributors,
            "project": project,
            "spatial": {"type": "Polygon", "coordinates": [corners]},
            "temporal": {"start": start.date().isoformat(), "end": end.date().isoformat()},
            "taxonomic": [{"scientificName": name} for name in scientific_names],
        }


def _times(rows: Sequence[Mapping[str, str]], name: str) -> Iterator[datetime]:
    return (time for row in rows if (time := parse_time(row[name])))
