"""Predictions as observations in Camera Trap Data Packages, Camtrap DP 1.0: https://camtrap-dp.tdwg.org."""

import csv
import json
import os
import shutil
import uuid
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime, timedelta
from math import ceil, floor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from zamba_lcli.callbacks.formats import (
    BLANK,
    PEOPLE,
    VEHICLES,
    PredictedClip,
    PredictionFormat,
    PredictionRun,
    check_thresholds,
    is_called,
)
from zamba_lcli.data.camtrap_dp import DESCRIPTOR, MISSING_VALUES
from zamba_lcli.errors import InputError

if TYPE_CHECKING:  # it takes long to import
    import pandas as pd

ObservationType: TypeAlias = Literal["animal", "human", "vehicle", "blank"]
SamplingDesign: TypeAlias = Literal[
    "simpleRandom", "systematicRandom", "clusteredRandom", "experimental", "targeted", "opportunistic"
]
TYPES: dict[ObservationType, tuple[str, ...]] = {"blank": BLANK, "human": PEOPLE, "vehicle": VEHICLES}
SCHEMAS = "https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0.2"
COLUMNS = {  # all must be there, https://camtrap-dp.tdwg.org/data
    "deployments": (
        "deploymentID,locationID,locationName,latitude,longitude,coordinateUncertainty,deploymentStart,deploymentEnd,setupBy,"
        "cameraID,cameraModel,cameraDelay,cameraHeight,cameraDepth,cameraTilt,cameraHeading,detectionDistance,timestampIssues,"
        "baitUse,featureType,habitat,deploymentGroups,deploymentTags,deploymentComments"
    ),
    "media": (
        "mediaID,deploymentID,captureMethod,timestamp,filePath,filePublic,fileName,fileMediatype,exifData,favorite,"
        "mediaComments"
    ),
    "observations": (
        "observationID,deploymentID,mediaID,eventID,eventStart,eventEnd,observationLevel,observationType,cameraSetupType,"
        "scientificName,count,lifeStage,sex,behavior,individualID,individualPositionRadius,individualPositionAngle,"
        "individualSpeed,bboxX,bboxY,bboxWidth,bboxHeight,classificationMethod,classifiedBy,classificationTimestamp,"
        "classificationProbability,observationTags,observationComments"
    ),
}
MEDIATYPES = {".mp4": "mp4", ".m4v": "mp4", ".mov": "quicktime", ".avi": "x-msvideo", ".mkv": "x-matroska"}
MEDIATYPES |= {".wmv": "x-ms-wmv", ".asf": "x-ms-asf", ".webm": "webm", ".mpg": "mpeg", ".mpeg": "mpeg", ".3gp": "3gpp"}


TRUTH = ("true", "True", "TRUE", "1", "false", "False", "FALSE", "0")
MEDIA_VALUES = {  # column -> what may stand in it
    "filePublic": (TRUTH, "true or false"),
    "favorite": ((*TRUTH, ""), "true, false or empty"),
    "captureMethod": (("activityDetection", "timeLapse", ""), "activityDetection, timeLapse or empty"),
}


@dataclass(frozen=True)
class _Media:
    """A row of the table media, as far as observations need it."""

    media_id: str
    deployment_id: str
    timestamp: datetime  # with its zone: when the clip begins


