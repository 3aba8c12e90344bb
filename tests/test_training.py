"""Lightning's own ways to train: gradients accumulated and clipped, weights averaged, together with what is here."""

import os
import signal

import pytest
import torch
import yaml
from test_cli import scalars
from test_distributed import close
from test_resume import cls, largest_difference, state
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from zamba_lcli import cli
from zamba_lcli.callbacks import SaveOnInterrupt

RUN = "runs/tiny/version_0"
FINETUNING = cls("BackboneFinetuning", unfreeze_backbone_at_epoch=1, backbone_initial_ratio_lr=0.5, train_bn=False)
EACH_STEP = cls("ModelCheckpoint", every_n_train_steps=1, save_top_k=-1, filename="{step}")


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
        (4, 2, 2),  # 2 + 2, 2 + 2
        (6, 2, 3),  # 2 + 2 + 2, 2: an epoch ends before three are together
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


def test_an_interruption_waits_for_what_is_accumulated(zamba, folder, monkeypatch):
    options = ["--data.batch_size=2", "--trainer.accumulate_grad_batches=2"]
    whole = fit(zamba, folder, "whole", *options)
    monkeypatch.setattr(cli, "SaveOnInterrupt", Interrupt)
    with pytest.raises(SystemExit):
        fit(zamba, folder, "stopped", *options)
    stopped = folder / "runs/stopped/version_0"
    assert state(stopped)["global_step"] == 4
    monkeypatch.setattr(cli, "SaveOnInterrupt", SaveOnInterrupt)
    resumed = fit(zamba, folder, "resumed", *options, "--ckpt_path", stopped / "checkpoints/last.ckpt")
    assert largest_difference(state(whole), state(resumed)) == 0


@pytest.mark.parametrize("algorithm", ["norm", "value", None])
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
