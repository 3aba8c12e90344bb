"""What the models cost: parameters, operations, time per clip and memory, each at its recipe's number of frames and size.

    python tests/benchmarks/models.py --threads 2 --repeat 2

Weights are random, which costs the same. GMACs are multiply-adds, as networks are compared by (papers often call them FLOPs):
half of what ``torch.utils.flop_counter`` counts. Time is that of one clip, forward, in eval mode, the fastest of the repeats,
in a process of its own for each model; bf16 is autocast, as with ``trainer.precision: bf16-mixed``, and takes minutes on a
CPU that has no instructions for it: leave it out with ``--precisions fp32``. Memory is the most that another process has for
one training step in fp32 with the recipe's batch, its backbone unfrozen and its Adam, all of torch included. One that takes
longer than ``--limit`` seconds for one of these is named.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml

CONFIGS = Path(__file__).parents[2] / "configs"
SAME_MODEL = ("demo", "slowfast_head", "slowfast_train_better", "slowfast_unfreeze")  # as slowfast_finetune


def cases():
    """Returns title, model, shape of a batch (clips, frames, height, width) of each recipe."""
    found = []
    for path in sorted(CONFIGS.glob("*.yaml")):
        recipe = yaml.safe_load(path.read_text())
        if path.stem not in SAME_MODEL:
            data = recipe["data"]
            frames = data["sampling"]["init_args"]["num_frames"]
            found.append((path.stem, recipe["model"], (data["batch_size"], frames, data["height"], data["width"])))
    return found


def build(model, threads):
    """Returns a recipe's model with random weights."""
    from zamba_lcli import models
    from zamba_lcli.cli.main import keep_freed_memory

    keep_freed_memory()  # as the program does
    torch.set_num_threads(threads)
    arguments = {**model["init_args"], "weights": None}
    if model["class_path"] == "TransformersVideo":  # ViT-L, transformers' default, without files from the hub
        arguments["config"] = {"model_type": "vjepa2", "pixels": {"mean": [0.5], "std": [0.5]}}
    return getattr(models, model["class_path"])(["a", "b", "c", "d"], **arguments)


def step(network, shape):
    """Returns the peak of the process's memory, in bytes, after a training step."""
    network.train()
    network.unfreeze_backbone(train_bn=False)
    optimizer = torch.optim.Adam(network.parameter_groups(), lr=1e-6)
    clips = torch.randint(0, 256, (shape[0], 3, *shape[1:]), dtype=torch.uint8)
    torch.nn.functional.cross_entropy(network(clips), torch.arange(shape[0]) % 4).backward()
    optimizer.step()
    return {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def measure(network, shape, repeat, precisions):
    """Returns parameters, multiply-adds and seconds of a model for one clip."""
    from torch.utils.flop_counter import FlopCounterMode

    network.eval()
    clip = torch.randint(0, 256, (1, 3, *shape[1:]), dtype=torch.uint8)
    result = {"parameters": sum(p.numel() for p in network.parameters())}
    with torch.inference_mode():
        for precision in precisions:
            seconds = []
            for _ in range(repeat):
                start = time.perf_counter()
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                    network(clip)
                seconds.append(time.perf_counter() - start)
            result[precision] = min(seconds)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.requires_grad_(False).to("meta")(clip.to("meta"))  # where nothing is computed
    return {**result, "multiply_adds": counter.get_total_flops() // 2}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precisions", default="fp32,bf16", help="separated by commas")
    parser.add_argument("--limit", type=int, default=300, help="seconds for each measurement of a model")
    parser.add_argument("--only", help="titles of the models, separated by commas")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    precisions = args.precisions.split(",")
    if args.measure:
        what, model, shape = json.loads(args.measure)
        network = build(model, args.threads)
        print(json.dumps(step(network, shape) if what == "step" else measure(network, shape, args.repeat, precisions)))
        return
    print(f"{args.threads} threads, torch {torch.__version__}, best of {args.repeat}\n")
    columns = ["recipe", "frames, height x width", "M parameters", "GMACs per clip"]
    columns += [f"s per clip, {precision}" for precision in precisions] + ["batch", "GB, training step"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    for title, model, shape in cases():
        if args.only and title not in args.only.split(","):
            continue
        found = {}
        for what in ("forward", "step"):
            command = [sys.executable, __file__, "--measure", json.dumps([what, model, shape])]
            command += [f"--{key}={getattr(args, key)}" for key in ("repeat", "threads", "precisions")]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=args.limit)
            except subprocess.TimeoutExpired:
                continue
            if done.returncode:
                sys.exit(done.stderr)
            found |= json.loads(done.stdout.splitlines()[-1])
        print("|", " | ".join(cells(title, shape, found, precisions, args.limit)), "|", flush=True)


def cells(title, shape, found, precisions, limit):
    """Returns the row of the table; what took too long is told."""
    late = f"over {limit} s"
    row = [title, "{}, {} x {}".format(*shape[1:])]
    row.append(f"{found['parameters'] / 1e6:.1f}" if "parameters" in found else late)
    row.append(f"{found['multiply_adds'] / 1e9:.1f}" if "multiply_adds" in found else late)
    row += [f"{found[precision]:.2f}" if precision in found else late for precision in precisions]
    return [*row, str(shape[0]), f"{found['memory'] / 1e9:.1f}" if "memory" in found else late]


if __name__ == "__main__":
    main()
