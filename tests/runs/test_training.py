"""Lightning's own ways to train: gradients accumulated and clipped, weights averaged, together with what is here."""

import math
import os
import signal

import pytest
import torch
import yaml
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from helpers.marks import some_slow
from helpers.paths import TINY
from helpers.runs import EACH_STEP, close, cls, largest_difference, scalars, state
from zamba_lcli.callbacks import SaveOnInterrupt
from zamba_lcli.cli import cli, main
from zamba_lcli.models import SlowFast

RUN = "runs/tiny/version_0"
FINETUNING = cls("BackboneFinetuning", unfreeze_backbone_at_epoch=1, backbone_initial_ratio_lr=0.5, train_bn=False)


def fit(zamba, folder, name, *args, callbacks=(), **more):
    """Fits three epochs, the backbone unfrozen in the second, and returns the run folder."""
    last = cls("ModelCheckpoint", save_last=True, enable_version_counter=False)
    monitor = cls("LearningRateMonitor", logging_interval="step")
    more["trainer"] = {"callbacks": [FINETUNING, monitor, last, *callbacks], "max_epochs": 3, **more.get("trainer", {})}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(more))
    zamba("fit", "--config", f"{name}.yaml", "--trainer.logger.name", name, *args)
    return folder / "runs" / name / "version_0"


def by_step(run, tag):
    """What was logged, once for each step of the optimizer."""
    return list(dict(scalars(run)[tag]).values())


@pytest.mark.parametrize(
    ("joint", "small", "batches"),
    [
        pytest.param(4, 2, 2, marks=pytest.mark.slow),  # 2 + 2, 2 + 2
        pytest.param(4, 1, 4, marks=pytest.mark.slow),  # a clip at a time
        (6, 2, 3),  # 2 + 2 + 2, 2: an epoch ends before three are together
        pytest.param(5, 1, 5, marks=pytest.mark.slow),  # five clips, then three
    ],
)
def test_accumulated_gradients_equal_the_larger_batch(zamba, folder, joint, small, batches):
    more = {"lr_scheduler": cls("OneCycleLR", max_lr=0.2)}
    large = fit(zamba, folder, "large", "--data.batch_size", joint, **more)
    options = ["--data.batch_size", small, "--trainer.accumulate_grad_batches", batches]
    accumulated = fit(zamba, folder, "accumulated", *options, **more)
    ours, theirs = state(accumulated), state(large)
    assert ours["global_step"] == theirs["global_step"] == 3 * 2
    assert close(ours["state_dict"], theirs["state_dict"]) < 1e-5
    start = OneCycleLR(SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9), 0.2, total_steps=6)
    rates = []
    for _ in range(6):
        rates.append(start.get_last_lr()[0])
        start.optimizer.step()
        start.step()
    for run in (large, accumulated):  # the scheduler counts the optimizer's steps
        assert by_step(run, "lr-SGD/head") == pytest.approx(rates, rel=1e-6)
        ratios = [0, 0, 0.5, 0.5, 1, 1]
        assert by_step(run, "lr-SGD/backbone") == pytest.approx([r * q for r, q in zip(rates, ratios, strict=True)])


