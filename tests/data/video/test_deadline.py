"""A read of a clip that never comes back costs that clip, and nothing else."""

import os
import shutil
import subprocess
import sys
import threading
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from helpers.marks import some_slow
from helpers.paths import TINY
from helpers.tables import read_csv
from helpers.video_files import numbered, numbers_in, write_video
from zamba_lcli.cli import main
from zamba_lcli.data import EvenlySpaced, HighestScores, listing
from zamba_lcli.data.labels.split_record import content_digest
from zamba_lcli.data.previews import read_previews
from zamba_lcli.data.video import deadline, packets
from zamba_lcli.data.video.reading import UnreadableClipError, probe, read_clip, read_timeline, try_clip, upright_size

SIZE = {"height": 48, "width": 64}
NO_ANSWER = "does not answer"
IN_TIME = 2  # seconds, in which a busy machine reads a small clip


@pytest.fixture
def stuck(monkeypatch):
    """Opens the clips with the given names never, until it is released; then, or after the test, those reads come back."""
    found = SimpleNamespace(names=set(), released=threading.Event(), opened=[])

    def opened(file, mode="r", *args, open_it=av.open, **kwargs):
        name = os.path.basename(str(file).removeprefix("file:"))
        if mode == "r":
            found.opened.append(name)
            if name in found.names:
                found.released.wait()
        return open_it(file, mode, *args, **kwargs)

    monkeypatch.setattr(av, "open", opened)
    monkeypatch.setattr(deadline, "SLACK", 0.05)
    monkeypatch.setattr(deadline, "_unanswered", {})
    yield found
    found.released.set()
    for thread in deadline._unanswered.values():
        thread.join()


@pytest.fixture
def two(folder, stuck):
    """A clip that is never opened, and one that is."""
    stuck.names.add("bad.mp4")
    return write_video(folder / "bad.mp4", numbered(6)), write_video(folder / "good.mp4", numbered(7))


def test_each_way_of_reading_gives_up(folder, stuck, monkeypatch):
    monkeypatch.setattr(deadline, "MAX_UNANSWERED", 100)
    for number, read in enumerate(
        (probe, try_clip, upright_size, lambda p, t: read_clip(p, EvenlySpaced(2), **SIZE, time_limit=t))
    ):
        stuck.names.add(f"{number}.mp4")
        with pytest.raises(UnreadableClipError, match=rf"within 0\.1 s: .*{NO_ANSWER}"):
            read(write_video(folder / f"{number}.mp4", numbered(6)), 0.1)


def test_the_next_clip_is_read_and_the_stuck_one_is_not_tried_again(two, stuck):
    bad, good = two
    for _ in range(2):
        with pytest.raises(UnreadableClipError, match=NO_ANSWER):
            read_clip(bad, EvenlySpaced(6), **SIZE, time_limit=0.1)
        assert numbers_in(read_clip(good, EvenlySpaced(7), **SIZE).frames) == list(range(7))
    assert stuck.opened.count("bad.mp4") == 1
    stuck.released.set()
    deadline._unanswered[bad].join()
    assert numbers_in(read_clip(bad, EvenlySpaced(6), **SIZE).frames) == list(range(6))


def test_threads_are_kept_for_the_next_clip(two):
    before = threading.active_count()
    for _ in range(5):
        read_timeline(two[1])
    assert threading.active_count() <= before + 1


def test_a_drive_that_is_gone_ends_the_reading(folder, stuck, two, monkeypatch):
    monkeypatch.setattr(deadline, "MAX_UNANSWERED", 2)
    stuck.names.add("other.mp4")
    for path in (two[0], write_video(folder / "other.mp4", numbered(6))):
        with pytest.raises(UnreadableClipError, match=NO_ANSWER):
            probe(path, 0.1)
    with pytest.raises(deadline.NoAnswerError, match=rf"2 clips .*{two[0]}.*other\.mp4"):
        probe(two[1])
    assert read_previews([two[1]]) == [None]  # a run that is done is not lost by them


