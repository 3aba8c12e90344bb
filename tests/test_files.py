"""Files that are whole or not there."""

import os
from pathlib import Path

import pytest

from zamba_lcli.files import file_identity, remove_partial, replacing


def test_a_file_is_on_the_disk_before_it_takes_its_place(folder, monkeypatch):
    steps, sync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda number: (steps.append(os.readlink(f"/proc/self/fd/{number}")), sync(number))
    )
    monkeypatch.setattr(Path, "replace", lambda old, new: (steps.append("move"), replace(old, new))[1])
    Path("a.txt").write_text("old")
    with replacing(Path("a.txt")) as partial:
        partial.write_text("new", encoding="utf-8")
        assert Path("a.txt").read_text() == "old"
    assert Path("a.txt").read_text() == "new"
    assert steps == [str(folder / partial.name), "move", str(folder)]
    with replacing(Path("b.npz"), durable=False) as partial:
        partial.write_bytes(b"\0\1")
    assert Path("b.npz").read_bytes() == b"\0\1"
    assert steps[3:] == ["move"]
    assert sorted(os.listdir()) == ["a.txt", "b.npz"]


def write_half(path, error):
    with replacing(path) as partial:
        partial.write_text("ne")
        raise error


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_fails_leaves_the_old_file_and_nothing_else(folder, error):
    Path("a.txt").write_text("old")
    with pytest.raises(error):
        write_half(Path("a.txt"), error)
    assert os.listdir() == ["a.txt"]
    assert Path("a.txt").read_text() == "old"


def test_a_folder_takes_the_place_of_a_folder(folder):
    for text in ("old", "new"):
        with replacing(Path("package")) as partial:
            (partial / "deep").mkdir(parents=True)
            (partial / "deep" / text).write_text(text)
    assert os.listdir() == ["package"]
    assert os.listdir("package/deep") == ["new"]


def test_what_killed_processes_left_is_deleted_and_nothing_else(folder):
    kept = ["a.csv", ".b.csv.12.part", ".a.csv.part", ".a.csv.x.part"]
    for name in (*kept, ".a.csv.12.part"):
        Path(name).touch()
    Path(".a.csv.7.old").mkdir()
    remove_partial(Path("a.csv"))
    assert sorted(os.listdir()) == sorted(kept)


def test_a_file_that_changes_is_another_one(folder):
    path = Path("a.mp4")
    path.write_bytes(b"1")
    before = file_identity(path)
    assert before == file_identity(path.absolute())
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert file_identity(path) != before
