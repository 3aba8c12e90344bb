"""What a GPU brings: predicting, the frozen pass, epochs, the share of waiting for clips, memory, and equality with the CPU.

    python tests/benchmarks/gpu.py

Needs the package alone, and torchcodec with CUDA for its rows of the second table; renders its clips itself: H.264, 720p, 8
seconds, 30 frames a second. Takes at most 8 minutes on one GPU with 16 cores: what does not fit in ``--limit`` seconds is left
out and named. Weights are random, which costs the same. ``--device cpu --clips 4 --networks slowfast --frames 8 --size 64``
tries the script where there is no GPU.

A network is fitted first (frozen features cached, then unfrozen), and its checkpoint predicts. Clips/s are of a run that has
started: from the end of its third batch to the end of its last. Waiting is the share of that time in which the model waits for
clips. Memory is the most that torch allocated on the GPU. Equality is the largest difference of probabilities between the GPU
and the CPU in float32 (TF32 off), of two clips; above 0.001 the script ends with code 1.
"""

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
import yaml
from pytorch_lightning import Callback

sys.path.insert(0, str(Path(__file__).parent))

NETWORKS = {  # class and arguments, frames, size, batch
    "slowfast": ("SlowFast", {}, 32, 224, 8),
    "mvit_v2_s": ("TorchvisionVideo", {"network": "mvit_v2_s"}, 16, 224, 8),
    "x3d_m": ("PytorchVideo", {"network": "x3d_m"}, 16, 224, 8),
}
RATE, HEIGHT, WIDTH = 30, 720, 1280
DISTINCT = 16  # clips rendered; the others are links to them
WARM_UP = 3  # batches
TOLERANCE = 1e-3


class Clock(Callback):
    """Times a run: of each epoch or prediction the clips/s after the first batches and the share of waiting; memory."""

    measured: dict = {}  # noqa: RUF012  (of the last run)

    def __init__(self, compiled: bool = False) -> None:
        self.compiled = compiled

    def setup(self, trainer, pl_module, stage):
        Clock.measured = {"epochs": [], "start": time.perf_counter()}
        if self.compiled:
            pl_module.forward = torch.compile(pl_module.forward)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def _begin(self):
        self.batches = self.clips = 0
        self.waited = 0.0
        self.first = self.last = time.perf_counter()

    def _batch_start(self):
        if self.batches >= WARM_UP:
            self.waited += time.perf_counter() - self.last

    def _batch_end(self, batch):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.last = time.perf_counter()
        self.batches += 1
        if self.batches == WARM_UP:
            self.first = self.last
        elif self.batches > WARM_UP:
            self.clips += len(batch["index"])

    def _result(self):
        seconds = max(self.last - self.first, 1e-9)
        memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        return {"clips/s": self.clips / seconds, "waiting": self.waited / seconds, "GB": memory / 1e9}

    def on_train_epoch_start(self, trainer, pl_module):
        self.epoch = time.perf_counter()
        Clock.measured.setdefault(
            "before", self.epoch - Clock.measured["start"]
        )  # with the pass over the frozen layers
        self._begin()

    def on_train_batch_start(self, *args):
        self._batch_start()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._batch_end(batch)

    def on_train_epoch_end(self, trainer, pl_module):
        seconds = time.perf_counter() - self.epoch
        Clock.measured["epochs"].append({**self._result(), "seconds": seconds, "frozen": pl_module.backbone_is_frozen})

    def on_predict_start(self, trainer, pl_module):
        self._begin()

    def on_predict_batch_start(self, *args):
        self._batch_start()

    def on_predict_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self._batch_end(batch)

    def on_predict_end(self, trainer, pl_module):
        Clock.measured |= self._result()


