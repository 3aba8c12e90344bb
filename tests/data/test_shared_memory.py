"""Workers hand over batches in shared memory, of which there may be little."""

import os
import resource
import subprocess
import sys

import pytest

from helpers.paths import TINY
from helpers.tables import read_csv
from zamba_lcli.data import shared_memory
from zamba_lcli.data.shared_memory import workers_with_room

MB = 1_000_000


@pytest.mark.parametrize(
    ("wanted", "batch", "free", "expected"),
    [
        (3, 20 * MB, 32 * MB, 0),  # a container's
        (3, 20 * MB, 79 * MB, 0),  # two batches are handed out, and a worker holds two
        (3, 20 * MB, 80 * MB, 1),
        (3, 20 * MB, 159 * MB, 2),
        (3, 20 * MB, 1000 * MB, 3),
        (0, 20 * MB, 1000 * MB, 0),
    ],
)
def test_as_many_workers_as_have_room(wanted, batch, free, expected):
    assert workers_with_room(wanted, batch, 2, free) == expected


def test_no_worker_may_write_a_file_too_large(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (10 * MB, 10 * MB))
    assert workers_with_room(3, 20 * MB, 2, 1000 * MB) == 0
    assert workers_with_room(3, 9 * MB, 2, 1000 * MB) == 3


def test_fewer_workers_are_told_of(zamba, folder, monkeypatch, recwarn):
    monkeypatch.setattr("zamba_lcli.data.loaders.free_bytes", lambda: MB // 2)  # a batch of the run has 98 kB
    zamba("fit", "--trainer.max_epochs=1", "--data.num_workers=2")
    told = [str(warning.message) for warning in recwarn if "Shared memory" in str(warning.message)]
    assert len(told) == 2
    assert all("0 MB free" in text and "none of them are used" in text and "--shm-size" in text for text in told)


def test_none_where_it_is_not_mounted(monkeypatch, folder):
    monkeypatch.setattr(shared_memory, "SHARED_MEMORY", folder / "nowhere")
    assert shared_memory.free_bytes() == 0


def run_with(shm, clips, *more, before=""):
    """A fit with clips of the default size, three workers and so much shared memory; a hang ends after two minutes."""
    args = ["fit", "--config", str(TINY), "--data.labels", str(clips / "labels.csv"), "--data.num_workers=3"]
    args += ["--data.height=240", "--data.width=426", "--data.batch_size=2", "--data.sampling.num_frames=32"]
    args += ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.max_epochs=1", *more]
    command = " ".join([sys.executable, "-m", "zamba_lcli", *args])
    mount = f"mount -t tmpfs -o size={shm} tmpfs /dev/shm && {before} {command}"
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", mount],
        capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_a_container_with_little_shared_memory_does_not_hang(clips, folder):
    done = run_with("64m", clips)
    assert done.returncode == 0, done.stderr
    assert "none of them are used" in done.stderr
    assert len(read_csv(folder / "runs/tiny/version_0/splits.csv")) == 16
    done = run_with("400m", clips)
    assert done.returncode == 0, done.stderr
    assert "1 of them are used" not in done.stderr
    assert "2 of them are used" not in done.stderr
    done = run_with("200m", clips)
    assert done.returncode == 0, done.stderr
    assert "1 of them are used" in done.stderr


@pytest.mark.slow
def test_files_that_may_not_be_large_do_not_hang(clips, folder):
    done = run_with("1g", clips, before="ulimit -f 20000;")
    assert done.returncode == 0, done.stderr  # 10 MB: of 512 bytes, in sh
    assert "none of them are used" in done.stderr


@pytest.mark.slow
def test_a_worker_that_never_answers_ends_the_run(clips, folder):
    """The memory is taken by another program once the loader is made: the batches are lost, and nobody says so."""
    (folder / "sitecustomize.py").write_text(
        "import zamba_lcli.data.loaders as d\nd.free_bytes = lambda: 10**9\nd.ANSWER_WITHIN = 5\n"
    )
    more = ["--data.time_limit=5", "--data.check_clips=false", "--trainer.num_sanity_val_steps=0"]
    done = run_with("8m", clips, *more, before=f"PYTHONPATH={folder}:{os.environ.get('PYTHONPATH', '')}")
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("error: ") == 1
    assert "no clips came from the workers" in done.stderr
    assert "shared memory" in done.stderr
