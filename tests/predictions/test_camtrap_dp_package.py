"""Packages in Camtrap DP from tables that people write: what makes one invalid is refused, with its row."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from frictionless import Package, system

from helpers.camtrap_dp import csv_text, deployment, seen, write_descriptor
from helpers.tables import read_csv
from zamba_lcli.callbacks import CamtrapDPObservations, CamtrapDPPackage
from zamba_lcli.data.labels import camtrap_terms as terms
from zamba_lcli.data.listing import VIDEO_SUFFIXES
from zamba_lcli.errors import InputError
from zamba_lcli.predictions.camtrap_dp_package import MEDIATYPES
from zamba_lcli.predictions.formats import PredictedClip, PredictedPart, PredictionRun

PROJECT = {
    "title": "Forest",
    "sampling_design": "opportunistic",
    "capture_method": ["activityDetection"],
    "contributors": [{"title": "A. B."}],
}
CAMERA = {
    "deploymentID": "d1",
    "latitude": "52.1",
    "longitude": "4.3",
    "deploymentStart": "2024-05-01T00:00:00Z",
    "deploymentEnd": "2024-06-01T00:00:00Z",
}
CLIP = {"filePath": "a.mp4", "deploymentID": "d1", "timestamp": "2024-05-02T10:00:00Z"}


def table_text(rows, separator=",") -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return (
        "\n".join([separator.join(names), *(separator.join(row.get(name, "") for name in names) for row in rows)])
        + "\n"
    )


def predicted(name: str) -> PredictedClip:
    part = PredictedPart([0.9, 0.1], [0.0, 1.5], [0, 9])
    return PredictedClip(name, "2024-07-01T00:00:00Z", [0.9, 0.1], [part], 9.0, 1.5, path=Path(name))


def run_of(*names: str) -> PredictionRun:
    return PredictionRun(
        ["deer", "blank"], "multiclass", "a model", False, names, [Path(n) for n in names], Path("out")
    )


def write(deployments, media, names=("a.mp4",), **arguments) -> Path:
    """Writes the tables, if they are not yet there, and the package; returns its folder."""
    for name, rows in (("cameras.csv", deployments), ("times.csv", media)):
        if isinstance(rows, bytes):
            Path(name).write_bytes(rows)
        else:
            Path(name).write_text(rows if isinstance(rows, str) else table_text(rows), newline="")
    made = CamtrapDPPackage(**{"deployments": "cameras.csv", "media": "times.csv", **PROJECT, **arguments})
    run = run_of(*names)
    made.check(run)
    made.write(Path("written"), [predicted(name) for name in names], run)
    check_valid(Path("written"))
    return Path("written")


def check_valid(folder: Path) -> None:
    """Checks tables by frictionless against all terms of the standard."""
    descriptor = json.loads((folder / "datapackage.json").read_text())
    del descriptor["profile"]
    for resource in descriptor["resources"]:
        columns = terms.columns(resource["name"])
        with (folder / resource["path"]).open(newline="") as file:
            assert next(csv.reader(file)) == [column.name for column in columns]
        key = {"fields": "deploymentID", "reference": {"resource": "deployments", "fields": "deploymentID"}}
        resource["schema"] = {
            "fields": [dict(column.descriptor) for column in columns],
            "missingValues": ["", "NA", "NaN", "nan"],
            "primaryKey": columns[0].name,
            "foreignKeys": [] if resource["name"] == "deployments" else [key],
        }
    with system.use_context(trusted=True):
        report = Package.from_descriptor(descriptor, basepath=str(folder)).validate()
    assert report.valid, report.flatten(["rowNumber", "fieldName", "message"])


def error_of(run) -> str:
    with pytest.raises(InputError) as caught:
        run()
    assert not Path("written").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("column", "value", "remedy"),
    [
        ("coordinateUncertainty", "0", "a whole number of 1 or more"),
        ("coordinateUncertainty", "12.5", "a whole number of 1 or more"),
        ("latitude", "91", "a number from -90 to 90"),
        ("latitude", "52° N", "a number from -90 to 90"),
        ("longitude", "-180.5", "a number from -180 to 180"),
        ("cameraTilt", "120", "a whole number from -90 to 90"),
        ("cameraHeading", "400", "a whole number from 0 to 360"),
        ("cameraHeading", "SW", "a whole number from 0 to 360"),
        ("cameraHeight", "-1", "a number of 0 or more"),
        ("cameraDepth", "-0.5", "a number of 0 or more"),
        ("cameraDelay", "1.5", "a whole number of 0 or more"),
        ("detectionDistance", "far", "a number of 0 or more"),
        ("baitUse", "yes", "true or false"),
        ("timestampIssues", "maybe", "true or false"),
        ("featureType", "tree", "one of roadPaved, roadDirt"),
        ("deploymentStart", "2024-05-01T00:00:00", "a time with its zone"),
        ("deploymentEnd", "01/06/2024 00:00", "a time with its zone"),
        ("deploymentEnd", "", "a time with its zone"),
        ("deploymentID", "", "any text"),
        ("deploymentID", "d1", "Give every row its own deploymentID"),
    ],
)
def test_deployments_that_the_standard_does_not_know(folder, column, value, remedy):
    other = {**CAMERA, "deploymentID": "d2", column: value}
    message = error_of(lambda: write([CAMERA, other], [CLIP]))
    assert message.startswith("deployments: 1 problem")
    assert f"cameras.csv, row 3: the {column} " in message
    assert value in message
    assert remedy in message


@pytest.mark.parametrize(
    ("column", "value", "remedy"),
    [
        ("fileMediatype", "mp4", "what the file is, such as video/mp4"),
        ("fileMediatype", "", "what the file is, such as video/mp4"),
        ("filePath", "a..b.mp4", "without two points in a row"),
        ("filePath", "b/../c.mp4", "without two points in a row"),
        ("filePath", "~/b.mp4", "leads downwards"),
        ("filePath", ".b.mp4", "leads downwards"),
        ("filePath", "a.mp4", "Give each clip one row"),
        ("filePublic", "no", "true or false"),
        ("favorite", "x", "true or false"),
        ("captureMethod", "motion", "one of activityDetection, timeLapse"),
        ("timestamp", "2024-05-02 11:00", "a time with its zone"),
        ("timestamp", "2024-06-01T00:00:01Z", "Correct the timestamp"),
        ("timestamp", "2024-05-01T01:00:00+02:00", "timestampIssues"),
        ("deploymentID", "d9", "give the deployment a row"),
        ("mediaID", "m1", "Give every row its own mediaID"),
        ("mediaID", "NA", "any text"),
    ],
)
def test_media_that_the_standard_does_not_know(folder, column, value, remedy):
    known = {"filePublic": "true", "fileMediatype": "video/mp4", "favorite": "", "captureMethod": "", "mediaID": "m1"}
    rows = [{**CLIP, **known}, {**CLIP, **known, "filePath": "b.mp4", "mediaID": "m2", column: value}]
    message = error_of(lambda: write([CAMERA], rows))
    assert message.startswith("media: 1 problem")
    assert "times.csv, row 3: " in message
    assert value.replace("NA", "") in message
    assert remedy in message


def test_all_that_is_wrong_is_told_at_once(folder):
    rows = [{**CAMERA, "cameraTilt": "120", "baitUse": "yes"}, {**CAMERA, "deploymentID": "d2", "cameraHeight": "-1"}]
    message = error_of(lambda: write(rows, [CLIP]))
    assert message.startswith("deployments: 3 problems")
    assert "row 3: the cameraHeight is '-1'" in message


def test_a_deployment_that_ends_before_it_starts(folder):
    turned = {**CAMERA, "deploymentStart": CAMERA["deploymentEnd"], "deploymentEnd": CAMERA["deploymentStart"]}
    message = error_of(lambda: write([turned], [CLIP]))
    assert "cameras.csv, row 2: the deploymentEnd 2024-05-01T00:00:00Z is before the deploymentStart" in message
    assert "Correct the times of the deployment" in message


def test_where_a_clock_was_wrong_clips_may_be_outside_of_their_deployment(folder):
    written = write([{**CAMERA, "timestampIssues": "TRUE"}], [{**CLIP, "timestamp": "2000-01-01T00:00:00Z"}])
    assert read_csv(written / "deployments.csv")[0]["timestampIssues"] == "true"
    assert read_csv(written / "media.csv")[0]["timestamp"] == "2000-01-01T00:00:00Z"


def test_a_name_in_another_case_is_shown(folder):
    message = error_of(lambda: write([CAMERA], [{**CLIP, "filePath": "A.MP4"}]))
    assert "the table media has no row for a.mp4 (but for A.MP4)" in message
    assert "(but" not in error_of(lambda: write([CAMERA], [{**CLIP, "filePath": "b.mp4"}]))


def test_columns_that_lack_or_are_none(folder):
    without = {name: value for name, value in CAMERA.items() if name != "deploymentEnd"}
    assert "deployments: cameras.csv: there is no column 'deploymentEnd'" in error_of(lambda: write([without], [CLIP]))
    message = error_of(lambda: write([CAMERA], [{"FilePath" if k == "filePath" else k: v for k, v in CLIP.items()}]))
    assert "media: times.csv: the column 'FilePath' must be written 'filePath'" in message
    assert "the columns ['camera'] are none of" in error_of(lambda: write([{**CAMERA, "camera": "x"}], [CLIP]))
    assert "cameras.csv" in error_of(lambda: write("", [CLIP]))
    assert "cameras.csv is empty" in error_of(lambda: write(",".join(CAMERA) + "\n", [CLIP]))


@pytest.mark.parametrize(
    "form",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.replace(",", ";").encode(),
        lambda text: text.replace(",", "\t").encode(),
        lambda text: text.replace(",", " ; ").replace("52.1", "52,1").encode(),
        lambda text: text.replace(",", ", ").encode(),
        lambda text: b"sep=;\r\n" + text.replace(",", ";").encode(),
        lambda text: text.replace("\n", "\r").encode("utf-16"),
        lambda text: text.replace("\n", "\r\n").encode() + b",,\r\n\r\n",
    ],
    ids=["byte order mark", "semicolons", "tabs", "decimal commas", "blanks", "sep=", "UTF-16", "blank rows"],
)
def test_tables_are_read_as_labels_are(folder, form):
    written = write(form(table_text([{**CAMERA, "locationName": "Süd"}])), form(table_text([CLIP])))
    (row,) = read_csv(written / "deployments.csv")
    assert (row["latitude"], row["locationName"]) == ("52.1", "Süd")
    assert read_csv(written / "media.csv")[0]["filePath"] == "a.mp4"


def test_values_that_other_programs_write(folder):
    camera = {**CAMERA, "cameraDelay": "12.0", "baitUse": "FALSE", "cameraHeight": "NA", "coordinateUncertainty": "30"}
    clips = [
        {**CLIP, "filePath": "./a.mp4", "filePublic": "1", "timestamp": "2024-05-02 10:00+02:00"},
        {**CLIP, "filePath": "b\\c.mp4", "filePublic": "False"},
    ]
    written = write([camera], clips, names=["a.mp4", "b/c.mp4"])
    (row,) = read_csv(written / "deployments.csv")
    assert [row[name] for name in ("cameraDelay", "baitUse", "cameraHeight", "coordinateUncertainty")] == [
        "12",
        "false",
        "",
        "30",
    ]
    rows = read_csv(written / "media.csv")
    assert [row["filePath"] for row in rows] == [row["mediaID"] for row in rows] == ["a.mp4", "b/c.mp4"]
    assert [row["filePublic"] for row in rows] == ["true", "false"]
    assert [row["fileName"] for row in rows] == ["a.mp4", "c.mp4"]
    assert rows[0]["timestamp"] == "2024-05-02T10:00:00+02:00"


def test_the_media_type_goes_by_the_ending(folder):
    assert set(MEDIATYPES) == VIDEO_SUFFIXES
    names = ["a.MP4", "b.mov", "c.ts"]
    written = write([CAMERA], [{**CLIP, "filePath": name} for name in names], names=names)
    assert [row["fileMediatype"] for row in read_csv(written / "media.csv")] == [
        "video/mp4",
        "video/quicktime",
        "video/mp2t",
    ]


def test_a_file_without_a_known_ending_needs_a_media_type(folder):
    message = error_of(lambda: write([CAMERA], [{**CLIP, "filePath": "clip"}], names=["clip"]))
    assert "times.csv, row 2: the ending of 'clip' does not say what the file is" in message
    written = write([CAMERA], [{**CLIP, "filePath": "clip", "fileMediatype": "video/mp4"}], names=["clip"])
    assert read_csv(written / "media.csv")[0]["fileMediatype"] == "video/mp4"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"title": " "}, ["title"]),
        ({"sampling_design": "random"}, ["sampling_design", "'random'", "simpleRandom"]),
        ({"capture_method": []}, ["capture_method", "activityDetection"]),
        ({"capture_method": ["timeLapse", "timeLapse"]}, ["capture_method", "each once"]),
        ({"capture_method": ["motion"]}, ["capture_method", "motion"]),
        ({"contributors": []}, ["contributors", "at least one"]),
        ({"contributors": [{"title": "A"}, {"email": "a@b.org"}]}, ["contributors", "title"]),
        (
            {"contributors": [{"title": "A", "role": "author"}]},
            ["contributors: 'A'", "'author'", "principalInvestigator"],
        ),
        ({"contributors": [{"title": "A", "email": "none"}]}, ["contributors: 'A'", "'none'", "email"]),
        ({"contributors": [{"title": "A", "email": "a b@c.org"}]}, ["'a b@c.org'"]),
        ({"contributors": [{"title": "A", "path": "../a"}]}, ["contributors: 'A'", "'../a'", "URL"]),
    ],
)
def test_projects_that_the_standard_does_not_know(folder, arguments, parts):
    message = error_of(lambda: write([CAMERA], [CLIP], **arguments))
    for part in parts:
        assert part in message


def test_contributors_with_all_that_they_may_have(folder):
    person = {
        "title": "Zoë Müller",
        "role": "principalInvestigator",
        "email": "z.mueller@uni.example.org",
        "path": "https://orcid.org/0000-0002-1825-0097",
        "organization": "Institute",
    }
    written = write([CAMERA], [CLIP], contributors=[person], capture_method=["timeLapse", "activityDetection"])
    assert json.loads((written / "datapackage.json").read_text())["contributors"] == [person]


@pytest.fixture
def package(folder):
    """A package as an older export writes it: few columns, in its own order, and its own schema."""
    (folder / "package").mkdir()
    media = {**CLIP, "mediaID": "m1", "filePublic": "true", "fileMediatype": "video/mp4"}
    tables = {"deployments": [deployment("d1", **CAMERA)], "media": [media]}
    for name, rows in tables.items():
        (folder / f"package/{name}.csv").write_text(csv_text(name, rows), newline="")
    (folder / "package/observations.csv").write_text(
        csv_text("observations", [{"observationID": "o1", **seen("m1", "Meles meles"), "behavior": "digging"}]),
        newline="",
    )
    write_descriptor(folder / "package")
    return folder / "package"


def add(package: Path, **arguments) -> Path:
    run = PredictionRun(["deer", "blank"], "multiclass", "a model", False, ["a.mp4"], [package / "a.mp4"], Path("out"))
    made = CamtrapDPObservations(str(package), **arguments)
    made.check(run)
    made.write(Path("written"), [replace(predicted("a.mp4"), path=package / "a.mp4")], run)
    return Path("written")


def test_columns_are_written_in_the_order_of_the_schema(package):
    with (add(package) / "observations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == terms.column_names("observations")
    assert [row["observationID"] == "o1" for row in rows] == [True, False]
    assert rows[0]["behavior"] == "digging"


def test_a_schema_within_the_package_gets_the_columns_that_are_added(package):
    names = ["mediaID", "observationID", "own"]
    schema = {"fields": [{"name": name, "type": "string"} for name in names]}
    write_descriptor(package, observations={"schema": schema, "dialect": {"delimiter": ";"}})
    (package / "observations.csv").write_text("mediaID;observationID;own\nm1;o1;x, y\n")
    written = add(package)
    (resource,) = (
        r for r in json.loads((written / "datapackage.json").read_text())["resources"] if r["name"] == "observations"
    )
    with (written / "observations.csv").open(newline="") as file:
        header, first, _ = csv.reader(file)
    assert header[:3] == names
    assert header == [field["name"] for field in resource["schema"]["fields"]]
    assert set(header) == {*terms.column_names("observations"), "own"}
    assert first[:3] == ["m1", "o1", "x, y"]
    assert "dialect" not in resource
    (probability,) = (f for f in resource["schema"]["fields"] if f["name"] == "classificationProbability")
    assert probability["constraints"] == {"minimum": 0, "maximum": 1}


def test_what_was_not_valid_before_is_told_and_left_as_it_is(package, recwarn):
    table = package / "deployments.csv"
    table.write_text(table.read_text().replace("52.1", "152.1"))
    written = add(package)
    assert (written / "deployments.csv").read_bytes() == table.read_bytes()
    told = [str(w.message) for w in recwarn if "is not valid Camtrap DP 1.0.2" in str(w.message)]
    assert len(told) == 1
    assert "deployments.csv, row 2: the latitude is '152.1'" in told[0]


def test_rows_that_do_not_fit_are_told_before_anything_is_predicted(package):
    with (package / "observations.csv").open("a") as file:
        file.write("o2" + ",x" * 40 + "\n")
    run = PredictionRun(["deer"], "multiclass", "a model", False, ["a.mp4"], [package / "a.mp4"], Path("out"))
    message = error_of(lambda: CamtrapDPObservations(str(package)).check(run))
    assert message.startswith("package: 1 problem")
    assert "observations.csv, row 3: 41 values" in message
