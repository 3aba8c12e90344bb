"""A run that is never validated is told of before it trains, and refused if something waits for the validation."""

import pytest
import torch

from helpers.marks import some_slow
from helpers.runs import cls, state, write_yaml

ONE_CALLBACK = ["--trainer.callbacks=[{class_path: ModelCheckpoint, init_args: {save_last: true}}]"]
EVERY_SECOND = ["--trainer.check_val_every_n_epoch=2", "--trainer.num_sanity_val_steps=0"]
WAITS = {
    "EarlyStopping": ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_loss"],
    "ModelCheckpoint": ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=val_loss"],
    "lr_scheduler": ["--lr_scheduler=ReduceLROnPlateau", "--lr_scheduler.monitor=val_loss"],
}
NEVER = "never validated"
FIRST = "runs/tiny/version_0/checkpoints/last.ckpt"
UNVALIDATED = ["--trainer.limit_val_batches=0", "--trainer.max_epochs=1"]


def epochs(number, *more):
    return [*ONE_CALLBACK, f"--trainer.max_epochs={number}", *more]


@pytest.fixture
def warned(zamba, recwarn):
    """Fits, and returns what was warned of for want of a validation."""

    def run(*args):
        recwarn.clear()
        zamba("fit", *args)
        return [str(warning.message) for warning in recwarn if NEVER in str(warning.message)]

    return run


@pytest.mark.parametrize("waits", some_slow([[], *WAITS.values()], [WAITS["EarlyStopping"]]), ids=["nothing", *WAITS])
def test_the_first_epoch_need_not_be_validated(warned, waits):
    assert not warned(*epochs(2), *EVERY_SECOND, *waits)


@pytest.mark.parametrize(("batches", "is_validated"), some_slow([(5, False), (6, True)], [(5, False)], several=True))
def test_the_accumulation_of_each_epoch_counts(warned, zamba, refused, folder, batches, is_validated):
    """The first epoch has 4 steps of a batch, the second one 2: of 3 batches and of 1."""
    callbacks = [cls("GradientAccumulationScheduler", scheduling={0: 1, 1: 3})]
    write_yaml(folder / "more.yaml", {"trainer": {"callbacks+": callbacks}})
    options = [*ONE_CALLBACK, "--config", "more.yaml", "--data.batch_size=2", *EVERY_SECOND]
    options = [*options, f"--trainer.max_steps={batches}", *WAITS["EarlyStopping"]]
    if is_validated:
        assert not warned(*options)
    else:
        refused(lambda: zamba("fit", *options), NEVER, "after 7 batches", "EarlyStopping waits for val_loss")


@pytest.mark.parametrize("who", some_slow(WAITS, ["lr_scheduler"]))
def test_a_resumed_run_without_the_metric_is_refused(zamba, refused, folder, who):
    zamba("fit", *ONE_CALLBACK, *UNVALIDATED)
    resumed = [*epochs(2, "--trainer.limit_val_batches=0"), "--ckpt_path", FIRST]
    refused(lambda: zamba("fit", *resumed, *WAITS[who]), NEVER, "limit_val_batches: 0", f"{who} waits for val_loss")
    assert not list(folder.glob("runs/tiny/version_[1-9]/checkpoints"))


@pytest.mark.slow
def test_a_resumed_run_with_the_metric_is_warned_of(zamba, warned):
    zamba("fit", *epochs(1))
    resumed = ["--ckpt_path", FIRST, *WAITS["EarlyStopping"]]
    (message,) = warned(*epochs(2, "--trainer.limit_val_batches=0"), *resumed)
    assert "EarlyStopping goes on with the checkpoint's val_loss" in message


@pytest.mark.slow
def test_a_resumed_run_is_counted_from_where_it_goes_on(zamba, warned, refused):
    zamba("fit", *ONE_CALLBACK, "--trainer.limit_val_batches=0", "--trainer.max_epochs=3")
    third = ["--trainer.check_val_every_n_epoch=3", "--ckpt_path", FIRST, *WAITS["EarlyStopping"]]
    refused(
        lambda: zamba("fit", *epochs(5), *third), "epochs 4 to 5", "EarlyStopping waits for val_loss", "max_epochs: 6"
    )
    by_batches = ["--trainer.check_val_every_n_epoch=null", "--trainer.val_check_interval=9", *third[1:]]
    refused(lambda: zamba("fit", *epochs(4), *by_batches), "val_check_interval: 9", "the run has 2")
    assert not warned(*epochs(6), *third)
    assert not warned(*epochs(3), *third)  # there is nothing to train


def test_a_validation_that_is_due_first_counts(zamba, warned, folder):
    """The checkpoint is saved after the epoch's last batch, before it is validated."""
    each_step = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=2"]
    names = ["--trainer.callbacks.save_top_k=-1", "--trainer.callbacks.filename={step}"]
    zamba("fit", *epochs(2), *EVERY_SECOND, *each_step, *names)
    path = next(folder.glob("runs/tiny/version_0/checkpoints/step=4.ckpt"))
    assert "val_loss" not in torch.load(path, weights_only=True)["callback_metrics"]
    assert not warned(*epochs(3), *EVERY_SECOND, *WAITS["EarlyStopping"], "--ckpt_path", path)
    assert state(folder / "runs/tiny/version_1")["callback_metrics"]["val_loss"] > 0
