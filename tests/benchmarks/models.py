"""What the models cost: parameters, operations and time per clip, each at its recipe's number of frames and size.

    python tests/benchmarks/models.py --threads 2 --repeat 2

Weights are random, which costs the same. Operations are counted as in ``torch.utils.flop_counter``: a multiplication and an
addition are two. Time is that of one clip, forward, in eval mode, the fastest of the repeats, in a process of its own for
each model; bf16 is autocast, as with ``trainer.precision: bf16-mixed``. A model that takes longer than ``--limit`` seconds
for all of it is named and left out.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml

CONFIGS = Path(__file__).parents[2] / "configs"
VARIANTS = [  # recipe, arguments of the model other than there, frames, height, width
    ("slowfast_finetune", {"model_depth": 101}, 32, 240, 426),
    ("x3d_m", {"name": "x3d_xs"}, 4, 160, 284),
    ("x3d_m", {"name": "x3d_s"}, 13, 160, 284),
    ("x3d_m", {"name": "x3d_l"}, 16, 312, 554),
    ("mvit_base_16x4", {"name": "mvit_base_32x3"}, 32, 224, 224),
]
SAME_MODEL = ("demo", "slowfast_head", "slowfast_train_better", "slowfast_unfreeze")  # as slowfast_finetune


def cases():
    """Returns title, class, arguments, frames, height and width of each model."""
    recipes = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(CONFIGS.glob("*.yaml"))}
    found = []
    for title, recipe in recipes.items():
        if title not in SAME_MODEL:
            data = recipe["data"]
            size = (data["sampling"]["init_args"]["num_frames"], data["height"], data["width"])
            found.append((title, recipe["model"], *size))
    for title, other, *size in VARIANTS:
        model = recipes[title]["model"]
        named = f"{title}, {', '.join(f'{key}: {value}' for key, value in other.items())}"
        found.append((named, {**model, "init_args": {**model["init_args"], **other}}, *size))
    return found


def measure(model, frames, height, width, repeat, threads):
    """Returns parameters, operations and seconds of a model for one clip."""
    from torch.utils.flop_counter import FlopCounterMode

    from zamba_lcli import models
    from zamba_lcli.cli import keep_freed_memory

    keep_freed_memory()  # as the program does
    torch.set_num_threads(threads)
    arguments = {**model["init_args"], "weights": None}
    network = getattr(models, model["class_path"])(["a", "b", "c", "d"], **arguments).eval()
    clip = torch.randint(0, 256, (1, 3, frames, height, width), dtype=torch.uint8)
    result = {"parameters": sum(p.numel() for p in network.parameters())}
    with torch.inference_mode():
        for precision, enabled in (("fp32", False), ("bf16", True)):
            seconds = []
            for _ in range(repeat):
                start = time.perf_counter()
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                    network(clip)
                seconds.append(time.perf_counter() - start)
            result[precision] = min(seconds)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.to("meta")(clip.to("meta"))  # where nothing is computed
    return {**result, "operations": counter.get_total_flops()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=int, default=300, help="seconds for each model")
    parser.add_argument("--only", help="titles of the models, separated by commas")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*json.loads(args.measure), args.repeat, args.threads)))
        return
    print(f"{args.threads} threads, torch {torch.__version__}, best of {args.repeat}\n")
    print("| model | frames, height x width | M parameters | GFLOPs per clip | s per clip, fp32 | s per clip, bf16 |")
    print("|---|---|---|---|---|---|", flush=True)
    for title, model, *size in cases():
        if args.only and title not in args.only.split(","):
            continue
        command = [sys.executable, __file__, "--measure", json.dumps([model, *size])]
        command += ["--repeat", str(args.repeat), "--threads", str(args.threads)]
        row = f"| {title} | {size[0]}, {size[1]} x {size[2]} |"
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=args.limit)
        except subprocess.TimeoutExpired:
            print(f"{row} over {args.limit} s in all |", flush=True)
            continue
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        cells = [f"{found['parameters'] / 1e6:.1f}", f"{found['operations'] / 1e9:.1f}"]
        cells += [f"{found[precision]:.2f}" for precision in ("fp32", "bf16")]
        print(row, " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
