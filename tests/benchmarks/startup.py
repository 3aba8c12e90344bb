"""How long the program takes to answer, beside Lightning's own import.

    python tests/benchmarks/startup.py --repeat 5

Each command runs in a process of its own, in turn, and its fastest run counts; the first round, which reads the files from
disk, does not. Goal: at most 1.15 times ``import pytorch_lightning`` for --help, --version, ``fit --help`` and an error in
the YAML.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(command):
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, check=False)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wrong = Path(folder, "wrong.yaml")
        wrong.write_text("trainer:\n  max_epoch: 3\n")
        program = [sys.executable, "-m", "zamba_lcli"]
        commands = {
            "import pytorch_lightning": [sys.executable, "-c", "import pytorch_lightning"],
            "zamba --version": [*program, "--version"],
            "zamba --help": [*program, "--help"],
            "zamba fit --help": [*program, "fit", "--help"],
            "an error in the YAML": [*program, "fit", "--config", str(wrong)],
        }
        found = {name: [] for name in commands}
        for _ in range(args.repeat + 1):
            for name, command in commands.items():
                found[name].append(seconds(command))
    peer = min(found["import pytorch_lightning"][1:])
    print("| command | s | of the import |\n|---|---|---|")
    for name, times in found.items():
        print(f"| {name} | {min(times[1:]):.2f} | {min(times[1:]) / peer:.2f} |")


if __name__ == "__main__":
    main()
