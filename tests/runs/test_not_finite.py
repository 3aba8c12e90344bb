"""What is no number is told as none: a NaN is left out of no loss, no metric and no score."""

import math

import pytest
import torch
import yaml

from helpers.marks import some_slow
from helpers.runs import cls, scalars
from zamba_lcli.models import SlowFast


class Poisoned(torch.nn.CrossEntropyLoss):
    """The cross-entropy, but for one call of those that are counted."""

    def __init__(self, value: str, call: int, training: bool = True) -> None:
        super().__init__()
        self.value, self.call, self.counts, self.calls = float(value), call, training, 0

    def forward(self, logits, target):
        losses = super().forward(logits, target)
        if logits.requires_grad == self.counts:  # not when it is tried out, before there is a model
            self.calls += 1
            if self.calls == self.call:
                losses = losses + self.value
        return losses


@pytest.mark.parametrize("value", some_slow(["nan", "inf"], ["nan"]))
def test_one_batch_of_an_epoch(zamba, folder, value):
    """The first of two train batches of the second epoch, whose loss alone is wrong: no gradient is."""
    loss = cls("test_not_finite.Poisoned", value=value, call=3)
    stop = cls("EarlyStopping", monitor="train_loss_epoch", patience=50)
    more = {"trainer": {"callbacks": [stop]}, "model": {"init_args": {"loss": loss}}}
    (folder / "more.yaml").write_text(yaml.safe_dump(more))
    zamba("fit", "--config", "more.yaml", "--trainer.max_epochs=4", "--optimizer.lr=0.001")
    logged = scalars(folder / "runs/tiny/version_0")
    losses = [loss for _, loss in logged["train_loss_epoch"]]
    assert math.isfinite(losses[0])
    assert str(losses[1]) == value
    assert len(losses) == 2  # check_finite ends the training
    f1 = [math.isnan(value) for _, value in logged["train_macro_f1"]]
    assert f1 == [False, value == "nan"]
    assert all(math.isfinite(loss) for _, loss in logged["val_loss"])


def test_a_validation_batch(zamba, folder):
    loss = cls("test_not_finite.Poisoned", value="nan", call=2, training=False)
    more = {"model": {"init_args": {"loss": loss}}, "trainer": {"callbacks": [], "num_sanity_val_steps": 0}}
    (folder / "more.yaml").write_text(yaml.safe_dump(more))
    zamba("fit", "--config", "more.yaml", "--data.batch_size=1", "--trainer.max_epochs=2")
    logged = scalars(folder / "runs/tiny/version_0")
    for name in ("val_loss", "val_macro_f1", "species/val_f1/walker"):
        assert [math.isnan(value) for _, value in logged[name]] == [True, False], name


def test_weights_that_are_no_numbers(zamba, folder, refused):
    """Nothing is scored by them: `zamba test` says so."""
    zamba("fit", "--optimizer.lr=1e30")
    logged = scalars(folder / "runs/tiny/version_0")
    for name in ("train_loss_epoch", "train_macro_f1", "val_loss", "val_macro_f1", "val_top_1_accuracy"):
        assert math.isnan(logged[name][-1][1]), name
    checkpoint = folder / "runs/tiny/version_0/checkpoints/last.ckpt"
    refused(lambda: zamba("test", "--ckpt_path", checkpoint), "NaN", "4 of the 4 holdout clips", "learning rate")
    assert not list(folder.rglob("metrics.json"))


def test_an_epochs_loss_is_the_mean_over_its_clips():
    metric = SlowFast(["a", "b"], weights=None, model_depth=18, stem_dim_outs=(8, 2)).train_metrics.loss
    for loss, clips in ((1.0, 3), (4.0, 1)):
        metric.update(torch.tensor(loss), weight=clips)
    assert metric.compute() == pytest.approx(1.75)
    loss = torch.tensor(math.nan)
    metric.update(loss, weight=1)
    assert metric.compute().isnan()
