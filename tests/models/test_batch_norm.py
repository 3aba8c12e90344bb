"""Batches of one clip, of which BatchNorm layers get a single value of each channel."""

import pytest

from helpers.marks import some_slow

ONE_FRAME = "--data.sampling.num_frames=4"  # in SlowFast's slow pathway, at the end of 1 x 1 pixels
ONE_LEFT = "--data.batch_size=7"  # of 8 train clips


def test_they_are_refused_before_the_first_step(zamba, folder, refused):
    message = refused(
        lambda: zamba("fit", ONE_FRAME, ONE_LEFT), "data.batch_size", "drop_last", "train_bn", "epoch 1 on"
    )
    assert "last batch" in message
    assert not list(folder.rglob("*.ckpt"))


def test_they_are_refused_when_they_come_where_no_clip_is_seen_before(zamba, refused):
    """A cache has the features of the frozen layers, so that the backbone does not run before it is unfrozen."""
    cache = ("--trainer.callbacks+=FrozenFeatureCache", "--trainer.callbacks.dir=cache")
    message = refused(lambda: zamba("fit", ONE_FRAME, ONE_LEFT, *cache), "data.batch_size", "drop_last", "train_bn")
    assert "last batch of an epoch has one clip" not in message


@pytest.mark.parametrize(
    "args",
    some_slow([["--data.batch_size=6"], [ONE_LEFT, "--trainer.max_steps=2"]], [[ONE_LEFT, "--trainer.max_steps=2"]]),
)
def test_runs_without_them_are_not(zamba, folder, args):
    zamba("fit", ONE_FRAME, *args)
    assert list(folder.rglob("last.ckpt"))


@pytest.mark.slow
def test_layers_that_keep_their_statistics_take_them(zamba, folder):
    (folder / "more.yaml").write_text(
        "trainer: {callbacks: [{class_path: BackboneFinetuning, init_args: {unfreeze_backbone_at_epoch: 0, train_bn: false}}]}"
    )
    zamba("fit", ONE_FRAME, ONE_LEFT, "--config", "more.yaml", "--trainer.max_epochs=1")
    assert list(folder.rglob("*.ckpt"))
