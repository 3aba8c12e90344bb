"""Runs `zamba predict` again and again, kills each run at a random moment, and lets the last one end.

The program is imported once and each run is a fork of it, which saves the seconds of the imports. With several processes their
environment is that of torchrun. Prints the number of rows that were there after each kill, as JSON.

    python predict_driver.py OUTPUT PROCESSES KILLS SEED ARGS...
"""

import json
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

import torch

from zamba_lcli.cli import main


def start(processes, args):
    """Forks the processes of a run and returns their numbers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child:
            children.append(child)
            continue
        with open(f"log{rank}.txt", "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        torch.set_num_threads(1)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a script runs in the background
        if processes > 1:
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
            names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": 1}
            os.environ.update({name: str(value) for name, value in names.items()})
        try:
            main(args)
        except SystemExit as end:
            os._exit(end.code or 0)
        os._exit(0)
    return children


def end(children, number=0):
    """Sends a signal to the processes, if any, waits for them and returns their exit codes."""
    if number:
        for child in children:
            os.kill(child, number)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def rows_in(folder):
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("predictions.partial/*.jsonl"))


def drive(output, processes, kills, seed, args):
    """Kills runs after a random number of new rows and a random time; the last kill is when the result is being written."""
    chance = random.Random(seed)
    counts = []
    for kill in range(kills):
        children = start(processes, args)
        before, limit = rows_in(output), time.monotonic() + 60
        more = chance.randrange(5)
        last = kill == kills - 1
        while time.monotonic() < limit:
            written = any(output.glob(".*.part")) or any(output.glob("predictions.csv"))
            if written if last else rows_in(output) >= before + more:
                break
            time.sleep(0.002)
        time.sleep(chance.random() * (0.02 if more else 1.0) * (not last))
        codes = end(children, signal.SIGKILL)
        assert last or set(codes) == {-signal.SIGKILL}, codes
        counts.append(rows_in(output))
    return counts, end(start(processes, args)) if (output / "predictions.partial").exists() else [0] * processes


if __name__ == "__main__":
    output, processes, kills, seed = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    print(json.dumps(drive(output, processes, kills, seed, sys.argv[5:])))
