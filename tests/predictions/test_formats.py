"""What predictions are written as, each format checked by its own validator or reader."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from frictionless import Package, system
from megadetector.postprocessing.validate_batch_results import validate_batch_results

from helpers.camtrap_dp import TABLES, check_valid, csv_text, deployment, seen, write_descriptor
from helpers.readme import YAMLS
from helpers.tables import read_csv
from helpers.video_files import cut, noise, write_video
from zamba_lcli.cli import main
from zamba_lcli.data import DemoClips
from zamba_lcli.data.labels.table import read_labels
from zamba_lcli.predictions import (
    CamtrapDPObservations,
    CSVPredictions,
    HTMLReport,
    MegaDetectorJSON,
    PredictedClip,
    PredictedPart,
    PredictionRun,
)
from zamba_lcli.predictions.camtrap_dp import COLUMNS

NAMES = DemoClips.class_names
FORMATS = "zamba_lcli.callbacks"


@pytest.fixture
def videos(clips, folder):
    """A folder of three clips, one of them in a subfolder, and a file that is no clip."""
    good = sorted(path for path in clips.iterdir() if path.suffix == ".mp4")[:3]
    (folder / "videos/b").mkdir(parents=True)
    for path, name in zip(good, ("a.mp4", "b/c.mp4", "d.MP4"), strict=True):
        shutil.copy(path, folder / "videos" / name)
    (folder / "videos/broken.avi").write_text("no video")
    return folder / "videos"


@pytest.fixture
def write(fitted, folder):
    """Predicts with the given formats, each a class name and its arguments, and returns the output folder."""

    def run(videos, *formats, args=(), **common):
        listed = [{"class_path": f"{FORMATS}.{name}", "init_args": more} for name, more in formats]
        writer = {"output_dir": "out", "formats": listed, **common}
        callbacks = [{"class_path": "WritePredictions", "init_args": writer}]
        (folder / "out.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks, "accelerator": "cpu"}}))
        checkpoint = str(fitted / "checkpoints/last.ckpt")
        main(["predict", "--config", "out.yaml", "--ckpt_path", checkpoint, "--data.videos", str(videos), *args])
        return folder / "out"

    return run


THREE_PARTS = (
    "--data.sampling=SeveralClips",
    "--data.sampling.num_clips=3",
    "--data.sampling.num_frames=8",
    "--data.sampling.fps=8",
)


def test_rows_say_how_much_of_a_cut_clip_was_read(folder, write, capfd):
    (folder / "some").mkdir()
    write_video(folder / "some/a.mp4", noise(60))
    cut(write_video(folder / "some/b.mp4", noise(90)), 0.8)
    cut(write_video(folder / "some/c.mp4", noise(90)), 0.3)
    names = ("CSVPredictions", "ParquetPredictions", "ClipTimelines", "MegaDetectorJSON", "HTMLReport")
    out = write(folder / "some", *((name, {}) for name in names))
    rows = read_csv(out / "predictions.csv")
    notes = [row["note"] for row in rows]
    assert [(row["status"], row["note"][:13]) for row in rows] == [("ok", ""), ("ok", "cut off: only"), ("failed", "")]
    assert rows[2]["error"].startswith("cut off: only")
    assert "2 clips predicted, 1 only in part, 1 failed" in capfd.readouterr().out
    assert list(pd.read_parquet(out / "predictions.parquet")["note"].fillna("")) == notes
    assert [row["note"] for row in read_csv(out / "timelines.csv")] == notes
    images = json.loads((out / "megadetector.json").read_text())["images"]
    assert [image.get("note", "") for image in images] == notes
    assert notes[1] in (out / "report.html").read_text()


def test_several_formats_at_once_hold_the_same(videos, write):
    out = write(
        videos,
        ("CSVPredictions", {"threshold": 0.3}),
        ("ParquetPredictions", {"threshold": dict.fromkeys(NAMES, 0.3)}),
        ("ClipTimelines", {}),
        ("MegaDetectorJSON", {}),
    )
    assert {path.name for path in out.iterdir()} == {
        "predictions.csv", "predictions.parquet", "timelines.csv", "megadetector.json",
    }  # fmt: skip
    rows, table = read_csv(out / "predictions.csv"), pd.read_parquet(out / "predictions.parquet")
    has = [f"has_{name}" for name in NAMES]
    assert list(rows[0]) == list(table) == ["filepath", *NAMES, *has, "top_class", "status", "error", "note"]
    assert [row["filepath"] for row in rows] == list(table["filepath"]) == ["a.mp4", "b/c.mp4", "broken.avi", "d.MP4"]
    for row, (_, record) in zip(rows, table.iterrows(), strict=True):
        if row["status"] == "failed":
            assert record["status"] == "failed"
            assert record["error"] == row["error"] != ""
            assert record[[*NAMES, *has, "top_class"]].isna().all()
            assert all(row[name] == "" for name in (*NAMES, *has, "top_class"))
            continue
        probabilities = np.array([float(row[name]) for name in NAMES])
        assert record[list(NAMES)].to_numpy(float) == pytest.approx(probabilities, rel=1e-5)
        assert [int(row[name]) for name in has] == list(record[has]) == list((probabilities >= 0.3).astype(int))
        assert row["top_class"] == record["top_class"] == NAMES[probabilities.argmax()]
        assert row["error"] == ""
        assert record["error"] is None or pd.isna(record["error"])


def test_threshold_must_fit_the_classes(videos, write, refused):
    refused(lambda: write(videos, ("CSVPredictions", {"threshold": 1.5})), "threshold", "1.5")
    refused(lambda: write(videos, ("ParquetPredictions", {"threshold": {"deer": 0.5}})), "deer", "blank")


def test_time_lines_have_a_row_for_each_part(videos, write):
    out = write(videos, ("ClipTimelines", {}), ("CSVPredictions", {}), args=THREE_PARTS)
    rows = read_csv(out / "timelines.csv")
    whole = {row["filepath"]: row for row in read_csv(out / "predictions.csv")}
    assert [(row["filepath"], row["part"]) for row in rows] == [
        (name, part) for name in ("a.mp4", "b/c.mp4") for part in "012"
    ] + [("broken.avi", "")] + [("d.MP4", part) for part in "012"]
    for name in ("a.mp4", "b/c.mp4", "d.MP4"):
        parts = [row for row in rows if row["filepath"] == name]
        starts = [float(row["start"]) for row in parts]
        assert starts == sorted(starts)
        assert starts[0] < starts[2]
        assert all(float(row["start"]) < float(row["end"]) for row in parts)
        # the clip's logits are the mean of its parts'
        logits = np.log([[float(row[n]) for n in NAMES] for row in parts])
        mean = torch.softmax(torch.tensor((logits - logits.mean(axis=1, keepdims=True)).mean(axis=0)), dim=0)
        assert [float(whole[name][n]) for n in NAMES] == pytest.approx(mean.tolist(), abs=1e-4)
    assert rows[6]["status"] == "failed"


@pytest.mark.parametrize("args", [(), THREE_PARTS], ids=["whole clips", "parts"])
def test_megadetectors_own_validator_accepts_its_format(videos, write, args):
    out = write(videos, ("MegaDetectorJSON", {}), ("CSVPredictions", {}), args=args)
    result = validate_batch_results(str(out / "megadetector.json"))["validation_results"]
    assert result["errors"] == result["warnings"] == []
    found = json.loads((out / "megadetector.json").read_text())
    assert found["info"]["format_version"] == "1.6"
    classes = found["classification_categories"]
    rows = {row["filepath"]: row for row in read_csv(out / "predictions.csv")}
    assert [image["file"] for image in found["images"]] == list(rows)
    for image in found["images"]:
        row = rows[image["file"]]
        if row["status"] == "failed":
            assert image["failure"] == row["error"]
            assert image["detections"] is None
            continue
        assert image["frame_rate"] == pytest.approx(10, rel=0.3)
        assert len(image["frames_processed"]) >= 8
        assert "failure" not in image
        if not args:
            expected = [] if row["top_class"] == "blank" else [row["top_class"]]
            assert [classes[d["classifications"][0][0]] for d in image["detections"]] == expected
            for detection in image["detections"]:
                assert detection["frame_number"] in image["frames_processed"]
                assert detection["conf"] == pytest.approx(float(row[row["top_class"]]), rel=1e-5)
                scores = {classes[number]: score for number, score in detection["classifications"]}
                assert [scores[name] for name in NAMES] == pytest.approx([float(row[n]) for n in NAMES], rel=1e-5)
                assert sorted(scores.values(), reverse=True) == list(scores.values())
    not_blank = [d for image in found["images"] for d in image["detections"] or []]
    assert all(detection["category"] == "1" for detection in not_blank)


def test_people_and_vehicles_have_their_categories(videos, write):
    arguments = {"blank": [], "people": [NAMES[0], NAMES[1]], "vehicles": [NAMES[2], NAMES[3]]}
    out = write(videos, ("MegaDetectorJSON", arguments))
    images = json.loads((out / "megadetector.json").read_text())["images"]
    for detection in (d for image in images for d in image["detections"] or []):
        best = NAMES[int(detection["classifications"][0][0])]
        assert detection["category"] == ("2" if best in arguments["people"] else "3")
    assert sum(len(image["detections"] or []) for image in images) == 3  # without a class for blank each has one


@pytest.mark.parametrize(
    ("place", "written", "data_dir", "expected"),
    [
        (".", "{videos}/{name}", None, ["a.mp4", "b/c.mp4"]),  # absolute: the folder that all share
        ("tables", "{name}", "videos", ["a.mp4", "b/c.mp4"]),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (".", "videos/{name}", None, ["videos/a.mp4", "videos/b/c.mp4"]),  # the table's folder
                ("tables", "{videos}/{name}", ".", ["videos/a.mp4", "videos/b/c.mp4"]),
                ("tables", "../videos/{name}", None, ["a.mp4", "b/c.mp4"]),
                (".", "./videos/../videos/{name}", None, ["videos/a.mp4", "videos/b/c.mp4"]),
            )
        ),
    ],
)
def test_files_are_relative_for_other_programs(videos, write, folder, place, written, data_dir, expected):
    (folder / place).mkdir(exist_ok=True)
    names = [written.format(videos=videos, name=name) for name in ("a.mp4", "b/c.mp4")]
    (folder / place / "list.csv").write_text("\n".join(["filepath", *names, ""]))
    args = ["--data.allow_outside_data_dir=true"] if data_dir is None else [f"--data.data_dir={data_dir}"]
    out = write(Path(place) / "list.csv", ("MegaDetectorJSON", {}), args=args)
    assert [image["file"] for image in json.loads((out / "megadetector.json").read_text())["images"]] == expected


def test_the_file_of_a_single_clip_is_its_name(videos, write):
    out = write(videos / "b/c.mp4", ("MegaDetectorJSON", {}))
    assert [image["file"] for image in json.loads((out / "megadetector.json").read_text())["images"]] == ["c.mp4"]


ODD_NAMES = ["=1+1.mp4", "+1.mp4", "-2.mp4", "@sum(a).mp4", "\tx.mp4", "Übersicht é.mp4", "a=b.mp4", 'a,b"c.mp4']


@pytest.mark.parametrize("for_excel", [False, True])
def test_a_table_for_spreadsheets(folder, for_excel):
    clips = [
        PredictedClip(name, "", [0.25, 0.75], path=Path(name), site="-site" if i else "")
        for i, name in enumerate(ODD_NAMES)
    ]
    clips.append(PredictedClip("bad.mp4", "", error="@ the end", path=Path("bad.mp4"), site=""))
    run = PredictionRun(["=deer", "blank"], "multiclass", "a model", True, ODD_NAMES, [], folder)
    csv_format = CSVPredictions(threshold=0.5, for_excel=for_excel)
    csv_format.check(run)
    csv_format.write(folder / "p.csv", clips, run)
    assert (folder / "p.csv").read_bytes().startswith(b"\xef\xbb\xbf") == for_excel
    with (folder / "p.csv").open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file)
    mark = "'" if for_excel else ""
    assert header[:4] == ["filepath", "site", f"{mark}=deer", "blank"]
    expected = [*(mark + name for name in ODD_NAMES[:5]), *ODD_NAMES[5:], "bad.mp4"]
    assert [row[0] for row in rows] == expected
    assert rows[1][1:] == [f"{mark}-site", "0.25", "0.75", "0", "1", "blank", "ok", "", ""]
    assert rows[-1][-2] == f"{mark}@ the end"


FILES = {"a.mp4": "d1", "b/c.mp4": "d2", "d.MP4": "d2", "broken.avi": "d1"}


def media(filepath):
    times = {"a.mp4": "12:00:00+02:00", "b/c.mp4": "13:30:05Z", "d.MP4": "23:59:58Z", "broken.avi": "01:00:00Z"}
    return {
        "mediaID": f"m-{filepath}",
        "deploymentID": FILES[filepath],
        "timestamp": f"2020-05-30T{times[filepath]}",
        "filePath": filepath,
        "filePublic": "true",
        "fileMediatype": "video/mp4" if filepath != "broken.avi" else "video/x-msvideo",
    }


@pytest.fixture
def package(videos):
    """The clips as a package in Camtrap DP, with an observation by a human."""
    tables = {
        "deployments": [deployment("d1"), deployment("d2", latitude="-1.5", longitude="30.25")],
        "media": [media(name) for name in FILES],
        "observations": [{"observationID": "o1", **seen("m-a.mp4", "Meles meles")}],
    }
    for name, rows in tables.items():
        (videos / f"{name}.csv").write_text(csv_text(name, rows), newline="")
    write_descriptor(videos)
    path = videos / "datapackage.json"
    project = {"title": "t", "samplingDesign": "targeted", "captureMethod": ["timeLapse"], "individualAnimals": False}
    more = {
        "created": "2020-06-01T00:00:00Z", "contributors": [{"title": "A"}], "spatial": {"type": "Point"},
        "project": {**project, "observationLevel": ["event"]}, "temporal": {"start": "2020-05-01", "end": "2020-06-01"},
        "taxonomic": [{"scientificName": "Meles meles", "vernacularNames": {"eng": "badger"}}],
    }  # fmt: skip
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    check_valid(videos)
    return videos


def check_complete(folder):
    """Checks a package by frictionless, with all the standard's columns in its order and the rules of the tables."""
    descriptor = json.loads((folder / "datapackage.json").read_text())
    for key in ("profile", "created", "contributors", "project", "spatial", "temporal", "taxonomic"):
        assert descriptor[key], key
    assert descriptor["profile"].endswith("/camtrap-dp-profile.json")
    assert "media" in descriptor["project"]["observationLevel"]
    del descriptor["profile"]
    for resource in descriptor["resources"]:
        known = {field["name"]: field for field in TABLES[resource["name"]]["fields"]}
        known |= {
            "classificationTimestamp": {"type": "datetime", "format": "%Y-%m-%dT%H:%M:%S%z"},
            "classificationProbability": {"type": "number", "constraints": {"minimum": 0, "maximum": 1}},
            "classificationMethod": {"type": "string", "constraints": {"enum": ["human", "machine"]}},
            "captureMethod": {"type": "string", "constraints": {"enum": ["activityDetection", "timeLapse"]}},
            "favorite": {"type": "boolean"},
            "count": {"type": "integer", "constraints": {"minimum": 1}},
            **{
                f"bbox{name}": {"type": "number", "constraints": {"minimum": 0, "maximum": 1}}
                for name in ("X", "Y", "Width", "Height")
            },
            "sex": {"type": "string", "constraints": {"enum": ["female", "male"]}},
            "lifeStage": {"type": "string", "constraints": {"enum": ["adult", "subadult", "juvenile"]}},
            "coordinateUncertainty": {"type": "integer", "constraints": {"minimum": 1}},
            "timestampIssues": {"type": "boolean"},
            "baitUse": {"type": "boolean"},
        }
        with (folder / resource["path"]).open(newline="") as file:
            columns = next(csv.reader(file))
        fields = [{"type": "string", **known.get(name, {}), "name": name} for name in columns]
        resource["schema"] = {**TABLES[resource["name"]], "fields": fields, "missingValues": ["", "NA", "NaN", "nan"]}
    with system.use_context(trusted=True):
        report = Package.from_descriptor(descriptor, basepath=str(folder)).validate()
    assert report.valid, report.flatten(["rowNumber", "fieldName", "message"])


