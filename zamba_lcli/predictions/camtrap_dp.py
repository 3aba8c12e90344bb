"""Predictions as observations in Camera Trap Data Packages, Camtrap DP 1.0: https://camtrap-dp.tdwg.org."""

import copy
import csv
import json
import os
import shutil
import unicodedata
import uuid
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from math import ceil, floor
from pathlib import Path
from typing import Any, Literal, TypeAlias

from zamba_lcli.data.csv_tables import Problems, Record
from zamba_lcli.data.labels import camtrap_terms as terms
from zamba_lcli.data.labels.camtrap_package import DESCRIPTOR, CamtrapPackage, CamtrapTable
from zamba_lcli.data.labels.camtrap_terms import format_time, read_time
from zamba_lcli.errors import InputError
from zamba_lcli.predictions.formats import (
    BLANK,
    PEOPLE,
    VEHICLES,
    PredictedClip,
    PredictedPart,
    PredictionFormat,
    PredictionRun,
    boxes_of,
    check_thresholds,
    is_called,
)

ObservationType: TypeAlias = Literal["animal", "human", "vehicle", "blank"]
TYPES: dict[ObservationType, tuple[str, ...]] = {"blank": BLANK, "human": PEOPLE, "vehicle": VEHICLES}
COLUMNS = {table: ",".join(terms.column_names(table)) for table in terms.TABLES}  # all must be there
MAX_NAMED = 5  # invalid values of a package, in the log


@dataclass(frozen=True)
class Media:
    """The part of a row of the table media that observations need."""

    media_id: str
    deployment_id: str
    timestamp: datetime  # with its zone, of the start of the clip


@dataclass(frozen=True)
class CamtrapDP(PredictionFormat):
    """Base of the formats in Camtrap DP: the folder ``camtrap_dp`` with a package, to which observations are added.

    Each clip, or each part of it that is predicted by itself, has a media-level observation with the ``classificationMethod``
    ``machine`` for each predicted class, of a multiclass model the most probable one; without a predicted class, it has one of
    the type ``unknown``. Where clips are cropped it has the surest box of the part, with its frame as comment. A clip that
    could not be read has one of the type ``unclassified``, with the reason as comment; so is how much could be read of one
    that is damaged or cut off. The time and the deployment of a clip are those of the table media, never of the file, whose
    clock is often wrong.

    Args:
        threshold: Lowest probability at which a class is predicted: one number, or one for each class by name.
        observation_types: Types of classes. Default: ``blank`` and ``empty`` are blank, ``human`` and ``person`` are human,
            ``vehicle`` is a vehicle, and all others are animals.
        scientific_names: Scientific names of animal classes. Default: the name of the class.
        media_dir: Folder that the filePath of the media is relative to; null for the folder of its table or package.
    """

    _: KW_ONLY
    threshold: float | dict[str, float] = 0.5
    observation_types: dict[str, ObservationType] | None = None
    scientific_names: dict[str, str] | None = None
    media_dir: str | None = None
    filename = "camtrap_dp"

    def check(self, run: PredictionRun) -> None:
        """Refuses clips without a time or deployment, and arguments that would make the package invalid."""
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
        path_of = {n: path for n, path in zip(run.filepaths, run.paths, strict=True) if _key(path) not in media}
        missing = list(path_of)
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            alike = {_alike(path): Path(path).name for path in media}
            of_other_case = [alike[k] for name in missing[:5] if (k := _alike(_key(path_of[name]))) in alike]
            has = f" (but for {', '.join(of_other_case)})" if of_other_case else ""
            raise InputError(
                f"{self._source()}: the table media has no row for {', '.join(missing[:5])}{more}{has}. Give each clip a row "
                "with its filePath, deploymentID and timestamp; filePath is relative to the folder of the table, or to "
                "media_dir."
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
        """Returns the file that lists the media."""

    @abstractmethod
    def _media(self) -> dict[str, Media]:
        """Returns the media by their absolute paths."""

    @abstractmethod
    def _begin(self, folder: Path) -> list[str]:
        """Writes all tables but the observations of this run, and returns the columns of observations."""

    @abstractmethod
    def _descriptor(self, scientific_names: Sequence[str]) -> dict[str, Any]:
        """Returns the datapackage.json."""

    def _refuse_to_lose(self, argument: str, path: Path, run: PredictionRun) -> None:
        """Refuses input in the output folder, which would be replaced."""
        if path.resolve().is_relative_to((run.folder / self.filename).resolve()):
            raise InputError(
                f"{argument}: {path.resolve()} is where the package with the predictions goes, and would be lost. Give "
                "WritePredictions another output_dir, or move it."
            )

    def _observations(self, clip: PredictedClip, media: Media, run: PredictionRun) -> Iterator[dict[str, str]]:
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
            begin = format_time(media.timestamp)
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
                "eventStart": format_time(media.timestamp + timedelta(seconds=floor(start))),
                "eventEnd": format_time(media.timestamp + timedelta(seconds=ceil(end))),
            }
            for name, values in self._predicted(part.probabilities, run):
                box, of_box = ({}, "") if values["observationType"] == "blank" else _box(clip, part)
                comments = [text for text in (values.get("observationComments"), clip.note, of_box) if text]
                yield {
                    **base,
                    **section,
                    "observationID": _identifier(base, str(number), name, *values.values()),
                    **values,
                    **box,
                    **({"observationComments": "; ".join(comments)} if comments else {}),
                }

    def _predicted(self, probabilities: Sequence[float], run: PredictionRun) -> list[tuple[str, dict[str, str]]]:
        """Returns the predicted classes of a part, each with the values of its observation."""
        of = self.threshold if isinstance(self.threshold, dict) else dict.fromkeys(run.class_names, self.threshold)
        ranked = sorted(zip(probabilities, run.class_names, strict=True), key=lambda pair: -pair[0])
        if run.task == "multiclass":
            predicted = [(p, name) for p, name in ranked[:1] if p >= of[name]]
        else:
            predicted = [(p, name) for p, name in ranked if p >= of[name]]
            not_blank = [(p, name) for p, name in predicted if self._type(name) != "blank"]
            predicted = not_blank or predicted[:1]  # a clip of something is not blank
        if not predicted:
            probability, name = ranked[0]
            comment = f"most probable: {name} ({probability:.3f})"
            return [(name, {"observationType": "unknown", "observationComments": comment})]
        observations = []
        for probability, name in predicted:
            kind = self._type(name)
            animal = {"scientificName": (self.scientific_names or {}).get(name, name)} if kind == "animal" else {}
            values = {"observationType": kind, **animal, "classificationProbability": f"{probability:.6f}"}
            observations.append((name, values))
        return observations

    def _type(self, class_name: str) -> str:
        usual = next((kind for kind, names in TYPES.items() if is_called(class_name, names)), "animal")
        return (self.observation_types or {}).get(class_name, usual)