@dataclass(frozen=True)
class CamtrapDP(PredictionFormat):
    """Base of the formats in Camtrap DP: the folder ``camtrap_dp`` with a package, to which observations are added.

    Each clip, or each part of it that was looked at by itself, has a media-level observation, ``classificationMethod`` being
    ``machine``, for each class (or, of a multiclass model, for the most probable class) from ``threshold`` on; if there is
    none, one of the type ``unknown``. A clip that could not be read has one of the type ``unclassified`` with the reason in
    its comments. The clips' own table must say when they were made and in which deployment: clocks in files are too often
    wrong, and nothing is guessed.

    Args:
        threshold: From which probability on a class counts as seen: one number, or one for each class by name.
        observation_types: What a class is, where its name does not say so: all but ``blank``, ``empty``, ``human``, ``person``
            and ``vehicle`` are animals.
        scientific_names: Scientific names of classes of animals; those left out are taken to have them as names.
        media_dir: Folder that the filePath of the media is relative to; null for the folder of its table or package.
    """

    _: KW_ONLY
    threshold: float | dict[str, float] = 0.5
    observation_types: dict[str, ObservationType] | None = None
    scientific_names: dict[str, str] | None = None
    media_dir: str | None = None
    filename = "camtrap_dp"

    def check(self, run: PredictionRun) -> None:
        """Refuses clips whose time or deployment is not told, and whatever would make the package invalid."""
        check_thresholds(self.threshold, run)
        for argument, given in (
            ("observation_types", self.observation_types),
            ("scientific_names", self.scientific_names),
        ):
            if unknown := sorted(set(given or {}) - set(run.class_names)):
                raise InputError(
                    f"{argument}: there are no classes {unknown}; the model knows {list(run.class_names)}."
                )
        media = self._media()
        missing = [name for name, path in zip(run.filepaths, run.paths, strict=True) if _key(path) not in media]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise InputError(
                f"{self._source()}: the table media has no row for {', '.join(missing[:5])}{more}. Give each clip a row with "
                "its filePath, deploymentID and timestamp; filePath is relative to the folder of the table, or to media_dir."
            )

    def write(self, path: Path, clips: Iterable[PredictedClip], run: PredictionRun) -> None:
        """Writes the package to the folder ``path``."""
        path.mkdir()
        media = self._media()
        columns = self._begin(path)
        names: set[str] = set()
        with (path / "observations.csv").open("a", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, columns)
            for clip in clips:
                for observation in self._observations(clip, media[_key(clip.path)], run):
                    table.writerow(observation)
                    names.add(observation.get("scientificName", ""))
        descriptor = self._descriptor(sorted(names - {""}))
        (path / DESCRIPTOR).write_text(json.dumps(descriptor, indent=2, ensure_ascii=False), encoding="utf-8")

    @abstractmethod
    def _source(self) -> Path:
        """Returns the file that says which media there are."""

    @abstractmethod
    def _media(self) -> dict[str, _Media]:
        """Returns the media by their absolute paths."""

    @abstractmethod
    def _begin(self, folder: Path) -> list[str]:
        """Writes all tables, observations without those of this run, and returns the columns of observations."""

    @abstractmethod
    def _descriptor(self, scientific_names: Sequence[str]) -> dict[str, Any]:
        """Returns the datapackage.json."""

    def _refuse_to_lose(self, argument: str, path: Path, run: PredictionRun) -> None:
        """Refuses input that lies where the output goes, which takes the place of what is there."""
        if path.resolve().is_relative_to((run.folder / self.filename).resolve()):
            raise InputError(
                f"{argument}: {path.resolve()} is where the package with the predictions goes, and would be lost. Give "
                "WritePredictions another output_dir, or move it."
            )

    def _observations(self, clip: PredictedClip, media: _Media, run: PredictionRun) -> Iterator[dict[str, str]]:
        """Yields the rows of a clip."""
        base = {
            "deploymentID": media.deployment_id,
            "mediaID": media.media_id,
            "observationLevel": "media",
            "classificationMethod": "machine",
            "classifiedBy": run.classifier,
            "classificationTimestamp": clip.predicted_at,
        }
        if clip.error:
            begin = _time(media.timestamp)
            yield {
                **{key: value for key, value in base.items() if not key.startswith("classif")},
                "observationID": _identifier(base, "unclassified"),
                "eventStart": begin,
                "eventEnd": begin,
                "observationType": "unclassified",
                "observationComments": f"could not be read: {clip.error}",
            }
            return
        for number, part in enumerate(clip.parts):
            # a single part is the whole clip
            start, end = (0.0, clip.duration) if len(clip.parts) == 1 else (part.times[0], part.times[-1])
            section = {
                "eventStart": _time(media.timestamp + timedelta(seconds=floor(start))),
                "eventEnd": _time(media.timestamp + timedelta(seconds=ceil(end))),
            }
            for name, seen in self._seen(part.probabilities, run):
                yield {**base, **section, "observationID": _identifier(base, str(number), name, *seen.values()), **seen}

    def _seen(self, probabilities: Sequence[float], run: PredictionRun) -> list[tuple[str, dict[str, str]]]:
        """Returns the classes seen in a part, and what is said of each."""
        of = self.threshold if isinstance(self.threshold, dict) else dict.fromkeys(run.class_names, self.threshold)
        ranked = sorted(zip(probabilities, run.class_names, strict=True), key=lambda pair: -pair[0])
        if run.task == "multiclass":
            named = [(p, name) for p, name in ranked[:1] if p >= of[name]]
        else:
            named = [(p, name) for p, name in ranked if p >= of[name]]
            something = [(p, name) for p, name in named if self._type(name) != "blank"]
            named = something or named[:1]  # where something is seen it is not blank
        if not named:
            probability, name = ranked[0]
            comment = f"most probable: {name} ({probability:.3f})"
            return [(name, {"observationType": "unknown", "observationComments": comment})]
        seen = []
        for probability, name in named:
            kind = self._type(name)
            animal = {"scientificName": (self.scientific_names or {}).get(name, name)} if kind == "animal" else {}
            said = {"observationType": kind, **animal, "classificationProbability": f"{probability:.6f}"}
            seen.append((name, said))
        return seen

    def _type(self, class_name: str) -> str:
        usual = next((kind for kind, names in TYPES.items() if is_called(class_name, names)), "animal")
        return (self.observation_types or {}).get(class_name, usual)