def check_observations(rows, predictions, threshold=0.5):
    """Checks the machine's observations against predictions.csv."""
    of_media = {row["mediaID"]: row for row in rows if row["classificationMethod"] != "human"}
    assert set(of_media) == {f"m-{name}" for name in FILES}
    assert len({row["observationID"] for row in rows}) == len(rows)
    for row in predictions:
        observation = of_media[f"m-{row['filepath']}"]
        assert observation["observationLevel"] == "media"
        assert observation["deploymentID"] == FILES[row["filepath"]]
        if row["status"] == "failed":
            assert observation["observationType"] == "unclassified"
            assert row["error"] in observation["observationComments"]
            assert observation["classificationMethod"] == ""
            continue
        assert observation["classificationMethod"] == "machine"
        assert "last.ckpt" in observation["classifiedBy"]
        best = float(row[row["top_class"]])
        if best < threshold:
            assert observation["observationType"] == "unknown"
        else:
            assert observation["observationType"] == ("blank" if row["top_class"] == "blank" else "animal")
            assert float(observation["classificationProbability"]) == pytest.approx(best, abs=1e-6)


def test_observations_are_added_to_a_package(package, write):
    before = {path: path.read_bytes() for path in package.iterdir() if path.is_file()}
    names = {name: f"Genus {name}" for name in NAMES if name != "blank"}
    arguments = {"package": str(package), "scientific_names": names, "threshold": 0.2}
    out = write(package, ("CSVPredictions", {}), ("CamtrapDPObservations", arguments))
    assert {path: path.read_bytes() for path in before} == before  # it is left as it was
    check_complete(out / "camtrap_dp")
    for name in ("deployments.csv", "media.csv"):
        assert (out / "camtrap_dp" / name).read_bytes() == (package / name).read_bytes()
    rows = read_csv(out / "camtrap_dp/observations.csv")
    assert rows[0]["observationID"] == "o1"
    assert rows[0]["scientificName"] == "Meles meles"
    predictions = read_csv(out / "predictions.csv")
    check_observations([{**rows[0], "classificationMethod": "human"}, *rows[1:]], predictions, threshold=0.2)
    animals = {row["scientificName"] for row in rows[1:] if row["observationType"] == "animal"}
    assert animals <= set(names.values())
    taxa = json.loads((out / "camtrap_dp/datapackage.json").read_text())["taxonomic"]
    assert {taxon["scientificName"] for taxon in taxa} == {"Meles meles", *animals}
    times = {row["mediaID"]: (row["eventStart"], row["eventEnd"]) for row in rows[1:]}
    assert times["m-a.mp4"] == ("2020-05-30T12:00:00+02:00", "2020-05-30T12:00:04+02:00")  # its zone is kept
    assert times["m-d.MP4"] == ("2020-05-30T23:59:58Z", "2020-05-31T00:00:02Z")


