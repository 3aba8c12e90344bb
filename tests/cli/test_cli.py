"""What users type."""

import inspect
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from helpers.paths import CONFIGS, TINY
from helpers.runs import scalars
from helpers.tables import read_csv, write_csv
from zamba_lcli.cli import main
from zamba_lcli.cli.checks import check_monitors
from zamba_lcli.cli.config_file import recipe_path
from zamba_lcli.cli.main import format_warning
from zamba_lcli.data import DemoClips
from zamba_lcli.errors import InputError
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule

TRIED_WITH_ALL = ("demo", "slowfast_finetune")  # the recipes of the default run


def test_run_folder_is_as_people_know_it(fitted):
    names = {path.name.split(".vm")[0] if "tfevents" not in path.name else "events" for path in fitted.iterdir()}
    assert names == {"checkpoints", "events", "hparams.yaml", "config.yaml", "splits.csv"}
    checkpoints = {path.name for path in (fitted / "checkpoints").iterdir()}
    assert {"last.ckpt", "epoch=1-step=4.ckpt"} <= checkpoints
    assert len(checkpoints) == 3
    assert sum(name.startswith("best-epoch=") for name in checkpoints) == 1


def test_logged_values(fitted):
    logged = scalars(fitted)
    assert {"train_loss", "train_loss_epoch", "train_macro_f1", "val_loss", "val_macro_f1"} <= set(logged)
    assert {"val_top_1_accuracy", "val_top_3_accuracy"} <= set(logged)
    assert "val_top_5_accuracy" not in logged  # there are four classes
    assert {f"species/val_{m}/walker" for m in ("precision", "recall", "f1", "accuracy")} <= set(logged)
    # two batches an epoch; the scheduler halves after the first epoch, which is that of the unfreeze
    assert [round(lr, 6) for _, lr in logged["lr-SGD/head"]] == [0.1, 0.1, 0.05, 0.05]
    assert [round(lr, 6) for _, lr in logged["lr-SGD/backbone"]] == [0, 0, 0.0005, 0.0005]


def test_what_may_be_monitored_is_what_is_logged(fitted):
    model = ZambaVideoClassificationLightningModule(DemoClips.class_names, task="multiclass")
    names = model.logged_names()
    learning_rates = {"lr-SGD/head", "lr-SGD/backbone", "lr-SGD/head-momentum", "lr-SGD/backbone-momentum"}
    assert set(names) == set(scalars(fitted)) - learning_rates - {"epoch", "hp_metric"}
    last = ModelCheckpoint(monitor="epoch", mode="max")
    check_monitors(
        [last, EarlyStopping(monitor="val_loss"), ModelCheckpoint(monitor="species/val_f1/blank", mode="max")],
        model,
        None,
    )
    with pytest.raises(InputError, match="EarlyStopping: monitor: epoch is not logged"):
        check_monitors([EarlyStopping(monitor="epoch", mode="max")], model, None)

    class Users(Callback):
        """May log whatever it likes."""

    check_monitors([EarlyStopping(monitor="theirs"), Users()], model, None)


def test_fit_ends_with_metrics_checkpoint_and_tensorboard(zamba, capfd):
    zamba("fit")
    output = capfd.readouterr()
    text = output.out + output.err
    assert "val_macro_f1" in text
    assert "checkpoints/best-epoch=" in text
    assert "checkpoints/epoch=1-step=4.ckpt" in text
    assert "last checkpoint: runs/tiny/version_0/checkpoints/last.ckpt" in text
    assert "to test the best: zamba test --config runs/tiny/version_0/config.yaml --ckpt_path runs/tiny" in text
    assert "tensorboard --logdir runs/tiny" in text


def test_validate_and_test_say_nothing_of_the_training_of_a_checkpoint(fitted, clips, recwarn, caplog):
    checkpoint = str(fitted / "checkpoints" / "last.ckpt")
    for command in ("validate", "test"):
        main(
            [
                command,
                "--ckpt_path",
                checkpoint,
                "--data.labels",
                str(clips / "labels.csv"),
                "--trainer.default_root_dir=.",
            ]
        )
    told = [str(warning.message) for warning in recwarn] + [record.message for record in caplog.records]
    for noise in (
        "callbacks used to create the checkpoint",
        "dirpath has changed",
        "litmodels",
        "litlogger",
        "requires_grad",
    ):
        assert not [message for message in told if noise in message]


