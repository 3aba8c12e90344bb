"""Folders to predict: all their clips, or an error; what systems put beside clips is passed over with a word."""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from zamba_lcli.cli import main
from zamba_lcli.data.folders import list_clips
from zamba_lcli.data.listing import find_videos
from zamba_lcli.errors import InputError


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


SYSTEM = [
    "__MACOSX/._a.mp4",
    ".Trash-1000/files/old.mp4",
    ".Trashes/501/old.mp4",
    "$RECYCLE.BIN/S-1-5-21/$R0ABC.mp4",
    "RECYCLER/S-1-5/Dc1.avi",
    "System Volume Information/x.mp4",
    "#recycle/old.mp4",
    "#snapshot/old.mp4",
    "@eaDir/a.mp4/SYNOPHOTO_FILM_M.mp4",
    "@Recycle/old.mp4",
    ".@__thumb/default.mp4",
    ".hidden/a.mp4",
    ".Spotlight-V100/a.mp4",
    ".fseventsd/a.mp4",
    "FOUND.000/FILE0000.MP4",
    "lost+found/a.mp4",
    "$RECYCLE.BIN /a.mp4",
    "@SynoEAStream/a.mp4",
    "@sharebin/a.mp4",
    "@__thumb/a.mp4",
    "files_trashbin/files/a.mp4.d1700000000/a.mp4",
    "files_versions/a.mp4",
    "Recycle Bin/a.mp4",
    "~$open/a.mp4",
    "~snapshot/a.mp4",
]


def test_what_systems_put_beside_clips_is_passed_over(folder, capsys):
    card = folder / "card"
    make(card, *SYSTEM, *(f"DCIM/{name}" for name in SYSTEM))
    make(
        card,
        "DCIM/100MEDIA/a.MP4",
        "b.avi",
        "._b.avi",
        ".half_copied.mp4.x",
        ".DS_Store",
        "recycled_paper/c.mp4",
        "d.Mp4 ",
    )
    make(card, "Thumbs.db", "x.mp4.part", "y.crdownload", "i.JPG", "j.jpg", "README")
    listing = list_clips(card)
    assert listing.names == ["DCIM/100MEDIA/a.MP4", "b.avi", "d.Mp4 ", "recycled_paper/c.mp4"]
    assert listing.system_folders == 2 * len(SYSTEM)
    assert listing.hidden_files == 1
    assert listing.endings == Counter({".jpg": 2, ".db": 1, ".part": 1, ".crdownload": 1, "": 1})
    assert f"{2 * len(SYSTEM)} folders of the system or hidden" in listing.passed_over()
    assert "6 files with other endings (2 .jpg, " in listing.passed_over()


def test_a_folder_called_trash_is_of_the_system_if_it_looks_so(folder):
    make(folder / "card", "Trash/info/a.trashinfo", "Trash/files/a.mp4", "class/trash/b.mp4", "~$c.mp4")
    listing = list_clips(folder / "card")
    assert (listing.names, listing.system_folders, listing.hidden_files) == (["class/trash/b.mp4"], 1, 1)


def test_hard_links_are_listed_once(folder):
    make(folder, "card/B/a.mp4", "card/B/b.mp4", "card/C/c.mp4", "elsewhere/d.mp4")
    card = folder / "card"
    (card / "A").mkdir()
    for name, of in (
        ("A/z.mp4", "B/a.mp4"),
        ("C/a.mp4", "B/a.mp4"),
        ("C/b.avi", "B/b.mp4"),
        ("A/d.mp4", "../elsewhere/d.mp4"),
    ):
        os.link(card / of, card / name)
    (card / "A/link.mp4").symlink_to("../C/a.mp4")
    listing = list_clips(card)
    assert listing.names == ["A/d.mp4", "A/z.mp4", "B/b.mp4", "C/c.mp4"]
    assert "4 links to clips that are there anyway" in listing.passed_over()


def test_files_that_only_share_a_number_are_not_one(folder, monkeypatch):
    make(folder, "card/a.mp4", "card/b.mp4")
    monkeypatch.setattr("zamba_lcli.data.folders._Inodes.repeated", lambda self: [[0, 1]])
    assert list_clips(folder / "card").names == ["a.mp4", "b.mp4"]


def test_a_hidden_folder_that_is_asked_for(folder):
    make(folder / ".cache/clips", "a.mp4")
    assert find_videos(".cache/clips").filepaths == ["a.mp4"]


def test_nothing_but_what_is_passed_over(folder):
    make(folder / "card", "#recycle/a.mp4", "x.dav")
    with pytest.raises(InputError, match=r"no clip in .*Passed over: 1 folder of the system.*1 \.dav"):
        find_videos("card")


