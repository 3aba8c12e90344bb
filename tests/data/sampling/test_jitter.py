"""Times moved by chance, in training only."""

import numpy as np
import pytest
import yaml
from pytorch_lightning.callbacks import Callback

from helpers.runs import cls, scalars
from zamba_lcli.cli import cli
from zamba_lcli.data import TemporalJitter


def moved(jitter, times, duration=10.0, draws=2000):
    return np.array([jitter.move(np.array(times), duration, np.random.default_rng(i)) for i in range(draws)])


def test_shift_moves_all_times_together():
    times = [4.0, 4.5, 6.0]
    by = moved(TemporalJitter(shift=0.5), times) - times
    assert by == pytest.approx(np.repeat(by[:, :1], 3, axis=1))
    assert -0.5 <= by.min() < -0.49
    assert 0.49 < by.max() <= 0.5
    assert by.mean() == pytest.approx(0, abs=0.02)


def test_step_moves_each_time_and_keeps_the_order():
    times = [0.0, 1.0, 3.0, 3.0]
    by = moved(TemporalJitter(step=0.5), times) - times
    assert by.min(axis=0) == pytest.approx([0.0, -0.25, -0.5, 0.0], abs=0.01)  # a quarter of the distance
    assert by.max(axis=0) == pytest.approx([0.25, 0.5, 0.0, 0.0], abs=0.01)
    assert abs(np.corrcoef(by[:, 0], by[:, 1])[0, 1]) < 0.1
    assert (np.diff(moved(TemporalJitter(step=1.0), times)) >= 0).all()


def test_times_stay_in_the_clip():
    every = moved(TemporalJitter(shift=20.0, step=1.0), [0.0, 5.0, 10.0])
    assert every.min() == 0.0
    assert every.max() == 10.0
    assert (np.diff(every) >= 0).all()


class Watch(Callback):
    """Keeps which times of which clip were looked at, by epoch."""

    def __init__(self):
        self.train, self.val = {}, {}

    def keep(self, seen, trainer, batch):
        for name, drawn, times in zip(batch["filepath"], batch["drawn"], batch["times"], strict=True):
            seen[trainer.current_epoch, name, drawn] = times.tolist()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.keep(self.train, trainer, batch)

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.keep(self.val, trainer, batch)


def seen_times(zamba, folder, monkeypatch, *args, jitter=True):
    watch = Watch()
    monkeypatch.setattr(cli, "SaveOnInterrupt", lambda: watch)
    data = {"sampling": cls("SeveralClips", num_clips=2, num_frames=4, fps=4.0)}
    if jitter:
        data["temporal_jitter"] = cls("TemporalJitter", shift=0.4, step=0.5)
    (folder / "jitter.yaml").write_text(yaml.safe_dump({"data": data}))
    zamba("fit", "--config", "jitter.yaml", "--trainer.logger=false", "--trainer.callbacks=[]", *args)
    return watch


@pytest.mark.slow
def test_another_way_in_each_epoch_and_the_same_with_workers(zamba, folder, monkeypatch):
    plain = seen_times(zamba, folder, monkeypatch, jitter=False)
    jittered = seen_times(zamba, folder, monkeypatch)
    workers = seen_times(zamba, folder, monkeypatch, "--data.num_workers=2", "--data.batch_size=3")
    assert jittered.train == workers.train  # a function of seed, epoch and clip
    assert jittered.val == plain.val == workers.val
    names = {name for _, name, _ in jittered.train}
    assert len(names) == 8
    differ = 0
    for name in names:
        first, second = (np.array(jittered.train[epoch, name, (epoch, 0)]) for epoch in (0, 1))  # (parts, T)
        original = np.array(plain.train[0, name, (0, 0)])
        differ += not np.array_equal(first, second)
        for times in (first, second):
            assert np.abs(times - original).max() <= 0.4 + 0.25 * 0.25 + 0.1 + 1e-6  # the last: until the next frame
            assert (np.diff(times, axis=1) >= 0).all()
    assert differ == 8
    other = seen_times(zamba, folder, monkeypatch, "--seed_everything=2")
    assert jittered.train != other.train


@pytest.mark.slow
def test_caches(zamba, folder, refused):
    jitter = {"data": {"temporal_jitter": cls("TemporalJitter", shift=0.4)}}
    (folder / "jitter.yaml").write_text(yaml.safe_dump(jitter))
    config = ["--config", "jitter.yaml"]
    refused(lambda: zamba("fit", *config, "--data.cache_dir=cache"), "data.temporal_jitter", "data.cache_dir")
    finetuning = cls("BackboneFinetuning", unfreeze_backbone_at_epoch=1)
    for name, callbacks in (("none", [{}]), ("two", [{"views": 2}]), ("plain", [])):
        stated = [finetuning, *(cls("FrozenFeatureCache", **cache) for cache in callbacks)]
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": stated}}))
    refused(lambda: zamba("fit", *config, "--config", "none.yaml"), "data.temporal_jitter", "views")
    for name in ("two", "plain"):
        zamba("fit", *config, "--config", f"{name}.yaml", "--trainer.logger.name", name)
    ours, theirs = (scalars(folder / f"runs/{name}/version_0")["train_loss"] for name in ("two", "plain"))
    assert [v for _, v in ours] == pytest.approx([v for _, v in theirs], rel=1e-5)  # two epochs, two views


@pytest.mark.parametrize("wrong", [{"shift": -1.0}, {"step": 1.5}])
def test_wrong_arguments(zamba, folder, refused, wrong):
    (folder / "jitter.yaml").write_text(yaml.safe_dump({"data": {"temporal_jitter": cls("TemporalJitter", **wrong)}}))
    refused(lambda: zamba("fit", "--config", "jitter.yaml"), *wrong)