def test_all_formats_at_once_as_the_readme_shows(package, fitted, folder):
    (block,) = (block for block in YAMLS if "CamtrapDPObservations" in block)
    (folder / "formats.yaml").write_text(block)
    package.rename(folder / "camtrap_package")
    arguments = ["--ckpt_path", str(fitted / "checkpoints/last.ckpt"), "--data.videos", "camtrap_package"]
    main(["predict", "--config", "formats.yaml", *arguments, "--trainer.accelerator=cpu"])
    written = {path.name for path in (folder / "out").iterdir()}
    named = {
        "predictions.csv",
        "predictions.parquet",
        "megadetector.json",
        "timelines.csv",
        "camtrap_dp",
        "report.html",
    }
    assert written >= named
    check_complete(folder / "out/camtrap_dp")


def with_clips(package, videos):
    """Puts the clips into a package that was written, and returns it."""
    for name in FILES:
        target = package / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(videos / name, target)
    return package


def test_what_was_added_is_no_label(package, write, folder):
    """The way back: of a package with our observations those of people are the labels."""
    out = write(package, ("CamtrapDPObservations", {"package": str(package), "threshold": 0.0}))
    written = with_clips(out / "camtrap_dp", package)
    one = {"split_proportions": {"train": 1}}
    assert {clip.filepath: clip.labels for clip in read_labels(written, **one).clips} == {"a.mp4": ("Meles meles",)}
    everything = read_labels(written, machine_labels=True, **one).clips
    assert {clip.filepath for clip in everything} == set(FILES) - {"broken.avi"}
    assert everything[0].labels == ("Meles meles",)


