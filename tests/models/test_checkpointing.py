"""On a resume optimizer and schedule are those stated then, by step against loops of plain torch from the first step on."""

import copy
from functools import partial

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.cli import ReduceLROnPlateau
from torch.optim import lr_scheduler as torch_schedulers

from helpers import schedules
from helpers.marks import some_slow
from helpers.small_fits import BATCHES, EPOCHS, SGD, Net, Worsening, fit, forget
from zamba_lcli.errors import InputError


def by_hand(optimizer, scheduler, interval):
    """The numbers at each step of a run in which all was stated from the start."""
    built = optimizer([torch.nn.Parameter(torch.zeros(1))])
    schedule = None if scheduler is None else scheduler(built)
    seen = []
    for _ in range(EPOCHS):
        for _ in range(BATCHES):
            group = built.param_groups[0]
            seen.append((group["lr"], group.get("momentum", group.get("betas"))))
            built.step()
            if schedule is not None and interval == "step":
                schedule.step()
        if schedule is not None and interval == "epoch":
            schedule.step()
    return seen


def sequential(optimizer, milestone, gamma):
    parts = [torch_schedulers.LinearLR(optimizer, 0.1, total_iters=2), torch_schedulers.ExponentialLR(optimizer, gamma)]
    return torch_schedulers.SequentialLR(optimizer, parts, [milestone])


def chained(optimizer, gamma):
    parts = [torch_schedulers.ConstantLR(optimizer, 0.5, 2), torch_schedulers.ExponentialLR(optimizer, gamma)]
    return torch_schedulers.ChainedScheduler(parts, optimizer)


SCHEDULERS = {  # what is stated first, and on the resume
    "LambdaLR": (partial(torch_schedulers.LambdaLR, lr_lambda=f) for f in (schedules.inverse, schedules.slowly)),
    "MultiplicativeLR": (
        partial(torch_schedulers.MultiplicativeLR, lr_lambda=f) for f in (schedules.slowly, schedules.inverse)
    ),
    "StepLR": (partial(torch_schedulers.StepLR, step_size=2, gamma=gamma) for gamma in (0.5, 0.1)),
    "MultiStepLR": (partial(torch_schedulers.MultiStepLR, milestones=m) for m in ([1, 2], [4])),
    "ConstantLR": (partial(torch_schedulers.ConstantLR, factor=0.5, total_iters=n) for n in (2, 5)),
    "LinearLR": (partial(torch_schedulers.LinearLR, start_factor=0.1, total_iters=n) for n in (2, 5)),
    "ExponentialLR": (partial(torch_schedulers.ExponentialLR, gamma=gamma) for gamma in (0.7, 0.9)),
    "PolynomialLR": (partial(torch_schedulers.PolynomialLR, total_iters=n, power=2.0) for n in (3, 5)),
    "CosineAnnealingLR": (partial(torch_schedulers.CosineAnnealingLR, T_max=n) for n in (3, 6)),
    "CosineAnnealingWarmRestarts": (
        partial(torch_schedulers.CosineAnnealingWarmRestarts, T_0=n, T_mult=2) for n in (2, 3)
    ),
    "CyclicLR": (partial(torch_schedulers.CyclicLR, base_lr=0.01, max_lr=lr, step_size_up=2) for lr in (0.2, 0.3)),
    "OneCycleLR": (partial(torch_schedulers.OneCycleLR, max_lr=0.2, total_steps=n) for n in (30, 20)),
    "SequentialLR": (partial(sequential, milestone=n, gamma=0.9) for n in (3, 2)),
    "ChainedScheduler": (partial(chained, gamma=gamma) for gamma in (0.9, 0.5)),
}
SCHEDULERS = {name: tuple(built) for name, built in SCHEDULERS.items()}
QUICK = ("CosineAnnealingLR", "CyclicLR", "OneCycleLR", "SequentialLR", "StepLR")
STEPS = ["step=6", "end=6", "step=8"]  # an epoch's last batch, its end, and the middle of the next one


