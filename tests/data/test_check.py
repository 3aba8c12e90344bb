"""One report of all that is wrong, and the exit code."""

import csv

import pytest

from helpers.video_files import cut, noise, numbered, remux, trim, write_video
from zamba_lcli.cli import main
from zamba_lcli.data.csv_tables import Place, Problems


def check(*args):
    """Runs ``zamba check``; returns the exit code and the rows of the report."""
    code = 0
    try:
        main(["check", *map(str, args)])
    except SystemExit as exit_info:
        code = exit_info.code
    with open("check.csv", newline="") as file:
        return code, list(csv.DictReader(file))


def write_clips(folder, *names):
    for i, name in enumerate(names):
        write_video(folder / name, numbered(8 + i))  # no two alike, of which check would warn


def test_all_is_well(clips, capfd):
    assert check("--config", "slowfast_finetune.yaml", "--data.labels", clips / "labels.csv") == (0, [])
    assert "All is well: 16 clips, 4 classes" in capfd.readouterr().out


def test_every_clip_that_cannot_be_read_is_a_row(folder, capfd):
    write_clips(folder, "a.mp4", "b.mp4", "cut.mp4")
    cut(folder / "cut.mp4", 0.02)
    (folder / "text.mp4").write_text("no video")
    (folder / "empty.mp4").touch()
    rows = ["a.mp4,x,train", "text.mp4,x,train", "b.mp4,x,val", "gone.mp4,x,val", "empty.mp4,x,val", "cut.mp4,x,train"]
    (folder / "labels.csv").write_text("\n".join(["filepath,label,split", *rows]))
    code, problems = check("--data.labels", "labels.csv")
    assert code == 1
    assert {problem["file"]: problem["row"] for problem in problems} == {
        "text.mp4": "3",
        "gone.mp4": "5",
        "empty.mp4": "6",
        "cut.mp4": "7",
    }
    assert all(problem["what"] and problem["remedy"] for problem in problems)
    assert "\n4 problems; all in check.csv." in capfd.readouterr().out


def test_wrong_rows_of_the_table_are_rows(folder):
    (folder / "labels.csv").write_text("filepath,label\na.mp4,\n,x\nb.mp4,x\nc.mp4,X\n")
    code, problems = check("--data.labels", "labels.csv")
    assert code == 1
    of_table = [problem for problem in problems if problem["file"] == "labels.csv"]
    assert [problem["row"] for problem in of_table] == ["2", "3", "5"]
    assert "label is empty" in of_table[0]["what"]
    of_clips = [(problem["row"], problem["file"], problem["what"]) for problem in problems if problem not in of_table]
    assert of_clips == [("2", "a.mp4", "missing"), ("4", "b.mp4", "missing"), ("5", "c.mp4", "missing")]


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (["a.mp4,x,train,s", "b.mp4,x,val,s"], "several splits"),
        (["a.mp4,x,train,s", "b.mp4,y,val,t"], "without a clip in the split train"),
        (["a.mp4,x,train,s", "b.mp4,x,train,t"], "no clip in the split val"),
    ],
)
def test_splits_that_make_no_sense_are_rows(folder, capfd, rows, what):
    write_clips(folder, "a.mp4", "b.mp4")
    (folder / "labels.csv").write_text("\n".join(["filepath,label,split,site", *rows]))
    code, problems = check("--data.labels", "labels.csv")
    assert code == 1
    (problem,) = problems
    assert what in problem["what"]
    assert problem["remedy"]
    assert "\n1 problem; all in check.csv." in capfd.readouterr().out


def test_warnings_stand_last_and_leave_the_exit_code(folder, capfd, monkeypatch):
    write_clips(folder, "a.mp4", "b.mp4")
    (folder / "labels.csv").write_text("filepath,label,split\na.mp4,x,train\nb.mp4,x,val\n")

    def drop(problems):
        problems.warn(Place("", 2), "odd", "Look at it.")

    monkeypatch.setattr(Problems, "raise_if_any", drop)
    warning = {"row": "2", "file": "labels.csv", "what": "odd", "remedy": "Look at it.", "severity": "warning"}
    assert check("--data.labels", "labels.csv") == (0, [warning])
    told = capfd.readouterr().out
    assert "warning | 2 | labels.csv | odd | Look at it.\n1 warning; all in check.csv.\n" in told
    assert "Nothing needs fixing: 2 clips, 1 classes: x." in told
    (folder / "b.mp4").unlink()
    code, found = check("--data.labels", "labels.csv")
    assert (code, [problem["severity"] for problem in found]) == (1, ["problem", "warning"])
    assert "\n1 problem, 1 warning; all in check.csv." in capfd.readouterr().out