@dataclass(frozen=True)
class CamtrapDPObservations(CamtrapDP):
    """Adds observations to a package that exists: the folder ``camtrap_dp`` gets its tables, and both old and new observations.

    The package itself is left as it is. Where the media are files of the package, put the folder's content in its place.

    Args:
        package: Folder of the package, or its ``datapackage.json``.
        threshold: See ``CamtrapDP``, as for all the following.
        observation_types: See there.
        scientific_names: See there.
        media_dir: See there.
    """

    package: str

    def check(self, run: PredictionRun) -> None:
        """Refuses a package that is not whole, and one that the package written would take the place of."""
        self._refuse_to_lose("package", self._source().parent, run)
        self._table("observations")
        super().check(run)

    def _source(self) -> Path:
        path = Path(self.package)
        return path / DESCRIPTOR if path.is_dir() else path

    def _package(self) -> dict[str, Any]:
        source = self._source()
        try:
            package = json.loads(source.read_text(encoding="utf-8"))
            resources = {resource["name"]: resource for resource in package["resources"]}
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(
                f"package: {source.absolute()} is not the {DESCRIPTOR} of a package in Camtrap DP. Give its folder; unpack "
                "a zip first."
            ) from None
        for name in COLUMNS:
            paths = _paths(resources.get(name, {}))
            if len(paths) != 1:
                raise InputError(f"package: {source.absolute()} must name one file for {name} in its resources.")
        for resource in package["resources"]:
            for path in _paths(resource):
                if "://" in path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                    raise InputError(
                        f"package: {source.absolute()}: {path} is not in the package. Download the whole package."
                    )
                if not (source.parent / path).is_file():
                    raise InputError(f"package: there is no file {source.parent.absolute() / path}. Unpack it whole.")
        return {**package, "resources": list(resources.values())}

    def _table(self, name: str) -> "pd.DataFrame":
        resource = next(r for r in self._package()["resources"] if r["name"] == name)
        dialect = resource.get("dialect") if isinstance(resource.get("dialect"), dict) else {}
        separator = str({**dialect, **(dialect.get("csv") or {})}.get("delimiter", ","))
        path = self._source().parent / _paths(resource)[0]
        return _read(path, separator, str(resource.get("encoding", "utf-8")))

    def _media(self) -> dict[str, _Media]:
        folder = self._source().parent if self.media_dir is None else Path(self.media_dir)
        known = set(self._table("deployments")["deploymentID"])
        return _media_in(self._table("media"), self._source(), folder, known)

    def _begin(self, folder: Path) -> list[str]:
        package = self._package()
        for resource in package["resources"]:
            for path in _paths(resource) if resource["name"] != "observations" else ():
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._source().parent / path, target)
        table = self._table("observations")
        columns = [*table.columns, *(name for name in _columns("observations") if name not in table.columns)]
        table.reindex(columns=columns, fill_value="").to_csv(folder / "observations.csv", index=False)
        return columns

    def _descriptor(self, scientific_names: Sequence[str]) -> dict[str, Any]:
        package = self._package()
        for resource in package["resources"]:
            if resource["name"] == "observations":
                for key in ("dialect", "encoding", "bytes", "hash"):  # of the file as it was
                    resource.pop(key, None)
                resource["path"] = "observations.csv"
        listed = package.get("taxonomic") or []
        known = {taxon.get("scientificName") for taxon in listed}
        package["taxonomic"] = [*listed, *({"scientificName": name} for name in scientific_names if name not in known)]
        project = package.get("project")
        if isinstance(project, dict) and "media" not in (levels := project.get("observationLevel") or []):
            project["observationLevel"] = [*levels, "media"]
        package["created"] = _time(datetime.now(UTC))
        return package


