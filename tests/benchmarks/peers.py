"""What the benchmarks of fine-tuning and predicting share: the clips, the common start, zamba's side, the memory meter."""

import csv
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

FRAMES, SIZE = 32, 224
CLASSES = ["blank", "hopper", "pacer", "walker"]


def make_clips(folder, per_class=8, seconds=8):
    """Renders 720p H.264 clips of the four demonstration classes, the last quarter of each for val, and labels.csv."""
    from zamba_lcli.data import DemoClips

    labels = folder / f"labels_{per_class}.csv"
    if labels.exists():
        return labels
    demo = DemoClips(str(folder / f"small_{per_class}"), clips_per_class=per_class)
    demo.render()
    rows, seen = [], dict.fromkeys(CLASSES, 0)
    for row in demo.rows():
        name = f"{Path(row['filepath']).stem}_{per_class}.mp4"
        seen[row["label"]] += 1
        split = "val" if seen[row["label"]] > per_class * 3 // 4 else "train"
        rows.append({"filepath": name, "label": row["label"], "split": split})
        source = demo.data_dir / row["filepath"]
        command = ["ffmpeg", "-v", "error", "-y", "-stream_loop", "-1", "-i", str(source), "-t", str(seconds)]
        command += ["-vf", "scale=1280:720", "-r", "30", "-c:v", "libx264", "-preset", "veryfast", "-g", "60", "-an"]
        subprocess.run([*command, "-pix_fmt", "yuv420p", str(folder / name)], check=True)
    with labels.open("w", newline="") as file:
        table = csv.DictWriter(file, ["filepath", "label", "split"])
        table.writeheader()
        table.writerows(rows)
    return labels


def make_weights(path, seed=0):
    """Saves random weights of SlowFast R50 for both sides, as zamba saves its checkpoints."""
    import torch

    from zamba_lcli.models import SlowFast

    torch.manual_seed(seed)
    model = SlowFast(CLASSES, weights=None)
    # with statistics that fit the weights, as trained networks have them: else features hardly depend on the clip
    model.base.train()
    with torch.no_grad():
        for layer in model.base.modules():
            if isinstance(layer, torch.nn.BatchNorm3d):
                layer.momentum = None
        model(torch.randint(0, 256, (2, 3, FRAMES, SIZE, SIZE), dtype=torch.uint8))
    state = {key: value for key, value in model.state_dict().items() if key.startswith(("base.", "backbone.", "head."))}
    hparams = {
        "species": CLASSES,
        "num_classes": len(CLASSES),
        "model_class": "SlowFast",
        "lr": 0.001,
        "scheduler": None,
    }
    torch.save({"state_dict": state, "hyper_parameters": hparams, "pytorch-lightning_version": "2.6.6"}, path)
    return path


def zamba_without_downloads():
    """Lets zamba build its SlowFast from the installed pytorchvideo instead of a download."""
    from pytorchvideo.models.hub import slowfast_r50
    from zamba.models import slowfast_models

    def initialize(self):
        base = slowfast_r50(pretrained=False)
        self._backbone_output_dim = base.blocks[-1].proj.in_features
        base.blocks = base.blocks[:-1]
        self.backbone = base.blocks[-2:]
        self.base = base

    slowfast_models.SlowFast.initialize_from_torchub = initialize
    return slowfast_models.SlowFast


class Memory(threading.Thread):
    """Watches the memory of a process and its children: the largest sum of what each has for itself (private, not files)."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak = pid, 0

    def run(self):
        while Path(f"/proc/{self.pid}").exists():
            self.peak = max(self.peak, sum(_anonymous(pid) for pid in _tree(self.pid)))
            time.sleep(1.0)  # looking costs what is measured beside it: 0.2 s took a tenth of the speed


def _tree(pid):
    yield pid
    try:
        children = [int(c) for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield from _tree(child)


def _anonymous(pid):
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    kept = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return kept.get("Pss_Anon", 0) + kept.get("Pss_Shmem", 0)


def run(command, log):
    """Runs a command; returns its seconds and its peak memory in MB."""
    start = time.perf_counter()
    with open(log, "w") as file:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        memory = Memory(process.pid)
        memory.start()
        code = process.wait()
    if code:
        sys.exit(f"{' '.join(map(str, command))}\n{Path(log).read_text()[-4000:]}")
    return time.perf_counter() - start, memory.peak / 1024
