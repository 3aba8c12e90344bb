"""Packages in Camtrap DP 1.0. Those that are meant to be right are checked by frictionless against the standard's tables."""

import csv
import gzip
import zipfile
from pathlib import Path

import pytest

from helpers.camtrap_dp import clip, csv_text, deployment, error_of, event, labels_of, machine, seen, write_descriptor
from zamba_lcli.data import ZambaVideoDataModule
from zamba_lcli.data.labels.checks import sites_in_several_splits
from zamba_lcli.data.labels.table import read_labels
from zamba_lcli.errors import InputError


def test_media_level_observations(package):
    folder = package(
        [clip("m2"), clip("m1"), clip("m3")],
        [seen("m1", "blank"), seen("m2", "Vulpes vulpes"), seen("m2", "human"), seen("m3", "Vulpes vulpes")],
    )
    read = read_labels(folder, split_proportions={"train": 1})
    assert read.source == folder / "datapackage.json"
    assert [(clip.filepath, clip.path, clip.labels, clip.site) for clip in read.clips] == [
        ("d1/m2.mp4", folder / "d1/m2.mp4", ("Vulpes vulpes", "human"), "d1"),
        ("d1/m1.mp4", folder / "d1/m1.mp4", ("blank",), "d1"),
        ("d1/m3.mp4", folder / "d1/m3.mp4", ("Vulpes vulpes",), "d1"),
    ]
    assert read.class_names == ("Vulpes vulpes", "blank", "human")


def test_event_level_observations_tell_of_the_videos_of_their_deployment_and_time(package):
    folder = package(
        [
            clip("first", at="12:00:00Z"),
            clip("last", at="14:10:00+02:00"),
            clip("late", at="12:10:01Z"),
            clip("elsewhere", "d2", at="12:05:00Z"),
        ],
        [
            event("Vulpes vulpes", "12:00:00Z", "12:10:00Z"),
            event("Meles meles", "14:00:00+02:00", "14:05:00+02:00"),
            event("blank", "00:00:00Z", "23:00:00Z", "d2"),
            event("human", "12:10:01Z", "12:10:01Z"),
        ],
    )
    assert labels_of(folder) == {
        "d1/first.mp4": ("Meles meles", "Vulpes vulpes"),
        "d1/last.mp4": ("Vulpes vulpes",),
        "d1/late.mp4": ("human",),
        "d2/elsewhere.mp4": ("blank",),
    }


def test_event_level_observations_tell_of_videos_of_the_same_event(package):
    folder = package(
        [clip("a", at="12:00:00Z"), clip("b", at="13:00:00Z")],
        [event("Vulpes vulpes", "12:00:00Z", "12:00:30Z", eventID="e1"), seen("b", "unclassified", eventID="e1")],
    )
    assert labels_of(folder) == {"d1/a.mp4": ("Vulpes vulpes",), "d1/b.mp4": ("Vulpes vulpes",)}


def test_what_was_seen_in_a_clip_wins_over_what_was_seen_in_its_event(package):
    folder = package(
        [clip("a"), clip("b"), clip("c")],
        [seen("a", "blank"), event("Vulpes vulpes", "12:00:00Z", "12:01:00Z"), seen("b", "unknown")],
    )
    assert labels_of(folder) == {
        "d1/a.mp4": ("blank",),
        "d1/b.mp4": ("Vulpes vulpes",),
        "d1/c.mp4": ("Vulpes vulpes",),
    }


def test_of_two_events_at_one_time_each_has_its_own_videos(package):
    """A motion trigger and a time lapse of one camera: media, or their observations, say to which event they belong."""
    span = ("12:00:00Z", "12:01:00Z")
    folder = package(
        [
            clip("a", eventID="trigger"),
            clip("b", at="12:00:20Z", eventID="lapse"),
            clip("c", at="12:00:30Z"),
            clip("d", at="12:00:40Z"),
            clip("e", at="12:00:50Z", eventID="not annotated"),
        ],
        [
            event("Vulpes vulpes", *span, eventID="trigger"),
            event("blank", *span, eventID="lapse"),
            seen("c", "unclassified", eventID="trigger"),
            {**seen("d", "Meles meles", eventID="lapse"), **machine()},
        ],
    )
    assert labels_of(folder) == {
        "d1/a.mp4": ("Vulpes vulpes",),
        "d1/b.mp4": ("blank",),
        "d1/c.mp4": ("Vulpes vulpes",),
        "d1/d.mp4": ("blank",),
    }