def render(arguments):
    """Renders one clip: noise over a moving square, scaled to 720p."""
    path, number, seconds = arguments
    rng = np.random.default_rng(number)
    ground = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "g": "60"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(seconds * RATE):
            picture = ground.copy()
            at = (index * 2 + number * 7) % (WIDTH // 8 - 16)
            picture[30:50, at : at + 16] = 255 * (number % 2)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(WIDTH, HEIGHT, "yuv420p")
            frame.time_base, frame.pts = Fraction(1, RATE), index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def make_clips(folder, clips, seconds):
    """Renders the clips and their labels and returns the folder."""
    (folder / "clips").mkdir()
    distinct = [(folder / f"clips/{i:05d}.mp4", i, seconds) for i in range(min(clips, DISTINCT))]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(render, distinct))
    lines = ["filepath,label,split"]
    for i in range(clips):
        path = folder / f"clips/{i:05d}.mp4"
        if not path.exists():
            os.link(distinct[i % DISTINCT][0], path)
        lines.append(f"clips/{path.name},{'ab'[i % 2]},{'val' if i % 8 in (0, 1) else 'train'}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "clips"


def run(folder, name, content):
    """Runs a subcommand with a configuration, in this process, and returns what the clock measured."""
    from zamba_lcli.cli import main

    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    main([name, "--config", str(path)])
    return dict(Clock.measured)


def configuration(args, network, precision):
    """Returns what fit and predict share."""
    kind, arguments, frames, size, batch = NETWORKS[network]
    frames, size = args.frames or frames, args.size or size
    return {
        "model": {"class_path": kind, "init_args": {**arguments, "weights": None, "task": "multiclass"}},
        "data": {
            "sampling": {"class_path": "EvenlySpaced", "init_args": {"num_frames": frames}}, "height": size, "width": size,
            "batch_size": args.batch or batch, "num_workers": args.workers,
        },
        "trainer": {
            "accelerator": "gpu" if args.device == "cuda" else args.device, "devices": 1, "precision": precision,
            "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
        },
    }  # fmt: skip


def fit(args, folder, network, precision):
    """Fits: two epochs with the backbone frozen and its features cached, one unfrozen."""
    content = configuration(args, network, precision)
    content["data"]["labels"] = str(folder / "labels.csv")
    content["optimizer"] = {"class_path": "torch.optim.SGD", "init_args": {"lr": 1e-3}}
    content["trainer"] |= {
        "max_epochs": 3, "num_sanity_val_steps": 0, "default_root_dir": str(folder / network),
        "callbacks": [
            {"class_path": "BackboneFinetuning", "init_args": {"unfreeze_backbone_at_epoch": 2}},
            {"class_path": "FrozenFeatureCache", "init_args": {"dir": str(folder / f"features_{network}_{precision}")}},
            {"class_path": "ModelCheckpoint", "init_args": {"dirpath": str(folder / network), "save_last": True}},
            {"class_path": "gpu.Clock"},
        ],
    }  # fmt: skip
    (folder / network).mkdir(exist_ok=True)
    return run(folder, "fit", content)


def predict(args, folder, network, precision, compiled):
    """Predicts the clips."""
    content = configuration(args, network, precision)
    content["data"]["videos"] = str(folder / "clips")
    content["ckpt_path"] = str(folder / network / "last.ckpt")
    writer = {"output_dir": str(folder / f"out_{network}_{precision}_{compiled}"), "overwrite": True}
    writer["formats"] = [{"class_path": "zamba_lcli.callbacks.CSVPredictions"}]
    content["trainer"]["callbacks"] = [
        {"class_path": "WritePredictions", "init_args": writer},
        {"class_path": "gpu.Clock", "init_args": {"compiled": compiled}},
    ]
    return run(folder, "predict", content)


def difference(args, network):
    """Returns the largest difference of probabilities between the device and the CPU, of two clips in float32."""
    from zamba_lcli import models

    kind, arguments, frames, size, _ = NETWORKS[network]
    torch.manual_seed(0)
    model = getattr(models, kind)(["a", "b", "c"], weights=None, task="multiclass", **arguments).eval()
    shape = (2, 3, args.frames or frames, args.size or size, args.size or size)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8)
    with torch.inference_mode():
        there = model.to(args.device)(clips.to(args.device)).softmax(1).cpu()
        return float((there - model.cpu()(clips).softmax(1)).abs().max())


def decode(path, device, frames):
    """Returns evenly spaced frames, uint8 (frames, 3, H, W), by torchcodec, and the seconds that takes."""
    from torchcodec.decoders import VideoDecoder

    start = time.perf_counter()
    decoder = VideoDecoder(str(path), device=device)
    indices = np.linspace(0, len(decoder) - 1, frames).round().astype(int).tolist()
    found = decoder.get_frames_at(indices).data.cpu()
    return found, time.perf_counter() - start, indices