def resume(folder, first, then, interval, ckpt, epochs=EPOCHS):
    """Fits with one optimizer, scheduler and interval, resumes with others; returns the numbers at each step resumed."""
    fit(folder, *first, interval[0], epochs=3)
    return fit(folder, *then, interval[1], folder / f"{ckpt}.ckpt", epochs=epochs)[0]


def is_close(ours, expected):
    assert len(ours) == len(expected)
    for a, b in zip(ours, expected, strict=True):
        assert a[0] == pytest.approx(b[0], rel=1e-9, abs=1e-12)
        assert a[1] == pytest.approx(b[1], rel=1e-9)


@pytest.mark.parametrize(
    ("interval", "ckpt"),
    some_slow(
        [("epoch", "end=6"), ("step", "step=8"), ("epoch", "step=6"), ("epoch", "step=8"), ("step", "end=6")],
        [("epoch", "end=6")],
        several=True,
    ),
)
@pytest.mark.parametrize("name", some_slow(SCHEDULERS, QUICK))
def test_other_arguments_of_the_scheduler(folder, capfd, name, interval, ckpt):
    before, now = SCHEDULERS[name]
    seen = resume(folder, (SGD, before), (SGD, now), [interval] * 2, ckpt)
    begin = int(ckpt.split("=")[1])
    is_close(seen, by_hand(SGD, now, interval)[begin:])
    lines = [line for line in capfd.readouterr().out.splitlines() if "as you state" in line]
    assert len(lines) == 1
    assert lines[0].startswith("lr_scheduler.init_args.")


@pytest.mark.parametrize("name", some_slow(SCHEDULERS, QUICK[-2:]))
def test_nothing_stated_otherwise_changes_nothing(folder, capfd, name):
    """Also with functions of which nothing is known, whose schedule is told by its state."""
    for scheduler in (SCHEDULERS[name][0], lambda optimizer: SCHEDULERS[name][0](optimizer)):
        whole, trainer = fit(folder, SGD, scheduler)
        weights = {key: value.clone() for key, value in trainer.model.state_dict().items()}
        for ckpt in STEPS:
            resumed, again = fit(folder, SGD, scheduler, ckpt=folder / f"{ckpt}.ckpt")
            assert resumed == whole[int(ckpt.split("=")[1]) :]
            if ckpt != "step=8":  # this data begins its epoch anew
                assert all(torch.equal(value, weights[key]) for key, value in again.model.state_dict().items())
    assert "as you state" not in capfd.readouterr().out


@pytest.mark.parametrize("interval", some_slow(["epoch", "step"], ["step"]))
@pytest.mark.parametrize(
    "name", some_slow(["StepLR", "CyclicLR", "OneCycleLR", "SequentialLR", "MultiplicativeLR"], QUICK[-2:])
)
def test_a_scheduler_added_left_out_and_in_place_of_another(folder, capfd, name, interval):
    scheduler, other = SCHEDULERS[name][0], SCHEDULERS["ExponentialLR"][0]
    for i, (before, now) in enumerate([(None, scheduler), (scheduler, None), (scheduler, other), (other, scheduler)]):
        run = folder / str(i)
        seen = resume(run, (SGD, before), (SGD, now), [interval] * 2, "step=8")
        is_close(seen, by_hand(SGD, now, interval)[8:])
        assert "lr_scheduler: " in capfd.readouterr().out


@pytest.mark.parametrize("interval", [["epoch", "step"], ["step", "epoch"]])
def test_another_interval(folder, capfd, interval):
    scheduler = SCHEDULERS["CosineAnnealingLR"][0]
    is_close(
        resume(folder, (SGD, scheduler), (SGD, scheduler), interval, "end=6"), by_hand(SGD, scheduler, interval[1])[6:]
    )
    assert (
        f"lr_scheduler_interval: {interval[1]} as you state; the checkpoint has {interval[0]}" in capfd.readouterr().out
    )


