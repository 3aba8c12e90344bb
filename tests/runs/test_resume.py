"""Resumed runs end as if they had not been interrupted."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning
import torch
import yaml
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from helpers.marks import some_slow
from helpers.paths import CONFIGS, TINY
from helpers.runs import EACH_STEP, cls, largest_difference, scalars, state
from zamba_lcli import data
from zamba_lcli.cli import main
from zamba_lcli.data.video.reading import ClipReader
from zamba_lcli.models import SlowFast

PLATEAU = {"class_path": "pytorch_lightning.cli.ReduceLROnPlateau", "init_args": {"monitor": "val_loss", "patience": 0}}


class SaveInTheValidation(Callback):
    """Saves before each val batch."""

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if not trainer.sanity_checking:
            name = f"val-batch={batch_idx}-step={trainer.global_step}.ckpt"
            trainer.save_checkpoint(Path(trainer.log_dir) / "checkpoints" / name)


def stopping(run):
    """The state of EarlyStopping, which counts validations."""
    return next(value for name, value in state(run)["callbacks"].items() if "EarlyStopping" in name)


@pytest.fixture(scope="module")
def uninterrupted(clips, tmp_path_factory):
    """A run of 4 epochs of 3 batches, with checkpoints everywhere: unfrozen in epoch 1, scheduler, all kinds of chance."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    rows = (clips / "labels.csv").read_text().splitlines(keepends=True)
    first = next(
        i for i, row in enumerate(rows) if ",walker,train," in row
    )  # the only walker to train on is the other one
    rows[first] = rows[first].replace(",walker,", ",blank,")
    (folder / "labels.csv").write_text("".join(rows))
    callbacks = [
        cls("BackboneFinetuning", unfreeze_backbone_at_epoch=1, backbone_initial_ratio_lr=0.1),
        cls("LearningRateMonitor", logging_interval="step"),
        cls("ModelCheckpoint", save_last=True, enable_version_counter=False),
        EACH_STEP,
        cls(
            "ModelCheckpoint",
            filename="end-{step}",
            save_top_k=-1,
            every_n_epochs=1,
            save_on_train_epoch_end=True,
            monitor="epoch",
        ),
        cls("ModelCheckpoint", filename="val-{step}", save_top_k=-1, save_on_train_epoch_end=False, monitor="val_loss"),
        cls("test_resume.SaveInTheValidation"),
        cls("EarlyStopping", monitor="val_loss", patience=100),
    ]
    more = {
        "trainer": {"callbacks": callbacks, "max_epochs": 4, "logger": cls("TensorBoardLogger", save_dir=str(folder))},
        "data": {
            "labels": str(folder / "labels.csv"),
            "data_dir": str(clips),
            "batch_size": 3,
            "clip_weights": cls("ClassBalanced"),
            "temporal_jitter": cls("TemporalJitter", shift=0.5, step=1.0),
            "augmentation": [
                cls("torchvision.transforms.v2.RandomHorizontalFlip"),
                cls("torchvision.transforms.v2.ColorJitter", brightness=0.5),
            ],
            "batch_augmentation": [cls("torchvision.transforms.v2.MixUp", alpha=0.5)],
        },
        "model": {
            "init_args": {
                "post_backbone_dropout": 0.5,
                "loss": cls("torch.nn.CrossEntropyLoss", label_smoothing=0.1),
                "class_weights": "balanced",
            }
        },
        "lr_scheduler": PLATEAU,
    }
    (folder / "more.yaml").write_text(yaml.safe_dump(more))
    args = ["fit", "--config", str(TINY), "--config", str(folder / "more.yaml")]
    main(args)
    return folder / "tiny/version_0", args


