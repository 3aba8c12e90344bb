"""Test and validate keep the splits of the fit, and score no clip that the model was trained or chosen on."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from helpers.marks import some_slow
from helpers.paths import TINY
from helpers.tables import read_csv, write_csv
from zamba_lcli.cli import main
from zamba_lcli.data import DemoClips
from zamba_lcli.data.csv_tables import LabelRow
from zamba_lcli.data.labels import split_record
from zamba_lcli.data.labels.split_record import SplitRecord, content_digest
from zamba_lcli.data.labels.splits import shares_of

RUN = "runs/tiny/version_0"
SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]


@pytest.fixture(scope="session")
def many(tmp_path_factory):
    """40 clips of 4 classes and 10 sites, without splits; the clips of sites 7 to 9 are not in the table yet."""
    path = tmp_path_factory.mktemp("many")
    DemoClips(str(path / "demo"), clips_per_class=10).render()
    clips = sorted(read_csv(path / "demo/labels.csv"), key=lambda row: row["filepath"])
    rows = [
        {"filepath": row["filepath"], "label": row["label"], "site": f"site {i % 10}"} for i, row in enumerate(clips)
    ]
    write_csv(path / "demo/all.csv", rows)
    write_csv(path / "demo/labels.csv", [row for row in rows if int(row["site"][-1]) < 7])
    return path / "demo"


@pytest.fixture(scope="session")
def fitted_on_many(many, tmp_path_factory):
    """The run folder of a fit with drawn splits, of a seed of their own."""

    path = tmp_path_factory.mktemp("fitted_on_many")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        labels = ["--data.labels", str(many / "labels.csv"), "--data.split_seed=5"]
        main(["fit", "--config", str(TINY), *SHORT, *labels])
    return path / RUN


def splits_in(folder):
    return {row["filepath"]: row["split"] for row in read_csv(folder / "splits.csv")}


def looked_at(folder):
    """The clips that a test looked at."""
    return {row["filepath"] for row in read_csv(next((folder / "runs").rglob("predictions.csv")))}


@pytest.mark.parametrize(
    "more",
    some_slow([[], ["--data.split_seed=6"], ["--data.split_proportions={train: 1, val: 1, holdout: 1}"]], [[]]),
)
def test_rows_added_after_the_fit(zamba, many, fitted_on_many, folder, more, capfd):
    checkpoint = ["--ckpt_path", fitted_on_many / "checkpoints/last.ckpt"]
    zamba("test", *checkpoint, *more, labels=many / "all.csv")
    before = splits_in(fitted_on_many)
    seen = looked_at(folder)
    assert {name for name in seen if name in before} == {name for name, split in before.items() if split == "holdout"}
    # of the new ones whole sites
    site_of = {row["filepath"]: row["site"] for row in read_csv(many / "all.csv")}
    new = Counter(site_of[name] for name in seen if name not in before)
    assert all(count == 4 for count in new.values())
    assert len(new) == 1


@pytest.mark.slow
def test_by_the_checkpoint_alone(many, fitted_on_many, folder):
    main(
        [
            "test",
            "--ckpt_path",
            str(fitted_on_many / "checkpoints/last.ckpt"),
            "--data.labels",
            str(many / "labels.csv"),
            "--trainer.default_root_dir=.",
        ]
    )
    rows = read_csv(next(folder.rglob("predictions.csv")))
    holdout = {name for name, split in splits_in(fitted_on_many).items() if split == "holdout"}
    assert {row["filepath"] for row in rows} == holdout


def test_a_new_clip_of_a_known_site_goes_where_its_site_is(zamba, many, fitted_on_many, folder):
    rows = read_csv(many / "labels.csv")
    split_of = {row["site"]: splits_in(fitted_on_many)[row["filepath"]] for row in rows}
    sites = [next(site for site, split in split_of.items() if split == kind) for kind in ("train", "val", "holdout")]
    new = [row for row in read_csv(many / "all.csv") if row["site"] == "site 9"][:3]
    added = [{**row, "site": site} for row, site in zip(new, sites, strict=True)]
    write_csv(folder / "grown.csv", rows + added)
    checkpoint = ["--ckpt_path", fitted_on_many / "checkpoints/last.ckpt", "--data.data_dir", many]
    zamba("test", *checkpoint, labels="grown.csv")
    seen = looked_at(folder)
    for row in added:
        assert (row["filepath"] in seen) == (split_of[row["site"]] == "holdout")


@pytest.mark.slow
def test_a_train_clip_under_another_name_is_known(zamba, many, fitted_on_many, folder, refused):
    before = splits_in(fitted_on_many)
    train, val = (next(name for name, split in before.items() if split == kind) for kind in ("train", "val"))
    rows = read_csv(many / "labels.csv")
    holdout = [row for row in rows if before[row["filepath"]] == "holdout"]
    shutil.copytree(many, folder / "clips")
    for name, new in ((train, "a.mp4"), (val, "b.mp4")):
        (folder / "clips" / name).rename(folder / "clips" / new)
    renamed = [
        {"filepath": new, "label": name.split("_")[0], "site": ""} for name, new in ((train, "a.mp4"), (val, "b.mp4"))
    ]
    # without a column split they keep theirs, by what is in the files
    write_csv(folder / "clips/no_split.csv", holdout + renamed)
    checkpoint = ["--ckpt_path", fitted_on_many / "checkpoints/last.ckpt"]
    zamba("test", *checkpoint, labels="clips/no_split.csv")
    names = {row["filepath"] for row in holdout}
    assert looked_at(folder) == names
    shutil.rmtree(folder / "runs")
    # stated, they are refused, both of them
    write_csv(folder / "clips/stated.csv", [{**row, "split": "holdout"} for row in holdout + renamed])
    run = lambda *more: zamba("test", *checkpoint, *more, labels="clips/stated.csv")  # noqa: E731
    refused(run, "2 clips", "a.mp4 (holdout): in train", "b.mp4 (holdout): in val", "data.trained_clips")
    assert not (folder / "runs").exists()
    run("--data.trained_clips=leave_out")
    assert looked_at(folder) == names
    shutil.rmtree(folder / "runs")
    run("--data.trained_clips=keep")
    assert looked_at(folder) == {*names, "a.mp4", "b.mp4"}


def test_validate_scores_no_train_clips(zamba, many, fitted_on_many, folder, refused):
    before = splits_in(fitted_on_many)
    rows = [{**row, "split": "val", "site": ""} for row in read_csv(many / "labels.csv")]
    write_csv(folder / "val.csv", [row for row in rows if before[row["filepath"]] != "holdout"])
    more = ["--ckpt_path", fitted_on_many / "checkpoints/last.ckpt", "--data.data_dir", many]
    trained = sum(split == "train" for split in before.values())
    refused(lambda: zamba("validate", *more, labels="val.csv"), f"{trained} clips", "in train of the checkpoint's run")


def test_a_site_that_was_trained_on_is_no_new_site(zamba, many, fitted_on_many, folder, refused):
    before = splits_in(fitted_on_many)
    rows = read_csv(many / "labels.csv")
    site = next(row["site"] for row in rows if before[row["filepath"]] == "train")
    new = [{**row, "site": site, "split": "holdout"} for row in read_csv(many / "all.csv") if row["site"] == "site 9"]
    write_csv(folder / "new.csv", new)
    more = ["--ckpt_path", fitted_on_many / "checkpoints/last.ckpt", "--data.data_dir", many]
    refused(lambda: zamba("test", *more, labels="new.csv"), "4 clips", f"its site {site!r} was in train")
    zamba("test", *more, "--data.allow_sites_across_splits=true", labels="new.csv")


@pytest.mark.slow
def test_a_new_fit_from_the_weights_with_a_grown_table(zamba, many, fitted_on_many, folder):
    checkpoint = fitted_on_many / "checkpoints/last.ckpt"
    weights = ["--model.init_args.weights", checkpoint, "--model.init_args.keep_matching_classes=true"]
    zamba("fit", *weights, *SHORT, labels=many / "all.csv")
    before, now = splits_in(fitted_on_many), splits_in(folder / RUN)
    assert {name: now[name] for name in before} == before
    assert len(now) == len(before) + 12
    # its own checkpoint knows both runs' clips, of a table that has the old ones no more
    (folder / "runs").rename(folder / "first")
    write_csv(folder / "new.csv", [row for row in read_csv(many / "all.csv") if int(row["site"][-1]) >= 7])
    weights[1] = folder / "first/tiny/version_0/checkpoints/last.ckpt"
    found = torch.load(weights[1], weights_only=True)["ZambaVideoDataModule"]["splits"]
    record = SplitRecord.from_state(found)
    assert record.sites == {row["site"]: row["split"] for row in read_csv(folder / "first/tiny/version_0/splits.csv")}
    assert {record.files[content_digest(many / name)] for name in now} == {"train", "val", "holdout"}


def test_a_resumed_run_keeps_its_splits_when_the_table_grows(zamba, many, fitted_on_many, folder, monkeypatch):
    read = Counter()
    monkeypatch.setattr(split_record, "content_digest", lambda path, **k: read.update([path]) or content_digest(path))
    checkpoint = ["--ckpt_path", fitted_on_many / "checkpoints/last.ckpt", "--trainer.max_epochs=2"]
    zamba("fit", *SHORT[1:], *checkpoint, labels=many / "all.csv")
    assert set(read.values()) == {1}  # each file once
    assert len(read) == 40
    before, now = splits_in(fitted_on_many), splits_in(folder / RUN)
    assert {name: now[name] for name in before} == before


def test_splits_csv_is_read_back(zamba, many, fitted_on_many, folder):
    more = ["--ckpt_path", fitted_on_many / "checkpoints/last.ckpt", "--data.data_dir", many]
    zamba("test", *more, labels=fitted_on_many / "splits.csv")
    assert looked_at(folder) == {name for name, split in splits_in(fitted_on_many).items() if split == "holdout"}


def test_a_checkpoint_that_does_not_tell_is_told_of(zamba, many, fitted_on_many, folder, recwarn):
    checkpoint = torch.load(fitted_on_many / "checkpoints/last.ckpt", weights_only=True)
    del checkpoint["ZambaVideoDataModule"]["splits"]
    torch.save(checkpoint, folder / "old.ckpt")
    zamba("test", "--ckpt_path", "old.ckpt", "--data.split_seed=5", labels=many / "labels.csv")
    assert any("does not say which clips it was trained on" in str(warning.message) for warning in recwarn)


@pytest.mark.slow
def test_copies_in_several_splits_are_told_of_and_no_resume_is_refused(zamba, many, folder, recwarn, refused, capsys):
    shutil.copytree(many, "clips")
    rows = [{**row, "site": "", "split": "train"} for row in read_csv(many / "all.csv")]
    for i, split in ((0, "val"), (11, "holdout"), (22, "val"), (33, "holdout")):
        rows[i]["split"] = split
    train = [row["filepath"] for row in rows if row["split"] == "train"]
    for name, split in (("a.mp4", "val"), ("b.mp4", "holdout")):
        shutil.copy(f"clips/{train[0]}", f"clips/{name}")
        rows.append({**rows[1], "filepath": name, "label": train[0].split("_")[0], "split": split})
    write_csv(folder / "clips/copies.csv", rows)
    main(["check", "--data.labels", "clips/copies.csv"])
    told = capsys.readouterr().out
    assert f"it is a copy of {train[0]}, but in holdout, not train" in told
    zamba("fit", *SHORT, labels="clips/copies.csv")
    assert any(f"b.mp4 (holdout): {train[0]} (train)" in str(warning.message) for warning in recwarn)
    last = ["--ckpt_path", f"{RUN}/checkpoints/last.ckpt"]
    zamba("fit", *SHORT[1:], *last, "--trainer.max_epochs=2", labels="clips/copies.csv")  # goes on as it began
    refused(lambda: zamba("test", *last, labels="clips/copies.csv"), "b.mp4 (holdout): in train", "leave_out")
    zamba("test", *last, "--data.trained_clips=leave_out", "--trainer.logger.name=left", labels="clips/copies.csv")
    assert "b.mp4" not in {row["filepath"] for row in read_csv(next(Path("runs/left").rglob("predictions.csv")))}
    for doubts in (
        json.loads(next(Path("runs/left").rglob("metrics.json")).read_text())["doubts"],
        [next(Path("runs/left").rglob("report.html")).read_text()],
    ):
        assert any("Left out: 1 clip: b.mp4 (holdout): in train" in doubt for doubt in doubts)
    zamba("test", *last, "--data.trained_clips=keep", "--trainer.logger.name=kept", labels="clips/copies.csv")
    (doubt,) = [
        d for d in json.loads(next(Path("runs/kept").rglob("metrics.json")).read_text())["doubts"] if "b.mp4" in d
    ]
    assert doubt.startswith("Scored though the model knows them")


@pytest.mark.slow
def test_the_report_tells_that_clips_of_one_event_may_be_apart(zamba, many, fitted_on_many, folder):
    rows = [{**row, "site": "", "split": "holdout"} for row in read_csv(many / "all.csv") if int(row["site"][-1]) >= 7]
    for row in rows[::2]:
        row["split"] = "val"
    write_csv(folder / "new.csv", rows)
    zamba("test", "--ckpt_path", fitted_on_many / "checkpoints/last.ckpt", "--data.data_dir", many, labels="new.csv")
    for name in ("metrics.json", "report.html"):
        assert "in other splits than related clips" in next(folder.rglob(name)).read_text()


def test_cameras_number_their_clips_alike(zamba, many, fitted_on_many, folder):
    shutil.copytree(many, "clips")
    rows = [{**row, "site": f"new {row['site']}"} for row in read_csv(many / "labels.csv")]
    for row in rows:  # other clips by the same names
        with open(f"clips/{row['filepath']}", "ab") as file:
            file.write(b"\0\0\0\x08free" + row["filepath"].encode())
    write_csv(folder / "clips/new.csv", rows)
    proportions = "--data.split_proportions={holdout: 1}"
    zamba("test", "--ckpt_path", fitted_on_many / "checkpoints/last.ckpt", proportions, labels="clips/new.csv")
    assert looked_at(folder) == {row["filepath"] for row in rows}


def test_a_train_clip_whose_file_was_changed_is_no_clip_to_test_on(zamba, many, fitted_on_many, folder, refused):
    shutil.copytree(many, "clips")
    was = splits_in(fitted_on_many)
    rows = [{**row, "split": was[row["filepath"]]} for row in read_csv(many / "labels.csv")]
    changed = next(row for row in rows if row["split"] == "train")
    changed["split"] = "holdout"
    with open(f"clips/{changed['filepath']}", "ab") as file:
        file.write(b"\0\0\0\x08free")
    write_csv(folder / "clips/new.csv", rows)
    checkpoint = ["--ckpt_path", fitted_on_many / "checkpoints/last.ckpt", "--data.allow_sites_across_splits=true"]
    told = f"{changed['filepath']} (holdout): in train of the checkpoint's run, by its name: the file is another"
    refused(lambda: zamba("test", *checkpoint, labels="clips/new.csv"), told, "leave_out")


def test_what_tells_files_apart(folder):
    content = bytes(100_000) + b"beginning" + bytes(200_000)
    for name, changed in (("a", 0), ("b", len(content) // 2), ("c", len(content) - 1)):
        other = bytearray(content)
        other[changed] = 1
        Path(name).write_bytes(other)
    Path("as_a").write_bytes(Path("a").read_bytes())
    Path("empty").touch()
    os.mkfifo("pipe")  # who opens it to read never comes back
    assert len({content_digest(Path(name)) for name in "abc"}) == 3
    assert content_digest(Path("as_a")) == content_digest(Path("a"))
    for name in ("empty", "pipe", ".", "missing", "a\0b"):
        assert content_digest(Path(name)) == bytes(16)


def test_no_table_that_grows_moves_train_clips_into_the_holdout(folder):
    """Sixty tables, to each of which one site is added."""
    import numpy as np

    from zamba_lcli.data.labels.splits import draw_splits

    moved = 0
    for seed in range(60):
        chance = np.random.default_rng(seed)
        sizes = chance.integers(1, 20, size=13)
        rows = [
            LabelRow(None, f"{site}_{i}.mp4", [f"label {chance.integers(4)}"], "", f"site {site}")
            for site, size in enumerate(sizes)
            for i in range(size)
        ]
        old = [row for row in rows if row.site != "site 12"]
        draw_splits(old, shares_of({"train": 3, "val": 1, "holdout": 1}), 0, folder)
        before = {row.filepath: row.split for row in old}
        record = SplitRecord()
        for row in old:
            record.add(row, bytes(16))
        draw_splits(rows, shares_of({"train": 3, "val": 1, "holdout": 1}), 0, folder)  # as without a record
        moved += any(row.split == "holdout" and before[row.filepath] == "train" for row in old)
        left = record.place({folder / row.filepath: row for row in rows})
        assert {row.site for row in left} == {"site 12"}
        assert {row.filepath: row.split for row in old} == before
    assert moved > 10
