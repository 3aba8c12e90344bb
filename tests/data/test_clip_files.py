"""One file is one clip, however a table writes its path; a name that is not quite right is found, or told."""

import os
import unicodedata
from pathlib import Path

import pytest

from helpers.tables import read_csv
from helpers.video_files import numbered, write_video
from zamba_lcli.cli import main
from zamba_lcli.data import ZambaVideoDataModule
from zamba_lcli.data.clip_files import locate, wrong_with_file
from zamba_lcli.data.labels.table import read_labels
from zamba_lcli.data.listing import find_videos
from zamba_lcli.errors import InputError


@pytest.fixture
def card(folder):
    """A folder with two clips, one of which has many names."""
    (folder / "card/x").mkdir(parents=True)
    for name in ("a.mp4", "b.mp4", "x/a.mp4"):
        (folder / "card" / name).write_bytes(name.encode())
    (folder / "card/self").symlink_to(".")
    (folder / "card/alias.mp4").symlink_to("a.mp4")
    os.link(folder / "card/a.mp4", folder / "card/hard.mp4")
    (folder / "other").symlink_to("card")
    return folder / "card"


NAMES = [
    "./a.mp4",
    "x/../a.mp4",
    "self/a.mp4",
    "self/self/a.mp4",
    "alias.mp4",
    "hard.mp4",
    "../other/a.mp4",
    "{}/a.mp4",
    ".\\a.mp4",
]
ONCE = [(["fox"], "train"), (["deer"], "train")]


@pytest.mark.parametrize("data_dir", ["card", "{}", "other"])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_with_two_names_is_one_clip(card, name, data_dir):
    name, data_dir = name.format(card), data_dir.format(card)
    table = Path("t.csv")
    table.write_text(f"filepath,label,split\na.mp4,fox,train\nb.mp4,deer,train\n{name},fox,train\nx/a.mp4,deer,train\n")
    read = read_labels(table, data_dir=data_dir)
    assert [clip.filepath for clip in read.clips] == ["a.mp4", "b.mp4", "x/a.mp4"]
    assert any(problem.row == "4" for problem in read.warnings)
    assert find_videos("t.csv", data_dir).filepaths == ["a.mp4", "b.mp4", "x/a.mp4"]