def test_validate_test_and_predict_from_a_run_folder(fitted, clips, folder, predict):
    config, checkpoint = fitted / "config.yaml", fitted / "checkpoints" / "last.ckpt"
    for command in ("validate", "test"):
        main([command, "--config", str(config), "--ckpt_path", str(checkpoint), f"--trainer.logger.name={command}"])
    assert scalars(folder / "runs/validate/version_0")["val_macro_f1"][-1][1] == pytest.approx(
        scalars(fitted)["val_macro_f1"][-1][1]
    )
    assert "test_macro_f1" in scalars(folder / "runs/test/version_0")
    rows = predict(checkpoint, clips, "--config", config)
    assert (folder / "runs/tiny/version_0/config.yaml").exists()
    assert list(rows[0]) == ["filepath", *DemoClips.class_names, "top_class", "status", "error", "note"]
    assert [row["filepath"] for row in rows] == sorted(p.name for p in clips.iterdir() if p.suffix in (".mp4", ".avi"))
    assert all(sum(float(row[name]) for name in DemoClips.class_names) == pytest.approx(1, abs=1e-4) for row in rows)


def test_predict_needs_only_a_checkpoint_and_writes_beside_the_input(fitted, clips, folder, predict):
    checkpoint = fitted / "checkpoints/last.ckpt"
    shutil.copytree(clips, folder / "clips")
    (folder / "work").mkdir()
    os.chdir("work")
    main(["predict", "--ckpt_path", str(checkpoint), "--data.videos", "../clips"])
    assert {path.name for path in folder.iterdir()} == {"clips", "clips_predictions", "work"}
    assert not list(Path().iterdir())  # no stray folder where one happens to be
    assert {path.name for path in (folder / "clips_predictions").iterdir()} == {"predictions.csv", "report.html"}
    alone = read_csv(folder / "clips_predictions/predictions.csv")
    assert len(alone) == 16
    assert alone == predict(checkpoint, clips, "--config", fitted / "config.yaml")


def test_predict_has_a_row_for_every_input_in_order(fitted, clips, folder, predict):
    videos = folder / "videos"
    (videos / "b").mkdir(parents=True)
    good = sorted(p for p in clips.iterdir() if p.suffix == ".mp4")[:2]
    shutil.copy(good[0], videos / "a.MP4")
    shutil.copy(good[1], videos / "b" / "é c.mp4")
    (videos / "empty.avi").touch()
    (videos / "text.mp4").write_text("this is no video")
    (videos / "notes.txt").write_text("not an input")
    rows = predict(fitted / "checkpoints/last.ckpt", videos)
    assert [(row["filepath"], row["status"]) for row in rows] == [
        ("a.MP4", "ok"),
        ("b/é c.mp4", "ok"),
        ("empty.avi", "failed"),
        ("text.mp4", "failed"),
    ]
    assert rows[2]["error"] == "the file is empty"
    assert rows[2]["walker"] == ""
    assert rows[3]["error"]
    assert {path.name for path in (folder / "out").iterdir()} == {"predictions.csv", "report.html"}


@pytest.mark.slow
def test_bfloat16_in_fit_test_and_predict(zamba, clips, folder, predict):
    zamba("fit", "--trainer.precision=bf16-mixed", "--data.sampling.init_args.num_frames=12")
    run = folder / "runs/tiny/version_0"
    checkpoint = run / "checkpoints/last.ckpt"
    assert all(
        value.dtype != torch.bfloat16 for value in torch.load(checkpoint, weights_only=True)["state_dict"].values()
    )
    for i, precision in enumerate(("bf16-mixed", "32-true")):
        main(
            [
                "test",
                "--config",
                str(run / "config.yaml"),
                "--ckpt_path",
                str(checkpoint),
                "--trainer.precision",
                precision,
            ]
        )
        rows = predict(checkpoint, clips, "--trainer.precision", precision, output_dir=precision)
        assert all(row["status"] == "ok" for row in rows)
        assert (run / f"test_{i}/metrics.json").exists()
    one, other = (read_csv(folder / name / "predictions.csv") for name in ("bf16-mixed", "32-true"))
    for row, exact in zip(one, other, strict=True):
        for name in DemoClips.class_names:
            assert float(row[name]) == pytest.approx(float(exact[name]), abs=0.02)
    assert one != other


@pytest.mark.parametrize("epochs", [2, -1])
def test_bfloat16_is_refused_where_the_cpu_computes_wrong_gradients(zamba, refused, epochs):
    """With 8 frames, the slow pathway has 2, which is fewer than a convolution over 3 needs; -1 is without an end."""
    run = ["fit", "--trainer.precision=bf16-mixed", "--trainer.max_epochs", epochs]
    refused(lambda: zamba(*run), "trainer.precision", "wrong gradients", "num_frames")


