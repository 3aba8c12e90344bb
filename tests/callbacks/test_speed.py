"""Speed in TensorBoard and in a line on the console."""

import re
import time

import pytest

from helpers.runs import events_in
from helpers.tables import read_csv
from zamba_lcli.cli import main


def test_speed_is_logged_and_told(watched, clips, folder, fitted, capsys):
    scalars = events_in(watched)
    assert len(scalars.Scalars("speed/clips_per_second")) == 3
    assert all(event.value > 0 for event in scalars.Scalars("speed/clips_per_second"))
    assert all(0 <= event.value <= 1 for event in scalars.Scalars("speed/waiting_for_clips"))
    capsys.readouterr()
    start = time.perf_counter()
    args = ["--data.batch_size=1", "--data.num_workers=0", "--trainer.accelerator=cpu"]
    args += ["--trainer.callbacks+=WritePredictions", "--trainer.callbacks.output_dir=out"]
    main(["predict", "--ckpt_path", str(fitted / "checkpoints/last.ckpt"), "--data.videos", str(clips), *args])
    took = time.perf_counter() - start
    told = re.search(
        r"([\d.]+) clips/s, limited by (reading clips|computing): (\d+)% .* About 0:00:0", capsys.readouterr().out
    )
    assert told
    assert 16 / took < float(told[1]) < 2000
    assert len(read_csv("out/predictions.csv")) == 16


@pytest.mark.slow
def test_what_limits_is_told_right(zamba, folder, capsys, monkeypatch):
    from zamba_lcli.data.dataset import ClipDataset
    from zamba_lcli.models import SlowFast

    read, compute = ClipDataset._read, SlowFast.forward_trunk
    args = ["--data.batch_size=1", "--trainer.max_epochs=1", "--trainer.num_sanity_val_steps=0"]
    args += ["--trainer.limit_train_batches=5", "--trainer.limit_val_batches=1"]
    monkeypatch.setattr(ClipDataset, "_read", lambda *a: (time.sleep(0.6), read(*a))[1])
    zamba("fit", *args)
    assert re.search(r"limited by reading clips: [89]\d% ", capsys.readouterr().out)
    monkeypatch.setattr(ClipDataset, "_read", read)
    monkeypatch.setattr(SlowFast, "forward_trunk", lambda *a: (time.sleep(0.6), compute(*a))[1])
    zamba("fit", *args)
    assert re.search(r"limited by computing: \d% ", capsys.readouterr().out)