def test_clips_with_odd_times_are_warned_of(folder):
    for name, ticks in (
        ("gap.mp4", [*range(30), *range(630, 660)]),
        ("well.mp4", None),
        ("pause.mkv", [*range(30), *range(500, 530)]),
    ):
        write_video(folder / name, numbered(60), ticks=ticks, bf=0)
    for suffix in ("ts", "mpg"):
        codec = {"codec": "mpeg2video"} if suffix == "mpg" else {}
        part = write_video(folder / f"part.{suffix}", numbered(20), fps=25, bf=0, **codec).read_bytes()
        (folder / f"joined.{suffix}").write_bytes(part * 3)
    write_video(folder / "order.avi", numbered(30), bf=2)
    write_video(folder / "source.mkv", numbered(40), gop=10, bf=0)
    remux(folder / "source.mkv", folder / "plain.mp4")
    trim(folder / "plain.mp4", [(2, 1), (1, 3)], folder / "trimmed.mp4")
    names = ["gap.mp4", "pause.mkv", "joined.ts", "joined.mpg", "order.avi", "well.mp4", "trimmed.mp4"]
    rows = [f"{name},{'xy'[number % 2]},{('train', 'val')[number // 2 % 2]}" for number, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["filepath,label,split", *rows]))
    code, found = check("--data.labels", "labels.csv")
    assert code == 0
    assert [(one["row"], one["file"], one["what"], one["severity"]) for one in found] == [
        ("2", "gap.mp4", "its times jump by 75 s at frame 30", "warning"),
        ("4", "joined.ts", "its times begin anew at frames 20, 40", "warning"),
        ("5", "joined.mpg", "its times begin anew at frames 20, 40", "warning"),
        ("6", "order.avi", "its timestamps do not give the order of its frames", "warning"),
    ]
    assert all(one["remedy"] for one in found)


def test_the_report_goes_where_it_is_told(clips, folder):
    main(["check", "--data.labels", str(clips / "labels.csv"), "--report", "reports/mine.csv"])
    assert (folder / "reports/mine.csv").read_text() == "row,file,what,remedy,severity\n"
    assert not (folder / "check.csv").exists()


def test_without_labels_it_is_told_what_is_missing(folder):
    code, problems = check()
    assert code == 1
    assert "data.labels" in problems[0]["what"]


def test_a_folder_to_predict_is_checked(folder, capfd, caplog):
    caplog.set_level("INFO")
    (folder / "videos/deep").mkdir(parents=True)
    write_clips(folder / "videos", "a.mp4", "deep/b.mkv")
    assert check("--data.videos=videos") == (0, [])
    assert "All is well: 2 clips to predict." in capfd.readouterr().out
    (folder / "videos/deep/empty.avi").touch()
    (folder / "videos/text.mp4").write_text("no video")
    (folder / "videos/notes.txt").touch()
    code, problems = check("--data.videos=videos")
    assert code == 1
    assert [problem["file"] for problem in problems] == ["deep/empty.avi", "text.mp4"]
    assert problems[0]["what"] == "empty (0 bytes)"
    assert "Copy it again" in problems[0]["remedy"]
    assert "passed over 1 file with other endings (1 .txt)" in caplog.text
    (folder / "list.csv").write_text("filepath\nvideos/a.mp4\nvideos/gone.mp4\n")
    code, problems = check("--data.videos=list.csv")
    assert [(problem["file"], problem["what"]) for problem in problems] == [("videos/gone.mp4", "missing")]
    code, problems = check("--data.videos=nowhere")
    assert code == 1
    assert "there is no folder" in problems[0]["what"]


def test_clips_that_are_cut_off_are_told(folder, capfd):
    write_clips(folder, "a.mp4", "b.mp4")
    cut(write_video(folder / "most.mp4", noise(90)), 0.8)
    cut(write_video(folder / "little.mp4", noise(91)), 0.3)
    damaged = write_video(folder / "damaged.avi", noise(60), codec="mjpeg", pix_fmt="yuvj420p")
    content = bytearray(damaged.read_bytes())
    middle = slice(len(content) // 3, len(content) * 2 // 3)
    content[middle] = bytes(len(content[middle]))
    damaged.write_bytes(content)
    rows = ["a.mp4,x,train", "b.mp4,x,val", "most.mp4,x,train", "little.mp4,x,train", "damaged.avi,x,train"]
    (folder / "labels.csv").write_text("\n".join(["filepath,label,split", *rows]))
    code, problems = check("--data.labels", "labels.csv", "--data.max_damaged=0.6")
    told = {problem["file"]: problem for problem in problems}
    assert code == 1
    assert told["little.mp4"]["severity"] == "problem"
    assert told["most.mp4"]["severity"] == "warning"
    assert "cut off: only" in told["most.mp4"]["what"]
    assert "damaged.avi" not in told
    code, problems = check("--data.labels", "labels.csv", "--thorough", "--data.max_damaged=0.9")
    told = {problem["file"]: problem["what"] for problem in problems}
    assert (code, set(told)) == (0, {"most.mp4", "little.mp4", "damaged.avi"})
    assert "of its frames are damaged" in told["damaged.avi"]
