"""Random numbers as a function of the run's seed."""

import os
import random

import numpy as np
import torch
from pytorch_lightning import Trainer


def run_seed() -> int:
    """Returns the seed that Lightning's ``seed_everything`` was given; 0 if there was none."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


def share_seed(trainer: Trainer) -> None:
    """Lets all processes go by the seed of the first one: a seed that is drawn is another in each."""
    if trainer.world_size > 1:
        os.environ["PL_GLOBAL_SEED"] = str(trainer.strategy.broadcast(run_seed()))


def seed_for(*numbers: int) -> int:
    """Returns a seed of 63 bits as a function of the run's seed and the given numbers."""
    state = np.random.SeedSequence([run_seed(), *numbers]).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def seed_generators(seed: int) -> None:
    """Seeds the generators of torch, Python and numpy."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
