"""Functions that a YAML names, and schedulers as a YAML states them beside the same built by hand."""

from torch.optim import lr_scheduler as torch_schedulers

from helpers.runs import cls

EPOCHS, BATCHES = 6, 2  # of the runs that the schedulers built by hand are for
TORCH = "torch.optim.lr_scheduler."


def inverse(epoch):
    return 1 / (1 + epoch)


def slowly(epoch):
    return 0.9 + 0.01 * epoch


def constant(epoch):
    return 1.0


class Scaled:
    """A callable with an argument."""

    def __init__(self, factor: float):
        self.factor = factor

    def __call__(self, epoch: int) -> float:
        return self.factor * epoch


SCHEDULERS = {  # what the YAML says, and the same built by hand
    "StepLR": (cls("StepLR", step_size=2, gamma=0.5), lambda o: torch_schedulers.StepLR(o, 2, 0.5)),
    "MultiStepLR": (
        cls("MultiStepLR", milestones=[1, 3], gamma=0.1),
        lambda o: torch_schedulers.MultiStepLR(o, [1, 3]),
    ),
    "ConstantLR": (
        cls("ConstantLR", factor=0.5, total_iters=3),
        lambda o: torch_schedulers.ConstantLR(o, 0.5, 3),
    ),
    "LinearLR": (
        cls("LinearLR", start_factor=0.1, total_iters=4),
        lambda o: torch_schedulers.LinearLR(o, 0.1, total_iters=4),
    ),
    "ExponentialLR": (cls("ExponentialLR", gamma=0.7), lambda o: torch_schedulers.ExponentialLR(o, 0.7)),
    "PolynomialLR": (
        cls("PolynomialLR", total_iters=4, power=2.0),
        lambda o: torch_schedulers.PolynomialLR(o, 4, 2.0),
    ),
    "CosineAnnealingLR": (
        cls("CosineAnnealingLR", T_max=4, eta_min=0.01),
        lambda o: torch_schedulers.CosineAnnealingLR(o, 4, 0.01),
    ),
    "CosineAnnealingWarmRestarts": (
        cls("CosineAnnealingWarmRestarts", T_0=2, T_mult=2),
        lambda o: torch_schedulers.CosineAnnealingWarmRestarts(o, 2, 2),
    ),
    "LambdaLR": (
        cls("LambdaLR", lr_lambda="helpers.schedules.inverse"),
        lambda o: torch_schedulers.LambdaLR(o, inverse),
    ),
    "MultiplicativeLR": (
        cls("MultiplicativeLR", lr_lambda="helpers.schedules.slowly"),
        lambda o: torch_schedulers.MultiplicativeLR(o, slowly),
    ),
    "CyclicLR": (
        cls("CyclicLR", base_lr=0.01, max_lr=0.2, step_size_up=3),
        lambda o: torch_schedulers.CyclicLR(o, 0.01, 0.2, 3),
    ),
    "OneCycleLR": (
        cls("OneCycleLR", max_lr=0.2),
        lambda o: torch_schedulers.OneCycleLR(o, 0.2, total_steps=EPOCHS * BATCHES),
    ),
    "SequentialLR": (
        cls(
            "SequentialLR",
            schedulers=[
                cls(TORCH + "LinearLR", start_factor=0.1, total_iters=2),
                cls(TORCH + "StepLR", step_size=1, gamma=0.5),
            ],
            milestones=[3],
        ),
        lambda o: torch_schedulers.SequentialLR(
            o, [torch_schedulers.LinearLR(o, 0.1, total_iters=2), torch_schedulers.StepLR(o, 1, 0.5)], [3]
        ),
    ),
    "ChainedScheduler": (
        cls(
            TORCH + "ChainedScheduler",
            schedulers=[
                cls(TORCH + "ConstantLR", factor=0.1, total_iters=2),
                cls(TORCH + "ExponentialLR", gamma=0.9),
            ],
        ),
        lambda o: torch_schedulers.ChainedScheduler(
            [torch_schedulers.ConstantLR(o, 0.1, 2), torch_schedulers.ExponentialLR(o, 0.9)], o
        ),
    ),
    "CosineAnnealing": (
        cls("CosineAnnealingLR"),  # without T_max
        lambda o: torch_schedulers.CosineAnnealingLR(o, EPOCHS),
    ),
}


def rates_of(optimizer, scheduler, steps):
    """The learning rates of the first group, before each step."""
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen
