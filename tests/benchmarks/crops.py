"""Whole pictures against crops: accuracy and macro F1 over folds of sites that training has not seen, and time per clip.

python tests/benchmarks/crops.py --clips FOLDER --weights FILE --network tf_efficientnet_lite0 --out FOLDER
python tests/benchmarks/crops.py --demo 20 --weights FILE --network tf_efficientnet_lite0 --out FOLDER

FOLDER of the clips holds labels.csv with filepath, label and site; --demo renders so many clips a class. The head is trained
on cached features of the frozen network; --unfreeze N unfreezes the backbone at epoch N. Scores are those of the last epoch.
"""

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student
from sklearn.model_selection import StratifiedGroupKFold

from zamba_lcli.cli import main as zamba
from zamba_lcli.data import AnimalCrop, Contrast, DemoClips, Motion
from zamba_lcli.data.sampling import EvenlySpaced
from zamba_lcli.data.video.reading import ClipReader

KINDS = {
    "whole": None,
    "contrast_union": AnimalCrop(Contrast(), follow="union"),
    "contrast_per_frame": AnimalCrop(Contrast(), follow="per_frame"),
    "contrast_per_frame_wide": AnimalCrop(Contrast(size=0.2), follow="per_frame"),
    "motion_union": AnimalCrop(Motion(), follow="union"),
    "motion_per_frame": AnimalCrop(Motion(), follow="per_frame"),
}


def configuration(args, kind, fold):
    """Returns the configuration of a fit."""
    init = {"task": "multiclass", "weights": args.weights, "network": args.network, "backbone_blocks": 1}
    crop = KINDS[kind]
    callbacks = [{"class_path": "FrozenFeatureCache", "init_args": {"dir": str(args.out / "features")}}]
    if args.unfreeze is not None:
        unfreeze = {"unfreeze_backbone_at_epoch": args.unfreeze, "backbone_initial_ratio_lr": 0.01, "train_bn": False}
        callbacks.append({"class_path": "BackboneFinetuning", "init_args": unfreeze})
    logger = {"save_dir": str(args.out / "runs"), "name": f"{kind}_{args.unfreeze}", "version": f"fold_{fold}"}
    return {
        "seed_everything": args.seed,
        "model": {"class_path": "TimeDistributedTimm", "init_args": init},
        "data": {
            "labels": str(args.out / f"fold_{fold}.csv"),
            "data_dir": str(args.clips),
            "sampling": {"class_path": "EvenlySpaced", "init_args": {"num_frames": args.frames}},
            "height": args.size,
            "width": args.size,
            "crop": None if crop is None else crop.stated(),
            "crop_bottom_pixels": args.crop_bottom_pixels,
            "cache_dir": str(args.out / "frames"),
            "batch_size": 16,
            "num_workers": 0,
            "allow_sites_across_splits": False,
        },
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.001}},
        "trainer": {
            "max_epochs": args.epochs,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "num_sanity_val_steps": 0,
            "callbacks": callbacks,
            "logger": {"class_path": "CSVLogger", "init_args": logger},
        },
    }


def write_folds(args):
    """Writes a labels table for each fold, whose sites are the val clips of that table."""
    with (args.clips / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    labels, sites = [row["label"] for row in rows], [row["site"] for row in rows]
    folds = StratifiedGroupKFold(args.folds, shuffle=True, random_state=args.seed).split(rows, labels, sites)
    for number, (_, held_out) in enumerate(folds):
        with (args.out / f"fold_{number}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["filepath", "label", "site", "split"])
            for i, row in enumerate(rows):
                split = "val" if i in set(held_out.tolist()) else "train"
                table.writerow([row["filepath"], row["label"], row["site"], split])
    return [args.clips / row["filepath"] for row in rows]


def scores(args, kind):
    """Returns accuracy and macro F1 of each fold, (folds, 2)."""
    found = []
    for fold in range(args.folds):
        path = args.out / "fit.json"
        path.write_text(json.dumps(configuration(args, kind, fold)))
        zamba(["fit", "--config", str(path)])
        metrics = args.out / "runs" / f"{kind}_{args.unfreeze}" / f"fold_{fold}" / "metrics.csv"
        with metrics.open(newline="") as file:
            last = [row for row in csv.DictReader(file) if row.get("val_macro_f1")][-1]
        found.append([float(last["val_top_1_accuracy"]), float(last["val_macro_f1"])])
    return np.array(found)


def seconds_per_clip(args, kind, paths):
    """Returns the median time of reading a clip, with finding its boxes, in seconds."""
    crop = KINDS[kind]
    reader = ClipReader(EvenlySpaced(args.frames), args.size, args.size, args.crop_bottom_pixels, crop=crop)
    times = []
    for path in paths:
        start = time.perf_counter()
        reader.read(path)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def interval(values):
    """Returns the mean and half the width of its 95 % interval by Student's t."""
    half = (
        student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    )
    return f"{np.mean(values):.3f} ± {half:.3f}"


def main():
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--demo", type=int)
    parser.add_argument("--weights")
    parser.add_argument("--network", default="tf_efficientnet_lite0")
    parser.add_argument("--out", type=Path, default=Path("crops"))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--unfreeze", type=int)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--crop-bottom-pixels", type=int, default=0)
    parser.add_argument("--seed", type=int, default=20)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.demo is not None:
        args.clips, args.crop_bottom_pixels = args.out / "demo", 8
        DemoClips(str(args.clips), clips_per_class=args.demo).render()
    torch.set_num_threads(1)
    paths = write_folds(args)
    whole = None
    lines = ["| pictures | accuracy | macro F1 | macro F1 - whole | ms per clip |", "|---|---|---|---|---|"]
    for kind in args.kinds:
        found = scores(args, kind)
        whole = found if kind == "whole" else whole
        gain = "" if whole is None or kind == "whole" else interval(found[:, 1] - whole[:, 1])
        ms = 1000 * seconds_per_clip(args, kind, paths[:: max(1, len(paths) // 20)])
        lines.append(f"| {kind} | {interval(found[:, 0])} | {interval(found[:, 1])} | {gain} | {ms:.0f} |")
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
