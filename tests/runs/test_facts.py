"""What stock LightningCLI gets wrong, row by row, and this program does not.

`pytest -m 'slow or not slow' tests/runs/test_facts.py --stock` runs the same commands with stock LightningCLI and Lightning's
own callbacks; there every test must fail, but for those that our classes make right with any command line. Row 20 (many
processes) is in test_distributed.py, row 25 (signals) in test_interruption.py.
"""

import shutil
import tomllib

import pytest
import torch
import yaml

from helpers.paths import ROOT, TINY
from helpers.runs import EACH_STEP, cls, largest_difference, state

NORM = "norm"


@pytest.fixture
def fit(command_line, clips, folder):
    """Runs `fit` with the tiny configuration and more YAML; returns the run folder."""

    def run(more=None, *args, name="run", callbacks=(), version=0, checkpoints=True):
        saved = [cls("ModelCheckpoint", save_last=True, enable_version_counter=False)] if checkpoints else []
        trainer = {"callbacks": [*callbacks, *saved], "logger": cls("TensorBoardLogger", save_dir="runs", name=name)}
        more = {"trainer": trainer, "lr_scheduler": None, "data": {"labels": str(clips / "labels.csv")}, **(more or {})}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(more))
        command_line(["fit", "--config", str(TINY), "--config", f"{name}.yaml", *map(str, args)])
        return folder / f"runs/{name}/version_{version}"

    return run


def finetuning(epoch=1, **arguments):
    return cls("pytorch_lightning.callbacks.BackboneFinetuning", unfreeze_backbone_at_epoch=epoch, **arguments)


def groups(run):
    return state(run)["optimizer_states"][0]["param_groups"]


def changed(before, after):
    a, b = state(before)["state_dict"], state(after)["state_dict"]
    return {key for key in a if key.startswith("base.") and not torch.equal(a[key], b[key])}


def scheduler(name, **arguments):
    return {"lr_scheduler": cls(f"torch.optim.lr_scheduler.{name}", **arguments)}


def test_01_the_heads_learning_rate_stays_at_the_unfreeze(fit):
    run = fit(None, "--trainer.max_epochs=3", callbacks=[finetuning(backbone_initial_ratio_lr=0.01)])
    assert [group["lr"] for group in groups(run)] == [0.1, pytest.approx(0.002)]


@pytest.mark.slow
def test_02_parameters_are_told_apart_by_what_they_are(fit):
    run = fit(None, "--trainer.max_epochs=2", callbacks=[finetuning(train_bn=True)])
    keys = state(run)["state_dict"]
    backbone = [key for key in keys if key.startswith("backbone.") and key.endswith(("weight", "bias"))]
    assert [len(group["params"]) for group in groups(run)] == [2, len(backbone)]


def test_03_frozen_batchnorm_stays_as_it_is(fit):
    short = fit(None, "--trainer.max_epochs=1", name="short", callbacks=[finetuning(train_bn=False)])
    run = fit(None, "--trainer.max_epochs=3", callbacks=[finetuning(train_bn=False)])
    assert not [key for key in changed(short, run) if NORM in key]
    assert changed(short, run)


@pytest.mark.slow
@pytest.mark.in_our_classes
def test_04_statistics_of_the_trunk_stay_as_they_are(fit):
    short = fit(None, "--trainer.max_epochs=1", name="short", callbacks=[finetuning()])
    run = fit(None, "--trainer.max_epochs=3", callbacks=[finetuning()])
    assert not [key for key in changed(short, run) if int(key.split(".")[2]) < 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    "stated",
    [
        scheduler("CosineAnnealingWarmRestarts", T_0=2),
        scheduler("LambdaLR", lr_lambda="helpers.schedules.inverse"),
        scheduler("MultiplicativeLR", lr_lambda="helpers.schedules.slowly"),
        scheduler("CyclicLR", base_lr=0.01, max_lr=0.1),
    ],
    ids=lambda stated: stated["lr_scheduler"]["class_path"].rsplit(".")[-1],
)
def test_05_schedulers_go_on_after_the_unfreeze(fit, stated):
    assert len(groups(fit(stated, "--trainer.max_epochs=3", callbacks=[finetuning()]))) == 2


@pytest.mark.slow
def test_06_one_cycle_goes_on_after_the_unfreeze(fit):
    run = fit(scheduler("OneCycleLR", max_lr=0.1, total_steps=6), "--trainer.max_epochs=3", callbacks=[finetuning()])
    assert [group["name"] for group in groups(run)] == ["head", "backbone"]


@pytest.mark.slow
def test_07_plateau_with_a_minimum_for_each_group(fit):
    plateau = cls("pytorch_lightning.cli.ReduceLROnPlateau", monitor="val_loss", min_lr=[0.01, 0.001], patience=0)
    fit({"lr_scheduler": plateau}, "--trainer.max_epochs=3", callbacks=[finetuning()])