FOREST = {
    "deployments": "cameras.csv", "media": "times.csv", "title": "Forest", "sampling_design": "opportunistic",
    "capture_method": ["activityDetection"], "contributors": [{"title": "A. B."}],
}  # fmt: skip


def test_a_package_is_made_of_deployments_and_media(videos, write, folder):
    times = {"deploymentStart": "2020-05-01T00:00:00Z", "deploymentEnd": "2020-06-01T00:00:00Z"}
    deployments = [deployment("d1"), deployment("d2", latitude="-1.5", longitude="30.25", habitat="")]
    pd.DataFrame(deployments).drop(columns=["habitat"]).to_csv(folder / "cameras.csv", index=False)
    assert times.items() <= deployments[0].items()
    rows = [{k: v for k, v in media(name).items() if k in ("deploymentID", "timestamp", "filePath")} for name in FILES]
    pd.DataFrame(rows).to_csv(folder / "times.csv", index=False)
    out = write(videos, ("CSVPredictions", {}), ("CamtrapDPPackage", {**FOREST, "media_dir": str(videos)}))
    check_complete(out / "camtrap_dp")
    for name in ("deployments", "media", "observations"):
        with (out / f"camtrap_dp/{name}.csv").open(newline="") as file:
            assert next(csv.reader(file)) == COLUMNS[name].split(",")
    rows = read_csv(out / "camtrap_dp/observations.csv")
    check_observations([{**row, "mediaID": f"m-{row['mediaID']}"} for row in rows], read_csv(out / "predictions.csv"))
    descriptor = json.loads((out / "camtrap_dp/datapackage.json").read_text())
    assert descriptor["spatial"]["coordinates"][0][0] == [4.01, -1.5]
    assert descriptor["temporal"] == {"start": "2020-05-01", "end": "2020-06-01"}