@pytest.mark.parametrize("name", [*NAMES, ".//a.mp4", "x//../a.mp4"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_what_two_names_of_a_file_say_must_agree(card, name, split):
    name = name.format(card)
    Path("t.csv").write_text(f"filepath,label,split\na.mp4,fox,train\nb.mp4,deer,train\n{name},deer,{split}\n")
    with pytest.raises(InputError) as caught:
        read_labels("t.csv", data_dir=card)
    message = str(caught.value)
    assert f"row 4: {name} is the same file as a.mp4 (row 2), but its label is deer, and there fox" in message
    assert (f"row 4: the split of {name} is 'val', but 'train' further up (row 2)" in message) == (split == "val")


def test_rows_that_say_the_same_count_once_with_a_word(folder):
    Path("t.csv").write_text("filepath,label\na.mp4,x\na.mp4,y\nb.mp4,x\na.mp4,x\nb.mp4,x\nc.mp4,x\nd.mp4,x\n")
    read = read_labels("t.csv")
    assert [clip.labels for clip in read.clips[:2]] == [("x", "y"), ("x",)]
    (told,) = [problem for problem in read.warnings if "the row repeats" in problem.what]
    assert (told.row, "and 1 other row likewise" in told.what) == ("5", True)


def test_two_labels_of_a_clip_are_told_with_both_rows(folder):
    Path("t.csv").write_text("filepath,label\na.mp4,x\nb.mp4,x\na.mp4,y\n")
    with pytest.raises(InputError, match=r"row 2: a\.mp4 has 2 labels: x, y \(row 2, row 4\)"):
        read_labels("t.csv", multiclass=True)


def test_files_that_are_not_there_are_one_by_their_paths(folder):
    files = list(
        locate(Path("gone"), ["a.mp4", "./a.mp4", f"{folder}/gone/a.mp4", "A.mp4", "x\\b.mp4", "x/b.mp4", "n\0.mp4"])
    )
    assert [file.same_as for file in files] == [0, 0, 0, 3, 4, 4, 6]


def test_many_files_are_found_in_order(folder):
    for i in range(0, 700, 2):
        (folder / f"{i}.mp4").touch()
    files = list(locate(folder, [f"{i}.mp4" for i in range(700)] + ["./4.mp4"]))
    assert [file.same_as for file in files] == [*range(700), 4]
    assert not any(file.differs for file in files)


NFC, NFD = (unicodedata.normalize(form, "Cámara/Löwe 1.mp4") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("there", "written"),
    [
        (NFD, NFC),
        (NFC, NFD),
        ("a/img.MP4", "a/img.mp4"),
        ("a/img.mp4", "a/img.Mp4"),
        ("a/ img.mp4", "a/img.mp4"),
        ("a/img.mp4", '"a/ img.mp4"'),
        ("a/img.mp4 ", "a/img.mp4"),
        ("a/img .AVI", "a/img.avi"),
        ("a /img.mp4", "a/img.mp4"),
        ("a/b/img.MP4", "a\\b\\img.mp4"),
        ("a/img.mp4", "a/img\u200b.mp4"),
    ],
)
def test_names_that_differ_in_what_is_not_seen_are_found(folder, there, written):
    path = folder / "clips" / there
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    Path("t.csv").write_text(f"filepath,label,split\n{written},fox,train\n", encoding="utf-8")
    read = read_labels("t.csv", data_dir="clips")
    assert [os.fspath(clip.path) for clip in read.clips] == [f"clips/{there}"]
    assert f"{there!a}" in read.warnings[0].what
    found = find_videos("t.csv", "clips")
    assert found.filepaths == [written.strip('"')]
    assert os.path.samefile(found.paths[0], path)


def test_a_name_that_can_mean_two_files_is_none_of_them(folder):
    for name in ("img.MP4", "img.Mp4"):
        (folder / name).write_bytes(b"x")
    (file,) = locate(folder, ["img.mp4"])
    assert not file.differs
    assert wrong_with_file(folder / "img.mp4") == "missing (there is 'img.MP4' and 'img.Mp4', which is not 'img.mp4')"
    (folder / "img.mp4").write_bytes(b"x")
    assert [file.path for file in locate(folder, ["img.mp4", "img.MP4"])] == ["img.mp4", "img.MP4"]


@pytest.mark.parametrize(
    ("there", "written", "hint"),
    [
        ("C01.mp4", "c01.mp4", "there is 'C01.mp4', which is not 'c01.mp4'"),
        ("img 1.mp4", "img_1.mp4", "there is 'img 1.mp4', which is not 'img_1.mp4'"),
        ("a.mp4", "https://example.org/a.mp4", "an address: download the clip"),
        ("a.mp4", "D:\\cards\\a.mp4", "a path of Windows"),
        ("11.mp4", "12.mp4", ""),
    ],
)
def test_what_may_be_wrong_with_a_path(folder, there, written, hint):
    (folder / there).write_bytes(b"x")
    what = wrong_with_file(folder / written)
    assert what.startswith("missing")
    assert hint in what
    assert bool(hint) == (what != "missing")


OUTSIDE = ["../secret.mp4", "{}/secret.mp4", "x/../../secret.mp4", "..\\secret.mp4"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("stated", [True, False])
def test_no_filepath_of_a_table_leads_out_of_its_folder(zamba, fitted, refused, folder, monkeypatch, name, stated):
    (folder / "card/x").mkdir(parents=True)
    for place in ("secret.mp4", "card/a.mp4"):
        write_video(folder / place, numbered(8))
    monkeypatch.chdir("card")
    name = name.format(folder)
    Path("t.csv").write_text(f"filepath,label,split\na.mp4,x,train\n{name},x,val\n")
    more = ["--data.data_dir=."] if stated else []
    zamba_predict = ["predict", "--ckpt_path", str(fitted / "checkpoints/last.ckpt"), "--data.videos=t.csv"]
    for command in (lambda: zamba("fit", *more, labels="t.csv"), lambda: main([*zamba_predict, *more])):
        refused(command, "row 3: the filepath", repr(name), "data.data_dir", "data.allow_outside_data_dir")
    allowed = ZambaVideoDataModule(labels="t.csv", data_dir="." if stated else None, allow_outside_data_dir=True)
    assert [clip.filepath for clip in allowed.table.clips] == ["a.mp4", name]


def test_links_lead_anywhere_but_not_to_the_folder_above_their_target(folder):
    for place in ("card/sub", "other/deep"):
        (folder / place).mkdir(parents=True)
    (folder / "card/link").symlink_to(folder / "other/deep")
    (folder / "alias").symlink_to("card")

    def read(*names):
        table = folder / "card/t.csv"
        table.write_text("\n".join(["filepath,label", *(f"{name},x" for name in names)]))
        return ZambaVideoDataModule(labels=str(table), split_proportions={"train": 1}).table.clips

    own = [
        "link/a.mp4",
        "sub/../b.mp4",
        f"{folder}/card/c.mp4",
        f"{folder}/alias/d.mp4",
        f"{folder}/other/../card/e.mp4",
    ]
    assert [clip.filepath for clip in read(*own)] == own
    for name in ("link/../a.mp4", f"{folder}/alias/link/../a.mp4", f"{folder}/card2/a.mp4"):
        with pytest.raises(InputError, match=r"row 2: the filepath .* leads out of the folder of the clips"):
            read(name)
    with pytest.raises(
        InputError, match=rf"set data.data_dir to {folder}, which all clips are in, or set data.allow_out"
    ):
        read(f"{folder}/other/deep/a.mp4", f"{folder}/card/a.mp4")
    with pytest.raises(InputError, match=r"state another data.data_dir, which"):
        read(f"{folder}/other/deep/a.mp4", "a.mp4")


@pytest.mark.parametrize("stated", [True, False])
def test_absolute_filepaths_are_read_where_the_user_says_so(zamba, predict, fitted, clips, folder, refused, stated):
    names = [(row["filepath"], row["label"], row["split"]) for row in read_csv(clips / "labels.csv")]
    lines = [f"{clips / name},{label},{split}" for name, label, split in names]
    Path("t.csv").write_text("\n".join(["filepath,label,split", *lines]))
    checkpoint = fitted / "checkpoints/last.ckpt"
    refused(lambda: zamba("fit", labels="t.csv"), "16 problems", "row 2: the filepath", f"data.data_dir to {clips}, ")
    refused(lambda: predict(checkpoint, "t.csv"), "data.videos: 16 problems", f"data.data_dir to {clips}, ")
    assert not list(folder.glob("*/"))
    more = [f"--data.data_dir={clips}"] if stated else ["--data.allow_outside_data_dir=true"]
    rows = predict(checkpoint, "t.csv", *more)
    assert [(row["filepath"], row["status"]) for row in rows] == [(str(clips / name), "ok") for name, _, _ in names]
    zamba("fit", *more, "--trainer.fast_dev_run=true", labels="t.csv")
