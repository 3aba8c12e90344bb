"""The learning rate that is found is the one that is used."""

from functools import partial

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim.lr_scheduler import LinearLR, MultiStepLR, OneCycleLR, SequentialLR

from helpers.marks import some_slow
from helpers.runs import cls, scalars
from helpers.schedules import SCHEDULERS
from zamba_lcli.models import SlowFast

EPOCHS, BATCHES = 4, 2


def fit(zamba, folder, scheduler, *args):
    callbacks = [
        cls("LearningRateMonitor", logging_interval="step"),
        cls("BackboneFinetuning", unfreeze_backbone_at_epoch=1, backbone_initial_ratio_lr=0.01),
        cls("LearningRateFinder", min_lr=1e-4, max_lr=1.0, num_training_steps=16, early_stop_threshold=None),
        cls("ModelCheckpoint", save_last=True, enable_version_counter=False),
    ]
    (folder / "more.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}, "lr_scheduler": scheduler}))
    zamba("fit", "--config", "more.yaml", "--trainer.max_epochs", EPOCHS, *args)


def rates(run):
    logged = scalars(run)
    return [[value for _, value in logged[f"lr-SGD/{group}"]] for group in ("head", "backbone")]


@pytest.mark.slow
@pytest.mark.parametrize("name", some_slow([None, *SCHEDULERS], ["SequentialLR"]))
def test_found_learning_rate_survives_the_scheduler(zamba, folder, name):
    stated = None if name is None else SCHEDULERS[name][0]
    fit(zamba, folder, stated)
    run = folder / "runs/tiny/version_0"
    head, backbone = rates(run)
    assert len(head) == EPOCHS * BATCHES  # the trial batches are not part of the run
    events = EventAccumulator(str(run), size_guidance={"images": 0})
    events.Reload()
    assert "lr_finder" in events.Tags()["images"]
    (folder / "plain.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [
        cls("LearningRateMonitor", logging_interval="step")]}, "lr_scheduler": stated}))  # fmt: skip
    zamba("fit", "--config", "plain.yaml", "--trainer.max_epochs", EPOCHS)
    plain, _ = rates(folder / "runs/tiny/version_1")
    floor = 0.01 if name == "CosineAnnealingLR" else 0.0  # its eta_min stays where it was stated
    factors = {round((found - floor) / (before - floor), 5) for found, before in zip(head, plain, strict=True)}
    assert len(factors) == 1  # the same schedule, at another height
    assert factors != {1.0}
    ratios = [round(b / h, 6) for b, h in zip(backbone, head, strict=True)]
    assert ratios == [0, 0, 0.01, 0.01, 0.02, 0.02, 0.04, 0.04]


@pytest.mark.slow
def test_a_resumed_run_keeps_its_learning_rate(zamba, folder):
    fit(zamba, folder, None, "--trainer.max_epochs=2")
    run = folder / "runs/tiny/version_0"
    more = ["--ckpt_path", run / "checkpoints/last.ckpt"]
    zamba("fit", "--config", "more.yaml", "--trainer.max_epochs", EPOCHS, *more)
    head, _ = rates(run)
    resumed, _ = rates(folder / "runs/tiny/version_1")
    assert len(resumed) == 2 * BATCHES  # goes on at epoch 2
    assert set(resumed) == {head[-1]}