# steps 3, 6, 9: after an epoch's last batch, before its validation; "val-batch=": in it; "val-": at its end; "end-": after the
# epoch; the others: in an epoch's middle
@pytest.mark.parametrize(
    ("step", "workers"),
    some_slow(
        [
            *[(s, 0) for s in ("step=2", "step=3", "end-step=3", "step=4", "end-step=6", "step=11")],
            *[(s, 0) for s in ("val-step=3", "val-step=6", "val-batch=0-step=3", "val-batch=1-step=6")],
            ("step=4", 2),
            ("end-step=6", 2),
        ],
        [("end-step=3", 0), ("step=4", 2), ("val-batch=1-step=6", 0)],
        several=True,
    ),
)
def test_interrupted_and_resumed_is_bit_identical(uninterrupted, folder, step, workers):
    run, args = uninterrupted
    more = ["--trainer.logger.save_dir", str(folder), "--ckpt_path", str(run / f"checkpoints/{step}.ckpt")]
    main([*args, *more, "--data.num_workers", str(workers)])
    resumed = folder / "tiny/version_0"
    assert largest_difference(state(run), state(resumed)) == 0
    before, after = scalars(run), scalars(resumed)
    begin = int(step.split("=")[-1])
    if not step.startswith("end") and begin % 3 == 0:
        begin -= 1  # what an epoch's end logs goes under its last batch
    expected = {tag: [v for v in values if v[0] >= begin] for tag, values in before.items()}
    late = {"train_loss_epoch", "train_macro_f1"}
    assert {tag: v for tag, v in after.items() if v}.keys() >= {tag for tag, v in expected.items() if v}
    for tag in late:
        assert after[tag] == expected[tag]
    if step.startswith("val-step"):
        begin += 1  # that validation has been
    for tag in ("val_loss", "val_macro_f1", "species/val_f1/walker"):
        assert after[tag] == [v for v in before[tag] if v[0] >= begin]
    assert stopping(resumed) == stopping(run)
    for tag in ("train_loss", "lr-SGD/head", "lr-SGD/backbone"):
        assert after[tag] == [v for v in before[tag] if v[0] >= int(step.split("=")[-1])]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "checkpoints"),
    [
        ("limit_val_batches=0", {"step=3": (2, 3)}),
        *(
            pytest.param(*more, marks=pytest.mark.slow)
            for more in (
                ("check_val_every_n_epoch=2", {"step=3": (2, 3), "step=8": (8, 8), "end-step=9": (9, 9)}),
                (
                    "val_check_interval=2",
                    {"step=2": (2, 1), "val-batch=1-step=2": (2, 1), "val-step=2": (2, 2), "step=3": (2, 3)},
                ),
                ("max_steps=9", {"step=3": (2, 2), "end-step=3": (3, 3), "step=4": (4, 4)}),
                ("limit_train_batches=2", {"step=3": (3, 3), "step=4": (3, 3)}),
            )
        ),
    ],
)
def test_resumed_with_other_options_of_the_trainer(uninterrupted, folder, option, checkpoints):
    """The numbers are the first step whose epoch's end, and whose validation, is still to come."""
    more = yaml.safe_load(Path(uninterrupted[1][-1]).read_text())
    more["trainer"]["logger"]["init_args"]["save_dir"] = str(folder)
    validates = not option.startswith("limit_val")
    if not validates:
        callbacks = more["trainer"]["callbacks"]
        more["trainer"]["callbacks"] = [c for c in callbacks if c.get("init_args", {}).get("monitor") != "val_loss"]
        more["lr_scheduler"] = cls("torch.optim.lr_scheduler.StepLR", step_size=1, gamma=0.5)
    (folder / "more.yaml").write_text(yaml.safe_dump(more))
    args = [*uninterrupted[1][:-1], str(folder / "more.yaml"), f"--trainer.{option}"]
    main(args)
    run = folder / "tiny/version_0"
    before = scalars(run)
    for version, (name, (epoch_end, validation)) in enumerate(checkpoints.items(), start=1):
        main([*args, "--ckpt_path", str(run / f"checkpoints/{name}.ckpt")])
        resumed = folder / f"tiny/version_{version}"
        after = scalars(resumed)
        assert largest_difference(state(run), state(resumed)) == 0
        if validates:
            assert stopping(resumed) == stopping(run)
        for tag in before.keys() - {"epoch", "hp_metric"}:
            if tag in ("train_loss", "lr-SGD/head", "lr-SGD/backbone"):
                first = int(name.split("=")[-1])
            else:
                first = epoch_end if tag.startswith("train_") else validation
            assert after.get(tag, []) == [v for v in before[tag] if v[0] >= first], (name, tag)


