"""Runs `zamba fit` again and again, sends each run a signal, and lets the last one end.

The program is imported once and each run is a fork of it, which saves the seconds of the imports. Prints as JSON, for each run,
how it ended and the step of the newest checkpoint that it left.

    python kill_driver.py CHECKPOINTS INTERRUPTIONS ARGS...

Each interruption is a signal and when it is sent: after so many seconds, or null for as soon as the run has saved a checkpoint.
"""

import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import torch

from zamba_lcli.cli import main


def run(args):
    """Forks a process that runs the command and returns its number."""
    child = os.fork()
    if child:
        return child
    with open("log.txt", "a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main(args)
    except SystemExit as end:
        os._exit(end.code or 0)
    except KeyboardInterrupt:
        os._exit(99)
    os._exit(0)


def steps_in(folder):
    """Loads every checkpoint in the folder, all of which must be whole, and returns the step of the newest."""
    files = [path for path in folder.glob("*.ckpt") if not path.name.startswith(".")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps = {path.name: torch.load(path, weights_only=True, mmap=False)["global_step"] for path in files}
    return steps.get("last.ckpt", 0)


def wait(checkpoint, seconds):
    """Waits for so many seconds, or (at most a minute) for the checkpoint to be written anew."""
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    end = time.monotonic() + (60 if seconds is None else seconds)
    while time.monotonic() < end:
        if seconds is None and checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
            return
        time.sleep(0.01)


def drive(folder, interruptions, args):
    """Runs, interrupts and runs on; returns [exit code, step of last.ckpt] for each run."""
    ends = []
    for number, seconds in [*interruptions, (0, 0)]:
        more = ["--ckpt_path", "last"] if (folder / "last.ckpt").exists() else []
        child = run([*args, *more])
        if number:
            wait(folder / "last.ckpt", seconds)
            os.kill(child, number)
        _, status = os.waitpid(child, 0)
        ends.append([os.waitstatus_to_exitcode(status), steps_in(folder)])
    return ends


if __name__ == "__main__":
    begin = time.monotonic()
    ends = drive(Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:])
    print(json.dumps([ends, time.monotonic() - begin]))
