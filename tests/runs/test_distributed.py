"""Two processes against one with the joint batch."""

import os
import shutil
import socket
import subprocess
import sys
from functools import partial

import pytest
import torch
import yaml

from helpers.paths import TINY
from helpers.runs import EACH_STEP, close, cls, largest_difference, scalars, state
from helpers.tables import read_csv
from zamba_lcli.cli import main

MORE = {
    "model": {"init_args": {"loss": cls("SoftmaxFocalLoss"), "class_weights": "balanced"}},
    "data": {"clip_weights": cls("ClassBalanced")},
    "trainer": {
        "callbacks": [
            cls("BackboneFinetuning", unfreeze_backbone_at_epoch=1, backbone_initial_ratio_lr=0.5, train_bn=False),
            cls("EMAWeightAveraging", decay=0.8),
            cls("ModelCheckpoint", save_last=True),
            EACH_STEP,
        ],
        "max_epochs": 3,
    },
}


def command(clips, *args):
    data = ["--data.labels", "labels.csv", "--data.data_dir", str(clips)]
    return [sys.executable, "-m", "zamba_lcli", "fit", "--config", str(TINY), "--config", "more.yaml", *data, *args]


def run(*args, **env):
    done = subprocess.run(args, capture_output=True, text=True, timeout=200, check=False, env={**os.environ, **env})
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def one_process(zamba, clips, folder):
    """A run with 8 train and 3 val clips: an odd number for two processes."""
    (folder / "more.yaml").write_text(yaml.safe_dump(MORE))
    rows = (clips / "labels.csv").read_text().splitlines(keepends=True)
    first_val = next(row for row in rows if ",val," in row)
    walker = next(row for row in rows if ",walker,train," in row)
    rows[rows.index(walker)] = walker.replace(",walker,", ",blank,")
    (folder / "labels.csv").write_text("".join(row for row in rows if row != first_val))
    more = ["--config", "more.yaml", "--trainer.logger.name=one", "--data.batch_size=4", "--data.data_dir", clips]
    zamba("fit", *more, labels="labels.csv")
    return folder / "runs/one/version_0"


@pytest.mark.slow
def test_ddp_equals_one_process_with_the_joint_batch(one_process, clips, folder):
    two = ["--trainer.strategy=ddp", "--trainer.devices=2", "--data.batch_size=2"]
    run(*command(clips, "--trainer.logger.name=two", *two))
    assert close(state(one_process)["state_dict"], state(folder / "runs/two/version_0")["state_dict"]) < 1e-5
    ours, theirs = scalars(one_process), scalars(folder / "runs/two/version_0")
    assert ours.keys() == theirs.keys()
    for tag in ours:
        assert [step for step, _ in theirs[tag]] == [step for step, _ in ours[tag]]
        assert [v for _, v in theirs[tag]] == pytest.approx([v for _, v in ours[tag]], abs=1e-4)
    # interrupted in the middle of the epoch of the unfreeze, and resumed by two processes
    resume = ["--ckpt_path", "runs/two/version_0/checkpoints/step=3.ckpt", "--trainer.logger.name=resumed"]
    run(*command(clips, *two, *resume))
    resumed = state(folder / "runs/resumed/version_0")
    assert largest_difference(state(folder / "runs/two/version_0"), resumed) == 0