@dataclass(frozen=True)
class CamtrapDPObservations(CamtrapDP):
    """Adds observations to an existing package: the folder ``camtrap_dp`` gets its tables with old and new observations.

    The package itself stays unchanged. If its media are files of the package, copy the content of the folder over it.

    Args:
        package: Folder of the package, or its ``datapackage.json``.
        threshold: See ``CamtrapDP``, as for all the following.
        observation_types: See there.
        scientific_names: See there.
        media_dir: See there.
    """

    package: str

    def check(self, run: PredictionRun) -> None:
        """Refuses an incomplete package, and one in the output folder."""
        self._refuse_to_lose("package", self._source().parent, run)
        self._check_files()
        super().check(run)
        self._warn_of_invalid_values()

    def _source(self) -> Path:
        path = Path(self.package)
        return path / DESCRIPTOR if path.is_dir() else path

    @cached_property
    def _package(self) -> CamtrapPackage:
        source = self._source().absolute()
        if source.suffix.lower() == ".zip":
            raise InputError(f"package: {source} is a zip. Unpack it, and give the folder.")
        return CamtrapPackage(source.parent, source.name, "package")

    def _check_files(self) -> None:
        """Refuses a package with missing files, and tables in several files, which are not joined."""
        for table in terms.TABLES:
            if len(self._package.paths(table)) > 1:
                raise InputError(f"package: {self._package} must name one file for {table} in its resources.")
        for name in self._package.resources:
            for path in self._package.paths(name):
                if not (self._package.folder / path).is_file():
                    raise InputError(f"package: there is no file {self._package.folder / path}. Unpack it whole.")

    def _table(self, name: terms.Table, problems: Problems) -> CamtrapTable:
        return self._package.read_table(name, problems, as_written=True)

    def _warn_of_invalid_values(self) -> None:
        """Warns of values of the package that are invalid in the standard; they are copied."""
        source = self._source()
        found: list[str] = []
        for name in terms.TABLES:
            problems = Problems(source, "package")
            table = self._table(name, problems)
            problems.raise_if_any()
            lacking = [column for column in terms.column_names(name) if column not in table.names]
            if lacking and name != "observations":  # which get all
                found.append(f"{name} without {', '.join(lacking)}")
            terms.check_rows(name, table.rows, problems)
            of_lacking = {f"the {column} is empty" for column in lacking}
            found += [f"{place}: {what}" for place, what, _ in problems.found if what not in of_lacking]
        if found:
            more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
            warnings.warn(
                f"{source} is not valid Camtrap DP {terms.version()}, and neither is the package with the predictions: "
                f"{'; '.join(found[:MAX_NAMED])}{more}.",
                stacklevel=2,
            )

    def _media(self) -> dict[str, Media]:
        folder = self._source().parent if self.media_dir is None else Path(self.media_dir)
        problems = Problems(self._source(), "package")
        deployments, media = self._table("deployments", problems), self._table("media", problems)
        for name, needed, table in (
            ("deployments", ["deploymentID"], deployments),
            ("media", ["mediaID", "deploymentID", "timestamp", "filePath"], media),
        ):
            if lacking := [column for column in needed if column not in table.names]:
                raise InputError(f"package: {self._source()}: the table {name} has no column {lacking[0]}.")
        known = {record["deploymentID"]: None for _, record in deployments.rows}
        found = media_in(media.rows, folder, known, problems)
        problems.raise_if_any()
        return found

    def _begin(self, folder: Path) -> list[str]:
        for name in self._package.resources:
            for path in self._package.paths(name) if name != "observations" else ():
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._source().parent / path, target)
        problems = Problems(self._source(), "package")
        table = self._table("observations", problems)
        problems.raise_if_any()
        columns = self._observation_columns(table.names)
        write_table(folder / "observations.csv", columns, (record for _, record in table.rows))
        return columns

    def _observation_columns(self, names: Sequence[str]) -> list[str]:
        """Returns the columns of the package and of the standard, in the order of the schema."""
        standard = terms.column_names("observations")
        if isinstance(self._package.resources["observations"].get("schema"), dict):
            return [*names, *(name for name in standard if name not in names)]
        return [*standard, *(name for name in names if name not in standard)]

    def _descriptor(self, scientific_names: Sequence[str]) -> dict[str, Any]:
        resources = copy.deepcopy(self._package.resources)
        package = {**self._package.descriptor, "resources": list(resources.values())}
        resource = resources["observations"]
        for key in ("dialect", "encoding", "bytes", "hash"):  # of the file as it was
            resource.pop(key, None)
        resource["path"] = "observations.csv"
        if isinstance(schema := resource.get("schema"), dict):  # else it is the URL of the standard's
            fields = schema.get("fields") or []
            described = {field.get("name") for field in fields}
            added = [dict(c.descriptor) for c in terms.columns("observations") if c.name not in described]
            resource["schema"] = {**schema, "fields": [*fields, *added]}
        listed = package.get("taxonomic") or []
        known = {taxon.get("scientificName") for taxon in listed}
        package["taxonomic"] = [*listed, *({"scientificName": name} for name in scientific_names if name not in known)]
        project = package.get("project")
        if isinstance(project, dict) and "media" not in (levels := project.get("observationLevel") or []):
            package["project"] = {**project, "observationLevel": [*levels, "media"]}
        package["created"] = format_time(datetime.now(UTC))
        return package


