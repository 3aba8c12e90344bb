"""A whole fine-tune, head then last blocks: this project against zamba 2.7.2, one after the other, from the same weights.

    python tests/benchmarks/finetune.py --zamba ~/zamba-env/bin/python

zamba lives in an environment of its own: ``pip install 'zamba[video]==2.7.2'`` and the system's ffmpeg, which also renders
the clips. SlowFast R50 on 32 frames of 224 x 224 of 32 clips of 720p, 24 to train on and 8 for val, batches of 2; 15 epochs
with the backbone frozen, 5 unfrozen; Adam at 0.001, halved at epoch 15, the backbone at 1/100 of that, doubling. zamba has
its frame cache on and the number of workers that suits it best (``--zamba-workers``); here the frozen features are cached.
All caches start empty. Times are those at which TensorBoard got each epoch's val metrics; the first epoch has what goes
before it in it (imports, the pass that fills the cache). Memory is the largest sum, over a process and its workers, of what
is not backed by files.

After the table comes what each phase cannot go below: its floating-point operations over the rate at which this machine
multiplies matrices, and what it reads over the rate at which this disk hands over a file.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import peers


def train_zamba(folder, labels, weights, workers, frozen, epochs):
    """Trains with zamba; run with its python."""
    import torch

    peers.zamba_without_downloads()
    from zamba.data.video import VideoLoaderConfig
    from zamba.models import model_manager
    from zamba.models.config import TrainConfig

    build = model_manager.instantiate_model

    def build_from_weights(*args, **kwargs):
        model = build(*args, **kwargs)
        model.load_state_dict(torch.load(weights, weights_only=True)["state_dict"])
        return model

    model_manager.instantiate_model = build_from_weights

    torch.manual_seed(0)
    finetuning = {"unfreeze_backbone_at_epoch": frozen, "backbone_initial_ratio_lr": 0.01, "multiplier": 2}
    scheduler = {"scheduler": "MultiStepLR", "scheduler_params": {"milestones": [frozen], "gamma": 0.5}}
    config = TrainConfig(
        labels=labels, data_dir=Path(labels).parent, model_name="slowfast", from_scratch=True, max_epochs=epochs,
        batch_size=2, num_workers=workers, gpus=0, early_stopping_config=None, backbone_finetune_config=finetuning,
        scheduler_config=scheduler, save_dir=Path(folder), skip_load_validation=True, use_default_model_labels=False,
    )  # fmt: skip
    videos = VideoLoaderConfig(
        model_input_height=peers.SIZE, model_input_width=peers.SIZE, total_frames=peers.FRAMES, ensure_total_frames=True,
        evenly_sample_total_frames=True, cache_dir=Path(folder) / "cache",
    )  # fmt: skip
    model_manager.train_model(config, videos)


def recipe(folder, labels, weights, frozen, epochs, precision, cached):
    """Writes the recipe of the same run for this project and returns its path."""
    import yaml

    finetuning = {"unfreeze_backbone_at_epoch": frozen, "backbone_initial_ratio_lr": 0.01, "train_bn": False}
    finetuning["lambda_func"] = "pytorch_lightning.callbacks.finetuning.multiplicative"
    dtype = "bfloat16" if precision == "bf16-mixed" else "float32"
    cache = {"dir": str(folder / "features"), "dtype": dtype}
    callbacks = [
        {"class_path": "BackboneFinetuning", "init_args": finetuning},
        {"class_path": "ModelCheckpoint", "init_args": {"monitor": "val_macro_f1", "mode": "max"}},
    ]
    if cached:
        callbacks.append({"class_path": "zamba_lcli.callbacks.FrozenFeatureCache", "init_args": cache})
    scheduler = {"milestones": [frozen], "gamma": 0.5}
    content = {
        "seed_everything": 0,
        "model": {"class_path": "SlowFast", "init_args": {"weights": str(weights)}},
        "data": {
            "labels": str(labels), "height": peers.SIZE, "width": peers.SIZE, "batch_size": 2, "num_workers": 2,
        },
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.001}},
        "lr_scheduler": {"class_path": "torch.optim.lr_scheduler.MultiStepLR", "init_args": scheduler},
        "trainer": {
            "accelerator": "cpu", "max_epochs": epochs, "precision": precision, "callbacks": callbacks,
            "logger": {"class_path": "TensorBoardLogger", "init_args": {"save_dir": str(folder), "name": "run"}},
        },
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def epochs_in(folder, epochs):
    """Returns the wall times of the epochs' val metrics, and the last macro F1 and loss."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for file in folder.rglob("events.out.tfevents.*"):
        events = EventAccumulator(str(file))
        events.Reload()
        for tag in ("val_macro_f1", "val_loss"):
            if tag in events.Tags()["scalars"]:
                found.setdefault(tag, []).extend(events.Scalars(tag))
    ordered = {tag: sorted(values, key=lambda event: event.wall_time)[:epochs] for tag, values in found.items()}
    return [event.wall_time for event in ordered["val_macro_f1"]], {tag: v[-1].value for tag, v in ordered.items()}