@pytest.mark.parametrize("spelled", ["1.0", "01", "\uff11"])
def test_an_event_in_two_spellings(package, spelled):
    media = [clip("a", eventID=spelled), clip("b", eventID="2")]
    events = [event("fox", "12:00:00Z", "12:01:00Z", eventID="1"), event("deer", "12:00:00Z", "12:01:00Z", eventID="2")]
    message = error_of(package(media, events))
    assert f"media.csv, row 2: the eventID {spelled!r} is '1' in observations.csv, row 2\nSpell each eventID" in message


def test_without_an_event_of_its_own_the_time_decides(package):
    span = ("12:00:00Z", "12:01:00Z")
    folder = package(
        [clip("a", eventID="e1"), clip("b")],
        [event("Vulpes vulpes", *span), event("Meles meles", *span, eventID="e2")],
    )
    assert labels_of(folder) == {"d1/a.mp4": ("Vulpes vulpes",), "d1/b.mp4": ("Meles meles", "Vulpes vulpes")}


def test_media_that_are_no_labelled_videos_are_left_out_and_counted(package, caplog):
    folder = package(
        [
            clip("a"),
            clip("photo", fileMediatype="image/jpeg", filePath="d1/photo.jpg"),
            clip("sound", fileMediatype="audio/wav", filePath="https://example.org/sound.wav"),
            clip("unclassified"),
            clip("unknown"),
            clip("no_observation"),
            clip("unknown_fox"),
        ],
        [
            seen("a", "unclassified"),
            seen("a", "Vulpes vulpes"),
            seen("photo", "animal"),
            seen("unclassified", "unclassified"),
            seen("unknown", "unknown"),
            seen("unknown_fox", "unknown", scientificName="Vulpes vulpes"),
        ],
    )
    with caplog.at_level("INFO"):
        assert labels_of(folder) == {"d1/a.mp4": ("Vulpes vulpes",), "d1/unknown_fox.mp4": ("Vulpes vulpes",)}
    source = folder / "datapackage.json"
    assert caplog.messages == [
        f"{source}: left out 2 files other than videos (1 audio/wav, 1 image/jpeg).",
        f"{source}: left out 3 videos without a label (unclassified, unknown, or without an observation).",
    ]


def test_another_column_of_labels(package):
    folder = package(
        [clip("a"), clip("b"), clip("c")],
        [
            seen("a", "Vulpes vulpes", behavior="running|vigilance"),
            seen("b", "blank"),
            seen("c", "unknown", scientificName="Vulpes"),
        ],
    )
    assert labels_of(folder, label_column="behavior") == {"d1/a.mp4": ("running", "vigilance"), "d1/b.mp4": ("blank",)}
    assert labels_of(folder, label_column="observationType") == {"d1/a.mp4": ("animal",), "d1/b.mp4": ("blank",)}
    with pytest.raises(
        InputError, match=r"no column 'order'.* or name the column with the labels in data\.label_column"
    ):
        labels_of(folder, label_column="order")


def test_another_column_of_labels_of_a_table(folder):
    Path("labels.csv").write_text("filepath,label,Species,split\n1.mp4,animal,fox;badger,train\n")
    assert read_labels("labels.csv", label_column="Species").class_names == ("badger", "fox")
    with pytest.raises(
        InputError, match=r"no column 'taxon'.* It needs filepath and taxon, and may have split and site"
    ):
        read_labels("labels.csv", label_column="taxon")


