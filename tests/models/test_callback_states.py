"""On a resume callbacks go on with what they counted, and go by the arguments stated then."""

from datetime import timedelta
from functools import partial

import pytest
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, Timer
from torch.optim import lr_scheduler as torch_schedulers

from helpers.marks import some_slow
from helpers.small_fits import BATCHES, SGD, Worsening, fit, forget
from zamba_lcli.callbacks import ConstantFactor, ZambaBackboneFinetuning, ZambaEMAWeightAveraging

VALUES = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]  # worse each epoch


@pytest.mark.parametrize("record", some_slow([True, False], [True]))
@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 3), (3, 4), (5, 6), (50, 8)])
def test_early_stopping_counts_on_with_the_patience_stated(folder, capfd, patience, epochs, record):
    stopping = EarlyStopping("watched", patience=2)
    fit(folder, SGD, None, callbacks=[Worsening(VALUES), stopping], epochs=2)
    path = folder / f"end={2 * BATCHES}.ckpt"
    stopping = EarlyStopping("watched", patience=patience)
    _, trainer = fit(folder, SGD, None, None, path if record else forget(path), [Worsening(VALUES), stopping], 8)
    assert trainer.current_epoch == epochs
    told = f"EarlyStopping.patience: {patience} as you state; the checkpoint has 2."
    assert (told in capfd.readouterr().out) == (patience != 2)


@pytest.mark.parametrize("arguments", [{"monitor": "other"}, {"monitor": "watched", "mode": "max"}])
def test_early_stopping_on_another_metric_counts_anew(folder, arguments):
    fit(folder, SGD, None, callbacks=[Worsening(VALUES), EarlyStopping("watched", patience=9)], epochs=3)
    stopping = EarlyStopping(**arguments, patience=1)
    fit(folder, SGD, None, None, folder / f"end={3 * BATCHES}.ckpt", [Worsening(VALUES), stopping], 4)
    assert stopping.best_score == (100.0 if arguments["monitor"] == "other" else 4.0)
    assert stopping.wait_count == 0


def test_another_min_delta_is_used(folder):
    values = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]
    fit(folder, SGD, None, callbacks=[Worsening(values), EarlyStopping("watched", patience=2)], epochs=2)
    stopping = EarlyStopping("watched", patience=2, min_delta=0.5)
    path = folder / f"end={2 * BATCHES}.ckpt"
    _, trainer = fit(folder, SGD, None, None, path, [Worsening(values), stopping], 6)
    assert trainer.current_epoch == 4  # 0.8 and 0.7 are not better than 0.9 by 0.5


@pytest.mark.parametrize(
    ("before", "now", "kept"), [(3, 1, [0]), (3, 2, [0, 1]), (-1, 2, [0, 1]), (1, 3, [0, 3, 4]), (2, -1, None)]
)
def test_another_number_of_best_checkpoints(folder, before, now, kept):
    def best(k):
        return ModelCheckpoint(
            folder / "best", "{epoch}", monitor="watched", save_top_k=k, enable_version_counter=False
        )

    fit(folder, SGD, None, callbacks=[Worsening(VALUES), best(before)], epochs=3)
    files = {path.name for path in (folder / "best").iterdir()}
    callback = best(now)
    fit(folder, SGD, None, None, folder / f"end={3 * BATCHES}.ckpt", [Worsening(VALUES), callback], 5)
    expected = {f"epoch={epoch}.ckpt" for epoch in (kept if kept is not None else [0, 1, 3, 4])}
    assert {path.rpartition("/")[2] for path in callback.best_k_models} == expected
    assert {path.name for path in (folder / "best").iterdir()} == files | expected  # none is deleted
    assert callback.kth_value == max(callback.best_k_models.values())


def test_the_best_of_another_metric_is_not_compared(folder):
    arguments = {"dirpath": folder / "best", "filename": "{epoch}", "enable_version_counter": False}
    fit(folder, SGD, None, callbacks=[Worsening(VALUES), ModelCheckpoint(monitor="watched", **arguments)], epochs=2)
    callback = ModelCheckpoint(monitor="other", **arguments)
    fit(folder, SGD, None, None, folder / f"end={2 * BATCHES}.ckpt", [Worsening(VALUES), callback], 3)
    assert callback.best_model_score == 100.0


def test_another_decay_of_the_average_is_used(folder):
    def average(path):
        return torch.load(path, weights_only=True)["state_dict"]["head.weight"]

    def current(path):
        return torch.load(path, weights_only=True)["current_model_state"]["head.weight"]

    fit(folder, SGD, None, callbacks=[ZambaEMAWeightAveraging(decay=0.5)], epochs=2)
    end, step = (folder / f"{name}={BATCHES * 2 + more}.ckpt" for name, more in (("end", 0), ("step", 1)))
    fit(folder, SGD, None, None, end, [ZambaEMAWeightAveraging(decay=0.9)], 3)
    assert torch.allclose(average(step), 0.9 * average(end) + 0.1 * current(step), atol=1e-6)


