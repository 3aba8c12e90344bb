"""What `zamba test` writes, against scikit-learn on the table of predictions."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error

from helpers.runs import scalars
from helpers.tables import read_csv
from zamba_lcli.cli import main
from zamba_lcli.data import DemoClips
from zamba_lcli.evaluation.calibration import BINS

NAMES = list(DemoClips.class_names)
FILES = {
    "metrics.json", "per_class.csv", "per_site.csv", "confusion_matrix.csv", "predictions.csv", "operating_points.csv",
    "calibration.csv", "calibrated.yaml",
}  # fmt: skip


@pytest.fixture(scope="module")
def tested(fitted, clips, tmp_path_factory):
    """The run folder of a test of all clips but the val ones, one of them broken."""
    folder = tmp_path_factory.mktemp("tested")
    shutil.copytree(clips, folder / "clips")
    rows = read_csv(clips / "labels.csv")
    for i, row in enumerate(rows):
        row["split"] = "val" if row["split"] == "val" else "holdout"
        row["site"] = f"site {i % 3}" if row["split"] == "holdout" else "v"
    broken = next(row["filepath"] for row in rows if row["split"] == "holdout")
    (folder / "clips" / broken).write_bytes(b"no video")
    lines = [",".join(rows[0])] + [",".join(row.values()) for row in rows]
    (folder / "clips/labels.csv").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        checkpoint = ["--ckpt_path", str(fitted / "checkpoints/last.ckpt")]
        labels = ["--data.labels", "clips/labels.csv", "--data.check_clips=false", "--data.trained_clips=keep"]
        main(["test", "--config", str(fitted / "config.yaml"), *checkpoint, *labels, "--trainer.logger.version=0"])
    return folder / "runs/tiny/version_0"


def test_all_files_are_there_and_agree_with_scikit_learn(tested):
    assert {path.name for path in tested.iterdir()} >= FILES
    metrics = json.loads((tested / "metrics.json").read_text())
    rows = read_csv(tested / "predictions.csv")
    failed = [row for row in rows if row["status"] == "failed"]
    rows = [row for row in rows if row["status"] == "ok"]
    assert metrics["failed"] == len(failed) == 1
    assert failed[0]["error"]
    assert metrics["clips"] == len(rows) == 11
    truth = np.array([NAMES.index(row["labels"]) for row in rows])
    probabilities = np.array([[float(row[name]) for name in NAMES] for row in rows])
    top = probabilities.argmax(axis=1)
    assert [NAMES.index(row["top_class"]) for row in rows] == top.tolist()
    assert [row["correct"] == "1" for row in rows] == (truth == top).tolist()
    assert metrics["accuracy"] == pytest.approx(sk.accuracy_score(truth, top))
    assert metrics["macro_f1"] == pytest.approx(sk.f1_score(truth, top, average="macro"))
    logged = scalars(tested)
    assert metrics["macro_f1"] == pytest.approx(logged["test_macro_f1"][-1][1], abs=1e-6)
    assert metrics["negative_log_likelihood"] == pytest.approx(logged["test_loss"][-1][1], rel=1e-5)
    low, high = metrics["intervals_95"]["macro_f1"]
    assert low <= metrics["macro_f1"] <= high
    assert metrics["intervals_95"]["drawn"] == "sites"
    assert metrics["sites"] == 3

    per_class = read_csv(tested / "per_class.csv")
    assert [row["class"] for row in per_class] == NAMES
    for i, row in enumerate(per_class):
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            truth == i, top == i, average="binary", zero_division=np.nan
        )
        for name, value in (("precision", precision), ("recall", recall), ("f1", f1)):
            assert (float(row[name]) if row[name] else np.nan) == pytest.approx(value, abs=1e-5, nan_ok=True)
        assert int(row["support"]) == (truth == i).sum()
        expected = sk.average_precision_score(truth == i, probabilities[:, i])
        assert float(row["average_precision"]) == pytest.approx(expected, abs=1e-5)
    matrix = [[int(row[name]) for name in NAMES] for row in read_csv(tested / "confusion_matrix.csv")]
    assert matrix == sk.confusion_matrix(truth, top, labels=range(4)).tolist()
    for row in read_csv(tested / "per_site.csv"):
        at = [i for i, clip in enumerate(rows) if clip["site"] == row["site"]]
        assert int(row["clips"]) == len(at)
        assert float(row["accuracy"]) == pytest.approx((truth == top)[at].mean(), abs=1e-5)
        labels = sorted({*truth[at], *top[at]})  # the classes that are there or named
        f1 = sk.f1_score(truth[at], top[at], labels=labels, average="macro", zero_division=0)
        assert float(row["macro_f1"]) == pytest.approx(f1, abs=1e-5)
    average = [sk.average_precision_score(truth == i, probabilities[:, i]) for i in range(4)]
    assert metrics["mean_average_precision"] == pytest.approx(np.mean(average), abs=1e-5)
    ece = multiclass_calibration_error(torch.tensor(probabilities), torch.tensor(truth), 4, n_bins=BINS, norm="l1")
    assert metrics["expected_calibration_error"] == pytest.approx(float(ece), abs=1e-4)
    bins = read_csv(tested / "calibration.csv")
    assert len(bins) == BINS
    for row in bins:
        inside = (probabilities.max(axis=1) > float(row["from"])) & (probabilities.max(axis=1) <= float(row["to"]))
        assert int(row["predictions"]) == inside.sum()
        if inside.any():
            assert float(row["accuracy"]) == pytest.approx((truth == top)[inside].mean(), abs=1e-5)
            assert float(row["confidence"]) == pytest.approx(probabilities.max(axis=1)[inside].mean(), abs=1e-5)


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_fit_validate_and_test_give_the_same_macro_f1(task, zamba, clips, folder):
    """Of the same answers, with a class that none of their clips has: it is left out, in every task."""
    shutil.copytree(clips, folder / "clips")
    rows = read_csv(clips / "labels.csv")
    for row in rows:
        row["split"] = row["site"] = "train" if row["split"] == "train" else "val"
        if task == "multilabel" and row["label"] != "blank":
            row["label"] += ";night"  # the first class that a model learns to predict
    next(row for row in rows if row["split"] == "train")["label"] = "owl"

    def write(name, split):
        table = [{**row, "split": split if row["split"] == "val" else row["split"]} for row in rows]
        lines = [",".join(rows[0])] + [",".join(row.values()) for row in table]
        (folder / "clips" / name).write_text("\n".join(lines))
        return f"clips/{name}"

    arguments = [f"--model.init_args.task={task}", "--data.trained_clips=keep", "--optimizer.init_args.lr=0.5"]
    zamba("fit", *arguments, labels=write("labels.csv", "val"))
    checkpoint = ["--ckpt_path", "runs/tiny/version_0/checkpoints/last.ckpt"]
    zamba("validate", *arguments, *checkpoint, labels="clips/labels.csv")
    zamba("test", *arguments, *checkpoint, labels=write("tested.csv", "holdout"))
    run = folder / "runs/tiny/version_0"
    fitted, validated, tested = (scalars(path) for path in (run, run / "validate_0", run / "test_0"))
    found = read_csv(run / "test_0/predictions.csv")
    names = sorted({*NAMES, "owl", *(["night"] if task == "multilabel" else [])})
    probabilities = np.array([[float(row[name]) for name in names] for row in found])
    truth = np.array([[name in row["labels"].split(";") for name in names] for row in found])
    predicted = probabilities > 0.5
    if task == "multiclass":
        predicted = probabilities == probabilities.max(axis=1, keepdims=True)
    assert not (truth | predicted)[:, names.index("owl")].any()
    expected = sk.f1_score(truth, predicted, average="macro", zero_division=np.nan)
    there = np.flatnonzero((truth | predicted).any(axis=0))
    assert expected == pytest.approx(sk.f1_score(truth, predicted, average="macro", labels=there, zero_division=0))
    logged = [fitted["val_macro_f1"][-1][1], validated["val_macro_f1"][-1][1], tested["test_macro_f1"][-1][1]]
    metrics = json.loads((run / "test_0/metrics.json").read_text())
    assert [*logged, metrics["macro_f1"]] == pytest.approx([expected] * 4, abs=1e-6)
    assert expected > sk.f1_score(truth, predicted, average="macro", zero_division=0)


def test_a_multilabel_model(zamba, clips, folder, predict):
    """Each class by itself; clips with two labels."""
    rows = read_csv(clips / "labels.csv")
    shutil.copytree(clips, folder / "clips")
    for i, row in enumerate(rows):
        row["label"] = f"{row['label']};night" if i % 2 and row["label"] != "blank" else row["label"]
        row["site"] = ""
    lines = [",".join(rows[0])] + [",".join(row.values()) for row in rows]
    (folder / "clips/labels.csv").write_text("\n".join(lines))
    task = "--model.init_args.task=multilabel"
    zamba("fit", task, "--trainer.max_epochs=1", labels="clips/labels.csv")
    zamba("test", task, "--ckpt_path", "runs/tiny/version_0/checkpoints/last.ckpt", labels="clips/labels.csv")
    found = folder / "runs/tiny/version_0/test_0"
    found_rows = read_csv(found / "predictions.csv")
    names = [*NAMES, "night"]
    names.sort()
    truth = np.array([[name in row["labels"].split(";") for name in names] for row in found_rows])
    assert (truth.sum(axis=1) == 2).any()
    probabilities = np.array([[float(row[name]) for name in names] for row in found_rows])
    metrics = json.loads((found / "metrics.json").read_text())
    average = []
    for i, row in enumerate(read_csv(found / "per_class.csv")):
        assert row["class"] == names[i]
        named = probabilities[:, i] > 0.5
        scores = sk.precision_recall_fscore_support(truth[:, i], named, average="binary", zero_division=np.nan)[:3]
        for name, value in zip(("precision", "recall", "f1"), scores, strict=True):
            assert (float(row[name]) if row[name] else np.nan) == pytest.approx(value, abs=1e-5, nan_ok=True)
        average.append(sk.average_precision_score(truth[:, i], probabilities[:, i]))
        assert float(row["average_precision"]) == pytest.approx(average[-1], abs=1e-5)
    assert metrics["mean_average_precision"] == pytest.approx(np.mean(average), abs=1e-5)
    # beside it the scores above thresholds, which are fitted on the val clips
    limits = np.array([metrics["fitted_thresholds"]["by_class"][name] for name in names])
    assert metrics["fitted_thresholds"]["val_clips"] == 4
    expected = sk.f1_score(truth, probabilities > limits, average="macro", zero_division=np.nan)
    assert metrics["macro_f1_at_thresholds"] == pytest.approx(expected)
    per_class = read_csv(found / "per_class.csv")
    assert [float(row["threshold"]) for row in per_class] == pytest.approx(limits, rel=1e-5)
    for name, column in (("precision", 0), ("recall", 1), ("f1", 2)):
        each = sk.precision_recall_fscore_support(truth, probabilities > limits, average=None, zero_division=np.nan)
        shown = [float(row[f"{name}_at_threshold"] or "nan") for row in per_class]
        assert shown == pytest.approx(each[column], abs=1e-5, nan_ok=True)
    assert "the highest F1 on the 4 val clips" in metrics["rule"]
    assert metrics["rule"] in (found / "report.html").read_text()
    assert f"{expected:.3f}" in (found / "report.html").read_text()
    checkpoint = folder / "runs/tiny/version_0/checkpoints/last.ckpt"
    for row in predict(checkpoint, clips, "--config", found / "thresholds.yaml"):
        assert [int(row[f"has_{name}"]) for name in names] == [
            float(row[name]) > limits[i] for i, name in enumerate(names)
        ]
    logged = scalars(found)["test_macro_f1"][-1][1]
    assert metrics["macro_f1"] == pytest.approx(
        np.nanmean(
            [sk.f1_score(t, p, zero_division=np.nan) for t, p in zip(truth.T, probabilities.T > 0.5, strict=True)]
        )
    )
    assert logged == pytest.approx(metrics["macro_f1"], abs=1e-6)
    assert "Intervals by clips are too narrow" in (found / "report.html").read_text()
    assert any(
        "Intervals by clips are too narrow" in d for d in json.loads((found / "metrics.json").read_text())["doubts"]
    )
    right = truth[np.arange(len(truth)), probabilities.argmax(axis=1)]
    assert metrics["accuracy"] == pytest.approx(right.mean(), abs=1e-5)
    assert (found / "report.html").exists()


def test_operating_points_say_what_they_do(tested):
    rows = [row for row in read_csv(tested / "predictions.csv") if row["status"] == "ok"]
    points = read_csv(tested / "operating_points.csv")
    assert {row["class"] for row in points} == set(NAMES)
    assert [float(row["may_lose"]) for row in points[:5]] == [0.01, 0.02, 0.05, 0.1, 0.15]
    for point in points:
        name = point["class"]
        wanted = [(row["labels"] != "blank") if name == "blank" else row["labels"] == name for row in rows]
        assert int(point["wanted_clips"]) == sum(wanted)
        if sum(wanted) < 1 / float(point["may_lose"]) - 1:
            assert {point[key] for key in ("threshold", "lost", "removed", "expected_lost")} == {""}
            continue
        threshold = float(point["threshold"])
        assert point["sorted_out"] == ("above" if name == "blank" else "below")
        scores = np.array([float(row[name]) for row in rows])
        out = scores > threshold + 2e-6 if name == "blank" else scores < threshold - 2e-6
        wanted = np.array(wanted)
        assert out[wanted].mean() == pytest.approx(float(point["lost"]), abs=1e-5)
        assert out[~wanted].mean() == pytest.approx(float(point["removed"]), abs=1e-5)


def test_the_temperature_is_used_by_predict(tested, fitted, clips, folder, predict):
    stated = yaml.safe_load((tested / "calibrated.yaml").read_text())
    temperature = stated["model"]["init_args"]["temperature"]
    metrics = json.loads((tested / "metrics.json").read_text())
    assert metrics["fitted_temperature"]["temperature"] == temperature
    assert metrics["fitted_temperature"]["val_clips"] == 4
    assert temperature != 1.0
    report = (tested / "report.html").read_text()
    assert "fitted on 4 val clips" in report  # too few
    assert "fitted on 4 val clips" in metrics["fitted_temperature"]["doubt"]
    assert "Intervals from 3 sites are rough" in report
    assert {row["temperature"] for row in read_csv(tested / "operating_points.csv")} == {"1"}
    plain = predict(fitted / "checkpoints/last.ckpt", clips, output_dir="plain")
    cooled = predict(
        fitted / "checkpoints/last.ckpt", clips, "--config", tested / "calibrated.yaml", output_dir="cooled"
    )
    for one, other in zip(plain, cooled, strict=True):
        logits = np.log([float(one[name]) for name in NAMES]) / temperature
        expected = np.exp(logits) / np.exp(logits).sum()
        assert [float(other[name]) for name in NAMES] == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert any(one != other for one, other in zip(plain, cooled, strict=True))


@pytest.mark.slow
def test_classes_called_like_the_columns_of_a_test(clips, zamba, folder):
    names = {"blank": "true", "hopper": "predicted", "pacer": "class", "walker": "true_"}
    rows = [[row["filepath"], names[row["label"]], row["split"]] for row in read_csv(clips / "labels.csv")]
    Path("t.csv").write_text("\n".join(["filepath,label,split", *map(",".join, rows)]))
    data = f"--data.data_dir={clips}"
    zamba("fit", data, "--trainer.max_epochs=1", labels="t.csv")
    zamba("test", data, "--ckpt_path=runs/tiny/version_0/checkpoints/last.ckpt", labels="t.csv")
    tables = list(Path("runs").rglob("*.csv"))
    heads = {table.name: table.read_text().splitlines()[0].split(",") for table in tables}
    assert heads["confusion_matrix.csv"] == ["true__", "class", "predicted", "true", "true_"]
    assert len(heads) >= 7
    for head in heads.values():
        assert len(set(head)) == len(head)


@pytest.mark.slow
def test_two_processes_find_the_same(tested, fitted, folder):
    command = [sys.executable, "-m", "zamba_lcli", "test", "--config", str(fitted / "config.yaml")]
    command += [
        "--ckpt_path",
        str(fitted / "checkpoints/last.ckpt"),
        "--data.check_clips=false",
        "--data.trained_clips=keep",
    ]
    command += ["--data.labels", str(tested.parents[2] / "clips/labels.csv"), "--trainer.devices=2"]
    command += ["--trainer.logger.init_args.version=0"]  # its own folder is that of the checkpoint's run
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert ended.returncode == 0, ended.stderr
    found = folder / "runs/tiny/version_0"
    assert (found / "confusion_matrix.csv").read_text() == (tested / "confusion_matrix.csv").read_text()
    for name in ("predictions.csv", "per_class.csv", "operating_points.csv"):
        for row, other in zip(read_csv(found / name), read_csv(tested / name), strict=True):
            for key, value in row.items():
                try:
                    assert float(value) == pytest.approx(float(other[key]), abs=1e-4)
                except ValueError:
                    assert value == other[key]
    assert not Path("lightning_logs").exists()
