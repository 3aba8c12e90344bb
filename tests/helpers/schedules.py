"""Functions that a YAML names."""


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