@dataclass(frozen=True)
class CamtrapDPPackage(CamtrapDP):
    """Makes a package from a table of deployments and one of the clips.

    Args:
        deployments: Table (CSV) with the columns that Camtrap DP requires of deployments, ``deploymentID``, ``latitude``,
            ``longitude``, ``deploymentStart`` and ``deploymentEnd``, and whichever of the others.
        media: Table (CSV) with ``filePath``, ``deploymentID`` and ``timestamp`` of each clip, and whichever of the other
            columns of Camtrap DP's media. Times have a zone, as in 2020-05-30T04:57:37+02:00.
        title: Title of the project.
        sampling_design: How the places of the cameras were chosen.
        capture_method: What makes the cameras record: ``activityDetection``, ``timeLapse`` or both.
        contributors: Who made it: for each a ``title``, the name, and maybe ``role``, ``email``, ``path`` and ``organization``.
        individual_animals: Whether the project tells individuals apart.
        file_public: Whether the clips may be seen by all, where the table of media has no ``filePublic``.
        threshold: See ``CamtrapDP``, as for all the following.
        observation_types: See there.
        scientific_names: See there.
        media_dir: See there.
    """

    deployments: str
    media: str
    title: str
    sampling_design: SamplingDesign
    capture_method: list[Literal["activityDetection", "timeLapse"]]
    contributors: list[dict[str, str]]
    individual_animals: bool = False
    file_public: bool = False

    def check(self, run: PredictionRun) -> None:
        """Refuses tables that do not tell what the standard requires."""
        for argument, path in (("deployments", self.deployments), ("media", self.media)):
            self._refuse_to_lose(argument, Path(path), run)
        self._deployments()
        if not self.contributors or any(not person.get("title") for person in self.contributors):
            raise InputError("contributors: give at least one, each with a title, the name.")
        super().check(run)

    def _source(self) -> Path:
        return Path(self.media)

    def _deployments(self) -> "pd.DataFrame":
        import pandas as pd

        path = Path(self.deployments)
        table = _complete(_read(path), path, "deployments", ("deploymentStart", "deploymentEnd"))
        for column, limit in (("latitude", 90), ("longitude", 180)):
            number = pd.to_numeric(table[column], errors="coerce")
            for row in table.index[~number.between(-limit, limit)]:
                raise InputError(
                    f"{path}, row {row + 2}: {column} is {table[column][row]!r}; it must be a number from -{limit} to {limit}."
                )
        return table

    def _media_table(self) -> "pd.DataFrame":
        path = Path(self.media)
        given = _read(path)
        table = given.copy()
        if "filePath" in table:
            for column, value in (
                ("mediaID", table["filePath"]),
                ("filePublic", str(self.file_public).lower()),
                ("fileName", [PurePosixPath(name).name for name in table["filePath"]]),
                ("fileMediatype", [_mediatype(name) for name in table["filePath"]]),
            ):
                if column not in table:
                    table[column] = value
        table = _complete(table, path, "media", ("timestamp",))
        for column, (allowed, what) in MEDIA_VALUES.items():
            for row in table.index[~table[column].isin(allowed)]:
                raise InputError(f"{path}, row {row + 2}: {column} is {table[column][row]!r}; it must be {what}.")
        for row, name in enumerate(table["filePath"]):
            if "://" not in name and (name.startswith((".", "/", "~")) or ".." in PurePosixPath(name).parts):
                raise InputError(
                    f"{path}, row {row + 2}: the filePath {name!r} must lead downwards from the folder of the table, or from "
                    "media_dir: write it without ., .., / or ~ in front."
                )
        return table

    def _media(self) -> dict[str, _Media]:
        folder = Path(self.media).parent if self.media_dir is None else Path(self.media_dir)
        return _media_in(self._media_table(), Path(self.media), folder, set(self._deployments()["deploymentID"]))

    def _begin(self, folder: Path) -> list[str]:
        import pandas as pd

        self._deployments().to_csv(folder / "deployments.csv", index=False)
        self._media_table().to_csv(folder / "media.csv", index=False)
        pd.DataFrame(columns=_columns("observations")).to_csv(folder / "observations.csv", index=False)
        return _columns("observations")

    def _descriptor(self, scientific_names: Sequence[str]) -> dict[str, Any]:
        deployments = self._deployments()
        west, east = (f(deployments["longitude"].astype(float)) for f in (min, max))
        south, north = (f(deployments["latitude"].astype(float)) for f in (min, max))
        corners = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        start = min(datetime.fromisoformat(time) for time in deployments["deploymentStart"])
        end = max(datetime.fromisoformat(time) for time in deployments["deploymentEnd"])
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
            for name in COLUMNS
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
            "created": _time(datetime.now(UTC)),
            "contributors": self.contributors,
            "project": project,
            "spatial": {"type": "Polygon", "coordinates": [corners]},
            "temporal": {"start": start.date().isoformat(), "end": end.date().isoformat()},
            "taxonomic": [{"scientificName": name} for name in scientific_names],
        }


