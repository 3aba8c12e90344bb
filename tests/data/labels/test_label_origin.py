"""What people said is a label, what a machine said a prediction."""

import csv
import shutil
from pathlib import Path

import pytest

from helpers.camtrap_dp import clip, error_of, event, labels_of, machine, seen
from zamba_lcli.cli import main
from zamba_lcli.data.labels.table import read_labels, write_labels

SPAN = ("12:00:00Z", "12:01:00Z")
HUMAN = {"classificationMethod": "human", "classifiedBy": "A. B."}


def by_machine(row: dict[str, str], **more) -> dict[str, str]:
    return {**row, **machine(), **more}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("people", "model", "expected"),
    [
        ([event("Vulpes vulpes", *SPAN)], [seen("a", "Canis lupus")], ("Vulpes vulpes",)),
        ([event("blank", *SPAN)], [seen("a", "Canis lupus")], ("blank",)),
        ([event("human", *SPAN)], [seen("a", "vehicle")], ("human",)),
        ([seen("a", "Vulpes vulpes")], [seen("a", "Canis lupus")], ("Vulpes vulpes",)),
        ([seen("a", "blank")], [seen("a", "Canis lupus"), seen("a", "Sus scrofa")], ("blank",)),
        ([seen("a", "Vulpes vulpes")], [seen("a", "blank")], ("Vulpes vulpes",)),
        ([seen("a", "Vulpes vulpes")], [event("Canis lupus", *SPAN)], ("Vulpes vulpes",)),
        ([event("Vulpes vulpes", *SPAN)], [event("Canis lupus", *SPAN)], ("Vulpes vulpes",)),
        ([event("vehicle", *SPAN), event("human", *SPAN)], [seen("a", "blank")], ("human", "vehicle")),
        ([seen("a", "unclassified"), event("Vulpes vulpes", *SPAN)], [seen("a", "Canis lupus")], ("Vulpes vulpes",)),
    ],
)
def test_people_win_over_machines_at_every_level(package, people, model, expected, order):
    # a second video, so that there always is one with a label
    rows = [*[{**row, **HUMAN} for row in people], *map(by_machine, model)][::order]
    folder = package([clip("a"), clip("b", at="13:00:00Z")], [*rows, {**seen("b", "Meles meles"), **HUMAN}])
    assert labels_of(folder) == {"d1/a.mp4": expected, "d1/b.mp4": ("Meles meles",)}
    assert labels_of(folder, machine_labels=True) == {"d1/a.mp4": expected, "d1/b.mp4": ("Meles meles",)}


def test_predictions_count_only_if_asked_for_and_where_people_say_nothing(package, caplog):
    folder = package(
        [clip("a"), clip("b"), clip("c", at="13:00:00Z"), clip("d", at="14:00:00Z"), clip("e"), clip("f")],
        [
            {**seen("a", "Vulpes vulpes"), **HUMAN},
            by_machine(seen("a", "Canis lupus")),
            by_machine(seen("b", "Canis lupus")),
            by_machine(event("Sus scrofa", "13:00:00Z", "13:00:30Z"), classifiedBy="another"),
            {**seen("d", "unknown"), **HUMAN},  # who looked could not tell
            by_machine(seen("d", "Canis lupus")),
            {**seen("e", "unclassified"), **HUMAN},  # nobody looked
            by_machine(seen("e", "blank")),
        ],
    )
    with caplog.at_level("INFO"):
        read = read_labels(folder, split_proportions={"train": 1})
    assert {clip.filepath: clip.labels for clip in read.clips} == {"d1/a.mp4": ("Vulpes vulpes",)}
    source = folder / "datapackage.json"
    (told,) = read.warnings
    assert told.severity == "warning"
    assert told.what == (
        "5 observations by a machine ignored (a model: 4, another: 1): predictions are no labels; 3 clips left out because no "
        "person labelled them"
    )
    assert told.remedy == "To use predictions where people gave no label, set data.machine_labels to true."
    assert caplog.messages == [
        f"{source}: {told.what}. {told.remedy}",
        f"{source}: left out 2 videos without a label (unclassified, unknown, or without an observation).",
    ]
    caplog.clear()
    with caplog.at_level("INFO"):
        read = read_labels(folder, split_proportions={"train": 1}, machine_labels=True)
    assert {clip.filepath: clip.labels for clip in read.clips} == {
        "d1/a.mp4": ("Vulpes vulpes",),
        "d1/b.mp4": ("Canis lupus",),
        "d1/c.mp4": ("Sus scrofa",),
        "d1/e.mp4": ("blank",),
    }
    assert "the labels of 3 clips are a machine's predictions (a model: 2, another: 1)" in caplog.text


def test_a_package_of_predictions_alone_is_refused(package):
    folder = package([clip("a"), clip("b")], [by_machine(seen("a", "fox")), by_machine(event("blank", *SPAN))])
    message = error_of(folder)
    assert message.startswith(f"data.labels: {folder / 'datapackage.json'} has no label by people: its 2 observations")
    assert "set data.machine_labels to true" in message
    assert labels_of(folder, machine_labels=True) == {"d1/a.mp4": ("fox",), "d1/b.mp4": ("blank",)}


