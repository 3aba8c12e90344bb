"""Real processes, interrupted for real."""

import errno
import json
import random
import shutil
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


SLOWLY = """
import pathlib, time
def scores(frames):
    pathlib.Path("begun").touch()
    time.sleep(0.3)
    return frames.mean(axis=(1, 2, 3))
"""
INTERRUPTED = """
import os, pathlib, sys, time
sys.path.insert(0, {tests!r})
from helpers import predict_driver as driver
ends = []
for number, args, processes, begun in {cases!r}:
    pathlib.Path("begun").unlink(missing_ok=True)
    children, end = driver.start(processes, args), time.monotonic() + 60
    while time.monotonic() < end and not any(pathlib.Path().glob(begun)):
        time.sleep(0.01)
    time.sleep(0.3)
    ends.append(driver.end(children, number))
print(ends)
"""


@pytest.mark.slow
def test_every_command_ends_with_the_code_of_the_signal_and_says_how_to_go_on(fitted, clips, folder):
    (folder / "slowly.py").write_text(SLOWLY)
    (folder / "many").mkdir()
    copies = [path for path in sorted(clips.iterdir()) if path.suffix != ".csv"] * 30
    for i, path in enumerate(copies):
        shutil.copy(path, folder / "many" / f"{i}.mp4")
    names = "".join(f"{i}.mp4,{'ab'[i % 2]}\n" for i in range(len(copies)))
    (folder / "many/labels.csv").write_text(f"filepath,label\n{names}")
    shutil.copytree(fitted, folder / "run")
    slowly = ["--data.sampling=HighestScores", "--data.sampling.scorer=slowly.scores", "--data.sampling.num_frames=8"]
    slowly += ["--data.num_workers=0", "--data.batch_size=1", "--ckpt_path=run/checkpoints/last.ckpt"]
    of_run = ["--config", str(TINY), "--data.labels", str(clips / "labels.csv"), *slowly]
    to_predict = ["predict", f"--data.videos={folder}/many", *slowly]
    two = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    cases = [
        (int(signal.SIGINT), ["test", *of_run], 1, "begun"),
        (int(signal.SIGTERM), ["validate", *of_run], 1, "begun"),
        (int(signal.SIGINT), ["check", "--data.labels=many/labels.csv", "--report=check.csv"], 1, "log0.txt"),
        (int(signal.SIGINT), [*to_predict, "--data.num_workers=2"], 1, "*/predictions.partial/*.jsonl"),
        (int(signal.SIGTERM), [*to_predict, *two], 2, "begun"),
    ]
    script = INTERRUPTED.format(tests=str(TESTS), cases=cases)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200, check=False)
    logs = "".join(path.read_text() for path in sorted(folder.glob("log*.txt")))
    assert done.stdout.strip() == "[[130], [143], [130], [130], [143, 143]]", logs + done.stderr
    assert logs.count("the same command goes on with the others") == 2, logs
    assert logs.count("No results were written: give the same command again") == 3, logs
    assert "Traceback" not in logs
    assert not list(folder.glob("*/predictions.csv"))
    assert not (folder / "check.csv").exists()


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