def _box(clip: PredictedClip, part: PredictedPart) -> tuple[dict[str, str], str]:
    """Returns the surest box in a part of a clip, and as a comment its frame, for which the standard has no column."""
    visible = [box for box in boxes_of(clip, part) if min(box[3:5]) > 0]
    if not visible:
        return {}, ""
    frame, x, y, width, height, _ = max(visible, key=lambda box: box[5])
    numbers = {"bboxX": x, "bboxY": y, "bboxWidth": min(width, 1 - x), "bboxHeight": min(height, 1 - y)}
    time = f", {frame / clip.frame_rate:.2f} s" if clip.frame_rate else ""
    return {name: f"{value:.6f}" for name, value in numbers.items()}, f"box: frame {int(frame)}{time}"


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    """Writes a table as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(rows)


def media_in(
    rows: Iterable[Record], folder: Path, deployments: Mapping[str, Any], problems: Problems
) -> dict[str, Media]:
    """Returns the media by their absolute paths.

    Args:
        rows: The table media.
        folder: Folder that filePath is relative to.
        deployments: The deployments by deploymentID.
        problems: Collects media without a deployment or time, and duplicates.
    """
    found: dict[str, Media] = {}
    for place, record in rows:
        deployment, filepath = record.get("deploymentID", ""), record.get("filePath", "")
        if deployment not in deployments:
            remedy = "Correct the deploymentID, or give the deployment a row in deployments."
            problems.add(place, f"there is no deployment with the deploymentID {deployment!r}", remedy)
        time = read_time("timestamp", record.get("timestamp", ""), place, problems)
        if time is None:
            continue
        key = _key(folder / filepath)
        if key in found:
            problems.add(place, f"the filePath {filepath!r} was there before", "Give each clip one row.")
        found[key] = Media(record.get("mediaID", ""), deployment, time)
    return found


def _key(path: Path) -> str:
    return os.path.abspath(path)


def _alike(path: str) -> str:
    """Returns a path without the differences of case and of Unicode composition."""
    return unicodedata.normalize("NFC", path).casefold()


def _identifier(base: Mapping[str, str], *more: str) -> str:
    """Returns the identifier of an observation, a function of its values."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "\x1f".join([*base.values(), *more])))
