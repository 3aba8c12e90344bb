"""Predictions as observations in Camera Trap Data Packages, Camtrap DP 1.0: https://camtrap-dp.tdwg.org."""

import copy
import csv
import json
import os
import shutil
import unicodedata
import uuid
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from math import ceil, floor
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pytorch_lightning.utilities import rank_zero_warn

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
    PredictionFormat,
    PredictionRun,
    check_thresholds,
    is_called,
)

ObservationType: TypeAlias = Literal["animal", "human", "vehicle", "blank"]
TYPES: dict[ObservationType, tuple[str, ...]] = {"blank": BLANK, "human": PEOPLE, "vehicle": VEHICLES}
COLUMNS = {table: ",".join(terms.column_names(table)) for table in terms.TABLES}  # all must be there
MAX_TOLD = 5  # values of a package that the standard does not know, named in the log


@dataclass(frozen=True)
class Media:
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
        """Returns the file that says which media there are."""

    @abstractmethod
    def _media(self) -> dict[str, Media]:
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
        self._check_files()
        super().check(run)
        self._tell_unknown_values()

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
        """Refuses a package of which a file is missing, and tables in several files, which are not put together."""
        for table in terms.TABLES:
            if len(self._package.paths(table)) > 1:
                raise InputError(f"package: {self._package} must name one file for {table} in its resources.")
        for name in self._package.resources:
            for path in self._package.paths(name):
                if not (self._package.folder / path).is_file():
                    raise InputError(f"package: there is no file {self._package.folder / path}. Unpack it whole.")

    def _table(self, name: terms.Table, problems: Problems) -> CamtrapTable:
        return self._package.read_table(name, problems, as_written=True)

    def _tell_unknown_values(self) -> None:
        """Says in the log what the standard does not know in the package: it was there before, and is passed on."""
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
            more = f" and {len(found) - MAX_TOLD} more" if len(found) > MAX_TOLD else ""
            rank_zero_warn(
                f"{source} is not valid Camtrap DP {terms.version()}, and what is added to it does not mend that: "
                f"{'; '.join(found[:MAX_TOLD])}{more}."
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
        """Returns the columns written: those of the package and of the standard, in the order that the schema wants."""
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
        if isinstance(schema := resource.get("schema"), dict):  # else it is the standard's, by its address
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


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    """Writes a table with these columns."""
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
        folder: What its filePaths are relative to.
        deployments: The deployments by deploymentID.
        problems: Gets media without a deployment or a time, and those that were there before.
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
    """Returns what is the same for paths that look the same but for their case."""
    return unicodedata.normalize("NFC", path).casefold()


def _identifier(base: Mapping[str, str], *more: str) -> str:
    """Returns an identifier that is a function of what is observed, by whom and when, and no other observation has."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "\x1f".join([*base.values(), *more])))