def test_linked_folders_are_listed_once(folder):
    make(folder, "card/A/a.mp4", "disk2/site9/b.mp4", "disk2/site9/sub/c.mp4", "elsewhere/d.mp4")
    card = folder / "card"
    (card / "site9").symlink_to("../disk2/site9")
    (card / "zz").symlink_to("../disk2")  # has site9 in it
    (card / "A/self").symlink_to(".")
    (card / "A/up").symlink_to("../..")
    (card / "A/again").symlink_to("../A")
    (card / "A/link.mp4").symlink_to("../../disk2/site9/b.mp4")
    (card / "A/only.mp4").symlink_to("../../elsewhere/d.mp4")
    (card / "A/twice.mp4").symlink_to("only.mp4")
    (card / "loop").symlink_to("loop")
    listing = list_clips(card)
    assert listing.names == ["A/a.mp4", "A/only.mp4", "A/twice.mp4", "site9/b.mp4", "site9/sub/c.mp4"]
    assert (listing.repeated_links, listing.links_up) == (1, 1)
    (folder / "alias").symlink_to("card")
    assert list_clips(folder / "alias").names == listing.names


def test_a_link_to_a_drive_that_is_not_there(folder):
    make(folder, "card/a.mp4")
    (folder / "card/site9").symlink_to("/mnt/gone/site9")
    with pytest.raises(InputError, match=r"card/site9 leads to /mnt/gone/site9, which is not there"):
        find_videos("card")


def test_a_link_to_a_clip_that_is_not_there_is_told(folder):
    make(folder, "card/a.mp4")
    (folder / "card/b.mp4").symlink_to("gone.mp4")
    with pytest.warns(UserWarning, match=r"1 link to clips that are not there \(b\.mp4\)"):
        assert find_videos("card").filepaths == ["a.mp4"]


class BreaksOff:
    """A listing that fails after its first entry, as of a card that is pulled out."""

    def __init__(self, entries, error):
        self.entries, self.error = entries, error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.entries.close()

    def __iter__(self):
        yield next(self.entries)
        raise self.error


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), FileNotFoundError(2, "No such file or directory")])
def test_a_listing_that_breaks_off_is_no_shorter_result(folder, monkeypatch, error):
    make(folder, "card/A/a.mp4", "card/B/b.mp4", "card/B/c.mp4")
    real = os.scandir

    def scandir(path):
        return BreaksOff(real(path), error) if Path(path).name == "B" else real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError) as caught:
        find_videos("card")
    assert f"{folder / 'card/B'} cannot be listed: {error.strerror}" in str(caught.value)


SCRIPT = """
import os, sys
from zamba_lcli.data.listing import find_videos
from zamba_lcli.errors import InputError
if os.getuid() == 0:  # who may look everywhere
    os.setgid(65534); os.setuid(65534)
for card in sys.argv[1:]:
    try:
        print(find_videos(card).filepaths)
    except InputError as error:
        print(error)
"""
LOCKED = [
    ("no_list", 0o000, "no_list cannot be listed: Permission denied"),
    ("no_look", 0o444, "['no_look/b.mp4', 'ok/a.mp4']"),  # its clips cannot be read, which is reported for each clip
    (".", 0o000, "card2 cannot be listed: Permission denied"),
    ("lost+found", 0o000, "['ok/a.mp4']"),
]


@pytest.mark.slow
def test_folders_that_a_user_may_not_look_into():
    with tempfile.TemporaryDirectory() as base:  # that of a test is its user's alone
        os.chmod(base, 0o755)
        cards = [Path(base, f"card{number}") for number in range(len(LOCKED))]
        for card, (locked, mode, _) in zip(cards, LOCKED, strict=True):
            make(card, "ok/a.mp4", f"{locked}/b.mp4")
            (card / locked).chmod(mode)
        command = [sys.executable, "-c", SCRIPT, *map(str, cards)]
        done = subprocess.run(command, capture_output=True, text=True)
        for card, (locked, _, _) in zip(cards, LOCKED, strict=True):
            (card / locked).chmod(0o755)
    assert not done.returncode, done.stderr
    for line, (_, _, text) in zip(done.stdout.splitlines(), LOCKED, strict=True):
        assert text in line


def test_names_that_no_table_can_hold(folder):
    make(folder, "card/a.mp4")
    Path(os.fsdecode(os.fsencode(folder / "card") + b"/caf\xe9.mp4")).write_bytes(b"x")
    with pytest.raises(InputError, match=r"'caf\\udce9\.mp4' .*is not UTF-8"):
        find_videos("card")


def test_predict_stops_before_anything_is_written(fitted, folder, refused, monkeypatch):
    make(folder, "card/A/a.mp4", "card/B/b.mp4")
    real = os.scandir

    def scandir(path="."):
        if Path(path).name == "B":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    arguments = ["predict", "--ckpt_path", str(fitted / "checkpoints/last.ckpt"), "--data.videos", "card"]
    refused(lambda: main(arguments), folder / "card/B", "Permission denied")
    assert not (folder / "card_predictions").exists()


def test_a_table_for_predict_names_each_clip_once(clips, fitted, folder, predict):
    names = sorted(path.name for path in clips.glob("*.mp4"))[:2]
    (folder / "t.tsv").write_text(
        f"filepath\tsite\n{names[0]}\tNA\n./{names[0]}\tS1\n{clips / names[1]}\tS2\n{names[1]}\tS2\n"
    )
    rows = predict(fitted / "checkpoints/last.ckpt", "t.tsv", "--data.data_dir", clips)
    assert [(row["filepath"], row["site"]) for row in rows] == [(names[0], "S1"), (str(clips / names[1]), "S2")]
    assert {row["status"] for row in rows} == {"ok"}
