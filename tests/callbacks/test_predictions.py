"""Predictions of many clips: runs that are killed and go on, several processes, and what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from helpers.paths import TESTS
from helpers.tables import read_csv
from zamba_lcli.callbacks import ClipProgressBar, Speed, WritePredictions
from zamba_lcli.cli import main
from zamba_lcli.cli.trainer import callback_priority
from zamba_lcli.data import DemoClips
from zamba_lcli.errors import InputError
from zamba_lcli.predictions.formats import PredictedPart, PredictedRow
from zamba_lcli.predictions.spool import HEADER, Spool, append

DRIVER = TESTS / "helpers/predict_driver.py"


@pytest.fixture
def many(clips, folder):
    """A folder with 90 clips and three files that cannot be read."""
    good = sorted(path for path in clips.iterdir() if path.suffix == ".mp4")[:3]
    (folder / "many").mkdir()
    for i in range(93):
        if i % 31 == 7:
            (folder / f"many/{i:03d}.mp4").write_text("no video")
        else:
            (folder / f"many/{i:03d}.mp4").symlink_to(good[i % 3])
    return folder / "many"


def arguments(fitted, videos, output):
    writer = ["--trainer.callbacks+=WritePredictions", f"--trainer.callbacks.output_dir={output}"]
    small = ["--data.batch_size=1", "--data.num_workers=0", "--trainer.accelerator=cpu"]
    return [
        "predict",
        "--ckpt_path",
        str(fitted / "checkpoints/last.ckpt"),
        "--data.videos",
        str(videos),
        *small,
        *writer,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_twenty_random_moments(fitted, many, folder, processes):
    main(arguments(fitted, many, "undisturbed"))
    command = [sys.executable, str(DRIVER), "out", str(processes), "20", "0", *arguments(fitted, many, "out")]
    command += [] if processes == 1 else [f"--trainer.devices={processes}", "--trainer.strategy=ddp"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert ended.returncode == 0, ended.stderr + Path("log0.txt").read_text()[-3000:]
    counts, codes = json.loads(ended.stdout)
    assert codes == [0] * processes, "".join(path.read_text()[-3000:] for path in Path().glob("log*.txt"))
    assert counts[:-1] == sorted(counts[:-1])  # what is written stays
    assert counts[-2] > 15
    rows, expected = read_csv("out/predictions.csv"), read_csv("undisturbed/predictions.csv")
    assert [row["filepath"] for row in rows] == [f"{i:03d}.mp4" for i in range(93)]
    assert [row["status"] for row in rows].count("failed") == 3
    for row, other in zip(rows, expected, strict=True):
        assert (row["status"], row["error"]) == (other["status"], other["error"])
        for name in DemoClips.class_names if row["status"] == "ok" else ():
            assert float(row[name]) == pytest.approx(float(other[name]), abs=1e-5)
    # the last kill may come while what is no longer needed is being deleted
    assert {path.name for path in Path("out").iterdir()} <= {
        "predictions.csv",
        "report.html",
        "predictions.partial.done",
    }


def interrupted(fitted, videos, output="out"):
    """Leaves what a run leaves that was killed after some clips."""
    child = [sys.executable, str(DRIVER), output, "1", "1", "0", *arguments(fitted, videos, output)]
    script = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r}); from helpers import predict_driver as d; import time\n"
        f"from pathlib import Path; out = Path({output!r}); run = d.start(1, {child[6:]!r})\n"
        "while d.rows_in(out) < 5: time.sleep(0.01)\n"
        "d.end(run, 9)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)
    return Path(output) / "predictions.partial"


@pytest.mark.slow
def test_another_checkpoint_does_not_go_on_with_the_first_ones_rows(fitted, many, folder, refused, capsys):
    left = interrupted(fitted, many)
    kept = {path.name: path.read_bytes() for path in left.iterdir()}
    other = torch.load(fitted / "checkpoints/last.ckpt", weights_only=True)
    for key, value in other["state_dict"].items():
        if key.startswith("head.") and key.endswith("bias"):
            value += 1.0 * torch.arange(len(value))
    torch.save(other, "other.ckpt")
    args = arguments(fitted, many, "out")
    args[2] = "other.ckpt"
    refused(lambda: main(args), "not finished", "weights", "overwrite")
    refused(lambda: main([*arguments(fitted, many, "out"), "--data.height=30"]), "not finished", "frames")
    assert {path.name: path.read_bytes() for path in left.iterdir()} == kept
    main([*args, "--trainer.callbacks.overwrite=true"])
    alone = arguments(fitted, many, "alone")
    alone[2] = "other.ckpt"
    main(alone)
    assert Path("out/predictions.csv").read_bytes() == Path("alone/predictions.csv").read_bytes()


@pytest.mark.slow
def test_the_rows_of_other_clips_or_crops_are_not_taken(fitted, many, folder, refused):
    interrupted(fitted, many)
    shutil.copytree(many, "others", symlinks=True)
    refused(lambda: main(arguments(fitted, "others", "out")), "not finished", "clips")
    refused(lambda: main([*arguments(fitted, many, "out"), "--data.width=64", "--data.num_crops=3"]), "crops")


def test_so_many_batches_only(fitted, many, folder):
    main([*arguments(fitted, many, "out"), "--trainer.limit_predict_batches=1"])
    assert len(read_csv("out/predictions.csv")) == 1


def test_output_that_is_no_number_is_no_prediction(fitted, many, folder, capsys):
    broken = torch.load(fitted / "checkpoints/last.ckpt", weights_only=True)
    for key, value in broken["state_dict"].items():
        if key.startswith("head."):
            value.fill_(float("nan"))
    torch.save(broken, "broken.ckpt")
    args = arguments(fitted, many, "out")
    args[2] = "broken.ckpt"
    with pytest.raises(SystemExit) as exit_info:
        main(args)
    assert exit_info.value.code == 1
    assert "no clip could be predicted" in capsys.readouterr().err
    rows = read_csv("out/predictions.csv")
    assert {row["status"] for row in rows} == {"failed"}
    assert sum("not a number" in row["error"] for row in rows) == 90


@pytest.mark.slow
def test_goes_on_and_tries_again_what_failed(fitted, many, folder, capsys):
    left = interrupted(fitted, many)
    lines = b"".join(path.read_bytes() for path in sorted(left.glob("*.jsonl"))).splitlines()
    done = len(lines)
    shutil.copy(many / "000.mp4", folder / "mended.mp4")
    (many / "007.mp4").unlink()
    shutil.move("mended.mp4", many / "007.mp4")
    main(arguments(fitted, many, "out"))
    was_bad = sum(json.loads(line)["error"] != "" for line in lines)
    assert f"91 clips predicted, {done - was_bad} of them by the run before, 2 failed" in capsys.readouterr().out
    rows = read_csv("out/predictions.csv")
    assert [row["status"] for row in rows].count("failed") == 2
    assert rows[7]["status"] == "ok"


def test_a_torn_line_does_not_count(folder):
    spool = Spool(folder / "spool")
    assert spool.begin({"weights": "a"}, discard=False) == 0
    rows = BytesIO()
    append(rows, [PredictedRow(name, "", error="gone") for name in ("a.mp4", "b.mp4")])
    with spool.open(0, 0) as file:
        file.write(rows.getvalue()[:-20])
    assert spool.begin({"weights": "a"}, discard=False) == 1
    found = spool.find(["a.mp4", "b.mp4"])
    assert found.there.tolist() == [True, False]


def test_does_not_overwrite_unless_told_to(fitted, clips, folder, refused):
    Path("out").mkdir()
    Path("out/predictions.csv").write_text("mine")
    args = arguments(fitted, clips / "labels.csv", "out")
    refused(lambda: main(args), "predictions.csv exists already", "overwrite")
    assert Path("out/predictions.csv").read_text() == "mine"
    main([*args, "--trainer.callbacks.overwrite=true"])
    assert len(read_csv("out/predictions.csv")) == 16


def test_the_input_is_never_written_over(fitted, clips, folder, refused):
    Path("out").mkdir()
    table = "filepath\n" + "\n".join(row["filepath"] for row in read_csv(clips / "labels.csv"))
    Path("out/predictions.csv").write_text(table)
    overwrite = [f"--data.data_dir={clips}", "--trainer.callbacks.overwrite=true"]
    refused(
        lambda: main([*arguments(fitted, "out/predictions.csv", "out"), *overwrite]), "predictions.csv", "output_dir"
    )
    assert Path("out/predictions.csv").read_text() == table
    writer = WritePredictions("out", overwrite=True)
    writer.run = SimpleNamespace(paths=[Path("out/package/a.mp4")])
    with pytest.raises(InputError, match="another output_dir"):
        writer._spare_input(Path("out/package"), "out")


def test_wrong_input_in_a_process_that_reads_clips_is_one_message(fitted, clips, folder, capsys):
    Path("odd.py").write_text("def scores(frames):\n    return frames\n")
    more = ["--data.sampling=HighestScores", "--data.sampling.scorer=odd.scores", "--data.sampling.num_frames=8"]
    with pytest.raises(SystemExit) as exit_info:
        main([*arguments(fitted, clips, "out"), *more, "--data.num_workers=1"])
    message = capsys.readouterr().err.partition("error: ")[2]
    assert exit_info.value.code == 2
    assert message.startswith("data.sampling.init_args.scorer: it gave scores of the shape")
    assert len(message.splitlines()) == 1


def test_a_table_brings_its_sites(fitted, clips, folder, predict):
    source = read_csv(clips / "labels.csv")[:4]
    sites = ["north", "north", "", "süd"]
    lines = [f"{clips / row['filepath']},{site}" for row, site in zip(source, sites, strict=True)]
    Path("list.csv").write_text("\n".join(["filepath,site", *lines]), encoding="utf-8")
    rows = predict(fitted / "checkpoints/last.ckpt", "list.csv", "--data.allow_outside_data_dir=true")
    assert [row["site"] for row in rows] == sites
    assert [row["filepath"] for row in rows] == [str(clips / row["filepath"]) for row in source]


def test_a_table_as_spreadsheets_save_it(fitted, clips, folder, predict, refused):
    names = [row["filepath"] for row in read_csv(clips / "labels.csv")[:2]]
    text = "\n".join(["site;filepath", *(f"Süd;{name}" for name in names)])
    Path("list.csv").write_bytes(text.encode("cp1252"))
    refused(lambda: predict(fitted / "checkpoints/last.ckpt", "list.csv"), "data.videos", "list.csv", "UTF-8")
    Path("list.csv").write_text(text, encoding="utf-8")
    rows = predict(fitted / "checkpoints/last.ckpt", "list.csv", f"--data.data_dir={clips}")
    assert [(row["filepath"], row["site"], row["status"]) for row in rows] == [(name, "Süd", "ok") for name in names]


@pytest.mark.slow
def test_those_that_are_done_first_wait_for_the_others(fitted, many, folder):
    """The second process needs longer than torch lets processes be apart, here 10 seconds."""
    for path in sorted(many.iterdir())[4:]:
        path.unlink()
    Path("slow.py").write_text(
        "import os, time\ndef scores(frames):\n"
        "    time.sleep(8 * int(os.environ['RANK']))\n"
        "    return frames.mean(axis=(1, 2, 3))\n"
    )
    sampling = ["--data.sampling=HighestScores", "--data.sampling.scorer=slow.scores", "--data.sampling.num_frames=8"]
    two = ["--trainer.devices=2", "--trainer.strategy=DDPStrategy", "--trainer.strategy.timeout=0:00:10"]
    script = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r}); from helpers import predict_driver as d\n"
        f"print(d.end(d.start(2, {[*arguments(fitted, many, 'out'), *sampling, *two]!r})))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=150)
    assert ended.stdout.strip() == "[0, 0]", "".join(path.read_text()[-3000:] for path in Path().glob("log*.txt"))
    assert [row["status"] for row in read_csv("out/predictions.csv")] == ["ok"] * 4


def test_the_clock_comes_last():
    callbacks = sorted([Speed(), WritePredictions(), ClipProgressBar()], key=callback_priority)
    assert isinstance(callbacks[-1], Speed)  # what the others do after a batch is work, not waiting for clips


@pytest.mark.slow
def test_terminated_it_keeps_what_is_done(fitted, many, folder):
    script = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r}); from helpers import predict_driver as d; import time\n"
        f"from pathlib import Path; run = d.start(1, {arguments(fitted, many, 'out')!r})\n"
        "while d.rows_in(Path('out')) < 5: time.sleep(0.01)\n"
        f"print(d.end(run, {int(signal.SIGTERM)}))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert ended.stdout.strip() == "[143]", ended.stdout + ended.stderr
    assert not Path("out/predictions.csv").exists()
    assert len(list(Path("out/predictions.partial").glob("*.jsonl"))) == 1


def test_any_single_bit_of_what_is_kept_of_a_killed_run_may_be_wrong(folder):
    clip = PredictedRow("a.mp4", "", [0.25, 0.75], [PredictedPart([0.25, 0.75], [0.0, 1.0], [0, 8])])
    spool = Spool(folder / "spool")
    spool.begin({"weights": "x"}, discard=False)
    with spool.open(0, 0) as file:
        append(file, [clip, replace(clip, filepath="b.mp4")])
    path = next(spool.folder.glob("*.jsonl"))
    for kept in (path, spool.folder / HEADER):
        content = kept.read_bytes()
        for bit in range(0, 8 * len(content), 7):  # each place of a byte comes in turn
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            kept.write_bytes(damaged)
            if kept == path:
                found = spool.find(["a.mp4", "b.mp4"])
                assert found.there.sum() < 2  # a row with a wrong bit is no row
                assert all(row.parts == clip.parts for row in spool.read(found, ["a.mp4", "b.mp4"], [Path()] * 2, None))
            else:
                assert spool.begin({"weights": "x"}, discard=False) == 0  # begins anew
        kept.write_bytes(content)