class Backbone(Callback):
    """Keeps the backbone's and the head's learning rate at each epoch's first batch."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            self.seen += [group["lr"] for group in trainer.optimizers[0].param_groups]


STEP = partial(torch_schedulers.StepLR, step_size=1, gamma=0.5)
BY_STEP = partial(torch_schedulers.ExponentialLR, gamma=0.9)


def finetuned(folder, first, then, ckpt="end=9", scheduler=None, interval=None, optimizer=SGD, now=None):
    """The backbone's learning rates of epochs from 3 on, of a run that is stated first so and from epoch 3 on otherwise."""
    fit(folder, SGD, scheduler, interval, callbacks=[ZambaBackboneFinetuning(**first)], epochs=3)
    look, path = Backbone(), folder / f"{ckpt}.ckpt"
    fit(folder, optimizer, now or scheduler, interval, path, [ZambaBackboneFinetuning(**then), look], 6)
    return look.seen


def from_the_start(folder, arguments, scheduler=None, interval=None, optimizer=SGD):
    look = Backbone()
    fit(folder / "whole", optimizer, scheduler, interval, callbacks=[ZambaBackboneFinetuning(**arguments), look])
    return look.seen[6:]


FIRST = {"unfreeze_backbone_at_epoch": 1, "backbone_initial_ratio_lr": 0.01}


@pytest.mark.parametrize("scheduler", some_slow([None, STEP], [STEP]))
@pytest.mark.parametrize(
    ("first", "others"),
    [
        ({}, {"backbone_initial_ratio_lr": 0.05}),
        ({}, {"lambda_func": ConstantFactor(3.0)}),
        ({"backbone_initial_ratio_lr": 0.3}, {"backbone_initial_ratio_lr": 0.3, "should_align": False}),
        ({}, {"backbone_initial_lr": 0.002}),
        ({"backbone_initial_lr": 0.002}, {"backbone_initial_lr": 0.004}),
        ({"backbone_initial_lr": 0.002}, {}),
        ({}, {"unfreeze_backbone_at_epoch": 2}),
        ({}, {"unfreeze_backbone_at_epoch": 3}),
        ({}, {"unfreeze_backbone_at_epoch": 4}),
        ({"backbone_initial_lr": 0.002}, {"backbone_initial_lr": 0.002, "unfreeze_backbone_at_epoch": 2}),
    ],
)
def test_the_backbones_learning_rate_is_that_of_what_is_stated(folder, first, others, scheduler):
    seen = finetuned(folder, {**FIRST, **first}, {**FIRST, **others}, scheduler=scheduler)
    assert seen == pytest.approx(from_the_start(folder, {**FIRST, **others}, scheduler))


@pytest.mark.parametrize(("interval", "scheduler"), [("epoch", STEP), ("step", BY_STEP)])
def test_a_learning_rate_of_the_backbone_holds_under_another_schedule(folder, interval, scheduler):
    arguments = {**FIRST, "backbone_initial_lr": 0.002}
    lower = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    now = partial(scheduler, gamma=0.8)
    seen = finetuned(folder, arguments, arguments, "end=9", scheduler, interval, lower, now)
    expected = from_the_start(folder, arguments, now, interval, lower)
    assert seen == pytest.approx(expected)


def test_a_backbone_unfrozen_before_the_epoch_stated_now_stays_so(folder):
    """It did not train before, whatever is stated."""
    then = {**FIRST, "unfreeze_backbone_at_epoch": 0}
    assert finetuned(folder, FIRST, then) == pytest.approx(from_the_start(folder, FIRST))


def test_nothing_stated_otherwise_keeps_the_backbones_learning_rate(folder):
    arguments = {**FIRST, "backbone_initial_lr": 0.002}
    assert finetuned(folder, arguments, arguments, scheduler=STEP) == from_the_start(folder, arguments, STEP)


def test_the_clock_runs_on_to_the_time_stated(folder):
    fit(folder, SGD, None, callbacks=[Timer(timedelta(days=1))], epochs=1)
    path = folder / f"end={BATCHES}.ckpt"
    used = torch.load(path, weights_only=True)["callbacks"]["Timer"]["time_elapsed"]["train"]
    timer = Timer(timedelta(days=2))
    fit(folder, SGD, None, None, path, [timer], 2)
    assert timer.time_elapsed() > used > 0
    assert timer.time_elapsed() + timer.time_remaining() == pytest.approx(timedelta(days=2).total_seconds(), abs=60)