@pytest.mark.slow
@pytest.mark.parametrize("more", ["--trainer.max_epochs=1", "--data.sampling.init_args.num_frames=4"])
def test_bfloat16_is_not_refused_where_the_run_ends_before_the_unfreeze_or_a_pathway_has_one_frame(zamba, folder, more):
    zamba("fit", "--trainer.precision=bf16-mixed", more)
    assert (folder / "runs/tiny/version_0/checkpoints/last.ckpt").exists()


@pytest.mark.slow
def test_print_config_gives_the_same_run_twice(zamba, clips, folder, capsys):
    with pytest.raises(SystemExit) as exit_info:
        zamba("fit", "--print_config")
    assert exit_info.value.code == 0
    (folder / "run.yaml").write_text(capsys.readouterr().out)
    for _ in range(2):
        main(["fit", "--config", "run.yaml"])
    zamba("fit")
    runs = [folder / f"runs/tiny/version_{n}" for n in range(3)]
    assert runs[0].joinpath("config.yaml").read_text() == runs[2].joinpath("config.yaml").read_text()
    assert scalars(runs[0]) == scalars(runs[1]) == scalars(runs[2])
    states = [torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in runs]
    for state in states[1:]:
        assert all(torch.equal(state[key], value) for key, value in states[0].items())
    main(["fit", "--config", str(runs[0] / "config.yaml")])
    assert (folder / "runs/tiny/version_3/config.yaml").read_text() == runs[0].joinpath("config.yaml").read_text()


def test_multilabel_run(zamba, clips, folder, predict):
    rows = read_csv(clips / "labels.csv")
    rows[-1]["label"] = "walker;hopper"
    write_csv("labels.csv", rows)
    more = ["--data.data_dir", clips, "--model.init_args.task", "multilabel"]
    zamba("fit", *more, labels="labels.csv")
    checkpoint = folder / "runs/tiny/version_0/checkpoints/last.ckpt"
    row = predict(checkpoint, clips)[0]
    assert sum(float(row[name]) for name in DemoClips.class_names) != pytest.approx(1, abs=1e-3)