def test_08_the_backbone_follows_the_schedule(fit):
    stated = scheduler("StepLR", step_size=1, gamma=0.5)
    head, backbone = groups(
        fit(stated, "--trainer.max_epochs=3", callbacks=[finetuning(backbone_initial_ratio_lr=0.1)])
    )
    assert head["lr"] == pytest.approx(0.0125)  # after three epochs
    assert backbone["initial_lr"] == head["initial_lr"] == 0.1
    assert backbone["lr"] == pytest.approx(0.1 * 0.25 * 0.2 * 0.5)  # that of epoch 2, and the scheduler's step after it


@pytest.mark.slow
def test_09_one_cycle_is_stepped_per_batch(fit):
    run = fit(scheduler("OneCycleLR", max_lr=0.1, total_steps=4), "--trainer.max_epochs=2")
    assert state(run)["lr_schedulers"][0]["_step_count"] == 5  # once when built, and for each of four batches


@pytest.mark.slow
@pytest.mark.in_our_classes
def test_10_schedulers_made_of_schedulers(fit):
    inner = [
        cls(f"torch.optim.lr_scheduler.{n}", **a)
        for n, a in (("LinearLR", {"total_iters": 1}), ("StepLR", {"step_size": 1}))
    ]
    fit(
        {"lr_scheduler": cls("zamba_lcli.schedulers.Sequential", schedulers=inner, milestones=[1])},
        "--trainer.max_epochs=2",
    )


def test_11_a_run_of_the_head_goes_on_with_the_callback(fit):
    first = fit(name="first")
    resumed = fit(
        None, "--trainer.max_epochs=4", "--ckpt_path", first / "checkpoints/last.ckpt", callbacks=[finetuning(2)]
    )
    head, backbone = groups(resumed)
    assert (head["lr"], backbone["lr"]) == (0.1, pytest.approx(0.02))
    assert {key.split(".")[2] for key in changed(first, resumed)} == {"4"}


def test_12_a_run_resumed_after_the_unfreeze_trains_the_backbone(fit):
    first = fit(None, "--trainer.max_epochs=2", name="first", callbacks=[finetuning(1)])
    more = ["--trainer.max_epochs=3", "--ckpt_path", first / "checkpoints/last.ckpt"]
    assert changed(first, fit(None, *more, callbacks=[finetuning(1)])) >= {
        key for key in state(first)["state_dict"] if key.startswith("base.blocks.4") and key.endswith("conv_a.weight")
    }


@pytest.mark.slow
def test_13_the_callback_can_be_taken_out(fit, caplog):
    first = fit(None, "--trainer.max_epochs=2", name="first", callbacks=[finetuning(1)])
    said = "without BackboneFinetuning it is frozen"
    with caplog.at_level("INFO"):
        more = ["--trainer.max_epochs=3", "--ckpt_path", first / "checkpoints/last.ckpt"]
        fit(None, *more, name="with", callbacks=[finetuning(1)])
        assert said not in caplog.text
        resumed = fit(None, *more)
    assert said in caplog.text
    assert not changed(first, resumed)
    assert len(groups(resumed)) == 2


@pytest.mark.slow
@pytest.mark.in_our_classes
def test_14_a_run_resumed_in_the_middle_of_an_epoch_is_the_same_run(fit):
    dropout = {"model": {"init_args": {"post_backbone_dropout": 0.5}}}
    run = fit(dropout, name="whole", callbacks=[EACH_STEP])
    resumed = fit(dropout, "--ckpt_path", run / "checkpoints/step=1.ckpt", callbacks=[EACH_STEP])
    assert largest_difference(state(run), state(resumed)) == 0


@pytest.mark.slow
def test_15_a_run_goes_on_in_its_folder(fit):
    fit(None, "--trainer.max_epochs=1")
    more = ["--trainer.max_epochs=2", "--trainer.logger.init_args.version=0"]
    run = fit(None, *more, "--ckpt_path", "runs/run/version_0/checkpoints/last.ckpt")
    assert len(list(run.glob("config*.yaml"))) == 2
    assert len(list(run.glob("events*"))) == 2


@pytest.mark.slow
def test_16_what_is_stated_wins_over_the_checkpoint(fit):
    first = fit({"model": {"init_args": {"post_backbone_dropout": 0.5}}}, "--trainer.max_epochs=1", name="first")
    stated = {"model": {"init_args": {"post_backbone_dropout": 0.25}}}
    run = fit(stated, "--ckpt_path", first / "checkpoints/last.ckpt")
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["post_backbone_dropout"] == 0.25
    nothing = {"model": {"init_args": {"post_backbone_dropout": None}}}  # null is a statement too
    run = fit(nothing, "--ckpt_path", first / "checkpoints/last.ckpt", name="nothing")
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["post_backbone_dropout"] is None


def test_17_last_without_a_checkpoint_is_refused(fit):
    with pytest.raises(SystemExit):
        fit(None, "--ckpt_path=last")


def finder(steps=16):
    return cls("pytorch_lightning.callbacks.LearningRateFinder", num_training_steps=steps, early_stop_threshold=None)