def test_missing_values(package):
    folder = package(
        [clip("a"), clip("b")],
        [
            seen("a", "unknown", scientificName="NA"),
            seen("b", "fox"),
            event("unknown", "12:00:00Z", "12:00:00Z", mediaID="NaN"),
        ],
        [deployment("d1", locationID="NA", locationName="nan")],
    )
    read = read_labels(folder, split_proportions={"train": 1})
    assert [(clip.filepath, clip.site) for clip in read.clips] == [("d1/b.mp4", "d1")]


def test_sites_are_locations_and_stay_in_one_split(package):
    media = [clip(f"m{i}", f"d{i % 20}") for i in range(200)]
    folder = package(
        media,
        [seen(row["mediaID"], ("fox", "badger", "blank")[i % 3], row["deploymentID"]) for i, row in enumerate(media)],
        [
            *[deployment(f"d{i}", locationID=f"id{i // 2}", locationName=f"name{i // 4}") for i in range(8)],
            *[deployment(f"d{i}", locationName=f"name{i // 2}") for i in range(8, 16)],
            *[deployment(f"d{i}") for i in range(16, 20)],
        ],
    )
    read = read_labels(folder)
    sites = {clip.site for clip in read.clips}
    assert sites == {f"id{i}" for i in range(4)} | {f"name{i}" for i in range(4, 8)} | {f"d{i}" for i in range(16, 20)}
    assert {clip.split for clip in read.clips} == {"train", "val", "holdout"}
    assert sites_in_several_splits(read) == {}
    assert read_labels(folder, seed=1).clips != read.clips


def test_too_few_sites(package):
    message = error_of_splits(package([clip("a"), clip("b", "d2")], [seen("a", "fox"), seen("b", "fox", "d2")]))
    assert "too few clips or sites" in message
    assert "give a table (CSV) with a column split in place of the package" in message
    assert "delete the column site" not in message


def error_of_splits(source) -> str:
    with pytest.raises(InputError) as caught:
        read_labels(source)
    return str(caught.value)


@pytest.fixture
def small(package):
    return package([clip("a"), clip("b", "d2")], [seen("a", "Vulpes vulpes"), seen("b", "Löwe", "d2")])


SMALL = {"d1/a.mp4": ("Vulpes vulpes",), "d2/b.mp4": ("Löwe",)}


def test_folder_or_descriptor(small, monkeypatch):
    assert labels_of(small) == labels_of(small / "datapackage.json") == labels_of(str(small)) == SMALL
    monkeypatch.chdir(small)
    assert read_labels(".", split_proportions={"train": 1}).clips[0].path == Path("d1/a.mp4")
    assert read_labels(".", data_dir="/clips", split_proportions={"train": 1}).clips[0].path == Path("/clips/d1/a.mp4")