class OwnSchedule(SlowFast):
    """A user's model, which says itself how it is trained."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        in_turn = [LinearLR(optimizer, 0.5, total_iters=2), MultiStepLR(optimizer, [1], gamma=0.1)]
        return [optimizer], [SequentialLR(optimizer, in_turn, [2])]


@pytest.mark.slow
def test_a_model_with_a_schedule_of_its_own(zamba, folder):
    finder = cls("LearningRateFinder", min_lr=1e-4, num_training_steps=16, early_stop_threshold=None)
    monitor = cls("LearningRateMonitor", logging_interval="step")
    small = {"task": "multiclass", "weights": None, "model_depth": 18, "stem_dim_outs": [8, 2]}
    own = cls(f"{__name__}.OwnSchedule", **small)
    heights = []
    for version, callbacks in enumerate([[finder, monitor], [monitor]]):
        (folder / "own.yaml").write_text(yaml.safe_dump({"model": own, "trainer": {"callbacks": callbacks}}))
        zamba("fit", "--config", "own.yaml", "--trainer.max_epochs=4")
        (found,) = [v for tag, v in scalars(folder / f"runs/tiny/version_{version}").items() if tag.startswith("lr-")]
        heights.append([value for _, value in found])
    factors = {round(ours / plain, 5) for ours, plain in zip(*heights, strict=True)}
    assert len(heights[0]) == 4 * BATCHES
    assert len(factors) == 1
    assert factors != {1.0}


class OwnCycle(SlowFast):
    """A user's model with another kind of optimizer than the configuration states."""

    optimizer = partial(torch.optim.Adam, lr=0.01)

    def configure_optimizers(self):
        optimizer = self.optimizer(self.parameters())
        cycle = OneCycleLR(optimizer, 0.1, total_steps=4 * BATCHES)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


@pytest.mark.slow
def test_a_model_with_an_optimizer_of_its_own(zamba, folder, refused, monkeypatch):
    finder = cls("LearningRateFinder", min_lr=1e-4, num_training_steps=20, early_stop_threshold=None)
    callbacks = [finder, cls("ModelCheckpoint", save_last=True), cls("LearningRateMonitor", logging_interval="step")]
    small = {"task": "multiclass", "weights": None, "model_depth": 18, "stem_dim_outs": [8, 2]}

    own = {"model": cls(f"{__name__}.OwnCycle", **small), "trainer": {"callbacks": callbacks}}
    (folder / "own.yaml").write_text(yaml.safe_dump(own))
    stated = ["--config", "own.yaml", "--lr_scheduler=null"]
    zamba("fit", *stated)
    found = dict(scalars(folder / "runs/tiny/version_0")["lr-Adam"])
    assert max(found.values()) != pytest.approx(0.1, rel=0.1)
    resumed = ["--trainer.max_epochs=4", "--ckpt_path", "runs/tiny/version_0/checkpoints/last.ckpt"]
    zamba("fit", *stated, *resumed)
    after = dict(scalars(folder / "runs/tiny/version_1")["lr-Adam"])
    cycle = OneCycleLR(torch.optim.Adam([torch.zeros(1)]), max(found.values()), total_steps=4 * BATCHES)
    assert list(after) == list(range(2 * BATCHES, 4 * BATCHES))
    assert list(after.values()) == pytest.approx(of_cycle(cycle)[2 * BATCHES :], rel=0.1)
    monkeypatch.setattr(OwnCycle, "optimizer", partial(torch.optim.SGD, lr=0.01, momentum=0.9))
    refused(lambda: zamba("fit", *stated, *resumed), "optimizer", "another optimizer than SGD")


def of_cycle(scheduler):
    seen = []
    for _ in range(scheduler.total_steps):
        seen.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.slow
def test_it_finds_after_a_batch_size_was_found(zamba, folder, caplog):
    sizes = cls("BatchSizeFinder", max_trials=1, init_val=2, steps_per_trial=1)
    finder = cls("LearningRateFinder", min_lr=1e-4, num_training_steps=16, early_stop_threshold=None)
    monitor = cls("LearningRateMonitor", logging_interval="step")
    (folder / "more.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [sizes, finder, monitor]}}))
    with caplog.at_level("INFO"):
        zamba("fit", "--config", "more.yaml", "--trainer.max_epochs=1")
    assert "LearningRateFinder: the learning rate is" in caplog.text
    assert scalars(folder / "runs/tiny/version_0")["lr-SGD/head"][0][1] != 0.1
