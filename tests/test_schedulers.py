"""Schedulers made of others, at any depth, beside the product of their factors in closed form."""

import math
from functools import partial

import pytest
import torch
from torch.optim import lr_scheduler

from helpers.schedules import rates_of
from zamba_lcli.schedulers import Chained, CosineAnnealing, Sequential

STEPS, LR = 10, 0.4
HALVED, FALLING, LOW = (
    partial(lr_scheduler.StepLR, step_size=1, gamma=0.5),
    partial(lr_scheduler.ExponentialLR, gamma=0.9),
    partial(lr_scheduler.ConstantLR, factor=0.1, total_iters=2),
)
INVERSE = partial(lr_scheduler.LambdaLR, lr_lambda=lambda step: 1 / (1 + step))
FACTORS = {
    HALVED: lambda step: 0.5**step,
    FALLING: lambda step: 0.9**step,
    LOW: lambda step: 0.1 if step < 2 else 1.0,
    INVERSE: lambda step: 1 / (1 + step),
}


def in_turn(milestones, *parts):
    return "in turn", parts, milestones


def chained(*parts):
    return "chained", parts, None


def builder(stated):
    if not isinstance(stated, tuple):
        return stated
    kind, parts, milestones = stated
    schedulers = [builder(part) for part in parts]
    if kind == "chained":
        return partial(Chained, schedulers=schedulers)
    return partial(Sequential, schedulers=schedulers, milestones=milestones)


def factor(stated, step):
    """The closed form."""
    if not isinstance(stated, tuple):
        return FACTORS[stated](step)
    kind, parts, milestones = stated
    if kind == "chained":
        return torch.tensor([factor(part, step) for part in parts], dtype=torch.float64).prod().item()
    begun = sum(step >= milestone for milestone in milestones)
    return factor(parts[begun], step - [0, *milestones][begun])


def made(build):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    return optimizer, build(optimizer)


NESTED = {
    "a chain first": in_turn([3], chained(HALVED, LOW), FALLING),
    "a chain of one first": in_turn([3], chained(HALVED), FALLING),
    "a sequence first": in_turn([4], in_turn([2], HALVED, FALLING), LOW),
    "sequences in sequences": in_turn([6], in_turn([4], in_turn([1], HALVED, FALLING), LOW), HALVED),
    "a chain of a sequence": chained(in_turn([3], HALVED, LOW), FALLING),
    "a sequence last in a chain": chained(FALLING, in_turn([3], HALVED, LOW)),
    "two sequences in a chain": chained(in_turn([2], LOW, HALVED), in_turn([3, 5], FALLING, LOW, HALVED)),
    "a chain in a chain": chained(chained(HALVED, LOW), FALLING),
    "a chain of sequences first": in_turn([5], chained(in_turn([2], HALVED, LOW), chained(FALLING, LOW)), FALLING),
    "one that sets its rates": chained(LOW, INVERSE),
}
every_nesting = pytest.mark.parametrize("stated", NESTED.values(), ids=NESTED)


@every_nesting
def test_rates_are_those_of_the_closed_form(stated):
    expected = [LR * factor(stated, step) for step in range(STEPS)]
    assert rates_of(*made(builder(stated)), STEPS) == pytest.approx(expected)


@every_nesting
def test_resumed_after_each_step(stated):
    uninterrupted = rates_of(*made(builder(stated)), STEPS)
    for step in range(STEPS):
        optimizer, scheduler = made(builder(stated))
        rates_of(optimizer, scheduler, step)
        resumed, goes_on = made(builder(stated))
        goes_on.load_state_dict(scheduler.state_dict())
        resumed.load_state_dict(optimizer.state_dict())
        assert rates_of(resumed, goes_on, STEPS - step) == uninterrupted[step:]  # bit for bit


@pytest.mark.parametrize("step", range(4))
def test_states_of_torchs_own_classes_go_on_as_those_do(step):
    """As in checkpoints of before."""

    def of_torch(optimizer):
        return lr_scheduler.SequentialLR(
            optimizer, [lr_scheduler.ChainedScheduler([HALVED(optimizer), LOW(optimizer)]), FALLING(optimizer)], [3]
        )

    optimizer, scheduler = made(of_torch)
    expected = rates_of(optimizer, scheduler, STEPS)
    optimizer, scheduler = made(of_torch)
    rates_of(optimizer, scheduler, step)
    resumed, goes_on = made(builder(NESTED["a chain first"]))
    goes_on.load_state_dict(scheduler.state_dict())
    resumed.load_state_dict(optimizer.state_dict())
    assert rates_of(resumed, goes_on, STEPS - step) == expected[step:]


def test_a_cycle_keeps_its_rates_and_no_others():
    cycle = partial(lr_scheduler.OneCycleLR, max_lr=2.0, total_steps=STEPS)
    alone = rates_of(*made(cycle), STEPS)
    before = rates_of(*made(partial(Sequential, schedulers=[LOW, cycle], milestones=[3])), STEPS)
    assert before == pytest.approx([LR * 0.1, LR * 0.1, LR, *alone[: STEPS - 3]])
    after = rates_of(*made(partial(Sequential, schedulers=[cycle, LOW], milestones=[3])), STEPS)
    assert after == pytest.approx([*alone[:3], LR * 0.1, LR * 0.1, *[LR] * (STEPS - 5)])


def test_a_cosine_in_a_chain_that_comes_first_ends_at_the_milestone():
    chain = partial(Chained, schedulers=[CosineAnnealing, FALLING])
    seen = rates_of(*made(partial(Sequential, schedulers=[chain, LOW], milestones=[4])), STEPS)
    expected = [LR * (1 + math.cos(math.pi * step / 4)) / 2 * 0.9**step for step in range(4)]
    assert seen == pytest.approx([*expected, LR * 0.1, LR * 0.1, *[LR] * (STEPS - 6)])
