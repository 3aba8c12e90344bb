"""Whatever the trainer and its callbacks count, a resumed run is the one that was not interrupted: to the bit."""

import contextlib
import shutil
from pathlib import Path

import pytest
import torch

from helpers.exactness import Fits
from helpers.runs import cls

FINETUNING = cls("BackboneFinetuning", unfreeze_backbone_at_epoch=1, backbone_initial_ratio_lr=0.1)
RATES = cls("LearningRateMonitor", logging_interval="step")
NEVER = cls("EarlyStopping", monitor="val_loss", patience=100)
EVERYWHERE = cls("helpers.exactness.SaveEverywhere")


def stopping(patience, **more):
    """Stops after so many validations, whatever they say."""
    return cls("EarlyStopping", monitor="val_loss", patience=patience, min_delta=100.0, **more)


def plateau(monitor):
    scheduler = cls("pytorch_lightning.cli.ReduceLROnPlateau", monitor=monitor, patience=0, factor=0.7)
    return {"lr_scheduler": scheduler, "lr_scheduler_interval": "step"}


def accumulating(**by_epoch):
    return cls("GradientAccumulationScheduler", scheduling={int(k[1:]): v for k, v in by_epoch.items()})


def stated(*callbacks, more=None, **trainer):
    """Three epochs of four batches, with dropout."""
    return {
        "trainer": {"callbacks": [FINETUNING, RATES, *callbacks, EVERYWHERE], "max_epochs": 3, **trainer},
        "data": {"batch_size": 2},
        "model": {"init_args": {"post_backbone_dropout": 0.5}},
        **(more or {}),
    }


@pytest.fixture
def fits(zamba, folder):
    return lambda more, *args: Fits(zamba, folder, more, *args)


slow = pytest.mark.slow
OPTIONS = {  # what is stated, and where the run is interrupted: in the default run, and in the slow one
    "accumulation_by_epoch": (stated(NEVER, accumulating(e0=1, e1=2, e2=3)), "", "batch-5 batch-6 batch-10 batch-4 epoch-4"),
    "accumulation_ends": (stated(NEVER, accumulating(e0=3, e1=1)), "", "batch-2 batch-1 batch-6"),
    "accumulation": (stated(NEVER, accumulate_grad_batches=3), "", "batch-5 batch-2 batch-3 batch-4"),
    "validated_while_accumulating": (
        stated(NEVER, accumulate_grad_batches=2, val_check_interval=1), "", "val-5 within-3 batch-7 val-4",
    ),
    "plateau_by_step": (stated(NEVER, more=plateau("train_loss")), "", "batch-2 batch-4 batch-7 val-4"),
    "plateau_by_step_of_the_validation": (
        stated(NEVER, more=plateau("val_loss"), val_check_interval=1), "", "val-3 batch-2 within-6 val-4",
    ),
    "plateau_by_step_accumulating": (
        stated(more=plateau("train_loss"), accumulate_grad_batches=2), "", "batch-5 batch-2 batch-4",
    ),
    "plateau_without_validation": (stated(more=plateau("train_loss"), limit_val_batches=0), "", "batch-4 batch-2 epoch-4"),
    "overfit": (stated(NEVER, overfit_batches=2), "", "batch-3 batch-1 batch-2 val-2"),
    "overfit_share": (stated(NEVER, overfit_batches=0.75), "", "batch-4 batch-1 batch-2"),
    "stopped_before_min_epochs": (
        stated(stopping(1), min_epochs=3, max_epochs=5), "", "epoch-8 batch-10 epoch-12 batch-4 val-8",
    ),
    "stopped_before_min_steps": (stated(stopping(1), min_steps=10, max_epochs=5), "", "batch-9 epoch-8 batch-7"),
    "stopped_between_validations": (
        stated(stopping(3, check_on_train_epoch_end=False), val_check_interval=2), "", "val-6 batch-5 within-6",
    ),
    "validated_every_three_batches": (
        stated(NEVER, val_check_interval=3, check_val_every_n_epoch=None), "", "batch-4 val-6 batch-3",
    ),
    "max_steps": (stated(NEVER, max_steps=7), "", "batch-6 epoch-4"),
    "loaders_made_again": (stated(NEVER, reload_dataloaders_every_n_epochs=1), "", "batch-6 epoch-4"),
    "clipped": (stated(NEVER, gradient_clip_val=0.1), "", "batch-6"),
    "logged_every_third_step": (stated(NEVER, log_every_n_steps=3), "", "batch-6 val-4"),
    "limited": (stated(NEVER, limit_train_batches=3, limit_val_batches=1), "", "batch-5 batch-3 within-3"),
}  # fmt: skip
PLACES = [
    pytest.param(name, place, marks=[slow] if place in late.split() else [])
    for name, (_, quick, late) in OPTIONS.items()
    for place in [*quick.split(), *late.split()]
]


