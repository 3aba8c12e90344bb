"""Real processes, interrupted for real."""

import errno
import json
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from helpers.paths import TESTS, TINY
from helpers.runs import largest_difference, state

EPOCHS = 12
OPTIONS = ["--trainer.max_epochs", str(EPOCHS), "--trainer.logger.init_args.version", "0"]
OPTIONS += ["--model.init_args.post_backbone_dropout", "0.5"]


@pytest.fixture(scope="module")
def undisturbed(zamba_in):
    """A run that nothing happens to; returns its checkpoint and how many seconds it took."""
    begin = time.monotonic()
    folder = zamba_in("undisturbed", "fit", *OPTIONS)
    last = state(folder / "runs/tiny/version_0")
    assert last["global_step"] == 2 * EPOCHS
    return last, time.monotonic() - begin


def drive(folder, clips, interruptions):
    args = ["fit", "--config", str(TINY), "--data.labels", str(clips / "labels.csv"), *OPTIONS]
    driver = [sys.executable, str(TESTS / "helpers/kill_driver.py"), "runs/tiny/version_0/checkpoints"]
    done = subprocess.run(
        [*driver, json.dumps(interruptions), *args],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr + (folder / "log.txt").read_text()
    return json.loads(done.stdout.splitlines()[-1])[0]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_interrupt_and_terminate_save_first(undisturbed, clips, folder, number, code):
    ends = drive(folder, clips, [(number, None), (number, None)])
    assert [end[0] for end in ends] == [code, code, 0], (folder / "log.txt").read_text()
    steps = [end[1] for end in ends]
    assert 0 < steps[0] < steps[1] < steps[2] == 2 * EPOCHS
    assert largest_difference(undisturbed[0], state(folder / "runs/tiny/version_0")) == 0


@pytest.mark.slow
def test_killed_at_twenty_random_moments(undisturbed, clips, folder):
    rng, longest = random.Random(0), undisturbed[1] / 2
    ends = drive(folder, clips, [(int(signal.SIGKILL), rng.uniform(0, longest)) for _ in range(20)])
    assert ends[-1] == [0, 2 * EPOCHS], (folder / "log.txt").read_text()
    assert -signal.SIGKILL in [end[0] for end in ends]
    steps = [end[1] for end in ends]
    assert steps == sorted(steps)  # nothing that was saved is lost
    assert largest_difference(undisturbed[0], state(folder / "runs/tiny/version_0")) == 0


@pytest.mark.parametrize("error", [OSError("no space left"), OSError(errno.ENOSPC, "no space left")])
def test_half_a_checkpoint_is_never_in_place(folder, monkeypatch, error):
    from zamba_lcli.callbacks import WholeCheckpointIO

    path = folder / "a" / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"step": 1}, path)

    def half(checkpoint, file):
        file.write(b"half")
        raise error

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="no space"):
        WholeCheckpointIO().save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]
