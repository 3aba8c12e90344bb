"""Predicting: this project against zamba 2.7.2, one after the other, from the same checkpoint.

    python tests/benchmarks/predict.py --zamba ~/zamba-env/bin/python

zamba lives in an environment of its own: ``pip install 'zamba[video]==2.7.2'`` and the system's ffmpeg, which also renders
the clips. SlowFast R50 on 32 frames of 224 x 224, batches of 2. Speed: 64 clips of 720p of 8 seconds, the whole command and
without what it takes to start (a run on 4 of the clips is subtracted), zamba with the number of workers that suits it best
(``--zamba-workers``). Equality: 8 clips of 32 frames that are 224 x 224 in RGB already, so that neither the choice of frames
nor scaling nor colour is compared but the network. Memory is the largest sum, over a process and its workers, of what is not
backed by files.
"""

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import peers


def predict_with_zamba(weights, folder, table, out, workers):
    """Predicts with zamba; run with its python."""
    peers.zamba_without_downloads()
    from zamba.data.video import VideoLoaderConfig
    from zamba.models import model_manager
    from zamba.models.config import PredictConfig

    config = PredictConfig(
        data_dir=Path(folder), filepaths=Path(table), checkpoint=Path(weights), model_name=None, gpus=0,
        num_workers=int(workers), batch_size=2, save_dir=Path(out), skip_load_validation=True,
    )  # fmt: skip
    videos = VideoLoaderConfig(
        model_input_height=peers.SIZE, model_input_width=peers.SIZE, total_frames=peers.FRAMES, ensure_total_frames=True,
        evenly_sample_total_frames=True,
    )  # fmt: skip
    model_manager.predict_model(config, videos)


def recipe(folder, weights, precision, workers):
    """Writes the recipe of the same for this project and returns its path."""
    import yaml

    writer = {"output_dir": str(folder / "out"), "formats": [{"class_path": "zamba_lcli.callbacks.CSVPredictions"}]}
    content = {
        "model": {"class_path": "SlowFast", "init_args": {"weights": str(weights), "task": "multilabel"}},
        "data": {
            "height": peers.SIZE, "width": peers.SIZE, "batch_size": 2, "num_workers": workers,
            "class_names": peers.CLASSES,
        },
        "trainer": {
            "accelerator": "cpu", "precision": precision, "logger": False,
            "callbacks": [{"class_path": "WritePredictions", "init_args": writer}],
        },
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def rows_of(path):
    """Returns the probabilities by file name."""
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    columns = [rows[0].index(name) for name in peers.CLASSES]
    return {Path(row[0]).name: [float(row[i]) for i in columns] for row in rows[1:]}


def exact_clips(folder):
    """Renders clips that leave nothing to scale and nothing to round, and returns their table."""
    source = sorted(folder.glob("*_8.mp4"))[::4]
    (folder / "exact").mkdir(exist_ok=True)
    for path in source:
        target = folder / "exact" / path.name
        if not target.exists():
            command = ["ffmpeg", "-v", "error", "-y", "-stream_loop", "-1", "-i", str(path), "-frames:v", "32"]
            command += ["-vf", f"scale={peers.SIZE}:{peers.SIZE}", "-r", "30", "-an", "-c:v", "libx264rgb"]
            subprocess.run([*command, "-crf", "0", "-pix_fmt", "rgb24", str(target)], check=True)
    return write_table(folder / "exact.csv", [f"exact/{path.name}" for path in source])


def write_table(path, names):
    path.write_text("\n".join(["filepath", *names]) + "\n")
    return path


def main():
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zamba", help="python of an environment with zamba; without, zamba is left out")
    parser.add_argument("--zamba-workers", type=int, default=1)
    parser.add_argument("--workers", type=int, default=None, help="of this project; as many as it chooses if left out")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--only", help="names of the runs (zamba, fp32, bf16), separated by commas")
    parser.add_argument("--folder", help="where clips and runs go; a temporary folder if left out")
    parser.add_argument("--predict-zamba", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.predict_zamba:
        predict_with_zamba(*args.predict_zamba)
        return
    base = Path(args.folder or tempfile.mkdtemp())
    base.mkdir(exist_ok=True, parents=True)
    with peers.make_clips(base).open(newline="") as file:
        names = [row["filepath"] for row in csv.DictReader(file)]
    weights = peers.make_weights(base / "start.ckpt")
    while len(names) < args.clips:  # the same clips under other names
        name = f"again{len(names)}_{names[len(names) - 32]}"
        shutil.copy(base / names[len(names) - 32], base / name)
        names.append(name)
    tables = {
        "exact": exact_clips(base),
        "few": write_table(base / "few.csv", names[:4]),
        "all": write_table(base / "all.csv", names[: args.clips]),
    }
    found = {}
    print("| run | clips | whole, s | clips/s, whole | clips/s, started | peak MB |")
    print("|---" * 6 + "|")
    runs = {"zamba": None, "fp32": "32-true", "bf16": "bf16-mixed"}
    if args.zamba is None:
        runs.pop("zamba")
    if args.only:
        runs = {name: precision for name, precision in runs.items() if name in args.only.split(",")}
    reference = None
    for name, precision in runs.items():
        seconds = {}
        for kind, table in tables.items():
            folder = Path(tempfile.mkdtemp(dir=base))
            (folder / "out").mkdir()
            if precision is None:
                command = [
                    args.zamba,
                    __file__,
                    "--predict-zamba",
                    weights,
                    base,
                    table,
                    folder / "out",
                    args.zamba_workers,
                ]
                output = folder / "out/zamba_predictions.csv"
            else:
                path = recipe(folder, weights, precision, args.workers)
                command = [sys.executable, "-m", "zamba_lcli", "predict", "--config", path, "--data.videos", table]
                output = folder / "out/predictions.csv"
            seconds[kind], memory = peers.run(list(map(str, command)), folder / "log.txt")
            found[name, kind] = rows_of(output)
        whole = args.clips / seconds["all"]
        started = (args.clips - 4) / (seconds["all"] - seconds["few"])
        reference = reference or (whole, started)
        print(
            f"| {name} | {args.clips} | {seconds['all']:.1f} | {whole:.2f} ({whole / reference[0]:.1f} x) | "
            f"{started:.2f} ({started / reference[1]:.1f} x) | {memory:.0f} |",
            flush=True,
        )
    if "zamba" not in runs:
        return
    print("\n| run | largest difference of a probability, frames alike | of the clips of 720p |\n|---|---|---|")
    for name in runs.keys() - {"zamba"}:
        differences = [
            max(
                abs(p - q)
                for file, row in found[name, kind].items()
                for p, q in zip(row, found["zamba", kind][file], strict=True)
            )
            for kind in ("exact", "all")
        ]
        print(f"| {name} | {differences[0]:.1e} | {differences[1]:.1e} |")
        assert name == "bf16" or differences[0] < 1e-3, differences


if __name__ == "__main__":
    main()