class Interrupt(SaveOnInterrupt):
    """Is interrupted in the first batch of a step that takes two."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 2:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("validate", [1.0, pytest.param(1, marks=pytest.mark.slow)], ids=["each epoch", "each batch"])
def test_an_interruption_waits_for_what_is_accumulated(zamba, folder, monkeypatch, validate):
    options = ["--data.batch_size=2", "--trainer.accumulate_grad_batches=2", f"--trainer.val_check_interval={validate}"]
    whole = fit(zamba, folder, "whole", *options)
    monkeypatch.setattr(cli, "SaveOnInterrupt", Interrupt)
    with pytest.raises(SystemExit):
        fit(zamba, folder, "stopped", *options)
    stopped = folder / "runs/stopped/version_0"
    assert state(stopped)["global_step"] == 4
    monkeypatch.setattr(cli, "SaveOnInterrupt", SaveOnInterrupt)
    resumed = fit(zamba, folder, "resumed", *options, "--ckpt_path", stopped / "checkpoints/last.ckpt")
    assert largest_difference(state(whole), state(resumed)) == 0


@pytest.mark.slow
def test_losses_that_are_no_numbers_are_logged_as_such(zamba, folder):
    run = fit(zamba, folder, "nan", "--optimizer.lr=1e38", "--lr_scheduler=null")
    assert math.isnan(scalars(run)["val_loss"][-1][1])


@pytest.mark.parametrize("algorithm", some_slow(["norm", "value", None], ["norm"]))
def test_gradients_are_clipped(zamba, folder, algorithm):
    trainer = {} if algorithm is None else {"gradient_clip_val": 0.003, "gradient_clip_algorithm": algorithm}
    plain = ["--optimizer.momentum=0.0", "--lr_scheduler=null"]
    run = fit(zamba, folder, "clipped", *plain, callbacks=[EACH_STEP], trainer=trainer)
    before, after = (torch.load(run / f"checkpoints/step={step}.ckpt", weights_only=True) for step in (5, 6))
    weights = [key for key, value in before["state_dict"].items() if value.is_floating_point()]
    weights = [key for key in weights if key.startswith(("head.", "base."))]  # backbone.* is a part of base.*
    # the learning rate is 0.1, of the backbone too in its second epoch
    gradients = [(before["state_dict"][key] - after["state_dict"][key]).double() / 0.1 for key in weights]
    norm = float(torch.cat([g.flatten() for g in gradients]).norm())
    largest = max(float(g.abs().max()) for g in gradients)
    if algorithm == "norm":
        assert norm == pytest.approx(0.003, rel=0.01)
    elif algorithm == "value":
        assert largest == pytest.approx(0.003, rel=0.01)
    else:
        assert norm > 0.01
        assert largest > 0.005


EMA = cls("EMAWeightAveraging", decay=0.8)
DROPOUT = {"model": {"init_args": {"post_backbone_dropout": 0.5}}}


def averaged(zamba, folder, name, *args, callbacks=(), **more):
    return fit(zamba, folder, name, *args, callbacks=[EMA, *callbacks], **DROPOUT, **more)


def all_differences(ours, theirs):
    """The largest difference of average, current weights and optimizer states."""
    current = close(ours["current_model_state"], theirs["current_model_state"])
    assert ours["averaging_state"] == theirs["averaging_state"]
    return max(current, largest_difference(ours, theirs))


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory):
    """A run with averaged weights, a checkpoint at each of its six steps, the backbone unfrozen after two."""
    folder = tmp_path_factory.mktemp("whole")

    def run(command, *args):
        labels = ["--data.labels", str(clips / "labels.csv"), "--trainer.logger.save_dir", str(folder)]
        main([command, "--config", str(TINY), *labels, *map(str, args)])

    before = os.getcwd()
    os.chdir(folder)
    averaged(run, folder, "whole", callbacks=[EACH_STEP])
    os.chdir(before)
    return folder / "whole/version_0"


def test_the_average_is_that_of_the_steps(whole):
    states = [torch.load(whole / f"checkpoints/step={n}.ckpt", weights_only=True) for n in range(1, 7)]
    expected = {key: value.double() for key, value in states[0]["current_model_state"].items()}
    for number, found in enumerate(states):
        current = found["current_model_state"]
        for key, value in current.items():
            if value.is_floating_point():
                expected[key] = expected[key] * 0.8 + value.double() * 0.2
                assert torch.allclose(found["state_dict"][key].double(), expected[key], rtol=1e-4, atol=1e-6), key
            else:
                assert found["state_dict"][key] == value
        frozen = [key for key in current if key.startswith("base.blocks.") and (number < 2 or key < "base.blocks.4")]
        frozen += [key for key in current if "running" in key]  # train_bn is false
        assert all(torch.equal(found["state_dict"][key], states[0]["state_dict"][key]) for key in frozen)
    assert not torch.equal(found["state_dict"]["head.proj.weight"], current["head.proj.weight"])
    unfrozen = [key for key in current if key.startswith("base.blocks.4.") and key.endswith("branch1_conv.weight")]
    assert unfrozen
    assert not any(torch.equal(found["state_dict"][key], current[key]) for key in unfrozen)


def test_validation_is_that_of_the_average(whole, zamba, folder):
    """And so are test and predict: the checkpoint's weights are the average."""
    config = ["--config", whole / "config.yaml", "--trainer.logger.save_dir", folder / "runs"]
    zamba("validate", *config, "--ckpt_path", whole / "checkpoints/last.ckpt")
    again = scalars(folder / "runs/whole/version_0")["val_loss"][-1][1]
    assert again == pytest.approx(scalars(whole)["val_loss"][-1][1], rel=1e-6)