@pytest.fixture(scope="module")
def uninterrupted(zamba, tmp_path_factory):
    """Returns the whole run with some options and its places; the newest is kept, for tests of one run follow each other."""
    kept = {}

    def run(name):
        if name not in kept:
            for runs, _ in kept.values():
                shutil.rmtree(runs.folder)
            kept.clear()
            runs = Fits(zamba, tmp_path_factory.mktemp(name), OPTIONS[name][0])
            with contextlib.chdir(runs.folder):
                kept[name] = runs, runs.whole()
        return kept[name]

    return run


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_resumed_anywhere(uninterrupted, monkeypatch, name, place):
    runs, places = uninterrupted(name)
    assert place in places
    monkeypatch.chdir(runs.folder)
    assert runs.differences(place) == []


@pytest.mark.slow
def test_a_run_that_early_stopping_has_ended(fits, caplog):
    """It stays ended, and is told why; a higher patience lets it go on."""
    runs = fits(stated(stopping(1), max_epochs=5))
    assert "epoch-8" in runs.whole()
    # at an epoch's start the backbone's learning rate is made that of the epoch
    assert [found for found in runs.differences("epoch-8") if "param_groups[1].lr" not in found] == []
    assert "EarlyStopping has ended the checkpoint's run" in caplog.text
    checkpoint = torch.load("of_whole/epoch-8.ckpt", weights_only=True)
    (criteria,) = checkpoint["left_open"]["stopped_by"].values()
    assert criteria["patience"] == 1
    criteria["patience"] = 0  # as if the run had been stopped by less
    torch.save(checkpoint, "of_whole/other.ckpt")
    assert runs.differences("other") != []


FAILURES = [("on_before_optimizer_step", 6, 1)]
MORE_FAILURES = [
    ("on_after_backward", 8, 2),
    *[("on_before_optimizer_step", batch, 1) for batch in (1, 5, 8)],
    *[("on_before_optimizer_step", batch, 3) for batch in (7, 8)],
    *[("on_after_backward", batch, 3) for batch in (1, 6, 7)],
    *[("on_before_zero_grad", 5, 1), ("on_before_zero_grad", 8, 3), ("on_train_batch_start", 5, 1)],
    *[("on_validation_batch_start", 8, 1), ("on_validation_epoch_start", 8, 2)],
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hook", "batch", "together"),
    [*FAILURES, *(pytest.param(*failure, marks=slow) for failure in MORE_FAILURES)],
)
def test_resumed_after_an_error(fits, folder, hook, batch, together):
    """A batch within which an error comes up is counted once: the statistics of BatchNorm, metrics, gradients."""
    finetuning = cls("BackboneFinetuning", unfreeze_backbone_at_epoch=0, train_bn=True)
    configuration = stated(NEVER, accumulate_grad_batches=together)
    configuration["trainer"]["callbacks"][0] = finetuning
    runs = fits(configuration)
    runs.whole()
    failing = [cls("helpers.exactness.FailAt", hook=hook, batch=batch)]
    failing += [cls("OnExceptionCheckpoint", dirpath=str(folder / "of_whole"))]
    configuration["trainer"]["callbacks"] += failing
    broken = fits(configuration)
    with pytest.raises(RuntimeError, match="on purpose"):
        broken.fit()
    assert Path("of_whole/on_exception.ckpt").exists()
    configuration["trainer"]["callbacks"] = configuration["trainer"]["callbacks"][:-2]
    fits(configuration)
    assert runs.differences("on_exception") == []