def test_after_many_stuck_reads_others_are_first_asked_for_a_byte(folder, stuck, two, monkeypatch):
    monkeypatch.setattr(deadline, "MANY_UNANSWERED", 1)
    monkeypatch.setattr(deadline, "FIRST_BYTE", 0.1)
    stat = os.stat
    monkeypatch.setattr(
        os, "stat", lambda p, *a, **k: stuck.released.wait() if str(p).endswith("3.mp4") else stat(p, *a, **k)
    )
    with pytest.raises(UnreadableClipError, match=r"within 0\.05 s"):
        probe(two[0], 0.05)
    for number in range(2):
        stuck.names.add(f"{number}.mp4")
        with pytest.raises(UnreadableClipError, match=r"within 0\.2 s"):
            probe(write_video(folder / f"{number}.mp4", numbered(6)), 0.2)
    with pytest.raises(UnreadableClipError, match=r"within 0\.1 s"):
        probe(folder / "3.mp4", 60)
    with pytest.raises(UnreadableClipError, match="no such file"):
        probe(folder / "4.mp4", 60)
    assert numbers_in(read_clip(two[1], EvenlySpaced(7), **SIZE, time_limit=60).frames) == list(range(7))


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_twenty_stuck_clips_are_twenty_failed_rows(folder, stuck, fitted, predict, num_workers):
    bad = [f"bad{number:02}.mp4" for number in range(20)]
    stuck.names.update(bad)
    good = [f"good{number}.mp4" for number in range(3)]
    for name in [*bad, *good]:
        write_video(folder / name, numbered(8))
    arguments = [f"--data.num_workers={num_workers}", "--data.time_limit=0.5", "--data.batch_size=4"]
    rows = {row["filepath"]: row for row in predict(fitted / "checkpoints" / "last.ckpt", ".", *arguments)}
    assert {name: row["status"] for name, row in rows.items()} == dict.fromkeys(bad, "failed") | dict.fromkeys(
        good, "ok"
    )
    assert all(NO_ANSWER in rows[name]["error"] for name in bad)


@pytest.mark.parametrize(
    ("call", "command", "named"),
    some_slow(
        [
            ("lstat", "fit", "data.labels: the disk"),
            ("lstat", "table", "data.videos: the disk"),
            ("lstat", "check", "data.labels: the disk"),
            ("stat", "fit", "data.labels: the disk"),
            ("scandir", "folder", "data.videos: the disk"),
            ("stat", "folder", "data.videos: the disk"),
            ("listdir", "renamed", "data.labels: the disk"),
            ("stat", "folder itself", "data.videos: the disk"),
            ("stat", "labels", "data.labels: the disk"),
        ],
        [("stat", "fit", "data.labels: the disk"), ("scandir", "folder", "data.videos: the disk")],
        several=True,
    ),
)
def test_no_look_at_a_file_or_folder_waits_for_ever(clips, fitted, folder, monkeypatch, capfd, call, command, named):
    card = folder / "card"
    shutil.copytree(clips, card)
    names = [row["filepath"] for row in read_csv(card / "labels.csv")]
    (folder / "t.csv").write_text("\n".join(["filepath", *names]))
    at = card / names[3]
    if command == "folder":
        (at := card / "sub").mkdir()
    if command in ("folder itself", "labels"):
        at = card if command == "folder itself" else card / "labels.csv"
        monkeypatch.setattr(listing, "TIME_LIMIT", 0.3)
    if command == "renamed":
        at.rename(at.with_suffix(".MP4"))
        at = card
    released = threading.Event()
    of_os = getattr(os, call)

    def hangs(path=".", *args, **kwargs):
        if not isinstance(path, int) and os.path.normpath(path) == os.fspath(at):
            released.wait()
        return of_os(path, *args, **kwargs)

    monkeypatch.setattr(os, call, hangs)
    more = ["--data.data_dir", str(card), "--data.time_limit=0.3"]
    fit = ["fit", "--config", str(TINY), "--data.labels", str(card / "labels.csv")]
    predict = ["predict", "--ckpt_path", str(fitted / "checkpoints/last.ckpt"), "--data.videos"]
    words = {
        "fit": fit,
        "renamed": fit,
        "labels": fit,
        "folder itself": [*predict, str(card)],
        "check": ["check", "--data.labels", str(card / "labels.csv")],
        "table": [*predict, "t.csv"],
        "folder": [*predict, str(card)],
    }[command]
    try:
        with pytest.raises(SystemExit, match="1"):
            main([*words, *more])
        error = capfd.readouterr().err.partition("error: ")[2]
        assert error.startswith(named)
        assert f"within 0.3 s: {at}" in error
        assert len(error.strip().splitlines()) == 1
    finally:
        released.set()
    assert sorted(path.name for path in folder.iterdir()) == ["card", "t.csv"]


def test_what_is_in_a_file_is_not_waited_for(two, folder, monkeypatch):
    known = content_digest(two[1])
    released = threading.Event()
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, *a, **k: released.wait() if path == two[0] else stat(path, *a, **k))
    assert content_digest(two[0], 0.1) == bytes(16)
    assert content_digest(two[1], 0.1) == known
    released.set()


def test_previews_go_without(two):
    before, after = read_previews(two, time_limit=IN_TIME)
    assert before is None
    assert after is not None


def test_a_read_that_is_interrupted_is_left_alone(two, stuck, monkeypatch):
    reader = deadline._Reader()
    reader.answers = SimpleNamespace(get=lambda timeout: (_ for _ in ()).throw(KeyboardInterrupt), put=lambda _: None)
    monkeypatch.setattr(deadline, "_idle", [reader])
    with pytest.raises(KeyboardInterrupt):
        probe(two[1])
    reader.thread.join(60)
    assert not reader.thread.is_alive()
    assert deadline._idle == []


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_scorers_run_in_the_mode_of_the_caller(two, mode):
    modes = []

    def score(frames):
        modes.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.get_num_threads()))
        return np.zeros(len(frames))

    with mode():
        read_clip(two[1], Scored(score), **SIZE)
        assert modes == [(torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.get_num_threads())]