@pytest.mark.parametrize("step", some_slow([1, 2, 3], [3]))
def test_a_resumed_average_is_the_same(whole, zamba, folder, step):
    checkpoint = ["--ckpt_path", whole / f"checkpoints/step={step}.ckpt"]
    resumed = averaged(zamba, folder, "resumed", *checkpoint)
    assert all_differences(state(whole), state(resumed)) == 0
    for tag in ("val_loss", "train_loss"):
        ours, theirs = (dict(scalars(run)[tag]) for run in (resumed, whole))
        assert set(ours.items()) <= set(theirs.items())
        assert len(ours) == len([s for s in theirs if s >= (step if tag == "train_loss" else step - 1)])


class InterruptValidation(SaveOnInterrupt):
    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
def test_interrupted_while_the_average_is_in_use(whole, zamba, folder, monkeypatch):
    monkeypatch.setattr(cli, "SaveOnInterrupt", InterruptValidation)
    with pytest.raises(SystemExit):
        averaged(zamba, folder, "stopped")
    monkeypatch.setattr(cli, "SaveOnInterrupt", SaveOnInterrupt)
    stopped = folder / "runs/stopped/version_0"
    assert all_differences(state(stopped), torch.load(whole / "checkpoints/step=4.ckpt", weights_only=True)) == 0
    resumed = averaged(zamba, folder, "resumed", "--ckpt_path", stopped / "checkpoints/last.ckpt")
    assert all_differences(state(whole), state(resumed)) == 0


@pytest.mark.slow
def test_a_checkpoint_of_the_end_alone_has_both(whole, zamba, folder):
    rare = cls("ModelCheckpoint", save_last=True, every_n_epochs=99)
    callbacks = [FINETUNING, EMA, rare]
    (folder / "end.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks, "max_epochs": 3}, **DROPOUT}))
    zamba("fit", "--config", "end.yaml")
    assert all_differences(state(folder / RUN), state(whole)) == 0


def test_averages_of_classes_in_another_order(whole):
    names = ["walker", "pacer", "hopper", "blank"]
    model = SlowFast(names, task="multiclass", weights=None, model_depth=18, stem_dim_outs=(8, 2))
    before, after = state(whole), state(whole)
    model.on_load_checkpoint(after)
    for part in ("state_dict", "current_model_state"):
        for key in ("head.proj.weight", "head.proj.bias"):
            assert torch.equal(after[part][key], before[part][key].flip(0))


@pytest.mark.slow
def test_the_average_goes_by_the_optimizers_steps_and_with_cached_features(whole, zamba, folder):
    cached = averaged(zamba, folder, "cached", callbacks=[cls("FrozenFeatureCache")])
    assert close(state(cached)["state_dict"], state(whole)["state_dict"]) < 1e-5
    small = averaged(zamba, folder, "small", "--data.batch_size=2", "--trainer.accumulate_grad_batches=2")
    assert state(small)["averaging_state"]["n_averaged"] == 6
