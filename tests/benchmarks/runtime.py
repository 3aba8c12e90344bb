"""The network alone, SlowFast R50 on 32 frames of 224 x 224: torch against OpenVINO, in turn, in one process.

    python tests/benchmarks/runtime.py --repeat 5

Weights are random, which costs the same. Seconds for a clip are the best of the repeats, each of a batch of two; the last
column is the largest difference of probabilities from torch's in float32. int8 is calibrated on 8 random clips.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from zamba_lcli.cli.main import keep_freed_memory
from zamba_lcli.models import SlowFast
from zamba_lcli.models.openvino import CompiledNetwork, versions, write_converted

SHAPE = (32, 224, 224)


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    keep_freed_memory()  # as the program does
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = SlowFast(["a", "b", "c", "d"], weights=None).eval()
    clips = torch.randint(0, 256, (2, 3, *SHAPE), dtype=torch.uint8)
    folder = Path(tempfile.mkdtemp())
    write_converted(model, folder / "float", shape=SHAPE, calibration=None)
    calibration = (torch.randint(0, 256, (1, 3, *SHAPE), dtype=torch.uint8).numpy() for _ in range(8))
    write_converted(model, folder / "int8", shape=SHAPE, calibration=calibration)

    def torch_in(dtype):
        def run():
            with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                return model(clips).float()

        return run

    runs = {"torch, float32": torch_in(torch.float32), "torch, bfloat16": torch_in(torch.bfloat16)}
    for precision in ("float32", "bfloat16", "int8"):
        network = CompiledNetwork(folder / ("int8" if precision == "int8" else "float"), precision, args.threads)
        runs[f"OpenVINO, {precision}"] = lambda network=network: network(clips)
    seconds = dict.fromkeys(runs, float("inf"))
    apart = {}
    expected = runs["torch, float32"]().softmax(1)
    for _ in range(args.repeat):
        for name, run in runs.items():
            start = time.perf_counter()
            logits = run()
            seconds[name] = min(seconds[name], (time.perf_counter() - start) / len(clips))
            apart[name] = float((logits.softmax(1) - expected).abs().max())
    print(f"{args.threads} threads, torch {torch.__version__}, {versions()}, best of {args.repeat}\n")
    print("| runtime | s per clip | torch's float32 over it | largest difference |\n|---|---|---|---|")
    for name, taken in seconds.items():
        print(f"| {name} | {taken:.3f} | {seconds['torch, float32'] / taken:.1f} | {apart[name]:.1e} |")


if __name__ == "__main__":
    main()