@pytest.mark.slow
def test_two_steps_in_a_copied_run_folder(clips, folder):
    small = [
        "--model.init_args.weights=null",
        "--model.init_args.model_depth=18",
        "--model.init_args.stem_dim_outs=[8,2]",
    ]
    small += ["--data.height=32", "--data.width=32", "--data.batch_size=4", "--data.num_workers=0"]
    small += ["--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false", "--trainer.limit_val_batches=1"]
    small += ["--data.sampling.init_args.num_frames=4", "--data.labels", str(clips / "labels.csv")]
    main(["fit", "--config", str(CONFIGS / "slowfast_head.yaml"), *small])
    first, second = folder / "runs/slowfast_steps/version_0", folder / "runs/slowfast_steps/version_1"
    assert not [tag for tag in scalars(first) if "backbone" in tag and scalars(first)[tag][-1][1] == 0]
    shutil.copytree(first, second)
    (checkpoint,) = (second / "checkpoints").glob("epoch=9-step=*.ckpt")
    before = (first / "config.yaml").read_text()
    main(["fit", "--config", str(CONFIGS / "slowfast_unfreeze.yaml"), *small, "--ckpt_path", str(checkpoint)])
    assert (second / "checkpoints/epoch=19-step=40.ckpt").exists()
    assert len(list(second.glob("events*"))) == 2
    assert (second / "config_1.yaml").read_text() == before
    assert "BackboneFinetuning" in (second / "config.yaml").read_text()
    logged = scalars(second)
    assert [step for step, _ in logged["train_loss"]] == list(range(40))
    backbone = dict(logged["lr-Adam/backbone"])
    assert backbone[20] == pytest.approx(0.00001)
    assert backbone[22] == pytest.approx(0.00002)
    a, b = state(first)["state_dict"], state(second)["state_dict"]
    assert any(not torch.equal(a[key], b[key]) for key in a if key.startswith("base.blocks.4"))
    # and in the same run folder
    more = ["--trainer.logger.init_args.version=0", "--ckpt_path", str(first / "checkpoints/last.ckpt")]
    main(["fit", "--config", str(CONFIGS / "slowfast_unfreeze.yaml"), *small, *more, "--trainer.max_epochs=12"])
    assert [step for step, _ in scalars(first)["train_loss"]] == list(range(24))
    assert (first / "config_1.yaml").exists()


def finetuned(epoch):
    return yaml.safe_dump(
        {
            "trainer": {
                "callbacks": [
                    *([] if epoch is None else [cls("BackboneFinetuning", unfreeze_backbone_at_epoch=epoch)]),
                    cls("LearningRateMonitor", logging_interval="step"),
                    cls("ModelCheckpoint", save_last=True),
                ]
            }
        }
    )


@pytest.mark.parametrize(
    ("first", "then", "backbone"),
    [
        pytest.param(None, 0, [1, 2], marks=pytest.mark.slow),  # added, its epoch is past: unfrozen at once
        (None, 3, [0, 1]),  # added
        (1, None, None),  # removed
        pytest.param(1, 3, [0, 1], marks=pytest.mark.slow),  # moved
        pytest.param(1, 1, [2, 4], marks=pytest.mark.slow),  # as it was
        # moved to before it was unfrozen: what is done is done
        pytest.param(1, 0, [2, 4], marks=pytest.mark.slow),
    ],
)
def test_the_callback_can_be_added_removed_and_moved(zamba, folder, capfd, first, then, backbone):
    (folder / "first.yaml").write_text(finetuned(first))
    (folder / "then.yaml").write_text(finetuned(then))
    zamba("fit", "--config", "first.yaml", "--lr_scheduler=null")
    run = folder / "runs/tiny/version_0"
    more = ["--config", "then.yaml", "--lr_scheduler=null", "--trainer.max_epochs=4"]
    zamba("fit", *more, "--ckpt_path", run / "checkpoints/last.ckpt")
    resumed = folder / "runs/tiny/version_1"
    a, b = state(run)["state_dict"], state(resumed)["state_dict"]
    moved = any(not torch.equal(a[key], b[key]) for key in a if key.startswith("base.blocks.4"))
    assert moved == (then is not None)
    if backbone is not None:
        rates = [rate for _, rate in scalars(resumed)["lr-SGD/backbone"]][::2]
        assert rates == pytest.approx([0.01 * factor for factor in backbone])


def test_last_without_a_checkpoint_says_so(zamba, refused, folder):
    refused(lambda: zamba("fit", "--ckpt_path", "last"), "last", "no checkpoint", "runs/tiny/version_0")


def test_last_goes_on_in_the_run_folder_that_is_named(zamba, folder):
    zamba("fit", "--trainer.max_epochs=1")
    zamba("fit", "--ckpt_path", "last", "--trainer.logger.init_args.version=0")
    run = folder / "runs/tiny/version_0"
    assert [step for step, _ in scalars(run)["train_loss"]] == [0, 1, 2, 3]
    assert len(list(run.glob("config*.yaml"))) == 2


def test_skipped_batches_are_not_decoded(uninterrupted, folder, monkeypatch):
    run, args = uninterrupted
    read = []
    read_clip = ClipReader.read
    monkeypatch.setattr(ClipReader, "read", lambda self, path, *a: read.append(path.name) or read_clip(self, path, *a))
    more = ["--trainer.logger.save_dir", str(folder), "--trainer.max_epochs=2", "--trainer.limit_val_batches=0"]
    main([*args, *more, "--ckpt_path", str(run / "checkpoints/step=4.ckpt"), "--lr_scheduler=null"])
    assert len(read) == 8 - 3  # the epoch's first batch of 3 is done