def test_checkpoint_holds_plain_values_and_all_that_predicting_needs(fitted):
    checkpoint = torch.load(fitted / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["class_names"] == list(DemoClips.class_names)
    assert checkpoint["hyper_parameters"]["_class_path"] == "zamba_lcli.models.SlowFast"
    assert checkpoint["ZambaVideoDataModule"]["sampling"]["init_args"] == {"num_frames": 8}
    assert [group["name"] for group in checkpoint["optimizer_states"][0]["param_groups"]] == ["head", "backbone"]


def test_what_is_stated_wins_over_the_checkpoint_and_is_told(fitted, clips, folder, capfd, predict):
    predict(fitted / "checkpoints/last.ckpt", clips, "--data.height", "48", "--trainer.logger=true")
    output = capfd.readouterr()
    assert "data.height: 48 as you state; the checkpoint has 32" in output.out + output.err
    config = yaml.safe_load((folder / "lightning_logs/version_0/config.yaml").read_text())
    assert (config["data"]["height"], config["data"]["width"]) == (48, 32)


@pytest.mark.parametrize(
    ("command", "recipe"),
    [
        pytest.param(command, recipe, marks=() if recipe.stem in TRIED_WITH_ALL else pytest.mark.slow)
        for command in ("fit", "validate", "test", "predict")
        for recipe in sorted(CONFIGS.rglob("*.yaml"))
    ],
    ids=lambda value: getattr(value, "stem", value),
)
def test_recipes_are_valid_for_all_commands(command, recipe, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main([command, "--config", str(recipe), "--print_config"])
    assert exit_info.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["class_path"].startswith("zamba_lcli.models.")


def test_recipe_is_found_by_its_bare_name(folder):
    assert Path(recipe_path("demo.yaml")).read_text() == (CONFIGS / "demo.yaml").read_text()
    (folder / "demo.yaml").write_text("seed_everything: 3")
    assert recipe_path("demo.yaml") == "demo.yaml"  # the user's own comes first
    assert recipe_path("nix.yaml") == "nix.yaml"


@pytest.mark.slow
def test_slowfast_recipe_runs_on_small_frames(clips, folder):
    small = [
        "--model.init_args.weights=null",
        "--model.init_args.model_depth=18",
        "--model.init_args.stem_dim_outs=[8,2]",
    ]
    small += ["--data.height=32", "--data.width=32", "--data.batch_size=8", "--data.num_workers=0"]
    small += ["--trainer.max_epochs=17", "--trainer.limit_train_batches=1", "--trainer.enable_progress_bar=false"]
    main(
        ["fit", "--config", str(CONFIGS / "slowfast_finetune.yaml"), "--data.labels", str(clips / "labels.csv"), *small]
    )
    logged = scalars(folder / "runs/slowfast/version_0")
    head, backbone = (dict(logged[f"lr-Adam/{group}"]) for group in ("head", "backbone"))
    by_step = [(round(head[step], 8), round(backbone[step], 8)) for step in sorted(head)]
    assert by_step[-1] == (0.0005, 0.00001)  # epoch 16: halved at 15; 1/100 at 15, doubled since
    frozen = [rates for rates in by_step if rates[0] == 0.001]
    assert all(rate == 0 for _, rate in frozen)


@pytest.mark.slow
def test_the_recipe_with_everything_runs_on_small_frames(clips, folder):
    recipe = (CONFIGS / "slowfast_train_better.yaml").read_text().replace("240", "32").replace("426", "48")
    (folder / "small.yaml").write_text(recipe)
    small = ["--model.init_args.weights=null", "--model.init_args.model_depth=18"]
    small += ["--model.init_args.stem_dim_outs=[8,2]", "--data.num_workers=0", "--data.sampling.num_frames=8"]
    small += ["--trainer.max_epochs=7", "--trainer.accumulate_grad_batches=3", "--trainer.enable_progress_bar=false"]
    small += ["--trainer.log_every_n_steps=1"]
    main(["fit", "--config", "small.yaml", "--data.labels", str(clips / "labels.csv"), *small])
    run = folder / "runs/slowfast_train_better/version_0"
    rates = {name: scalars(run)[f"lr-AdamW/{name}"][-1][1] for name in ("head", "backbone", "backbone_1")}
    assert rates["backbone"] == pytest.approx(rates["head"] * 0.2)  # a tenth in epoch 5, doubled in epoch 6
    assert rates["backbone_1"] == pytest.approx(rates["backbone"] * 0.5)
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 7 * 2  # 4 batches: 3 and 1
    assert "current_model_state" in checkpoint
    main(["test", "--ckpt_path", str(run / "checkpoints/last.ckpt"), "--data.labels", str(clips / "labels.csv")])


def test_demo_recipe_renders_its_clips_and_runs(folder):
    small = ["--data.demo.init_args.clips_per_class=3", "--trainer.max_epochs=1", "--data.num_workers=0"]
    main(["fit", "--config", str(CONFIGS / "demo.yaml"), *small])
    assert len(list((folder / "demo_clips").glob("*.mp4"))) == 4
    assert (folder / "runs/demo/version_0/config.yaml").exists()


def test_two_workers_read_the_same(zamba, folder):
    zamba("fit", "--trainer.max_epochs=1")
    zamba("fit", "--trainer.max_epochs=1", "--data.num_workers=2")
    assert scalars(folder / "runs/tiny/version_0") == scalars(folder / "runs/tiny/version_1")


def test_missing_parts(clips, refused, fitted):
    labels = ["--data.labels", str(clips / "labels.csv")]
    refused(lambda: main(["fit", "--config", "nix.yaml"]), "nix.yaml")
    refused(lambda: main(["fit", *labels]), "model")
    refused(lambda: main(["fit", "--config", str(TINY)]), "data.labels")
    refused(
        lambda: main(["fit", "--model", "SlowFast", "--model.init_args.weights=null", *labels]),
        "optimizer",
        "class_path",
    )
    for command in ("validate", "test", "predict"):  # else the numbers would be those of random weights
        refused(partial(main, [command, "--config", str(TINY), *labels]), "ckpt_path")
    checkpoint = ["--ckpt_path", str(fitted / "checkpoints/last.ckpt")]
    refused(lambda: main(["predict", "--config", str(TINY), *labels, *checkpoint]), "data.videos")


@pytest.mark.parametrize(
    ("table", "texts"),
    [
        ("file,label\na.mp4,x\n", ["filepath"]),
        ("filepath,label,split\na.mp4,x,trian\nb.mp4,,val\n", ["row 2", "trian", "row 3", "label"]),
        ("filepath,label,split\na.mp4,x,train\nb.mp4,y,val\n", ["y", "train"]),
        ("", ["labels.csv"]),
    ],
)
def test_wrong_labels(zamba, refused, folder, table, texts):
    (folder / "labels.csv").write_text(table)
    refused(lambda: zamba("fit", labels="labels.csv"), "labels.csv", *texts)


@pytest.fixture
def broken(clips, folder):
    """A copy of the clips in which one to train on and one to validate are damaged; returns their names."""
    shutil.copytree(clips, folder / "broken")
    rows = read_csv(clips / "labels.csv")
    names = [
        next(r["filepath"] for r in rows if r["split"] == s and r["filepath"].endswith(".avi"))
        for s in ("train", "val")
    ]
    return names


def test_missing_and_unreadable_clips_are_refused_before_training(zamba, refused, folder, broken):
    (folder / "broken" / broken[0]).unlink()
    message = refused(lambda: zamba("fit", labels="broken/labels.csv"), broken[0], "data.data_dir")
    assert broken[1] not in message
    (folder / "broken" / broken[0]).write_text("no video")
    (folder / "broken" / broken[1]).write_bytes(bytes(1000))
    refused(lambda: zamba("fit", labels="broken/labels.csv"), broken[0], broken[1], "data.check_clips")
    assert not (folder / "runs/tiny/version_0/checkpoints").exists()


def test_clips_unreadable_during_training_are_left_out_and_listed(zamba, folder, broken, capfd):
    for name in broken:
        (folder / "broken" / name).write_text("no video")
    with pytest.warns(UserWarning, match="2 clips could not be read"):
        zamba("fit", "--data.check_clips=false", labels="broken/labels.csv")
    rows = read_csv(folder / "runs/tiny/version_0/failed.csv")
    assert sorted(row["filepath"] for row in rows) == sorted(broken)
    assert all("not a video" in row["reason"] for row in rows)


def test_a_run_in_which_no_clip_can_be_read_ends_with_the_reason(zamba, refused, folder, broken):
    for path in (folder / "broken").glob("*.*"):
        if path.suffix in (".avi", ".mp4"):
            path.write_text("no video")
    refused(lambda: zamba("fit", "--data.check_clips=false", labels="broken/labels.csv"), "val", "failed.csv")


def test_checkpoints_that_do_not_fit_are_refused(zamba, refused, fitted, clips, folder):
    (folder / "text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": {}}, "foreign.ckpt")
    torch.save({"state_dict": {}, "callback": Path("code")}, "objects.ckpt")
    refused(lambda: zamba("validate", "--ckpt_path", "text.ckpt"), "text.ckpt")
    refused(lambda: zamba("validate", "--ckpt_path", "foreign.ckpt"), "foreign.ckpt", "model.init_args.weights")
    refused(lambda: zamba("validate", "--ckpt_path", "objects.ckpt"), "objects.ckpt", "not opened")
    table = (clips / "labels.csv").read_text().replace(",walker,", ",jumper,")
    (folder / "labels.csv").write_text(table)
    checkpoint = fitted / "checkpoints/last.ckpt"
    more = ["--data.data_dir", clips, "--ckpt_path", checkpoint]
    refused(lambda: zamba("fit", *more, labels="labels.csv"), "jumper", "walker")


def test_warnings_say_what_is_wrong_and_show_no_code():
    ours = inspect.getfile(ZambaVideoClassificationLightningModule)
    assert format_warning("left out", UserWarning, ours, 3) == "warning: left out\n"
    assert format_warning("odd", UserWarning, "other.py", 3) == "other.py:3: UserWarning: odd\n"


def test_a_users_config_is_not_written_over(zamba, folder):
    shutil.copy(TINY, folder / "config.yaml")
    zamba("fit", "--trainer.logger=false", "--trainer.callbacks=null", "--trainer.max_epochs=1", config="config.yaml")
    assert (folder / "config.yaml").read_text() == TINY.read_text()


def test_the_command_itself(folder):
    done = subprocess.run(
        [sys.executable, "-m", "zamba_lcli", "fit", "--trainer.max_epoch", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--trainer.max_epoch" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have another OpenMP")
@pytest.mark.parametrize(
    ("stated", "spins"),
    [
        ({}, "10000"),
        pytest.param({"GOMP_SPINCOUNT": "77"}, "77", marks=pytest.mark.slow),
        pytest.param({"OMP_WAIT_POLICY": "passive"}, "0", marks=pytest.mark.slow),
    ],
    ids=["nothing", "spins", "policy"],
)
def test_threads_that_wait_for_others_soon_leave_their_core_to_reading(stated, spins):
    """What GNU OpenMP itself says it goes by; it reads it only while torch is loaded."""
    others = {key: value for key, value in os.environ.items() if not key.startswith(("GOMP_", "OMP_"))}
    environment = {**others, "OMP_DISPLAY_ENV": "verbose", **stated}
    command = [sys.executable, "-c", "import zamba_lcli; import torch"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr
