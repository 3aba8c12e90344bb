"""``task: auto``: which task the labels, the loss or a checkpoint make it, and where that is kept."""

from functools import partial

import pytest
import torch
import yaml
from pytorch_lightning import Trainer

from helpers.runs import cls, write_yaml
from helpers.tables import read_csv, write_csv
from zamba_lcli.data import DemoClips, EvenlySpaced, ZambaVideoDataModule
from zamba_lcli.errors import InputError
from zamba_lcli.models import SlowFast

SMALL = ["--trainer.max_epochs=1", "--trainer.logger.name=auto"]
AUTO = ["--model.init_args.task=auto", *SMALL]


def labelled(clips, name, change=lambda rows: None):
    """Writes another table of labels for the clips."""
    rows = read_csv(clips / "labels.csv")
    change(rows)
    write_csv(name, rows)
    return name


def two_labels(rows):
    rows[0]["label"] = "hopper;walker"


def kept(folder, version=0):
    run = folder / f"runs/auto/version_{version}"
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    return checkpoint["hyper_parameters"]["task"], yaml.safe_load((run / "config.yaml").read_text())["model"][
        "init_args"
    ]["task"]


@pytest.mark.slow
def test_auto_is_what_the_labels_make_it_and_is_kept(zamba, clips, folder, capfd, caplog, predict):
    zamba("fit", *AUTO)
    assert "task: multiclass, as each of the 16 clips has exactly one of 4 labels" in caplog.text
    assert kept(folder) == ("multiclass", "multiclass")
    # the labels would make it another one by now: the checkpoint's stays
    checkpoint = folder / "runs/auto/version_0/checkpoints/last.ckpt"
    both = labelled(clips, "both.csv", lambda rows: rows.append({**rows[0], "label": "hopper"}))
    with pytest.raises(SystemExit):
        zamba("test", *AUTO, "--ckpt_path", checkpoint, "--data.data_dir", clips, labels=both)
    printed = capfd.readouterr()
    assert "model.init_args.task: multiclass as in the checkpoint." in printed.out
    assert "has 2 labels" in printed.err
    row = predict(checkpoint, clips)[0]
    assert sum(float(row[name]) for name in DemoClips.class_names) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "more", "task", "why"),
    [
        (two_labels, [], "multilabel", "as there is 1 clip of 16 with several labels, such as "),
        (lambda rows: [row.update(label="blank") for row in rows], [], "multilabel", "as blank is the only class"),
        (
            lambda rows: rows.append({**next(row for row in rows if row["label"] == "walker"), "label": "hopper"}),
            [],
            "multilabel",
            "as there is 1 clip of 16 with several labels",
        ),
        (
            lambda rows: None,
            ["--model.loss=SmoothedBCEWithLogitsLoss"],
            "multilabel",
            "SmoothedBCEWithLogitsLoss is a loss for",
        ),
        (lambda rows: None, ["--model.loss=torch.nn.CrossEntropyLoss"], "multiclass", "CrossEntropyLoss is a loss for"),
        (lambda rows: None, ["--model.class_weights=balanced"], "multiclass", "as each of the 16 clips"),
    ],
    ids=["two labels", "blank only", "two rows", "binary loss", "loss of one label", "class weights"],
)
def test_what_auto_is(zamba, clips, folder, caplog, change, more, task, why):
    zamba("fit", *AUTO, *more, "--data.data_dir", clips, labels=labelled(clips, "labels.csv", change))
    assert f"task: {task}" in caplog.text
    assert why in caplog.text
    assert kept(folder) == (task, task)


def test_a_loss_that_does_not_fit_the_labels_is_refused(zamba, clips, folder, capfd, caplog):
    more = ["--model.loss=torch.nn.CrossEntropyLoss", "--data.data_dir", clips]
    with pytest.raises(SystemExit) as exit_info:
        zamba("fit", *AUTO, *more, labels=labelled(clips, "labels.csv", two_labels))
    error = capfd.readouterr().err
    assert exit_info.value.code == 2
    assert "has 2 labels: hopper, walker" in error
    assert "task: multiclass, which CrossEntropyLoss is a loss for" in caplog.text
    assert not (folder / "runs").exists()


@pytest.mark.slow
def test_older_checkpoints_and_weights_keep_their_task(zamba, clips, folder, capfd, caplog):
    zamba("fit", "--model.init_args.task=multilabel", *SMALL)
    checkpoint = folder / "runs/auto/version_0/checkpoints/last.ckpt"
    capfd.readouterr()
    zamba(
        "fit",
        "--model.init_args.task=auto",
        "--trainer.logger.name=auto",
        "--trainer.max_epochs=2",
        "--ckpt_path",
        checkpoint,
    )
    assert "model.init_args.task: multilabel as in the checkpoint." in capfd.readouterr().out
    assert kept(folder, 1) == ("multilabel", "multilabel")
    # the newest of the run folder is found later
    more = ["--trainer.max_epochs=3", "--trainer.logger.version=0", "--ckpt_path=last"]
    zamba("fit", "--model.init_args.task=auto", "--trainer.logger.name=auto", *more)
    assert "task: multilabel, as in the checkpoint" in caplog.text
    assert kept(folder) == ("multilabel", "multilabel")
    # its head is kept for the same classes, in a new run too
    zamba("fit", *AUTO, "--model.weights", checkpoint, "--data.trained_clips=keep")
    assert f"task: multilabel, as that of {checkpoint} is" in caplog.text
    assert kept(folder, 2) == ("multilabel", "multilabel")
    other = labelled(clips, "other.csv", lambda rows: [row.update(label=row["label"] + "s") for row in rows])
    zamba(
        "fit", *AUTO, "--model.weights", checkpoint, "--data.trained_clips=keep", "--data.data_dir", clips, labels=other
    )
    assert "task: multiclass, as each" in caplog.text
    assert kept(folder, 3) == ("multiclass", "multiclass")


@pytest.mark.slow
def test_a_plain_trainer_decides_it_too(clips, folder):
    for change, task in ((lambda rows: None, "multiclass"), (two_labels, "multilabel")):
        sampling = EvenlySpaced(num_frames=8)
        data = ZambaVideoDataModule(
            labelled(clips, "labels.csv", change),
            data_dir=str(clips),
            sampling=sampling,
            height=32,
            width=32,
            num_workers=0,
        )
        model = SlowFast(class_names=data.class_names, weights=None, model_depth=18, stem_dim_outs=(8, 2))
        assert model.task_is_open
        model.set_optimizer(partial(torch.optim.SGD, lr=0.1))
        trainer = Trainer(
            max_epochs=1, limit_train_batches=1, accelerator="cpu", logger=False, enable_progress_bar=False
        )
        trainer.fit(model, datamodule=data)
        assert (model.task, model.hparams["task"], data.label_set.task) == (task, task, task)
        assert model.val_metrics.task == task
    labels = labelled(clips, "labels.csv", two_labels)
    data = ZambaVideoDataModule(labels, data_dir=str(clips), task="multiclass")
    with pytest.raises(InputError, match="has 2 labels"):
        assert data.class_names


def test_a_configuration_with_auto_comes_back_as_it_is(printed, folder):
    write_yaml("auto.yaml", {"model": cls("SlowFast", loss=cls("torch.nn.CrossEntropyLoss"))})
    config = printed("--config", "auto.yaml")
    assert config["model"]["init_args"]["task"] == "auto"
    write_yaml("again.yaml", config)
    assert printed("--config", "again.yaml") == config