@pytest.mark.slow
def test_a_model_is_not_tested_by_its_own_predictions(videos, write, folder, fitted, refused):
    rows = [{k: v for k, v in media(name).items() if k in ("deploymentID", "timestamp", "filePath")} for name in FILES]
    pd.DataFrame(rows).to_csv(folder / "times.csv", index=False)
    pd.DataFrame([deployment("d1"), deployment("d2")]).to_csv(folder / "cameras.csv", index=False)
    out = write(videos, ("CamtrapDPPackage", {**FOREST, "media_dir": str(videos), "threshold": 0.0}))
    written = with_clips(out / "camtrap_dp", videos)
    checkpoint = f"--ckpt_path={fitted / 'checkpoints/last.ckpt'}"
    arguments = ["test", checkpoint, f"--data.labels={written}", "--data.split_proportions={holdout: 1}"]
    refused(lambda: main(arguments), "has no label by people", "data.machine_labels")


ODD_TIMES = ("2020-05-30 12:00:00+02:00", "2020-05-30T12:00:00.500+02:00", "2020-05-30T10:00Z", "20200530T100000Z")


def test_times_are_written_as_the_standard_wants_them(videos, write, folder):
    rows = [
        {**{k: v for k, v in media(name).items() if k in ("deploymentID", "filePath")}, "timestamp": time}
        for name, time in zip(FILES, ODD_TIMES, strict=True)
    ]
    pd.DataFrame(rows).to_csv(folder / "times.csv", index=False)
    pd.DataFrame([deployment("d1"), deployment("d2")]).to_csv(folder / "cameras.csv", index=False)
    out = write(videos, ("CamtrapDPPackage", {**FOREST, "media_dir": str(videos)}))
    check_complete(out / "camtrap_dp")
    written = [row["timestamp"] for row in read_csv(out / "camtrap_dp/media.csv")]
    assert written == [*["2020-05-30T12:00:00+02:00"] * 2, *["2020-05-30T10:00:00Z"] * 2]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("filePath", "../a.mp4"),
        ("filePath", "/a.mp4"),
        ("filePublic", "yes"),
        ("captureMethod", "motion"),
        ("favorite", "?"),
    ],
)
def test_values_that_the_standard_does_not_know(videos, write, folder, refused, column, value):
    rows = [{**media(name), column: value} for name in FILES]
    pd.DataFrame(rows).to_csv(folder / "times.csv", index=False)
    pd.DataFrame([deployment("d1"), deployment("d2")]).to_csv(folder / "cameras.csv", index=False)
    refused(
        lambda: write(videos, ("CamtrapDPPackage", {**FOREST, "media_dir": str(videos)})),
        "times.csv, row 2",
        column,
        value,
    )


