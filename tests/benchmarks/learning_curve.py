"""How many labelled clips a class are enough: accuracy and macro F1 at unseen sites, of heads trained on ever more clips.

    python tests/benchmarks/learning_curve.py --clips FOLDER --weights FILE --network tf_efficientnet_lite0 --out FOLDER

FOLDER of the clips holds labels.csv with filepath, label and site. The folds are those of ``crops.py``: each is held out once,
its sites unseen in training. From the others so many clips of each class are drawn, by ``--seeds`` seeds, and the head is
trained on cached features of the frozen network for as many steps whatever their number. Scores are those of the last step;
intervals are Student's t over the folds, the seeds of a fold averaged. Prints a table; ``--picture`` draws it.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np
import torch

from zamba_lcli.cli import main as zamba

sys.path.insert(0, str(Path(__file__).parent))
import crops


def draw(table, path, per_class, seed):
    """Writes the table of a fold with ``per_class`` train clips of each class, all if None, and returns their number."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rng = np.random.default_rng(seed)
    kept = [row for row in rows if row["split"] != "train"]
    for label in sorted({row["label"] for row in rows}):
        of_class = [row for row in rows if row["split"] == "train" and row["label"] == label]
        number = len(of_class) if per_class is None else min(per_class, len(of_class))
        kept += [of_class[i] for i in sorted(rng.choice(len(of_class), number, replace=False))]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(kept)
    return sum(row["split"] == "train" for row in kept)


def score(args, fold, per_class, seed):
    """Returns accuracy and macro F1 of one fit."""
    name = f"fold_{fold}_{per_class or 'all'}_{seed}"
    clips = draw(args.out / f"fold_{fold}.csv", args.out / f"{name}.csv", per_class, seed)
    content = crops.configuration(args, "whole", fold)
    content["data"]["labels"] = str(args.out / f"{name}.csv")
    content["trainer"]["logger"]["init_args"] |= {"name": "learning_curve", "version": name}
    content["trainer"] |= {"max_steps": args.steps, "max_epochs": -1, "check_val_every_n_epoch": None}
    content["trainer"]["val_check_interval"] = args.steps
    content["data"]["batch_size"] = min(16, clips)
    path = args.out / "learning_curve.json"
    path.write_text(json.dumps(content))
    zamba(["fit", "--config", str(path)])
    with (args.out / f"runs/learning_curve/{name}/metrics.csv").open(newline="") as file:
        last = [row for row in csv.DictReader(file) if row.get("val_macro_f1")][-1]
    return float(last["val_top_1_accuracy"]), float(last["val_macro_f1"])


def draw_picture(path, sizes, found):
    """Draws mean macro F1 and accuracy over the number of clips, with the folds' intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    for column, title in ((1, "macro F1"), (0, "accuracy")):
        means = [values[:, column].mean() for values in found]
        halves = [float(crops.interval(values[:, column]).split()[-1]) for values in found]
        axes.errorbar(range(len(sizes)), means, halves, marker="o", capsize=3, label=title)
    axes.set_xticks(range(len(sizes)), [str(size or "all") for size in sizes])
    axes.set(xlabel="train clips of each class", ylim=(0, 1))
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--network", default="tf_efficientnet_lite0")
    parser.add_argument("--out", type=Path, default=Path("learning_curve"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    args.frames, args.size, args.crop_bottom_pixels, args.seed, args.unfreeze, args.epochs = 8, 224, 0, 20, None, -1
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    crops.write_folds(args)
    sizes: list[int | None] = [*args.sizes, None]
    found = []
    print("| train clips of each class | accuracy | macro F1 |\n|---|---|---|")
    for per_class in sizes:
        seeds = range(1 if per_class is None else args.seeds)
        of_folds = [[score(args, fold, per_class, seed) for seed in seeds] for fold in range(args.folds)]
        found.append(np.array(of_folds).mean(axis=1))
        row = [str(per_class or "all"), *(crops.interval(found[-1][:, column]) for column in (0, 1))]
        print(f"| {' | '.join(row)} |", flush=True)
    if args.picture is not None:
        draw_picture(args.picture, sizes, found)


if __name__ == "__main__":
    main()
