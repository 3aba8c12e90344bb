"""Random numbers as a function of the run's seed."""

import os

import numpy as np


def run_seed() -> int:
    """Returns the seed that Lightning's ``seed_everything`` was given; 0 if there was none."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


def seed_for(*numbers: int) -> int:
    """Returns a seed of 63 bits as a function of the run's seed and the given numbers."""
    state = np.random.SeedSequence([run_seed(), *numbers]).generate_state(1, np.uint64)
    return int(state[0]) >> 1