@pytest.mark.parametrize("within", ["", "export/package/"])
def test_zip(small, tmp_path, within):
    with zipfile.ZipFile(tmp_path / "package.ZIP", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in small.iterdir():
            archive.write(path, within + path.name)
        archive.writestr(f"{within}old/datapackage.json", "{}")
    assert labels_of(tmp_path / "package.ZIP") == SMALL
    read = read_labels(tmp_path / "package.ZIP", split_proportions={"train": 1})
    assert read.source == tmp_path / "package.ZIP"
    assert read.clips[0].path == tmp_path / "d1/a.mp4"


def test_several_packed_files_with_another_delimiter_and_encoding(package):
    folder = package(
        [clip("a"), clip("b"), clip("c")],
        [seen("a", "Löwe"), seen("b", "Löwe"), seen("c", "fox"), seen("c", "")],
        valid=False,
    )
    rows = list(csv.DictReader((folder / "observations.csv").open()))
    (folder / "observations.csv").unlink()
    (folder / "tables").mkdir()
    parts = [
        csv_text("observations", rows[:1], ";"),
        csv_text("observations", rows[1:2], ";"),
        csv_text("observations", rows[2:], ";", header=False),  # as the standard has it
    ]
    names = [f"tables/part{i}.csv.gz" for i in range(3)]
    for name, part in zip(names, parts, strict=True):
        (folder / name).write_bytes(gzip.compress(part.encode("latin-1")))
    resource = {"path": names, "encoding": "ISO-8859-1"}
    for dialect in ({"delimiter": ";"}, {"csv": {"delimiter": ";"}}):
        write_descriptor(folder, observations={**resource, "dialect": dialect})
        message = error_of(folder)
        assert message.startswith(f"data.labels: 1 problem in {folder / 'datapackage.json'}:\n")
        assert "tables/part2.csv.gz, row 2: an animal, but scientificName is empty" in message
    rows.pop()
    (folder / names[2]).write_bytes(gzip.compress(csv_text("observations", rows[2:], ";", header=False).encode()))
    assert labels_of(folder) == {"d1/a.mp4": ("Löwe",), "d1/b.mp4": ("Löwe",), "d1/c.mp4": ("fox",)}


def change_descriptor(folder: Path, change) -> None:
    path = folder / "datapackage.json"
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda text: "{\n oops", ["datapackage.json, line 2", "Correct it, or export the package anew"]),
        (lambda text: "[]", ["names no file for deployments, media, observations"]),
        (lambda text: text.replace('"media"', '"pictures"'), ["names no file for media in its resources"]),
        (lambda text: text.replace("/1.0.2/", "/0.6/"), ["Camtrap DP 0.6, and 1.0 is needed"]),
        (lambda text: text.replace('"media.csv', '"media2.csv'), ["there is no file", "package/media2.csv"]),
        (lambda text: text.replace('"media.csv', '"../media.csv'), ["../media.csv is not in the package"]),
        (lambda text: text.replace('"media.csv', '"https://example.org/m.csv'), ["Download the whole package"]),
        (lambda text: text.replace('"media.csv"', '"media.csv", "encoding": "utf-80"'), ["unknown encoding 'utf-80'"]),
        (lambda text: text.replace('"media.csv"', '"media.csv", "dialect": {"delimiter": ""}'), ["the delimiter ''"]),
    ],
)
def test_wrong_descriptor(small, change, parts):
    change_descriptor(small, change)
    message = error_of(small)
    assert message.startswith("data.labels: ")
    assert str(small) in message
    for part in parts:
        assert part in message


def test_wrong_tables(small):
    (small / "media.csv").write_text("MediaID,deploymentID,timestamp,filePath\n")
    message = error_of(small)
    assert message.startswith(f"data.labels: {small / 'media.csv'}: ")
    assert "the column 'MediaID' must be written 'mediaID'; there is no column 'fileMediatype'" in message
    (small / "media.csv").write_text("")
    assert f"{small / 'media.csv'} is empty" in error_of(small)
    (small / "media.csv").write_text('mediaID,deploymentID,timestamp,filePath,fileMediatype\n"a\n')
    assert f"{small / 'media.csv'}, line 2" in error_of(small)
    (small / "media.csv.gz").write_bytes(b"no gzip")
    write_descriptor(small, media={"path": "media.csv.gz"})
    assert f"{small / 'media.csv.gz'} cannot be read" in error_of(small)


