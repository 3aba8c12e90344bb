"""Shards of a prediction: jobs that know nothing of each other, and the merge of their rows to one result."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.paths import TESTS
from helpers.tables import read_csv
from zamba_lcli.cli import main
from zamba_lcli.errors import InputError
from zamba_lcli.files import lock_file
from zamba_lcli.predictions.shards import Shard, parse_shard

SHARDS = Path("out/predictions.shards")
# forks the processes of four shards, kills that of shard 2 twice after its first rows, and lets all end
FOUR_JOBS = """
import json, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from helpers.predict_driver import end, start
args = json.loads(sys.argv[1])
shard = lambda n: [*args, f"--trainer.callbacks.shard={{n}}/4"]
rows = lambda: sum(f.read_bytes().count(b"\\n") for f in Path("out/predictions.shards").glob("2-of-4/*.jsonl"))
others = [child for n in (1, 3, 4) for child in start(1, shard(n))]
for _ in range(2):
    before, killed = rows(), start(1, shard(2))
    while rows() < before + 2: time.sleep(0.005)
    assert end(killed, signal.SIGKILL) == [-9]
assert end([*others, *start(1, shard(2))]) == [0] * 4
"""


@pytest.fixture
def videos(clips, folder):
    """A folder with 41 clips and two files that cannot be read."""
    good = sorted(path for path in clips.iterdir() if path.suffix == ".mp4")[:3]
    (folder / "many").mkdir()
    for i in range(43):
        if i in (7, 22):
            (folder / f"many/{i:03d}.mp4").write_text("no video")
        else:
            (folder / f"many/{i:03d}.mp4").symlink_to(good[i % 3])
    return folder / "many"


@pytest.fixture
def run(fitted, videos):
    """Runs a subcommand on the clips, with the given arguments of WritePredictions and more options."""

    def run(command, *more, output="out", **writer):
        main(arguments(fitted, command, *more, output=output, **writer))

    return run


def arguments(fitted, command, *more, output="out", **writer):
    writer = {"output_dir": output, "formats": '["CSVPredictions"]', **writer}
    return [
        command, "--ckpt_path", str(fitted / "checkpoints/last.ckpt"), "--data.videos", "many", "--data.num_workers=0",
        "--data.batch_size=4", "--trainer.accelerator=cpu", *more, "--trainer.callbacks+=WritePredictions",
        *(f"--trainer.callbacks.{key}={value}" for key, value in writer.items()),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "environment", "shard"),
    [
        ("3/100", {}, "3/100"),
        (" 1 / 1", {}, "1/1"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "99"}, "1/100"),
        (
            "auto",
            {
                "SLURM_ARRAY_TASK_ID": "30", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_MAX": "50",
                "SLURM_ARRAY_TASK_STEP": "10", "SLURM_ARRAY_TASK_COUNT": "5",
            },
            "3/5",
        ),
        ("auto", {"SGE_TASK_ID": "4", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "8", "SGE_TASK_STEPSIZE": "1"}, "4/8"),
        ("auto", {"AWS_BATCH_JOB_ARRAY_INDEX": "0", "AWS_BATCH_JOB_ARRAY_SIZE": "7"}, "1/7"),
        ("auto", {"BATCH_TASK_INDEX": "6", "BATCH_TASK_COUNT": "7"}, "7/7"),
        ("auto", {"SGE_TASK_ID": "undefined", "CLOUD_RUN_TASK_INDEX": "1", "CLOUD_RUN_TASK_COUNT": "2"}, "2/2"),
    ],
)  # fmt: skip
def test_shards_as_stated_or_as_of_a_job_array(text, environment, shard):
    assert str(parse_shard(text, environment)) == shard


@pytest.mark.parametrize("text", ["0/0", "5/3", "0/3", "3", "a/b", "-1/3", "1/3/5", "auto"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(InputError, match=r"WritePredictions: shard"):
        parse_shard(text, {})


def test_tasks_run_again_do_not_tell_how_many_there_were():
    again = {
        "SLURM_ARRAY_TASK_ID": "17", "SLURM_ARRAY_TASK_MIN": "4", "SLURM_ARRAY_TASK_MAX": "17", "SLURM_ARRAY_TASK_COUNT": "2"
    }  # fmt: skip
    with pytest.raises(InputError, match=r"2 tasks between 4 and 17.*shard: 17/17"):
        parse_shard("auto", again)


@pytest.mark.parametrize("clips", [0, 2, 43, 1000])
def test_each_clip_is_in_one_shard_and_neighbours_in_two(clips):
    held = np.array([Shard(number, 4).holds(clips) for number in range(1, 5)])
    assert (held.sum(axis=0) == 1).all()
    assert np.ptp(held.sum(axis=1)) <= 1
    assert not (held[:, 1:] & held[:, :-1]).any()


@pytest.mark.slow
def test_merged_equal_to_one_run(run, folder, refused, monkeypatch, capsys):
    run("predict", output="whole")
    refused(lambda: run("predict", shard="5/3"), "shard is '5/3'", "1/100")
    refused(lambda: run("merge"), "predictions.shards has no shards to merge", "output_dir")
    monkeypatch.setenv("AWS_BATCH_JOB_ARRAY_INDEX", "0")
    monkeypatch.setenv("AWS_BATCH_JOB_ARRAY_SIZE", "3")
    run("predict", shard="auto")
    run("predict", shard="3/3")
    assert "(shard 3/3; zamba merge" in capsys.readouterr().out
    refused(lambda: run("merge"), "clips without a row in shard 2/3 (14 of 14 clips)")
    refused(lambda: run("predict", "--data.height=30", shard="3/3"), "differed in: frames")
    run("predict", "--data.height=30", shard="2/3")
    refused(lambda: run("merge"), "differ from this command: shard 2/3 in frames")
    run("predict", shard="2/3", overwrite="true")
    with lock_file(SHARDS / "1-of-3/lock"):  # a lock of this process is no other's
        run("merge", shard="auto")
    assert Path("out/predictions.csv").read_bytes() == Path("whole/predictions.csv").read_bytes()
    assert [path.name for path in Path("out").iterdir()] == ["predictions.csv"]
    refused(lambda: run("predict", shard="1/3"), "predictions.csv exists already")


@pytest.mark.slow
def test_a_list_that_changed_and_two_divisions(run, videos, refused):
    run("predict", shard="1/2")
    shutil.copy(videos / "000.mp4", videos / "0000.mp4")
    refused(lambda: run("predict", shard="1/2"), "list of clips")
    run("predict", shard="2/2")
    refused(lambda: run("merge"), "shard 1/2 in list of clips")
    run("predict", shard="3/5", output="out")
    refused(lambda: run("merge"), "several divisions: of 2, of 5")


@pytest.mark.slow
def test_four_jobs_of_which_one_is_killed_twice(fitted, run, folder):
    run("predict", output="whole")
    args = json.dumps(arguments(fitted, "predict", "--data.batch_size=1", "--trainer.callbacks+=Speed"))
    script = FOUR_JOBS.format(tests=str(TESTS))
    subprocess.run([sys.executable, "-c", script, args], check=True, timeout=200)
    run("merge", "--data.batch_size=1")
    merged, whole = read_csv("out/predictions.csv"), read_csv("whole/predictions.csv")
    assert [(row["filepath"], row["status"], row["error"]) for row in merged] == [
        (row["filepath"], row["status"], row["error"]) for row in whole
    ]
    names = [name for name in whole[0] if name in ("antelope", "blank", "bird", "hog")]
    for row, other in zip(merged, whole, strict=True):
        for name in names if row["status"] == "ok" else ():
            assert float(row[name]) == pytest.approx(float(other[name]), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["1/2", None])
def test_two_processes_on_one_shard_refuse_each_other(fitted, run, folder, refused, shard):
    writer = {} if shard is None else {"shard": shard}
    rows = "out/predictions.partial" if shard is None else "out/predictions.shards/1-of-2"
    hold = (
        "import sys; from pathlib import Path; from zamba_lcli.predictions.spool import Spool\n"
        f"spool = Spool(Path({rows!r})); spool.claim(); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        refused(lambda: run("predict", **writer), f"{rows}: another process is predicting into it")
        if shard is not None:
            run("predict", shard="2/2")
            refused(lambda: run("merge"), "shard 1/2 still at work")
        other.kill()
    run("predict", **writer)
