"""Memory of predicting very many clips: it must not grow with their number.

    python tests/benchmarks/predict_many.py --clips 5000

A small network and links to a few small clips, so that only what is kept of each clip counts; a hundredth of the files are no
clips. Memory is the largest sum, over the process and its workers, of what is not backed by files; the peer is the same run on
half of the clips. The table, the page and MegaDetector's format are written.
"""

import argparse
import csv
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import peers


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=5000)
    args = parser.parse_args()
    base = Path(tempfile.mkdtemp())
    import torch
    import yaml

    from zamba_lcli.data import DemoClips
    from zamba_lcli.models import SlowFast

    demo = DemoClips(str(base / "demo"), clips_per_class=3)
    demo.render()
    sources = sorted((base / "demo").glob("*.mp4"))
    model = SlowFast(peers.CLASSES, weights=None, model_depth=18, stem_dim_outs=(8, 2))
    hparams = {"species": peers.CLASSES}
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": hparams}, base / "w.ckpt")
    names = ("CSVPredictions", "HTMLReport", "MegaDetectorJSON")
    formats = [{"class_path": f"zamba_lcli.callbacks.{name}"} for name in names]
    print("| clips | s | clips/s | peak MB | rows |\n|---|---|---|---|---|")
    for number in (args.clips // 2, args.clips):
        folder = base / f"clips{number}"
        folder.mkdir()
        for i in range(number):
            target = folder / f"{i // 1000:03d}/{i:07d}.mp4"
            target.parent.mkdir(exist_ok=True)
            if i % 100 == 50:
                target.write_text("no video")
            else:
                target.hardlink_to(sources[i % len(sources)])
        writer = {"output_dir": str(base / f"out{number}"), "formats": formats}
        network = {"weights": str(base / "w.ckpt"), "model_depth": 18, "stem_dim_outs": [8, 2]}
        content = {
            "model": {"class_path": "SlowFast", "init_args": network},
            "data": {
                "height": 32, "width": 32, "batch_size": 8,
                "sampling": {"class_path": "EvenlySpaced", "init_args": {"num_frames": 8}},
            },
            "trainer": {
                "accelerator": "cpu", "logger": False,
                "callbacks": [{"class_path": "WritePredictions", "init_args": writer}],
            },
        }  # fmt: skip
        (base / "recipe.yaml").write_text(yaml.safe_dump(content))
        command = [
            sys.executable,
            "-m",
            "zamba_lcli",
            "predict",
            "--config",
            base / "recipe.yaml",
            "--data.videos",
            folder,
        ]
        seconds, memory = peers.run(list(map(str, command)), base / "log.txt")
        with (base / f"out{number}/predictions.csv").open(newline="") as file:
            rows = sum(1 for _ in csv.reader(file)) - 1
        print(f"| {number} | {seconds:.0f} | {number / seconds:.0f} | {memory:.0f} | {rows} |", flush=True)


if __name__ == "__main__":
    main()