def test_no_package(tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("a/x.csv", "")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a/datapackage.json", "")
        archive.writestr("b/datapackage.json", "")
    (tmp_path / "no.zip").write_text("no zip")
    assert f"{tmp_path} is a folder without datapackage.json" in error_of(tmp_path)
    assert "empty.zip has no datapackage.json" in error_of(tmp_path / "empty.zip")
    assert "two.zip has several datapackage.json" in error_of(tmp_path / "two.zip")
    assert "no.zip cannot be read" in error_of(tmp_path / "no.zip")
    assert f"there is no file {tmp_path / 'none.zip'}" in error_of(tmp_path / "none.zip")
    assert f"there is no file {tmp_path / 'datapackage.json'}" in error_of(tmp_path / "datapackage.json")


FOX = seen("a", "fox")


@pytest.mark.parametrize(
    ("media", "observations", "what", "remedy"),
    [
        (
            [clip("a", filePath="https://example.org/a.mp4")],
            [FOX],
            "media.csv, row 2: the filePath 'https://example.org/a.mp4' is a URL",
            "Download the clips, and write their paths in place of the URLs",
        ),
        ([clip("a", filePath="")], [FOX], "media.csv, row 2: the filePath is empty", "Give every video a filePath"),
        ([clip("a"), clip("a")], [FOX], "media.csv, row 3: the mediaID 'a' is in media.csv, row 2 too", "its own"),
        ([clip("a"), clip("")], [FOX], "media.csv, row 3: the mediaID is empty", "Give every row a mediaID"),
        (
            [clip("a"), clip("b", "d9")],
            [FOX],
            "media.csv, row 3: there is no deployment with the deploymentID 'd9'",
            "row",
        ),
        ([clip("a", fileMediatype="mp4")], [FOX], "media.csv, row 2: unknown fileMediatype 'mp4'", "video/mp4"),
        ([clip("a")], [seen("b", "fox")], "observations.csv, row 2: there is no media with the mediaID 'b'", "a row"),
        ([clip("a")], [FOX, seen("", "fox")], "observations.csv, row 3: a media-level observation without", "Fill in"),
        (
            [clip("a")],
            [FOX, event("fox", "12:00:00Z", "12:00:00Z", "d9")],
            "observations.csv, row 3: there is no deployment with the deploymentID 'd9'",
            "a row in its table",
        ),
        (
            [clip("a")],
            [seen("a", "animal")],
            "observations.csv, row 2: an animal, but scientificName",
            "data.label_column",
        ),
        (
            [clip("a")],
            [seen("a", "fox", count="0"), seen("a", "badger", count="2")],
            "observations.csv, row 2: an observation of fox with the count 0",
            "Delete observations of what was not there",
        ),
        (
            [clip("a")],
            [seen("a", "fox", observationType="Animal")],
            "observations.csv, row 2: unknown observationType 'Animal'",
            "Write one of animal, human, vehicle, blank, unknown, unclassified",
        ),
        (
            [clip("a"), clip("b")],
            [seen("b", "Fox"), FOX],
            "observations.csv, row 2: the label 'Fox' differs from 'fox' (observations.csv, row 3)",
            "Spell each label in one way",
        ),
        (
            [clip("a")],
            [FOX, seen("a", "blank")],
            "observations.csv, row 3: d1/a.mp4 is blank here, but fox elsewhere",
            "Keep the observations that are right",
        ),
        (
            [clip("a", at="12:00:00")],
            [event("fox", "11:00:00Z", "13:00:00Z")],
            "media.csv, row 2: the timestamp '2020-05-30T12:00:00' has no time zone",
            "such as 2020-05-30T04:57:37Z",
        ),
        (
            [clip("a")],
            [event("fox", "noon", "13:00:00Z")],
            "observations.csv, row 2: the eventStart '2020-05-30Tnoon' is no time",
            "such as 2020-05-30T04:57:37Z",
        ),
        (
            [clip("a")],
            [event("fox", "13:00:00Z", "12:00:00Z")],
            "observations.csv, row 2: the eventEnd is before the eventStart",
            "Correct the times",
        ),
        (
            [clip("a"), clip("b", "d2", filePath="d1/a.mp4")],
            [FOX, seen("b", "fox", "d2")],
            "observations.csv, row 3: the site of d1/a.mp4 is 'd2', but 'd1' further up",
            "the same site",
        ),
    ],
)
def test_wrong_row(package, media, observations, what, remedy):
    folder = package(media, observations, [deployment("d1"), deployment("d2")], valid=False)
    first, problem, *remedies = error_of(folder).split("\n")
    assert first == f"data.labels: 1 problem in {folder / 'datapackage.json'}:"
    assert what in problem
    assert remedy in "\n".join(remedies)


def test_all_problems_are_told_at_once_in_the_order_of_tables_and_rows(package):
    media = [clip("a"), clip("b", filePath=""), clip("c", "d9")]
    observations = [seen("x", "fox"), seen("a", "animal"), seen("a", "animal"), seen("b", "Fox"), seen("c", "fox")]
    folder = package(media, observations, [deployment("d1"), deployment("d1")], valid=False)
    lines = error_of(folder).split("\n")
    assert lines[0].startswith("data.labels: 7 problems")
    assert [line.split(":")[0].strip() for line in lines[1:8]] == [
        "deployments.csv, row 3",
        "media.csv, row 3",
        "media.csv, row 4",
        "observations.csv, row 2",
        "observations.csv, row 3",
        "observations.csv, row 4",
        "observations.csv, row 6",
    ]


def test_multiclass_refuses_several_labels(package):
    folder = package([clip("a")], [seen("a", "human"), seen("a", "fox")])
    assert "observations.csv, row 2: d1/a.mp4 has 2 labels: fox, human" in error_of(folder, multiclass=True)


def test_rows_of_photos_are_not_looked_at(package):
    photo = clip("photo", fileMediatype="image/jpeg", at="noon", filePath="https://example.org/x.jpg")
    folder = package([clip("a"), photo], [seen("a", "fox"), seen("photo", "animal")], valid=False)
    assert labels_of(folder) == {"d1/a.mp4": ("fox",)}


@pytest.mark.parametrize(
    ("media", "observations", "told"),
    [
        ([clip("a", fileMediatype="image/jpeg")], [FOX], "1 file other than videos (1 image/jpeg)"),
        ([clip("a")], [seen("a", "unclassified")], "1 video without a label"),
        ([], [], "it has no media"),
    ],
)
def test_no_labelled_video(package, media, observations, told):
    message = error_of(package(media, observations))
    assert "has no video with a label" in message
    assert told in message


@pytest.fixture
def demo_package(clips, package):
    """The clips of the demonstration in a package of several deployments, one for each clip."""
    with (clips / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    media, observations = [], []
    for i, row in enumerate(rows):
        at = {"filePath": row["filepath"], "fileMediatype": "video/mp4"}
        media.append(clip(f"m{i}", f"d{i}", **at))
        what = row["label"]
        observations.append(seen(f"m{i}", what, f"d{i}") if i % 2 else event(what, "11:59:59Z", "12:00:01Z", f"d{i}"))
    return package(media, observations)


def test_fit(zamba, clips, demo_package, folder):
    zamba("fit", "--data.data_dir", clips, "--trainer.max_epochs", 1, labels=demo_package)
    run = folder / "runs/tiny/version_0"
    read = read_labels(run / "splits.csv", data_dir=clips)
    package_read = read_labels(demo_package, data_dir=clips)
    assert (read.clips, read.class_names) == (package_read.clips, package_read.class_names)
    assert len(read.clips) == 16
    zamba("test", "--data.data_dir", clips, "--ckpt_path", run / "checkpoints/last.ckpt", labels=run / "splits.csv")


def test_fit_names_what_is_wrong(zamba, refused, clips, demo_package):
    media = (demo_package / "media.csv").read_text().splitlines()
    (demo_package / "media.csv").write_text("\n".join([media[0], media[1].replace("video/mp4", "mp4"), *media[2:]]))
    refused(lambda: zamba("fit", labels=demo_package), "media.csv, row 2", "unknown fileMediatype")


def test_clips_that_are_not_there(zamba, refused, demo_package):
    refused(
        lambda: zamba("fit", labels=demo_package), "missing", f"data.data_dir is probably wrong. It is {demo_package}"
    )


@pytest.mark.parametrize("name", ["../a.mp4", "/a.mp4", "d1/../../a.mp4"])
def test_no_media_lead_out_of_the_package(package, name):
    folder = package([clip("a", filePath=name)], [seen("a", "fox")], valid=False)
    options = {"split_proportions": {"train": 1}}
    with pytest.raises(InputError) as caught:
        _ = ZambaVideoDataModule(labels=str(folder), **options).table
    assert f"media.csv, row 2: the filepath {name!r} leads out of the folder" in str(caught.value)
    assert len(ZambaVideoDataModule(labels=str(folder), allow_outside_data_dir=True, **options).table.clips) == 1
