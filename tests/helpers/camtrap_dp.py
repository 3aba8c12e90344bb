"""Packages in Camtrap DP 1.0. Those that are meant to be right are checked by frictionless against the standard's tables."""

import csv
import io
import json
from pathlib import Path

import pytest
from frictionless import Package, system

from zamba_lcli.data.labels.table import read_labels
from zamba_lcli.errors import InputError

REQUIRED = {"required": True}
TIME = {"type": "datetime", "format": "%Y-%m-%dT%H:%M:%S%z"}
DEPLOYMENT_KEY = {"fields": "deploymentID", "reference": {"resource": "deployments", "fields": "deploymentID"}}
TABLES = {  # of https://camtrap-dp.tdwg.org/data, without the columns that are not looked at
    "deployments": {
        "fields": [
            {"name": "deploymentID", "type": "string", "constraints": {**REQUIRED, "unique": True}},
            {"name": "locationID", "type": "string"},
            {"name": "locationName", "type": "string"},
            {"name": "latitude", "type": "number", "constraints": {**REQUIRED, "minimum": -90, "maximum": 90}},
            {"name": "longitude", "type": "number", "constraints": {**REQUIRED, "minimum": -180, "maximum": 180}},
            {"name": "deploymentStart", **TIME, "constraints": REQUIRED},
            {"name": "deploymentEnd", **TIME, "constraints": REQUIRED},
        ],
        "primaryKey": "deploymentID",
    },
    "media": {
        "fields": [
            {"name": "mediaID", "type": "string", "constraints": {**REQUIRED, "unique": True}},
            {"name": "deploymentID", "type": "string", "constraints": REQUIRED},
            {"name": "timestamp", **TIME, "constraints": REQUIRED},
            {
                "name": "filePath",
                "type": "string",
                "constraints": {**REQUIRED, "pattern": r"^(?=^[^./~])(^((?!\.{2}).)*$).*$"},
            },
            {"name": "filePublic", "type": "boolean", "constraints": REQUIRED},
            {"name": "eventID", "type": "string"},
            {
                "name": "fileMediatype",
                "type": "string",
                "constraints": {**REQUIRED, "pattern": "^(image|video|audio)/.*$"},
            },
        ],
        "primaryKey": "mediaID",
        "foreignKeys": [DEPLOYMENT_KEY],
    },
    "observations": {
        "fields": [
            {"name": "observationID", "type": "string", "constraints": {**REQUIRED, "unique": True}},
            {"name": "deploymentID", "type": "string", "constraints": REQUIRED},
            {"name": "mediaID", "type": "string"},
            {"name": "eventID", "type": "string"},
            {"name": "eventStart", **TIME, "constraints": REQUIRED},
            {"name": "eventEnd", **TIME, "constraints": REQUIRED},
            {"name": "observationLevel", "type": "string", "constraints": {**REQUIRED, "enum": ["media", "event"]}},
            {
                "name": "observationType",
                "type": "string",
                "constraints": {
                    **REQUIRED,
                    "enum": ["animal", "human", "vehicle", "blank", "unknown", "unclassified"],
                },
            },
            {"name": "scientificName", "type": "string"},
            {"name": "count", "type": "integer", "constraints": {"minimum": 1}},
            {"name": "behavior", "type": "string"},
            {"name": "classificationMethod", "type": "string", "constraints": {"enum": ["human", "machine"]}},
            {"name": "classifiedBy", "type": "string"},
            {
                "name": "classificationProbability",
                "type": "number",
                "constraints": {"minimum": 0, "maximum": 1},
            },
        ],
        "primaryKey": "observationID",
        "foreignKeys": [
            DEPLOYMENT_KEY,
            {"fields": "mediaID", "reference": {"resource": "media", "fields": "mediaID"}},
        ],
    },
}
MISSING_VALUES = ["", "NA", "NaN", "nan"]


def deployment(name: str, **values) -> dict[str, str]:
    times = {"deploymentStart": "2020-05-01T00:00:00Z", "deploymentEnd": "2020-06-01T00:00:00Z"}
    return {"deploymentID": name, "latitude": "50.7", "longitude": "4.01", **times, **values}


def clip(name: str, deployment: str = "d1", at: str = "12:00:00Z", **values) -> dict[str, str]:
    return {
        "mediaID": name,
        "deploymentID": deployment,
        "timestamp": f"2020-05-30T{at}",
        "filePath": f"{deployment}/{name}.mp4",
        "filePublic": "true",
        "fileMediatype": "video/mp4",
        **values,
    }


def seen(media: str, what: str, deployment: str = "d1", **values) -> dict[str, str]:
    """A media-level observation of an animal, or of another type."""
    return observation(what, deployment, mediaID=media, observationLevel="media", **values)


def machine(name: str = "a model", probability: str = "0.31") -> dict[str, str]:
    """What tells that an observation is a machine's."""
    return {"classificationMethod": "machine", "classifiedBy": name, "classificationProbability": probability}


def event(what: str, start: str, end: str, deployment: str = "d1", **values) -> dict[str, str]:
    """An event-level observation of an animal, or of another type."""
    times = {"eventStart": f"2020-05-30T{start}", "eventEnd": f"2020-05-30T{end}"}
    return observation(what, deployment, observationLevel="event", **times, **values)


def observation(what: str, deployment: str, **values) -> dict[str, str]:
    types = TABLES["observations"]["fields"][7]["constraints"]["enum"]
    of_type = {"observationType": what} if what in types else {"observationType": "animal", "scientificName": what}
    times = {"eventStart": "2020-05-30T12:00:00Z", "eventEnd": "2020-05-30T12:00:10Z"}
    return {"deploymentID": deployment, **times, **of_type, **values}


def csv_text(table: str, rows, delimiter: str = ",", header: bool = True) -> str:
    names = [field["name"] for field in TABLES[table]["fields"]]
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, names, delimiter=delimiter)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def write_descriptor(folder: Path, **resources) -> None:
    """Writes datapackage.json; what is not usual of a table's resource is given."""
    base = "https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0.2"
    package = {
        "profile": f"{base}/camtrap-dp-profile.json",
        "resources": [
            {
                "name": name,
                "path": f"{name}.csv",
                "profile": "tabular-data-resource",
                "schema": f"{base}/{name}-table-schema.json",
                **resources.get(name, {}),
            }
            for name in TABLES
        ],
    }
    (folder / "datapackage.json").write_text(json.dumps(package, indent=1))


def check_valid(folder: Path) -> None:
    package = json.loads((folder / "datapackage.json").read_text())
    del package["profile"]  # it and the schemas would be fetched
    for resource in package["resources"]:
        resource["schema"] = TABLES[resource["name"]] | {"missingValues": MISSING_VALUES}
    with system.use_context(trusted=True):
        report = Package.from_descriptor(package, basepath=str(folder)).validate()
    assert report.valid, report.flatten(["rowNumber", "fieldName", "message"])


def labels_of(source, **arguments) -> dict[str, tuple[str, ...]]:
    """Labels by filepath; all clips go to one split, so that a few will do."""
    read = read_labels(source, split_proportions={"train": 1}, **arguments)
    return {clip.filepath: clip.labels for clip in read.clips}


def error_of(source, **arguments) -> str:
    with pytest.raises(InputError) as caught:
        labels_of(source, **arguments)
    return str(caught.value)