def test_the_package_given_is_never_written_over(package, write, refused, folder):
    (folder / "out").mkdir()
    own = shutil.move(package, folder / "out/camtrap_dp")
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    formats = [("CamtrapDPObservations", {"package": str(own)})]
    refused(lambda: write(own, *formats, overwrite=True), "package", "output_dir")
    assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("argument", ["deployments", "media"])
def test_tables_where_the_package_goes_are_not_lost(videos, write, folder, refused, argument):
    (folder / "out/camtrap_dp").mkdir(parents=True)
    tables = {"deployments": folder / "cameras.csv", "media": folder / "times.csv"}
    tables[argument] = folder / f"out/camtrap_dp/{argument}.csv"
    pd.DataFrame([media(name) for name in FILES]).to_csv(tables["media"], index=False)
    pd.DataFrame([deployment("d1"), deployment("d2")]).to_csv(tables["deployments"], index=False)
    arguments = {**FOREST, **{name: str(path) for name, path in tables.items()}, "media_dir": str(videos)}
    refused(lambda: write(videos, ("CamtrapDPPackage", arguments), overwrite=True), argument, "output_dir")
    assert tables[argument].is_file()


def test_a_package_that_is_not_whole(package, write, refused):
    (package / "observations.csv").unlink()
    refused(lambda: write(package, ("CamtrapDPObservations", {"package": str(package)})), "package", "observations.csv")


CLASSES = ["Leopard", "human", "vehicle", "Empty"]
KINDS = [  # probabilities; the observation types and what MegaDetector calls it, of a multilabel model
    ([0.9, 0.2, 0.1, 0.1], ["animal"], ["1"]),
    ([0.1, 0.8, 0.1, 0.1], ["human"], ["2"]),
    ([0.1, 0.2, 0.7, 0.1], ["vehicle"], ["3"]),
    ([0.1, 0.2, 0.1, 0.9], ["blank"], []),
    ([0.4, 0.2, 0.1, 0.3], ["unknown"], ["1"]),
    ([0.6, 0.7, 0.1, 0.2], ["animal", "human"], ["2"]),
    ([0.6, 0.2, 0.1, 0.8], ["animal"], []),  # where something is seen it is not blank
]


