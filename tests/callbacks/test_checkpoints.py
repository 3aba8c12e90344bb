"""A checkpoint's score is that of its weights."""

import re

import pytest
import torch
import yaml
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from helpers.runs import cls, scalars
from zamba_lcli.callbacks import ZambaModelCheckpoint

FINETUNING = cls("BackboneFinetuning", unfreeze_backbone_at_epoch=1)
NAMED = "{step}-{val_loss:.6f}"
LOSSES: dict[int, float] = {}


class Watch(Callback):
    """Knows the val loss of each number of steps, as validated in this run."""

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            LOSSES[trainer.global_step] = float(trainer.callback_metrics["val_loss"])


def fit(zamba, folder, *checkpoints, **trainer):
    """Three epochs of four batches; returns the files' names, and the val loss by steps."""
    LOSSES.clear()
    callbacks = [FINETUNING, cls("test_checkpoints.Watch"), *checkpoints]
    stated = {"trainer": {"callbacks": callbacks, "max_epochs": 3, **trainer}, "data": {"batch_size": 2}}
    (folder / "more.yaml").write_text(yaml.safe_dump(stated))
    zamba("fit", "--config", "more.yaml")
    run = max(folder.glob("runs/tiny/*"), key=lambda path: path.stat().st_mtime)
    return sorted(path.name for path in (run / "checkpoints").iterdir()), dict(LOSSES)


def named(names):
    """Steps and val losses as the names of the files say."""
    return {int(step): float(loss) for step, loss in re.findall(r"step=(\d+)-val_loss=([\d.]+)\.ckpt", " ".join(names))}


@pytest.mark.parametrize(
    "monitor", ["val_loss", pytest.param(None, marks=pytest.mark.slow)], ids=["monitored", "named"]
)
@pytest.mark.parametrize(
    ("every", "trainer", "steps"),
    [
        (2, {"val_check_interval": 2}, [2, 4, 6, 8, 10, 12]),
        pytest.param(
            1, {"val_check_interval": 3, "check_val_every_n_epoch": None}, [3, 6, 9, 12], marks=pytest.mark.slow
        ),
        (3, {}, [4, 8, 12]),  # at the first validation after the third step, the sixth and so on
        pytest.param(5, {"check_val_every_n_epoch": 2, "max_epochs": 4}, [8, 16], marks=pytest.mark.slow),
    ],
)
def test_steps_are_filed_when_they_are_validated(zamba, folder, every, trainer, steps, monitor):
    if monitor is None and every in (1, 5):
        return  # the same path
    checkpoint = cls(
        "ModelCheckpoint", monitor=monitor, every_n_train_steps=every, save_top_k=-1, filename=NAMED, save_last=True
    )
    names, losses = fit(zamba, folder, checkpoint, **trainer)
    assert list(named(names)) == sorted(named(names), key=str)
    assert sorted(named(names)) == steps
    for step, loss in named(names).items():
        assert loss == pytest.approx(losses[step], abs=1e-6)
    assert "last.ckpt" in names


@pytest.mark.slow
def test_by_time(zamba, folder):
    stated = {
        "class_path": "ModelCheckpoint",
        "init_args": {"monitor": "val_loss", "train_time_interval": "0:00:00", "save_top_k": -1, "filename": NAMED},
    }
    names, losses = fit(zamba, folder, stated, val_check_interval=2)
    assert sorted(named(names)) == [2, 4, 6, 8, 10, 12]
    assert all(loss == pytest.approx(losses[step], abs=1e-6) for step, loss in named(names).items())


@pytest.mark.slow
def test_an_epoch_that_is_not_validated(zamba, folder):
    """At its end the weights have no score; and those after the last of max_steps get none."""
    each_epoch = cls(
        "ModelCheckpoint",
        monitor="val_loss",
        save_top_k=-1,
        filename=NAMED,
        save_on_train_epoch_end=True,
        save_last=True,
    )
    names, losses = fit(zamba, folder, each_epoch, check_val_every_n_epoch=2, max_epochs=5, max_steps=18)
    assert named(names).keys() == {8, 16}
    assert all(loss == pytest.approx(losses[step], abs=1e-6) for step, loss in named(names).items())
    (last,) = (path for path in folder.rglob("last.ckpt"))
    assert torch.load(last, weights_only=True)["global_step"] == 18


def test_the_best_is_the_best(zamba, folder):
    best = cls("ModelCheckpoint", monitor="val_loss", every_n_train_steps=1, save_top_k=2, filename=NAMED)
    steps = cls("ModelCheckpoint", every_n_train_steps=5, save_top_k=-1, filename="all-{step}")
    names, losses = fit(zamba, folder, best, steps, val_check_interval=2)
    assert named(names) == {s: pytest.approx(v, abs=1e-6) for s, v in sorted(losses.items(), key=lambda x: x[1])[:2]}
    assert [name for name in names if name.startswith("all")] == ["all-step=10.ckpt", "all-step=5.ckpt"]


@pytest.mark.slow
def test_values_of_an_epoch_of_training(zamba, folder):
    checkpoint = cls(
        "ModelCheckpoint", monitor="train_macro_f1", mode="max", every_n_train_steps=3, save_top_k=-1,
        filename="{step}-{train_macro_f1:.6f}",
    )  # fmt: skip
    names, _ = fit(zamba, folder, checkpoint, val_check_interval=2)
    logged = scalars(folder / "runs/tiny/version_0")["train_macro_f1"]
    found = re.findall(r"step=(\d+)-train_macro_f1=([\d.]+)\.ckpt", " ".join(names))
    assert {int(step): float(f1) for step, f1 in found} == {
        step + 1: pytest.approx(f1, abs=1e-6) for step, f1 in logged
    }


def test_what_is_known_at_a_step_is_saved_at_once(zamba, folder):
    checkpoint = cls("ModelCheckpoint", monitor="train_loss", every_n_train_steps=3, save_top_k=-1, filename="{step}")
    names, _ = fit(zamba, folder, checkpoint, accumulate_grad_batches=2)
    assert names == ["step=3.ckpt", "step=6.ckpt"]


def test_an_error_names_no_score_of_other_weights(zamba, folder):
    checkpoint = cls("ModelCheckpoint", monitor="val_loss", filename=NAMED, save_on_exception=True, save_top_k=-1)
    failing = cls("helpers.exactness.FailAt", hook="on_before_optimizer_step", batch=6)
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(zamba, folder, checkpoint, failing)
    names = sorted(path.name for path in folder.glob("runs/tiny/version_0/checkpoints/*"))
    assert names == ["epoch=1-step=5.ckpt", *(name for name in names if name.startswith("step=4-val_loss="))]


def test_it_is_told_as_lightnings(refused, zamba, folder):
    assert ZambaModelCheckpoint(monitor="val_loss").state_key == ModelCheckpoint(monitor="val_loss").state_key
    (folder / "more.yaml").write_text(
        yaml.safe_dump({"trainer": {"callbacks": [cls("ModelCheckpoint", monitor="val_loss", mode="max")]}})
    )
    assert "Zamba" not in refused(lambda: zamba("fit", "--config", "more.yaml"), "ModelCheckpoint: ")