@pytest.mark.slow
def test_a_process_that_can_read_none_of_its_clips(clips, folder):
    shutil.copytree(clips, folder / "clips")
    header, *rows = (clips / "labels.csv").read_text().splitlines(keepends=True)
    train, val = [row for row in rows if ",train," in row][:4], [row for row in rows if ",val," in row][:2]
    (folder / "labels.csv").write_text("".join([header, *train, *val]))
    for row in (train[1], val[1]):
        (folder / "clips" / row.split(",")[0]).write_text("no video")
    callbacks = [cls("ModelCheckpoint", save_last=True), EACH_STEP]
    (folder / "more.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks, "max_epochs": 2}}))
    args = command(folder / "clips", "--data.check_clips=false", "--data.batch_size=1", "--data.num_workers=0")
    two = ["--trainer.strategy=ddp", "--trainer.devices=2"]
    log = run(*args, *two, "--trainer.logger.name=two").stderr
    assert "sync_dist" not in log
    assert "deprecated" not in log
    logged = scalars(folder / "runs/two/version_0")
    assert [step for step, _ in logged["train_loss"]] == [0, 1, 2, 3]
    # the mean over the clips that could be read: two in one step of an epoch, one in the other
    losses = [loss for _, loss in logged["train_loss"]]
    means = {round((a * losses[0] + (3 - a) * losses[1]) / 3, 5) for a in (1, 2)}
    assert round(logged["train_loss_epoch"][0][1], 5) in means
    # resumed after an epoch's last batch, where but one process has the counts of the epoch
    resume = ["--ckpt_path", "runs/two/version_0/checkpoints/step=2.ckpt", "--trainer.logger.name=resumed"]
    run(*args, *two, *resume)
    resumed = folder / "runs/resumed/version_0"
    assert largest_difference(state(folder / "runs/two/version_0"), state(resumed)) == 0
    assert scalars(resumed)["train_loss_epoch"] == logged["train_loss_epoch"]
    assert scalars(resumed)["val_loss"] == logged["val_loss"]


def run_on_two_nodes(*args):
    """Runs a command by torchrun on two nodes that are one machine, with a process each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch = ["--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={port}"]
    two = ["--trainer.strategy=ddp", "--trainer.devices=1", "--trainer.num_nodes=2"]
    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", f"--node_rank={rank}", *launch, *args, *two],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [node.communicate(timeout=200)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], errors


@pytest.mark.slow
def test_two_nodes_with_torchrun(one_process, clips, folder):
    run_on_two_nodes(*command(clips, "--trainer.logger.name=nodes", "--data.batch_size=2")[1:])
    assert close(state(one_process)["state_dict"], state(folder / "runs/nodes/version_0")["state_dict"]) < 1e-5


@pytest.mark.slow
def test_two_nodes_predict_each_clip_once(fitted, clips, folder):
    expected = {path.name for path in clips.iterdir() if path.suffix in (".avi", ".mp4")}
    (folder / "list.csv").write_text("\n".join(["filepath", *sorted(expected), "gone.mp4"]))
    checkpoint = ["--ckpt_path", str(fitted / "checkpoints/last.ckpt")]
    data = ["--data.videos=list.csv", f"--data.data_dir={clips}", "--data.num_workers=0", "--trainer.accelerator=cpu"]
    tables = []
    for launch in (lambda *args: run_on_two_nodes("-m", "zamba_lcli", *args), lambda *args: main(list(args))):
        launch("predict", *checkpoint, *data)
        tables.append(read_csv(folder / "list_predictions/predictions.csv"))
        shutil.rmtree(folder / "list_predictions")
    two, one = tables
    assert [row["filepath"] for row in two] == [*sorted(expected), "gone.mp4"]
    assert [row["status"] for row in two] == [*["ok"] * len(expected), "failed"]
    assert torch.allclose(*(torch.tensor([float(r["walker"] or 0) for r in t]) for t in (one, two)), atol=1e-5)


@pytest.mark.slow
def test_predictions_and_metrics_count_each_clip_once(fitted, clips, folder):
    videos = folder / "videos"
    videos.mkdir()
    for path in sorted(clips.glob("*.avi"))[:5]:  # an odd number for two processes
        shutil.copy(path, videos)
    (videos / "broken.mp4").write_text("no video")
    checkpoint = [
        "--ckpt_path",
        str(fitted / "checkpoints/last.ckpt"),
        "--data.videos",
        str(videos),
        "--data.num_workers=0",
    ]
    tables = []
    two_processes = partial(run, sys.executable, "-m", "zamba_lcli")
    for processes, launch in ((1, lambda *args: main(list(args))), (2, two_processes)):
        more = ["--trainer.devices", str(processes), "--trainer.accelerator=cpu", "--trainer.strategy=auto"]
        launch("predict", *checkpoint, *more)
        tables.append(read_csv(folder / "videos_predictions/predictions.csv"))
        shutil.rmtree(folder / "videos_predictions")
    one, two = tables
    assert [row["filepath"] for row in one] == [row["filepath"] for row in two]
    assert [row["status"] for row in two].count("failed") == 1
    assert torch.allclose(*(torch.tensor([float(r["walker"] or 0) for r in t]) for t in tables), atol=1e-5)


@pytest.mark.slow
def test_wrong_input_is_told_once(folder):
    (folder / "labels.csv").write_text("filepath,label,split\na.mp4,x,train\nb.mp4,y,train\nc.mp4,y,val\n")
    (folder / "more.yaml").write_text("{}")
    done = subprocess.run(
        command(folder, "--trainer.strategy=ddp", "--trainer.devices=2"),
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1
    assert done.stderr.count("a.mp4: missing") == 1
    assert "Traceback" not in done.stderr