def test_all_kinds_of_clips_in_all_formats(package, folder):
    """Blank, people, vehicles, nothing sure and several at once, which the small model's clips happen not to be."""
    names = [f"{i}.mp4" for i in range(len(KINDS))]
    paths = [package / name for name in names]
    clips = [
        PredictedClip(
            name, "2020-06-01T00:00:00Z", list(p), [PredictedPart(list(p), [0.0, 1.0], [0, 9])], 9.0, 1.0, path=path
        )
        for name, path, (p, _, _) in zip(names, paths, KINDS, strict=True)
    ]
    run = PredictionRun(CLASSES, "multilabel", "a model", False, names, paths, folder / "out")
    table = [{**media("a.mp4"), "mediaID": name, "filePath": name} for name in names]
    old = {"observationID": "o1", **seen(names[0], "Meles meles")}
    (package / "media.csv").write_text(csv_text("media", table), newline="")
    (package / "observations.csv").write_text(csv_text("observations", [old]), newline="")
    observations = CamtrapDPObservations(str(package))
    observations.check(run)
    observations.write(folder / "written", clips, run)
    check_complete(folder / "written")
    rows = read_csv(folder / "written/observations.csv")[1:]
    for name, (p, types, _) in zip(names, KINDS, strict=True):
        found = [row for row in rows if row["mediaID"] == name]
        assert sorted(row["observationType"] for row in found) == sorted(types)
        for row in found:
            assert row["scientificName"] == ("Leopard" if row["observationType"] == "animal" else "")
            if row["observationType"] not in ("unknown", "animal"):
                position = ["animal", "human", "vehicle", "blank"].index(row["observationType"])
                assert float(row["classificationProbability"]) == p[position]

    detector = MegaDetectorJSON()
    detector.check(run)
    detector.write(folder / "md.json", clips, run)
    result = validate_batch_results(str(folder / "md.json"))["validation_results"]
    assert result["errors"] == result["warnings"] == []
    images = json.loads((folder / "md.json").read_text())["images"]
    assert [[d["category"] for d in image["detections"]] for image in images] == [kinds for _, _, kinds in KINDS]


def test_each_class_has_a_preview_before_any_has_two(folder):
    few = [1, 30, 2, 1, 1]
    clips = [
        PredictedClip(f"{i}-{n}.mp4", "", [0.9 if j == i else n / 100 for j in range(5)], path=Path())
        for i, number in enumerate(few)
        for n in range(number)
    ]
    chosen = [clips[i].filepath[0] for i in HTMLReport(previews=6)._with_pictures(clips, 5)]
    assert sorted(chosen[:5]) == list("01234")


def test_two_classes_of_one_kind_are_two_observations(package, folder):
    path = package / "a.mp4"
    clip = PredictedClip(
        "a.mp4",
        "2020-06-01T00:00:00Z",
        [1.0, 1.0],
        [PredictedPart([1.0, 1.0], [0.0, 1.0], [0, 9])],
        9.0,
        1.0,
        path=path,
    )
    run = PredictionRun(["car", "truck"], "multilabel", "a model", False, ["a.mp4"], [path], folder / "out")
    vehicles = CamtrapDPObservations(str(package), observation_types={"car": "vehicle", "truck": "vehicle"})
    vehicles.check(run)
    vehicles.write(folder / "written", [clip], run)
    rows = read_csv(folder / "written/observations.csv")[1:]
    assert [row["observationType"] for row in rows] == ["vehicle", "vehicle"]
    assert rows[0]["observationID"] != rows[1]["observationID"]


def test_nothing_is_invented_for_a_package(package, videos, write, refused, folder):
    table = package / "media.csv"
    text = table.read_text()
    table.write_text(text.replace("2020-05-30T12:00:00+02:00", "2020-05-30T12:00:00"))
    formats = [("CamtrapDPObservations", {"package": str(package)})]
    refused(lambda: write(videos, *formats), "row 2", "timestamp", "zone")
    table.write_text("\n".join(text.splitlines()[:-2]) + "\n")
    refused(lambda: write(videos, *formats), "d.MP4", "no row")
    table.write_text(text)
    cameras = deployment("d1", latitude="")
    pd.DataFrame([cameras]).to_csv(folder / "cameras.csv", index=False)
    arguments = {
        "deployments": "cameras.csv", "media": str(table), "title": "T", "sampling_design": "targeted",
        "capture_method": ["timeLapse"], "contributors": [{"title": "A"}],
    }  # fmt: skip
    refused(lambda: write(videos, ("CamtrapDPPackage", arguments)), "cameras.csv, row 2", "latitude")
    del cameras["deploymentEnd"]
    pd.DataFrame([cameras]).to_csv(folder / "cameras.csv", index=False)
    refused(lambda: write(videos, ("CamtrapDPPackage", arguments)), "deploymentEnd")
    assert not Path("out").exists() or not list(Path("out").iterdir())


