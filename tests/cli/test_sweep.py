"""Sweeps: trials that are whole runs, a study that goes on, and what is refused."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from helpers.paths import TINY
from helpers.runs import write_yaml
from helpers.tables import read_csv
from zamba_lcli.cli import main

LR = "optimizer.init_args.lr"
RATIO = "trainer.callbacks.BackboneFinetuning.backbone_initial_ratio_lr"
LOSSES = [{"class_path": "torch.nn.CrossEntropyLoss", "init_args": {"label_smoothing": 0.1}}, "SoftmaxFocalLoss"]
PARAMETERS = {
    LR: {"low": 1e-3, "high": 1e-1, "log": True},
    RATIO: {"low": 0, "high": 1},
    "model.init_args.loss": LOSSES,
}
SAME = {"metric": "val_loss", "trials": 2, "parameters": PARAMETERS}


@pytest.fixture
def sweep(zamba, folder):
    """Runs a sweep with the tiny configuration."""

    def run(*args, **stated):
        write_yaml("sweep.yaml", {**SAME, **stated})
        zamba("sweep", *args)

    return run


def value_at(config, key):
    for part in key.split("."):
        if isinstance(config, list):
            (config,) = (item["init_args"] for item in config if item["class_path"].endswith(part))
        else:
            config = config[part]
    return config


@pytest.mark.slow
def test_keys_and_values_that_do_not_fit_are_refused(sweep, refused, folder):
    for parameters, texts in (
        ({"optimizer.init_args.lrr": [0.1]}, ["sweep.yaml: parameters", "optimizer", "lrr", "Did you mean lr?"]),
        ({"data.batch_size": {"low": 1, "high": 4.5}}, ["data.batch_size", "4.5 is not a whole number"]),
    ):
        refused(lambda parameters=parameters: sweep(parameters=parameters), *texts)
    assert [path.name for path in folder.iterdir()] == ["sweep.yaml"]


@pytest.mark.slow
def test_other_wrong_input_is_refused_and_nothing_is_written(sweep, refused, folder):
    cases = [
        ({"metric": "val_f1"}, (), ["val_f1", "not logged", "val_macro_f1"]),
        ({"metric": "train_loss"}, (), ["metric: train_loss"]),
        ({"direction": "maximize"}, (), ["direction: maximize", "minimize"]),
        ({"trials": None}, (), ["state trials"]),
        ({"trails": 3}, (), ["sweep.yaml: trails", "Did you mean trials?"]),
        ({"pruner": "MedianPrunr"}, (), ["pruner", "MedianPruner"]),
        ({"parameters": {"optimizer.lr": [0.1]}}, (), ["optimizer.lr", "optimizer.init_args.lr"]),
        ({"parameters": {"data.task": ["multilabel"]}}, (), ["data.task"]),
        ({"parameters": {LR: {"low": 0.1, "high": 0.01}}}, (), [LR, "0.1 is not less than high: 0.01"]),
        ({"parameters": {LR: {"low": 0, "high": 0.01, "log": True}}}, (), [LR, "log: true"]),
        ({"parameters": {LR: {"lo": 0.1, "high": 1}}}, (), [LR, "Did you mean low?"]),
        ({"parameters": {LR: [0.1, 0.1]}}, (), [LR, "once"]),
        ({"parameters": {"trainer.logger.init_args.name": ["a"]}}, (), ["the same for all trials"]),
        ({"parameters": {"print_config": [True]}}, (), ["print_config", "no such key"]),
        ({}, ["--sweep", "none.yaml"], ["no file none.yaml"]),
        ({}, ["--ckpt_path", "last"], ["ckpt_path"]),
        ({}, ["--seed_everything", "true"], ["seed_everything"]),
        ({}, ["--trainer.logger", "false"], ["trainer.logger"]),
        ({}, ["--trainer.logger.init_args.version", "0"], ["version"]),
        ({}, ["--trainer.fast_dev_run", "true"], ["fast_dev_run"]),
        ({}, ["--trainer.callbacks.dirpath", "x"], ["dirpath"]),
    ]
    for stated, args, texts in cases:
        refused(lambda stated=stated, args=args: sweep(*args, **stated), *texts)
    assert [path.name for path in folder.iterdir()] == ["sweep.yaml"]


def test_without_optuna_the_extra_is_named(sweep, refused, monkeypatch):
    monkeypatch.setattr("zamba_lcli.cli.study.find_spec", lambda name: None)
    refused(sweep, "pip install 'zamba-lcli[optuna]'")


@pytest.mark.slow
def test_each_trial_is_a_run_that_its_config_repeats(sweep, refused, folder, capsys):
    sweep()
    runs = folder / "runs/tiny"
    rows = read_csv(runs / "trials.csv")
    assert [row["state"] for row in rows] == ["complete", "complete"]
    for row in rows:
        run = Path(row["run_folder"])
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert (run / "checkpoints/last.ckpt").exists()
        assert (run / "splits.csv").exists()
        assert value_at(config, LR) == float(row[LR])
        assert value_at(config, RATIO) == float(row[RATIO])
    best = min(rows, key=lambda row: float(row["val_loss"]))
    assert (runs / "best.yaml").read_text() == Path(best["run_folder"], "config.yaml").read_text()
    page = (runs / "sweep.html").read_text()
    assert "Plotly.newPlot" in page
    assert "<script src" not in page
    assert "best.yaml" in capsys.readouterr().out

    sweep(trials=3)  # goes on
    assert read_csv(runs / "trials.csv")[:2] == rows
    assert len(read_csv(runs / "trials.csv")) == 3
    before = (runs / "sweep.db").read_bytes()
    refused(lambda: sweep(parameters={**PARAMETERS, LR: [0.1, 0.2]}), "study of another sweep", LR)
    refused(lambda: sweep(metric="val_macro_f1"), "metric: val_loss there, val_macro_f1 here")
    refused(lambda: sweep("--data.height", "40"), "data.height")
    assert (runs / "sweep.db").read_bytes() == before
    main(["fit", "--config", str(runs / "best.yaml")])
    assert (runs / "version_3/config.yaml").read_text() == (runs / "best.yaml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_goes_on_after_an_interruption(sweep, clips, folder, number):
    write_yaml("sweep.yaml", SAME)
    command = [sys.executable, "-m", "zamba_lcli", "sweep", "--config", str(TINY)]
    child = subprocess.Popen([*command, "--data.labels", str(clips / "labels.csv"), "--trainer.max_epochs=12"])
    last = folder / "runs/tiny/version_0/checkpoints/last.ckpt"
    end = time.monotonic() + 120
    while not last.exists() and time.monotonic() < end:
        time.sleep(0.02)
    child.send_signal(number)
    assert child.wait() == (130 if number == signal.SIGINT else -number)
    sweep("--trainer.max_epochs=12")
    rows = read_csv(folder / "runs/tiny/trials.csv")
    assert [row["state"] for row in rows] == ["interrupted", "complete", "complete"]
    assert rows[0][LR] == rows[1][LR]
    assert rows[0]["run_folder"] != rows[1]["run_folder"]


@pytest.mark.slow
def test_a_pruned_trial_leaves_a_whole_run(sweep, folder):
    pruner = {"class_path": "optuna.pruners.ThresholdPruner", "init_args": {"upper": 1e-6}}
    with pytest.raises(SystemExit) as exit_info:
        sweep(pruner=pruner, trials=1)
    assert exit_info.value.code == 1  # none was completed
    run = folder / "runs/tiny/version_0"
    assert read_csv(folder / "runs/tiny/trials.csv")[0]["state"] == "pruned"
    assert (run / "checkpoints/last.ckpt").exists()
    assert not list(run.glob("checkpoints/*step=4*"))


@pytest.mark.slow
def test_a_grid_ends_when_it_has_no_more(sweep, folder):
    sampler = {"class_path": "optuna.samplers.GridSampler", "init_args": {"search_space": {LR: [0.01, 0.1]}}}
    sweep(trials=3, parameters={LR: [0.01, 0.1]}, sampler=sampler)
    assert [row["state"] for row in read_csv(folder / "runs/tiny/trials.csv")] == ["complete", "complete"]