@pytest.mark.parametrize("step", some_slow(["step=3", "end-step=3", "step=4"], ["step=4"]))
@pytest.mark.parametrize("batch_size", some_slow([2, 8], [2]))
def test_another_batch_size_on_resume(uninterrupted, folder, step, batch_size):
    run, args = uninterrupted
    more = ["--trainer.logger.save_dir", str(folder), "--data.batch_size", str(batch_size), "--trainer.max_epochs=3"]
    main([*args, *more, "--ckpt_path", str(run / f"checkpoints/{step}.ckpt")])
    after = scalars(folder / "tiny/version_0")
    epochs = [epoch for _, epoch in after["epoch"]]
    batches = -(-8 // batch_size)
    if step == "step=4":  # in the middle of epoch 1: what is left of it, then epoch 2
        assert 4 < len(after["train_loss"]) + 4 <= 4 + 2 * batches
    else:
        assert len(after["train_loss"]) == 2 * batches
    assert max(epochs) == 2
    assert len(after["val_loss"]) == (3 if step == "step=3" else 2)


@pytest.mark.slow
def test_the_seed_travels_in_the_checkpoint(zamba, folder, capfd):
    """A drawn seed is drawn once: the order of an epoch that is gone on with is the one it began with."""
    zamba("fit", "--seed_everything=true", "--trainer.max_epochs=1")
    first = folder / "runs/tiny/version_0"
    seed = yaml.safe_load((first / "config.yaml").read_text())["seed_everything"]
    more = ["--ckpt_path", first / "checkpoints/last.ckpt"]
    zamba("fit", "--seed_everything=true", *more)
    assert f"seed_everything: {seed} as in the checkpoint" in capfd.readouterr().out
    second = folder / "runs/tiny/version_1"
    assert yaml.safe_load((second / "config.yaml").read_text())["seed_everything"] == seed
    zamba("fit", f"--seed_everything={seed}")
    whole = folder / "runs/tiny/version_2"
    assert largest_difference(state(whole), state(second)) == 0
    zamba("fit", "--seed_everything=3", *more)
    assert f"3 as you state; the checkpoint has {seed}" in capfd.readouterr().out
    assert largest_difference(state(whole), state(folder / "runs/tiny/version_3")) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer",
    [
        partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        pytest.param(partial(torch.optim.Adam, lr=0.001), marks=pytest.mark.slow),  # counts its steps, too
    ],
    ids=["SGD", "Adam"],
)
def test_classes_in_another_order_are_matched_by_name_from_python_too(clips, folder, optimizer):
    def fit(order, ckpt_path=None):
        names = sorted(data.DemoClips().class_names, reverse=order)
        pytorch_lightning.seed_everything(1)
        model = SlowFast(class_names=names, task="multiclass", weights=None, model_depth=18, stem_dim_outs=(8, 2))
        model.set_optimizer(optimizer)
        clips_of = {"labels": str(clips / "labels.csv"), "sampling": data.EvenlySpaced(8), "height": 32, "width": 32}
        module = data.ZambaVideoDataModule(**clips_of, batch_size=4, num_workers=0, class_names=names)
        checkpoints = ModelCheckpoint(dirpath=folder / str(order), **EACH_STEP["init_args"])
        trainer = pytorch_lightning.Trainer(
            max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[checkpoints]
        )
        trainer.fit(model, module, ckpt_path=ckpt_path)
        trainer.save_checkpoint(f"{order}.ckpt")
        return torch.load(f"{order}.ckpt", weights_only=True)["state_dict"], trainer.callback_metrics, model

    whole, metrics, _ = fit(False)
    other, others, model = fit(True, ckpt_path="False/step=2.ckpt")
    assert torch.allclose(whole["head.proj.weight"].flip(0), other["head.proj.weight"], atol=1e-5)
    assert torch.allclose(whole["head.proj.bias"].flip(0), other["head.proj.bias"], atol=1e-5)
    assert not torch.allclose(whole["head.proj.weight"], other["head.proj.weight"], atol=1e-5)
    for name, value in metrics.items():
        assert others[name] == pytest.approx(float(value), abs=1e-4), name

    half_counted = torch.load("False/step=3.ckpt", weights_only=True)  # in the middle of an epoch
    counts = {name: count.clone() for name, count in half_counted["train_metrics"]["macro_f1"].items()}
    model.on_load_checkpoint(half_counted)
    restored = dict(model.train_metrics.by_name())["macro_f1"]
    assert counts["fn"].sum() > 0
    assert not counts["fn"].equal(counts["fn"].flip(0))
    for name in ("tp", "fp", "fn"):
        assert getattr(restored, name).equal(counts[name].flip(0))