def test_how_much_was_read_is_a_comment_of_an_observation(folder, write):
    (folder / "some").mkdir()
    cut(write_video(folder / "some/b.mp4", noise(90)), 0.8)
    time = {"deploymentID": "d1", "timestamp": "2020-05-30T12:00:00Z", "filePath": "b.mp4"}
    pd.DataFrame([time]).to_csv(folder / "times.csv", index=False)
    pd.DataFrame([deployment("d1")]).to_csv(folder / "cameras.csv", index=False)
    some = str(folder / "some")
    out = write(some, ("CamtrapDPPackage", {**FOREST, "media_dir": some, "threshold": 0.0}), ("CSVPredictions", {}))
    (row,) = read_csv(out / "predictions.csv")
    observations = read_csv(out / "camtrap_dp/observations.csv")
    assert observations
    assert all(row["note"] in observation["observationComments"] for observation in observations)
    assert row["note"].startswith("cut off")


def test_formats_carry_boxes_and_windows(package, folder):
    names = ["a.mp4", "b.mp4", "c.mp4", "bad.mp4"]
    p, times, numbers = [0.9, 0.02, 0.03, 0.05], [0.0, 1.0], [0, 8]
    boxes = [[4, 0.1, 0.2, 0.3, 0.4, 0.6], [8, 0.5, 0.5, 0.5, 0.5, 0.8]]
    windows = [[0, 0.0, 0.1, 0.5, 0.5], [8, 0.5, 0.4, 0.5, 0.5]]
    common = {"frame_rate": 8.0, "duration": 2.0}
    parts = [PredictedPart(p, times, numbers)]
    clips = [
        PredictedClip(
            names[0], "", p, parts, **common, crop="animal", windows=windows, boxes=boxes, path=package / names[0]
        ),
        PredictedClip(
            names[1], "", p, parts, **common, crop="whole", windows=[[0, 0, 0, 1, 0.9]] * 2, path=package / names[1]
        ),
        PredictedClip(
            names[2],
            "",
            p[::-1],
            [PredictedPart(p[::-1], times, numbers)],
            **common,
            crop="blank",
            path=package / names[2],
        ),
        PredictedClip(names[3], "", error="broken", path=package / names[3]),
    ]
    paths = [clip.path for clip in clips]
    run = PredictionRun([*CLASSES[:3], "blank"], "multiclass", "a model", False, names, paths, folder, has_crops=True)
    CSVPredictions().write(folder / "p.csv", clips, run)
    rows = read_csv(folder / "p.csv")
    assert [row["crop"] for row in rows] == ["animal", "whole", "blank", ""]
    assert [float(rows[0][f"crop_{side}"]) for side in ("x", "y", "width", "height")] == pytest.approx([0, 0.1, 1, 0.8])
    assert rows[2]["crop_x"] == rows[3]["crop_x"] == ""
    assert rows[3]["error"] == "broken"

    MegaDetectorJSON().write(folder / "md.json", clips, run)
    result = validate_batch_results(str(folder / "md.json"))["validation_results"]
    assert result["errors"] == result["warnings"] == []
    images = json.loads((folder / "md.json").read_text())["images"]
    assert [(d["frame_number"], d["bbox"], d["conf"]) for d in images[0]["detections"]] == [
        (box[0], box[1:5], box[5]) for box in boxes
    ]
    assert images[0]["frames_processed"] == [0, 4, 8]
    assert images[1]["detections"][0]["bbox"] == [0, 0, 1, 1]
    assert images[2]["detections"] == []

    table = [{**media("a.mp4"), "mediaID": name, "filePath": name} for name in names]
    (package / "media.csv").write_text(csv_text("media", table), newline="")
    (package / "observations.csv").write_text(csv_text("observations", []), newline="")
    observations = CamtrapDPObservations(str(package))
    observations.check(run)
    observations.write(folder / "written", clips, run)
    check_complete(folder / "written")
    found = {row["mediaID"]: row for row in read_csv(folder / "written/observations.csv")}
    of_box = [float(found["a.mp4"][f"bbox{side}"]) for side in ("X", "Y", "Width", "Height")]
    assert of_box == boxes[1][1:5]
    assert found["a.mp4"]["observationComments"] == "box: frame 8, 1.00 s"
    assert found["b.mp4"]["bboxX"] == found["c.mp4"]["bboxX"] == ""