@pytest.mark.slow
def test_18_a_learning_rate_is_found_and_kept_by_the_scheduler(fit):
    run = fit(scheduler("LambdaLR", lr_lambda="helpers.schedules.constant"), callbacks=[finder()])
    head, backbone = groups(run)
    assert head["lr"] == head["initial_lr"] == backbone["initial_lr"] != 0.1


@pytest.mark.slow
def test_19_a_resumed_run_does_not_start_over_to_find_one(fit):
    first = fit(None, "--trainer.max_epochs=2", name="first")
    more = ["--trainer.max_epochs=3", "--ckpt_path", first / "checkpoints/last.ckpt"]
    assert state(fit(None, *more, callbacks=[finder()]))["global_step"] == 6


def test_21_lists_are_extended_only_if_that_is_said(command_line, folder, capsys):
    first = [cls("ModelCheckpoint", monitor="val_loss", verbose=True), cls("LearningRateMonitor")]
    (folder / "first.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": first}}))
    (folder / "again.yaml").write_text(
        yaml.safe_dump({"trainer": {"callbacks": [cls("ModelCheckpoint"), cls("DeviceStatsMonitor")]}})
    )
    (folder / "more.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [cls("DeviceStatsMonitor")]}}))

    def callbacks(second):
        with pytest.raises(SystemExit):
            command_line(["fit", "--config", str(TINY), "--config", "first.yaml", "--config", second, "--print_config"])
        return yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"]

    assert [c["class_path"].split(".")[-1] for c in callbacks("more.yaml")] == [
        "ModelCheckpoint",
        "LearningRateMonitor",
        "DeviceStatsMonitor",
    ]
    again = callbacks("again.yaml")
    assert [c["class_path"].split(".")[-1] for c in again] == ["ModelCheckpoint", "DeviceStatsMonitor"]
    assert (again[0]["init_args"]["monitor"], again[0]["init_args"]["verbose"]) == (None, False)


@pytest.mark.in_our_classes
def test_21b_arguments_of_one_class_do_not_leak_into_another(command_line, folder, capsys):
    adamw, sgd = cls("torch.optim.AdamW", lr=0.1, weight_decay=0.3), cls("torch.optim.SGD", lr=0.5)
    (folder / "first.yaml").write_text(yaml.safe_dump({"optimizer": adamw}))
    (folder / "second.yaml").write_text(yaml.safe_dump({"optimizer": sgd}))
    for second in (["--config", "second.yaml"], ["--optimizer=SGD", "--optimizer.lr=0.5"]):
        with pytest.raises(SystemExit):
            command_line(["fit", "--config", str(TINY), "--config", "first.yaml", *second, "--print_config"])
        init_args = yaml.safe_load(capsys.readouterr().out)["optimizer"]["init_args"]
        assert (init_args["lr"], init_args["weight_decay"]) == (0.5, 0)


@pytest.mark.slow
def test_22_a_seed_is_drawn_and_recorded(fit):
    seeds = set()
    for name in ("a", "b"):
        run = fit(None, "--seed_everything=true", "--trainer.max_epochs=1", name=name)
        seeds.add(yaml.safe_load((run / "config.yaml").read_text())["seed_everything"])
    assert len(seeds) == 2
    assert all(type(seed) is int for seed in seeds)


def test_23_a_checkpoint_knows_its_classes(fit, command_line, clips, folder):
    run = fit(None, "--trainer.max_epochs=1")
    shutil.copytree(clips, folder / "clips")
    command_line(["predict", "--ckpt_path", str(run / "checkpoints/last.ckpt"), "--data.videos", "clips"])
    assert (folder / "clips_predictions/predictions.csv").exists()


@pytest.mark.slow
def test_23b_classes_in_another_order_are_matched_by_name(fit, clips, capsys):
    first = fit(None, "--trainer.max_epochs=1", name="first")
    other = ["--data.class_names=[walker, pacer, hopper, blank]", "--ckpt_path", first / "checkpoints/last.ckpt"]
    run = fit(None, *other)
    assert state(run)["hyper_parameters"]["class_names"] == ["blank", "hopper", "pacer", "walker"]


def test_24_two_checkpoint_callbacks_of_one_key_are_refused_at_once(fit, folder):
    with pytest.raises(SystemExit):
        fit(callbacks=[cls("ModelCheckpoint", save_top_k=0)])
    assert not (folder / "runs").exists()


def test_27_abbreviated_options_are_refused(fit):
    with pytest.raises(SystemExit):
        fit(None, "--trainer.max_epoch=1")


@pytest.mark.in_our_classes
def test_28_versions_without_what_the_command_line_needs_are_excluded():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = project["dependencies"]
    assert any(text.startswith("jsonargparse") and "<5" in text for text in required)


def test_config_files_of_the_user_are_not_written_over(command_line, clips, folder):
    shutil.copy(TINY, folder / "config.yaml")
    args = ["--trainer.logger=false", "--trainer.callbacks=null", "--trainer.max_epochs=1"]
    command_line(["fit", "--config", "config.yaml", "--data.labels", str(clips / "labels.csv"), *args])
    assert (folder / "config.yaml").read_text() == TINY.read_text()