def matrix_rate(size=2048, repeat=10):
    """Returns the floating-point operations a second of float32 matrix products."""
    import torch

    a, b = torch.rand(size, size), torch.rand(size, size)
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def disk_rate(folder, size=10**9):
    """Returns the bytes a second that a file is read with, its pages having been dropped from memory."""
    path = folder / "for_disk_rate"
    with path.open("wb") as file:
        for _ in range(size // 10**7):
            file.write(os.urandom(10**7))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.read(10**7):
            pass
    seconds = time.perf_counter() - start
    path.unlink()
    return size / seconds


def operations():
    """Returns the floating-point operations of a clip by part, and the bytes of its trunk's and its backbone's output.

    A multiply-add is two operations, as processors are rated.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from zamba_lcli.models import SlowFast

    def count(run):
        with FlopCounterMode(display=False) as counter:
            value = run()
        return counter.get_total_flops(), value

    model = SlowFast(peers.CLASSES, weights=None).eval()
    video = torch.zeros(1, 3, peers.FRAMES, peers.SIZE, peers.SIZE, dtype=torch.uint8)
    with torch.no_grad():
        trunk, features = count(lambda: model.forward_trunk(video))
        backbone, pooled = count(lambda: model.forward_backbone(features))
    model.backbone.requires_grad_(True)
    both, _ = count(lambda: model.forward_backbone(features).sum().backward())
    return {
        "trunk": trunk,
        "backbone": backbone,
        "backbone and its gradients": both,
        "trunk bytes": 4 * sum(x.numel() for x in features),
        "pooled bytes": 4 * pooled.numel(),
    }


def print_floors(folder, phases, train=24, val=8):
    """Prints measured times over what they cannot go below.

    Args:
        folder: On the disk with the cache.
        phases: Seconds of the first epoch, a frozen and an unfrozen one.
        train: Number of train clips.
        val: Number of val clips.
    """
    rate, disk, of = matrix_rate(), disk_rate(folder), operations()
    clips = train + val
    work = {  # operations, bytes
        "the pass, in the first epoch": (clips * (of["trunk"] + of["backbone"]), clips * of["pooled bytes"]),
        "a frozen epoch": (0, clips * of["pooled bytes"]),
        "an unfrozen epoch": (
            train * of["backbone and its gradients"] + val * of["backbone"],
            clips * of["trunk bytes"],
        ),
    }
    print(f"\nMatrices {rate / 1e9:.0f} GFLOP/s, disk {disk / 1e9:.2f} GB/s\n")
    print("| phase | GFLOP | s at that rate | MB read | s at that rate | measured, s | over the floor |")
    print("|---" * 7 + "|")
    for (name, (flops, size)), seconds in zip(work.items(), phases, strict=True):
        floor = max(flops / rate, size / disk)
        cells = [
            f"{flops / 1e9:.0f}",
            f"{flops / rate:.2f}",
            f"{size / 1e6:.1f}",
            f"{size / disk:.3f}",
            f"{seconds:.2f}",
        ]
        print(f"| {name} |", " | ".join([*cells, f"{seconds / floor:.1f} x"]), "|")


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zamba", help="python of an environment with zamba; without, zamba is left out")
    parser.add_argument("--zamba-workers", type=int, default=1)
    parser.add_argument("--frozen", type=int, default=15, help="epochs with the backbone frozen")
    parser.add_argument("--unfrozen", type=int, default=5, help="epochs after them")
    parser.add_argument("--uncached", action="store_true", help="this project without its cache, too")
    parser.add_argument("--only", help="names of the runs, separated by commas")
    parser.add_argument("--folder", help="where clips and runs go; a temporary folder if left out")
    parser.add_argument("--train-zamba", nargs=6, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train_zamba:
        train_zamba(*args.train_zamba[:3], *map(int, args.train_zamba[3:]))
        return
    frozen, epochs = args.frozen, args.frozen + args.unfrozen
    base = Path(args.folder or tempfile.mkdtemp())
    base.mkdir(exist_ok=True, parents=True)
    labels = peers.make_clips(base)
    weights = peers.make_weights(base / "start.ckpt")
    runs = {
        "zamba": None,
        "fp32": ("32-true", True),
        "bf16": ("bf16-mixed", True),
        "fp32, no cache": ("32-true", False),
    }
    if args.zamba is None:
        runs.pop("zamba")
    if not args.uncached:
        runs.pop("fp32, no cache")
    titles = ("run", "whole, s", "first epoch", "a frozen epoch", "first unfrozen", "an unfrozen epoch", "peak MB")
    print("|", " | ".join([*titles, "val macro F1", "val loss"]), "|")
    print("|---" * (len(titles) + 2) + "|")
    reference, phases = None, []
    for name, settings in runs.items():
        if args.only and name not in args.only.split(","):
            continue
        folder = Path(tempfile.mkdtemp(dir=base))
        if settings is None:
            numbers = map(str, (args.zamba_workers, frozen, epochs))
            command = [args.zamba, __file__, "--train-zamba", folder, labels, weights, *numbers]
        else:
            path = recipe(folder, labels, weights, frozen, epochs, *settings)
            command = [sys.executable, "-m", "zamba_lcli", "fit", "--config", path]
        start = time.time()
        seconds, memory = peers.run(list(map(str, command)), folder / "log.txt")
        times, last = epochs_in(folder, epochs)
        assert len(times) == epochs, (len(times), folder)
        reference = reference or seconds
        cells = [
            f"{seconds:.1f} ({reference / seconds:.1f} x)", f"{times[0] - start:.1f}",
            f"{(times[frozen - 1] - times[0]) / (frozen - 1):.2f}", f"{times[frozen] - times[frozen - 1]:.2f}",
            f"{(times[-1] - times[frozen]) / (epochs - frozen - 1):.2f}", f"{memory:.0f}",
            f"{last['val_macro_f1']:.3f}", f"{last['val_loss']:.4f}",
        ]  # fmt: skip
        print(f"| {name} |", " | ".join(cells), "|", flush=True)
        (folder / "result.json").write_text(json.dumps({"seconds": seconds, "MB": memory, **last}))
        if name == "fp32":
            unfrozen = (times[-1] - times[frozen]) / (epochs - frozen - 1)
            phases = [times[0] - start, (times[frozen - 1] - times[0]) / (frozen - 1), unfrozen]
    if phases:
        print_floors(base, phases)


if __name__ == "__main__":
    main()
