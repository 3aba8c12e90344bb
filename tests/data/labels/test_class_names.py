"""Names that no class can have: those of columns of the tables of predictions, none, and one that is there already."""

import csv
import shutil

import pytest

from helpers.tables import read_csv, write_csv
from zamba_lcli.cli import main
from zamba_lcli.columns import called_like_columns
from zamba_lcli.data.labels.table import read_labels
from zamba_lcli.errors import InputError

COLUMNS = ["filepath", "site", "labels", "top_class", "correct", "status", "error", "note", "part", "start", "end"]


@pytest.mark.parametrize("name", COLUMNS)
def test_labels_that_are_called_like_a_column(folder, name):
    (folder / "t.csv").write_text(f"filepath,label,split\na.mp4,fox,train\nb.mp4,fox;{name},train\nc.mp4,{name},val\n")
    with pytest.raises(InputError) as caught:
        read_labels("t.csv")
    assert f"row 3: the label {name!r} has the name of a column of predictions\nGive the class another name" in str(
        caught.value
    )


def test_columns_that_tell_whether_a_clip_has_a_class(folder):
    (folder / "t.csv").write_text("filepath,label,split\na.mp4,fox,train\nb.mp4,has_fox,train\n")
    with pytest.raises(InputError, match="row 3: the label 'has_fox' has the name of a column"):
        read_labels("t.csv")
    assert called_like_columns(["has_fox", "deer", "Status", "errors"]) == []


@pytest.fixture
def renamed(clips, folder):
    """Returns what makes a table of the clips with another name for a class."""

    def make(name, of="walker"):
        shutil.copytree(clips, "clips", dirs_exist_ok=True)
        rows = read_csv(clips / "labels.csv")
        for row in rows:
            row["label"] = name if row["label"] == of else row["label"]
        write_csv("clips/labels.csv", rows)
        return next(number for number, row in enumerate(rows, start=2) if row["label"] == name)

    return make


def test_they_are_refused_before_training(zamba, renamed, folder, refused, capsys):
    row = renamed("status")
    refused(
        lambda: zamba("fit", labels="clips/labels.csv"), f"row {row}: the label 'status'", "Give the class another name"
    )
    with pytest.raises(SystemExit) as exit_info:
        main(["check", "--data.labels", "clips/labels.csv"])
    assert exit_info.value.code == 1
    (problem,) = read_csv("check.csv")
    assert (problem["row"], problem["severity"]) == (str(row), "problem")
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("[blank, hopper, pacer, walker, error]", ["data.class_names: 'error': the name of a column", "another name"]),
        ("[blank, hopper, pacer, walker, has_walker]", ["data.class_names: 'has_walker'"]),
        ("[blank, hopper, pacer, walker, blank]", ["data.class_names: 'blank' is there twice, as items 1 and 5"]),
        ("[blank, ' ', pacer]", ["data.class_names: item 2 is empty"]),
        (
            "[2024-05-01, blank]",
            ["no class for the labels ['hopper', 'pacer', 'walker']", "or data.class_names, which may be"],
        ),
        ("[blank]", ["no class for the labels"]),
    ],
)
def test_classes_that_are_stated(zamba, clips, folder, refused, names, told):
    message = refused(lambda: zamba("fit", "--data.class_names", names, "--model.init_args.task=multilabel"), *told)
    assert "checkpoint" not in message
    assert not (folder / "runs").exists()
    if "item" not in message:  # which are told of whatever is done
        with pytest.raises(SystemExit) as exit_info:
            main(["check", "--data.labels", str(clips / "labels.csv"), "--data.class_names", names])
        assert exit_info.value.code == 1
        assert told[0].split(": ")[-1] in read_csv("check.csv")[0]["what"]


def test_a_checkpoint_is_named_where_its_classes_are_meant(zamba, renamed, fitted, refused):
    renamed("zebra")
    checkpoint = fitted / "checkpoints/last.ckpt"
    words = ["test", "--ckpt_path", str(checkpoint), "--data.labels", "clips/labels.csv"]
    refused(lambda: main(words), "no class for the labels ['zebra']", "train without that checkpoint")


def test_a_test_has_no_column_twice(fitted, clips, folder):
    words = ["test", "--ckpt_path", str(fitted / "checkpoints/last.ckpt"), "--data.labels", str(clips / "labels.csv")]
    main([*words, "--trainer.default_root_dir=."])
    (found,) = folder.rglob("predictions.csv")
    with found.open(encoding="utf-8") as file:
        header = next(csv.reader(file))
    names = ["blank", "hopper", "pacer", "walker"]
    assert header == ["filepath", "site", "labels", *names, "top_class", "correct", "status", "error", "note"]
    assert set(COLUMNS) >= set(header) - set(names)