class Scored(HighestScores):
    """Takes any function."""

    def __post_init__(self):
        pass


def test_a_clip_of_too_many_packets_fails_alone(two, monkeypatch):
    monkeypatch.setattr(packets, "MAX_PACKETS", 7)
    assert len(read_timeline(two[1]).times) == 7
    monkeypatch.setattr(packets, "MAX_PACKETS", 6)
    with pytest.raises(UnreadableClipError, match="more than 6 frames: cut it"):
        read_timeline(two[1])


def test_a_clip_whose_list_of_frames_takes_too_much_memory_fails_alone(two, monkeypatch):
    def out_of_memory(*args):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(packets, "place_of", out_of_memory)
        with pytest.raises(UnreadableClipError, match="not enough memory"):
            read_timeline(two[1])
    assert len(read_timeline(two[1]).times) == 7


STUCK_IN_A_SYSTEM_CALL = """
import os
from pathlib import Path

from torch.utils.data import DataLoader

from zamba_lcli.data.video.deadline import UnreadableClipError, read_within


class Clips:
    def __len__(self):
        return 2

    def __getitem__(self, i):
        try:
            return read_within(Path("pipe"), 0.1, lambda _: len(os.read(os.open("pipe", os.O_RDWR), 1)))
        except UnreadableClipError:
            return 7


if __name__ == "__main__":
    answers = DataLoader(Clips(), num_workers=1, persistent_workers=True)
    assert [int(answer) for answer in answers] == [7, 7]
    assert Clips()[0] == 7
    raise SystemExit(5)
"""


@pytest.mark.slow
def test_processes_end_though_a_system_call_does_not(folder):
    os.mkfifo(folder / "pipe")  # nobody writes into it
    (folder / "run.py").write_text(STUCK_IN_A_SYSTEM_CALL)
    assert subprocess.run([sys.executable, "run.py"], timeout=120).returncode == 5


@pytest.mark.parametrize("num_workers", some_slow([0, 2], [2]))
def test_predict_gives_the_reason(two, stuck, fitted, predict, num_workers):
    arguments = [f"--data.num_workers={num_workers}", f"--data.time_limit={IN_TIME}"]
    rows = {row["filepath"]: row for row in predict(fitted / "checkpoints" / "last.ckpt", ".", *arguments)}
    assert rows["good.mp4"]["status"] == "ok"
    assert NO_ANSWER in rows["bad.mp4"]["error"]


@pytest.mark.parametrize("num_workers", some_slow([0, 2], [0]))
def test_fit_leaves_it_out(stuck, zamba, clips, num_workers):
    stuck.names.add(name := train_clip(clips))
    arguments = ["--data.check_clips=false", f"--data.num_workers={num_workers}", f"--data.time_limit={IN_TIME}"]
    zamba("fit", *arguments, "--trainer.max_epochs=1")
    (failed,) = read_csv("runs/tiny/version_0/failed.csv")
    assert failed["filepath"] == name
    assert NO_ANSWER in failed["reason"]


def test_fit_refuses_to_begin(stuck, zamba, clips, refused):
    stuck.names.add(name := train_clip(clips))
    refused(lambda: zamba("fit", f"--data.time_limit={IN_TIME}"), name, NO_ANSWER)


def test_check_has_a_row_for_it(stuck, clips, capfd):
    stuck.names.add(name := train_clip(clips))
    with pytest.raises(SystemExit, match="1"):
        main(["check", "--data.labels", str(clips / "labels.csv"), f"--data.time_limit={IN_TIME}"])
    (problem,) = read_csv("check.csv")
    assert problem["file"] == name
    assert NO_ANSWER in problem["what"]


@pytest.mark.parametrize("num_workers", some_slow([0, 2], [0]))
def test_predict_ends_where_the_drive_is_gone(two, stuck, fitted, predict, monkeypatch, capfd, num_workers):
    monkeypatch.setattr(deadline, "MAX_UNANSWERED", 1)
    with pytest.raises(SystemExit, match="1"):
        predict(
            fitted / "checkpoints" / "last.ckpt",
            ".",
            f"--data.num_workers={num_workers}",
            "--data.batch_size=2",
            f"--data.time_limit={IN_TIME}",
        )
    told = capfd.readouterr().err
    assert "error: the disk or network drive does not answer: 1 clips could not" in told
    assert "bad.mp4" in told
    assert "Traceback" not in told


def train_clip(clips):
    return next(row["filepath"] for row in read_csv(clips / "labels.csv") if row["split"] == "train")