@pytest.mark.parametrize(
    ("said", "is_machine"),
    [
        ({}, False),
        ({"classificationMethod": "NA", "classifiedBy": "A. B."}, False),
        ({"classificationProbability": "1"}, False),
        ({"classificationMethod": "human", "classificationProbability": "0.5"}, False),
        ({"classificationProbability": "0.93"}, True),  # people leave it out
        ({"classificationMethod": "Machine"}, True),
        ({"classificationProbability": "0,87", "classifiedBy": "SpeciesNet 4.0"}, True),
        ({"classificationProbability": "87 %"}, True),
        ({"classificationProbability": "87.5"}, True),
        ({"classificationProbability": "9e-1"}, True),
        ({"classificationProbability": "1,00"}, False),
        ({"classificationProbability": "100%"}, False),
    ],
)
def test_who_classified_where_the_method_is_empty(package, said, is_machine):
    folder = package([clip("a"), clip("b")], [{**seen("a", "fox"), **said}, seen("b", "blank")], valid=False)
    expected = {"d1/b.mp4": ("blank",)} | ({} if is_machine else {"d1/a.mp4": ("fox",)})
    assert labels_of(folder) == expected


@pytest.mark.parametrize("value", ["high", "-0.5", "870", "0.8.7", "1/2"])
def test_a_probability_that_is_none(package, value):
    rows = [{**seen("a", "fox"), "classificationProbability": value}, {**seen("b", "fox"), **HUMAN}]
    message = error_of(package([clip("a"), clip("b")], rows, valid=False))
    assert f"observations.csv, row 2: invalid classificationProbability {value!r}" in message
    assert "Write a number from 0 to 1" in message


def test_a_method_decides_whatever_the_probability_is(package):
    rows = [{**seen("a", "fox"), **HUMAN, "classificationProbability": "high"}]
    assert labels_of(package([clip("a")], rows, valid=False)) == {"d1/a.mp4": ("fox",)}


def test_two_who_classified_and_nothing_says_who_is_a_person(package):
    def by(who, *rows):
        return [{**row, "classifiedBy": who} for row in rows]

    clips = [clip("a"), clip("b"), clip("c", at="13:00:00Z")]
    people = by("A. B.", seen("a", "fox"), seen("b", "deer"), event("blank", "13:00:00Z", "13:00:30Z"))
    folder = package(clips, [*people, *by("SpeciesNet 4.0", seen("a", "fox"), seen("b", "boar"), seen("b", "deer"))])
    (told,) = read_labels(folder, split_proportions={"train": 1}).warnings
    assert told.what == (
        "d1/b.mp4 gets the labels of all who classified it (A. B.: deer; SpeciesNet 4.0: boar, deer); who of them is a person "
        "is unknown"
    )
    assert "human or machine" in told.remedy


def test_people_may_disagree(package):
    rows = [{**seen("a", label), **HUMAN, "classifiedBy": who} for who, label in (("A. B.", "fox"), ("C. D.", "deer"))]
    read = read_labels(package([clip("a")], rows), split_proportions={"train": 1})
    assert (read.clips[0].labels, read.warnings) == (("deer", "fox"), ())


def test_an_unknown_method(package):
    folder = package([clip("a")], [{**seen("a", "fox"), "classificationMethod": "AI"}], valid=False)
    message = error_of(folder)
    assert "observations.csv, row 2: unknown classificationMethod 'AI'" in message
    assert "Write human or machine" in message


def test_what_is_wrong_with_predictions_is_told_only_where_they_count(package):
    folder = package(
        [clip("a"), clip("b")],
        [seen("a", "fox"), by_machine(seen("b", "animal")), by_machine(event("blank", *SPAN), eventStart="soon")],
        valid=False,
    )
    assert labels_of(folder) == {"d1/a.mp4": ("fox",)}
    message = error_of(folder, machine_labels=True)
    assert "observations.csv, row 3: an animal, but scientificName is empty" in message
    assert "observations.csv, row 4: the eventStart 'soon' is no time" in message


PREDICTIONS = "filepath,deer,blank,top_class,status,error\na.mp4,0.9,0.1,deer,ok,\nb.mp4,0.2,0.8,blank,ok,\n"


def test_predictions_are_no_labels(folder):
    Path("predictions.csv").write_text(PREDICTIONS)
    assert "is a table of predictions and has no column 'label'" in error_of("predictions.csv")
    message = error_of("predictions.csv", label_column="top_class")
    assert "the column 'top_class' of" in message
    assert "has a machine's predictions" in message
    assert "data.machine_labels" in message
    expected = {"a.mp4": ("deer",), "b.mp4": ("blank",)}
    assert labels_of("predictions.csv", label_column="top_class", machine_labels=True) == expected