def decode_with_av(path, indices):
    """Returns the same frames by PyAV, and the seconds that takes."""
    start = time.perf_counter()
    wanted, found = set(indices), []
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for index, frame in enumerate(container.decode(video=0)):
            if index in wanted:
                found.append(torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1))
    return torch.stack(found), time.perf_counter() - start


def compare_decoders(args, folder):
    """Prints frames/s of torchcodec and PyAV on the same clips, and how far their pictures differ."""
    print("\n| decoder | clips/s, one after the other | mean difference from PyAV, grey levels |")
    print("|---|---|---|")
    paths = sorted((folder / "clips").iterdir())[: min(DISTINCT, args.clips)]
    for device in dict.fromkeys(("cpu", args.device)):
        try:
            decode(paths[0], device, 32)
        except (ImportError, RuntimeError) as error:  # as torchcodec says that it, or its CUDA, is not there
            print(f"| torchcodec, {device} | not there: {str(error).strip().splitlines()[0][:60]} | |")
            continue
        seconds, reference, apart = 0.0, 0.0, []
        for path in paths:
            frames, taken, indices = decode(path, device, 32)
            same, with_av = decode_with_av(path, indices)
            seconds, reference = seconds + taken, reference + with_av
            apart.append(float((frames.float() - same.float()).abs().mean()))
        print(f"| torchcodec, {device} | {len(paths) / seconds:.2f} | {np.mean(apart):.3f} |")
        print(f"| PyAV | {len(paths) / reference:.2f} | |")


def main():
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--clips", type=int, default=192)
    parser.add_argument("--seconds", type=int, default=8, help="length of a clip")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="separated by commas")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--frames", type=int, help="those of the recipes if left out")
    parser.add_argument("--size", type=int, help="those of the recipes if left out")
    parser.add_argument("--batch", type=int, help="8 if left out")
    parser.add_argument("--limit", type=float, default=450, help="seconds after which nothing more is begun")
    parser.add_argument("--folder", help="where clips and runs go; a temporary folder if left out")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch finds no GPU. --device cpu tries the script.")
    began = time.perf_counter()
    folder = Path(args.folder or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    machine = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    make_clips(folder, args.clips, args.seconds)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    print(f"{machine}, {os.cpu_count()} cores, torch {torch.__version__}, {args.clips} clips\n", flush=True)
    differences, left_out, rows = {}, [], []
    for network in args.networks.split(","):
        differences[network] = difference(args, network)
        for precision in ("32-true", "bf16-mixed"):
            if time.perf_counter() - began > args.limit:
                left_out.append(f"{network} {precision}")
                continue
            fitted = fit(args, folder, network, precision)
            head, unfrozen = fitted["epochs"][1], fitted["epochs"][-1]
            rows.append(
                [network, precision, f"fit: before epoch 1, with the pass over all clips: {fitted['before']:.1f} s"]
            )
            for title, epoch in (("head-only epoch, cached", head), ("unfrozen epoch", unfrozen)):
                rows.append([network, precision, title, *cells(epoch), f"{epoch['seconds']:.1f}"])
            for compiled in (False, True):
                if time.perf_counter() - began > args.limit:
                    left_out.append(f"{network} {precision} predict{', compiled' * compiled}")
                    continue
                found = predict(args, folder, network, precision, compiled)
                rows.append([network, precision, f"predict{', compiled' * compiled}", *cells(found), ""])
    print("\n| network | precision | what | clips/s | waiting | GB | s |\n" + "|---" * 7 + "|")
    for row in rows:
        print("|", " | ".join([*row, *[""] * (7 - len(row))]), "|")
    print("\n| network | largest difference from the CPU |\n|---|---|")
    for network, apart in differences.items():
        print(f"| {network} | {apart:.1e} |")
    compare_decoders(args, folder)
    if left_out:
        print(f"\nLeft out for want of time: {'; '.join(left_out)}.")
    print(f"\n{time.perf_counter() - began:.0f} s in all")
    if max(differences.values()) > TOLERANCE:
        sys.exit(f"a network differs from the CPU by more than {TOLERANCE}")


def cells(found):
    """Returns clips/s, waiting and memory as text."""
    return f"{found['clips/s']:.1f}", f"{found['waiting']:.0%}", f"{found['GB']:.1f}"


if __name__ == "__main__":
    sys.modules["gpu"] = sys.modules["__main__"]  # by which the configuration names the clock
    main()