@pytest.mark.parametrize("name", some_slow([None, *SCHEDULERS], [None, *QUICK[-2:]]))
def test_another_learning_rate(folder, name):
    scheduler, other = None if name is None else SCHEDULERS[name][0], partial(torch.optim.SGD, lr=0.03, momentum=0.9)
    seen = resume(folder, (SGD, scheduler), (other, scheduler), ["epoch"] * 2, "end=6")
    is_close(seen, by_hand(other, scheduler, "epoch")[6:])


def numbers(trainer):
    return [{k: v for k, v in group.items() if k != "params"} for group in trainer.optimizers[0].param_groups]


OPTIMIZERS = [
    (partial(torch.optim.SGD, lr=0.1, momentum=0.9), {"momentum": 0.5, "weight_decay": 0.1, "nesterov": True}),
    (partial(torch.optim.SGD, lr=0.1), {"momentum": 0.9}),
    (partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True), {"nesterov": False, "dampening": 0.1}),
    (partial(torch.optim.Adam, lr=0.01), {"betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1, "amsgrad": True}),
    (partial(torch.optim.AdamW, lr=0.01, amsgrad=True), {"weight_decay": 0.3, "amsgrad": False}),
    (partial(torch.optim.RMSprop, lr=0.01), {"alpha": 0.9, "momentum": 0.5, "centered": True}),
    (partial(torch.optim.NAdam, lr=0.01), {"momentum_decay": 0.01, "decoupled_weight_decay": True}),
    (partial(torch.optim.RAdam, lr=0.01), {"betas": (0.8, 0.9)}),
    (partial(torch.optim.Adagrad, lr=0.01), {"lr_decay": 0.1, "eps": 1e-8}),
    (partial(torch.optim.Adadelta, lr=0.1), {"rho": 0.5}),
    (partial(torch.optim.Adafactor, lr=0.01), {"d": 2.0}),
    (partial(torch.optim.Adamax, lr=0.01), {"betas": (0.8, 0.9)}),
    (partial(torch.optim.ASGD, lr=0.01), {"lambd": 0.01, "alpha": 0.5}),
]


@pytest.mark.parametrize(
    ("optimizer", "others"), OPTIMIZERS, ids=lambda value: getattr(getattr(value, "func", None), "__name__", "")
)
@pytest.mark.parametrize("groups", [{}, pytest.param({"decay_norm_and_bias": False}, marks=pytest.mark.slow)])
def test_other_numbers_of_the_optimizer(folder, capfd, optimizer, others, groups):
    """The schedule and the optimizer's state go on; each parameter group has its own of what is stated."""
    scheduler = partial(torch_schedulers.StepLR, step_size=1, gamma=0.5)
    _, first = fit(folder, optimizer, scheduler, epochs=2, model=Net(**groups))
    states = first.optimizers[0].state_dict()["state"]
    now = partial(optimizer, **others)

    class Look(Callback):
        def on_train_start(self, trainer, pl_module):
            self.states = copy.deepcopy(trainer.optimizers[0].state_dict()["state"])

    look = Look()
    seen, second = fit(folder, now, scheduler, None, folder / "end=6.ckpt", [look], 3, Net(**groups))
    assert all(torch.equal(states[i][key], look.states[i][key]) for i in states for key in states[i])
    lr = optimizer.keywords["lr"]
    assert [rate for rate, _ in seen] == [lr * 0.25] * BATCHES
    by_hand = now(Net(**groups).parameter_groups()).param_groups
    by_hand = [{k: v for k, v in group.items() if k != "params"} for group in by_hand]
    assert numbers(second) == [{**group, "lr": lr / 8, "initial_lr": lr} for group in by_hand]
    out = capfd.readouterr().out
    for key, value in others.items():
        assert f"optimizer.init_args.{key}: {value} as you state" in out


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (torch.optim.SGD, torch.optim.Adam),
        (torch.optim.Adam, torch.optim.SGD),
        (torch.optim.Adam, torch.optim.Adamax),
        (torch.optim.Adam, torch.optim.NAdam),
        (torch.optim.NAdam, torch.optim.Adamax),
    ],
)
def test_an_optimizer_that_keeps_another_state_is_refused(folder, before, now):
    fit(folder, partial(before, lr=0.01), None, epochs=1)
    with pytest.raises(InputError, match=f"another optimizer than {now.__name__}"):
        fit(folder, partial(now, lr=0.01), None, ckpt=folder / "end=3.ckpt")


