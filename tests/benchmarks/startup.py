"""How long the program takes to answer, beside Lightning's own import.

    python tests/benchmarks/startup.py --repeat 10

Each command runs in a process of its own, before and after it the import, and its ratio is that to the mean of these two: so
a machine that others use meanwhile says the same. Medians are told, of the time that goes by and of the processor's. The first
round, which reads the files from disk, does not count. Goal: at most 1.15 times ``import pytorch_lightning`` for --help,
--version, ``fit --help`` and an error in the YAML.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

IMPORT = [sys.executable, "-c", "import pytorch_lightning"]


def seconds(command):
    """Returns the time that a command takes: on the clock, and of the processor."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, check=False)
    by_clock = time.perf_counter() - start
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return by_clock, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wrong = Path(folder, "wrong.yaml")
        wrong.write_text("trainer:\n  max_epoch: 3\n")
        program = [sys.executable, "-m", "zamba_lcli"]
        commands = {
            "zamba --version": [*program, "--version"],
            "zamba --help": [*program, "--help"],
            "zamba fit --help": [*program, "fit", "--help"],
            "an error in the YAML": [*program, "fit", "--config", str(wrong)],
        }
        found = {name: [] for name in commands}
        imports = []
        for turn in range(args.repeat + 1):
            before = seconds(IMPORT)
            for name, command in commands.items():
                ours = seconds(command)
                after = seconds(IMPORT)
                if turn:
                    peer = [(a + b) / 2 for a, b in zip(before, after, strict=True)]
                    found[name].append((*ours, ours[0] / peer[0], ours[1] / peer[1]))
                    imports.append(after)
                before = after
    print("| command | s | s of processor | of the import | of its processor time |\n|---|---|---|---|---|")
    print("| import pytorch_lightning | {:.2f} | {:.2f} | 1 | 1 |".format(*map(median, zip(*imports, strict=True))))
    for name, values in found.items():
        print("| {} | {:.2f} | {:.2f} | {:.2f} | {:.2f} |".format(name, *map(median, zip(*values, strict=True))))


if __name__ == "__main__":
    main()