def test_a_column_of_people_in_a_table_of_predictions(folder):
    rows = PREDICTIONS.splitlines()
    Path("reviewed.csv").write_text("\n".join([rows[0] + ",label", rows[1] + ",fox", rows[2] + ",blank"]) + "\n")
    assert labels_of("reviewed.csv") == {"a.mp4": ("fox",), "b.mp4": ("blank",)}
    tested = "filepath,site,labels,deer,top_class,correct,status,error\na.mp4,s,fox,0.9,deer,0,ok,\n"
    Path("tested.csv").write_text(tested)
    assert "set data.label_column to it" in error_of("tested.csv")
    assert labels_of("tested.csv", label_column="labels") == {"a.mp4": ("fox",)}


@pytest.mark.parametrize("column", ["prediction", "predicted_label", "ai_classification_label", "pred", "Predicted"])
def test_columns_that_say_that_they_are_predictions(folder, column):
    Path("labels.csv").write_text(f"filepath,{column}\na.mp4,fox\n")
    assert "machine's predictions" in error_of("labels.csv", label_column=column)


@pytest.mark.parametrize("column", ["has_animal", "aim", "predator", "airport_species"])
def test_columns_that_only_look_so(folder, column):
    Path("labels.csv").write_text(f"filepath,{column}\na.mp4,fox\n")
    assert labels_of("labels.csv", label_column=column) == {"a.mp4": ("fox",)}


@pytest.mark.parametrize(
    ("columns", "of_people", "of_machine"),
    [
        ("identified_by", ["A. B."], ["Computer vision"]),
        ("identified_by,cv_confidence", ["A. B.", "97"], ["Computer vision", "97"]),
        ("cv_confidence", [""], ["88"]),
        ("human_verified", ["True"], ["False"]),
        ("classification_method,is_verified", ["machine", "TRUE"], ["machine", "FALSE"]),
        ("classification_method,is_verified", ["human", "FALSE"], ["machine", ""]),
        ("classificationMethod", [""], ["machine"]),
    ],
)
def test_rows_that_say_whose_their_label_is(folder, columns, of_people, of_machine):
    people, machine = ",".join(of_people), ",".join(of_machine)
    Path("labels.csv").write_text(
        f"filepath,label,{columns}\na.mp4,wolf,{machine}\na.mp4,fox,{people}\nb.mp4,wolf,{machine}\nc.mp4,blank,{people}\n"
    )
    read = read_labels("labels.csv", split_proportions={"train": 1})
    assert {clip.filepath: clip.labels for clip in read.clips} == {"a.mp4": ("fox",), "c.mp4": ("blank",)}
    (told,) = read.warnings
    assert told.what.startswith("2 rows by a machine ignored")
    assert "1 clip left out" in told.what
    expected = {"a.mp4": ("fox",), "b.mp4": ("wolf",), "c.mp4": ("blank",)}
    assert labels_of("labels.csv", machine_labels=True) == expected
    Path("labels.csv").write_text(f"filepath,label,{columns}\na.mp4,wolf,{machine}\n")
    assert "has no label by people: its 1 row by a machine" in error_of("labels.csv")


def test_a_table_of_splits_says_which_labels_are_predictions(package, folder):
    """It is a table of labels itself, and predictions are not to become labels on the way."""
    source = package([clip("a"), clip("b")], [seen("a", "fox"), by_machine(seen("b", "blank"))])
    every = read_labels(source, split_proportions={"train": 1}, machine_labels=True)
    write_labels(every, folder / "splits.csv")
    assert read_labels("splits.csv", machine_labels=True).class_names == ("blank", "fox")
    assert read_labels("splits.csv").class_names == ("fox",)
    write_labels(read_labels(source, split_proportions={"train": 1}), folder / "people.csv")
    assert (folder / "people.csv").read_text() == "filepath,label,split,site\nd1/a.mp4,fox,train,d1\n"


@pytest.mark.parametrize("content", ['{"images": [], "detection_categories": {"1": "animal"}}', '{"predictions": []}'])
def test_results_of_a_detector(folder, content):
    Path("results.json").write_text(content)
    assert "They are predictions, and no labels" in error_of("results.json")


def test_check_tells_of_predictions(package, clips, folder, capsys):
    """From the command line: told by check, and refused where there is nothing else."""
    names = sorted(path.name for path in clips.iterdir() if path.suffix == ".mp4")[:2]
    for name in names:
        shutil.copy(clips / name, folder / name)
    media = [clip("a", filePath=names[0]), clip("b", filePath=names[1])]
    source = package(media, [seen("a", "fox"), by_machine(seen("b", "blank"))])
    arguments = ["check", f"--data.labels={source}", f"--data.data_dir={folder}"]
    splits = ["--data.split_proportions={train: 1}"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, *splits])
    assert ended.value.code == 1  # there is no val
    with Path("check.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["severity"] == "warning"]
    assert [row["what"].startswith("1 observation by a machine ignored (a model: 1)") for row in rows] == [True]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([*arguments, *splits, "--data.machine_labels=true"])
    assert "the labels of 1 clip are a machine's predictions (a model: 1)" in capsys.readouterr().out