# ---- tables ----------------------------------------------------------------------------------------------------------


def _columns(name: str) -> list[str]:
    return COLUMNS[name].split(",")


def _paths(resource: Mapping[str, Any]) -> list[str]:
    path = resource.get("path")
    return [name for name in (path if isinstance(path, list) else [path]) if isinstance(name, str) and name]


def _read(path: Path, separator: str = ",", encoding: str = "utf-8") -> "pd.DataFrame":
    """Returns a table as text, missing values empty."""
    import pandas as pd

    try:
        table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding=encoding)
    except FileNotFoundError:
        raise InputError(f"There is no file {path.absolute()}. Correct the path.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path.absolute()} cannot be read: {error}. Save it as 'CSV UTF-8'.") from None
    return table.replace(dict.fromkeys(MISSING_VALUES, ""))


def _complete(table: "pd.DataFrame", path: Path, name: str, times: Sequence[str]) -> "pd.DataFrame":
    """Returns a table with all the columns of the standard, in its order."""
    required = {"deployments": ["deploymentID", "latitude", "longitude", *times], "media": ["filePath", "deploymentID"]}
    if missing := [column for column in (*required[name], *times) if column not in table]:
        raise InputError(f"{path}: there is no column {missing[0]}. Camtrap DP requires it of {name}.")
    if unknown := [column for column in table if column not in _columns(name)]:
        raise InputError(
            f"{path}: the columns {unknown} are none of Camtrap DP's {name}. Take them out; its tags and comments have room "
            "for what they tell."
        )
    for column in times:
        read = [_parse_time(text, f"{path}, row {row + 2}: {column}") for row, text in enumerate(table[column])]
        table[column] = [_time(time) for time in read]  # the standard takes one way of writing times
    key = _columns(name)[0]
    for row in table.index[table[key].duplicated() | (table[key] == "")]:
        raise InputError(f"{path}, row {row + 2}: the {key} {table[key][row]!r} is empty or was there before.")
    return table.reindex(columns=_columns(name), fill_value="")


def _media_in(table: "pd.DataFrame", source: Path, folder: Path, deployments: set[str]) -> dict[str, _Media]:
    """Returns the media of a table that has been checked for its columns, by their absolute paths."""
    found: dict[str, _Media] = {}
    columns = ("mediaID", "deploymentID", "timestamp", "filePath")
    if missing := [name for name in columns if name not in table]:
        raise InputError(f"{source}: the table media has no column {missing[0]}.")
    rows = zip(*(table[column] for column in columns), strict=True)
    for row, (media_id, deployment_id, timestamp, filepath) in enumerate(rows):
        place = f"{source}: media, row {row + 2}"
        if deployment_id not in deployments:
            raise InputError(f"{place}: there is no deployment {deployment_id!r}. Give it a row in deployments.")
        key = _key(folder / filepath)
        if key in found:
            raise InputError(f"{place}: the filePath {filepath!r} was there before. Give each clip one row.")
        found[key] = _Media(media_id, deployment_id, _parse_time(timestamp, f"{place}: timestamp"))
    return found


def _key(path: Path) -> str:
    return os.path.abspath(path)


def _parse_time(text: str, place: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise InputError(f"{place} is {text!r}; it must be a time with its zone, as in 2020-05-30T04:57:37+02:00.")
    return time


def _time(time: datetime) -> str:
    """Returns a time as the standard writes it: seconds, and the zone it was given in."""
    text = time.replace(microsecond=0).isoformat()
    return text.replace("+00:00", "Z")


def _mediatype(name: str) -> str:
    suffix = PurePosixPath(name).suffix.lower()
    return f"video/{MEDIATYPES.get(suffix, suffix.lstrip('.') or 'mp4')}"


def _identifier(base: Mapping[str, str], *more: str) -> str:
    """Returns an identifier that is a function of what is observed, by whom and when, and no other observation has."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "\x1f".join([*base.values(), *more])))