@pytest.mark.parametrize("classes", [("Adam", "AdamW"), ("AdamW", "Adam"), ("Adam", "RAdam")])
def test_an_optimizer_that_keeps_the_same_state_takes_it_over(folder, capfd, classes):
    before, now = (getattr(torch.optim, name) for name in classes)
    fit(folder, partial(before, lr=0.01), None, epochs=1)
    _, trainer = fit(folder, partial(now, lr=0.01), None, ckpt=folder / "end=3.ckpt", epochs=2)
    defaults = now([torch.nn.Parameter(torch.zeros(1))], lr=0.01).param_groups[0]
    for key in ("weight_decay", "decoupled_weight_decay"):
        assert numbers(trainer)[0][key] == defaults[key]
    assert f"torch.optim.{classes[1]} as you state" in capfd.readouterr().out


def plateau(**arguments):
    return partial(ReduceLROnPlateau, **{"monitor": "watched", "factor": 0.5, "patience": 1, **arguments})


def plateau_by_hand(arguments, values, state=None, lr=0.1, begin=0):
    """The learning rate of each epoch, and what is counted at the end."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = torch_schedulers.ReduceLROnPlateau(optimizer, **arguments)
    for key, value in (state or {}).items():
        setattr(scheduler, key, value)
    rates = []
    for value in values[begin:]:
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step(value)
    return rates, {key: getattr(scheduler, key) for key in ("best", "num_bad_epochs", "cooldown_counter")}


VALUES = [1.0, 2.0, 3.0, 4.0, 0.5, 5.0, 6.0, 7.0]


@pytest.mark.parametrize("ckpt", some_slow(["step=9", "end=9", "end=6"], ["end=9"]))
@pytest.mark.parametrize(
    "others",
    [
        {"patience": 0},
        {"patience": 3},
        {"factor": 0.1},
        {"min_lr": 0.04},
        {"cooldown": 2},
        {"threshold": 0.9},
        {"threshold": 3.0, "threshold_mode": "abs"},
    ],
)
def test_a_plateau_keeps_what_it_counted_and_takes_what_is_stated(folder, capfd, ckpt, others):
    epochs = int(ckpt.split("=")[1]) // BATCHES
    looks = epochs - ckpt.startswith("step")  # that of the last epoch is still to come
    first = {"factor": 0.5, "patience": 1}
    rates, counted = plateau_by_hand(first, [*VALUES[:looks], 0.0])
    _, counted = plateau_by_hand(first, VALUES[:looks])
    fit(folder, SGD, plateau(), callbacks=[Worsening(VALUES)], epochs=epochs)
    seen, _ = fit(folder, SGD, plateau(**others), None, folder / f"{ckpt}.ckpt", [Worsening(VALUES)], 8)
    expected, _ = plateau_by_hand({**first, **others}, VALUES, counted, rates[-1], looks)
    assert [rate for rate, _ in seen][::BATCHES] == pytest.approx(expected[epochs - looks :])
    assert capfd.readouterr().out.count("as you state") == len(others)


def test_a_plateau_of_another_metric_does_not_compare_the_two(folder, capfd):
    fit(folder, SGD, plateau(), callbacks=[Worsening(VALUES)], epochs=3)
    _, trainer = fit(folder, SGD, plateau(monitor="other"), None, folder / "end=9.ckpt", [Worsening(VALUES)], 4)
    assert trainer.lr_scheduler_configs[0].scheduler.best == 100.0
    assert "monitor: other as you state; the checkpoint has watched" in capfd.readouterr().out


def test_a_plateau_at_another_learning_rate_has_reduced_it_as_often(folder):
    fit(folder, SGD, plateau(), callbacks=[Worsening(VALUES)], epochs=3)  # 1, 2, 3: reduced once
    lower = partial(torch.optim.SGD, lr=0.02, momentum=0.9)
    seen, _ = fit(folder, lower, plateau(), None, folder / "end=9.ckpt", [Worsening(VALUES)], 6)
    expected, _ = plateau_by_hand({"factor": 0.5, "patience": 1}, VALUES[:6], lr=0.02)
    assert [rate for rate, _ in seen][::BATCHES] == pytest.approx(expected[3:])


@pytest.mark.parametrize("now", [None, partial(torch_schedulers.MultiStepLR, milestones=[1, 4])])
def test_a_plateau_left_out_and_replaced(folder, now):
    fit(folder, SGD, plateau(), callbacks=[Worsening(VALUES)], epochs=3)
    seen, _ = fit(folder, SGD, now, None, folder / "end=9.ckpt", [Worsening(VALUES)])
    is_close(seen, by_hand(SGD, now, "epoch")[9:])
    fit(folder, SGD, now, callbacks=[Worsening(VALUES)], epochs=3)
    seen, _ = fit(folder, SGD, plateau(), None, folder / "end=9.ckpt", [Worsening(VALUES)])
    assert [rate for rate, _ in seen][::BATCHES] == [0.1, 0.1, 0.1]  # as if it began here


@pytest.mark.parametrize("name", some_slow([None, "plateau", *SCHEDULERS], ["plateau", "StepLR"]))
def test_without_the_record_nothing_stated_otherwise_changes_nothing(folder, capfd, name):
    scheduler = None if name is None else plateau() if name == "plateau" else SCHEDULERS[name][0]
    watched = [Worsening(VALUES)]
    whole, _ = fit(folder, SGD, scheduler, callbacks=watched)
    for ckpt in STEPS:
        resumed, _ = fit(folder, SGD, scheduler, None, forget(folder / f"{ckpt}.ckpt"), watched)
        assert resumed == whole[int(ckpt.split("=")[1]) :]
    assert "as you state" not in capfd.readouterr().out


@pytest.mark.parametrize(
    "name", some_slow([name for name in SCHEDULERS if "lr_lambda" not in SCHEDULERS[name][0].keywords], QUICK[-1:])
)
def test_without_the_record_other_arguments_and_numbers_are_seen(folder, capfd, name):
    before, now = SCHEDULERS[name]
    other = partial(torch.optim.SGD, lr=0.03, momentum=0.5)
    fit(folder, SGD, before, "epoch", epochs=3)
    for optimizer in (SGD, other):
        seen, _ = fit(folder, optimizer, now, "epoch", forget(folder / "end=6.ckpt"))
        fit(folder, SGD, before, "epoch", epochs=3)
        is_close(seen, by_hand(optimizer, now, "epoch")[6:])
    assert "lr_scheduler" in capfd.readouterr().out


@pytest.mark.parametrize("name", [None, "StepLR"])
def test_without_the_record_a_scheduler_added_or_left_out(folder, name):
    schedulers = [None, SCHEDULERS["StepLR"][0]]
    before, now = schedulers if name else schedulers[::-1]
    fit(folder, SGD, before, epochs=2)
    seen, _ = fit(folder, SGD, now, None, forget(folder / "end=6.ckpt"))
    is_close(seen, by_hand(SGD, now, "epoch")[6:])
