"""Tables as spreadsheets, R, pandas and databases write them: read alike for labels and for clips to predict, or refused."""

import bz2
import csv
import gzip
import lzma
import os
from collections import Counter

import pytest

from zamba_lcli.data import table_files
from zamba_lcli.data.labels.table import read_labels
from zamba_lcli.data.listing import find_videos, folder_beside
from zamba_lcli.errors import InputError

ROWS = [("a.mp4", "fox", "train", "S1"), ("b c.mp4", "deer", "val", "S2"), ("é.mp4", "Löwe", "train", "S3")]


def text_of(separator=",", newline="\n", rows=ROWS):
    return newline.join(separator.join(row) for row in [("filepath", "label", "split", "site"), *rows, ()])


def read(path):
    """Returns what both readers make of a table."""
    labels = [(c.filepath, *c.labels, c.split, c.site) for c in read_labels(path).clips]
    videos = find_videos(str(path))
    return labels, list(zip(videos.filepaths, videos.sites, strict=True))


def refusals(path):
    """Returns the messages of both readers."""
    messages = []
    for key, reader in (("data.labels", read_labels), ("data.videos", find_videos)):
        with pytest.raises(InputError) as caught:
            reader(str(path))
        messages.append(str(caught.value))
        assert messages[-1].startswith(f"{key}: ")
    return messages


RIGHT = (ROWS, [(name, site) for name, _, _, site in ROWS])


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("separator", list(",;\t|"))
def test_separators_and_line_ends(folder, separator, newline):
    (folder / "t.csv").write_bytes(text_of(separator, newline).encode())
    assert read(folder / "t.csv") == RIGHT


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_that_can_be_told(folder, encoding):
    (folder / "t.txt").write_bytes(text_of("\t", "\r\n").encode(encoding))
    assert read(folder / "t.txt") == RIGHT


@pytest.mark.parametrize("line", ["sep=;\r\n", '"sep=;"\n', "SEP=;\r"])
def test_excels_line_of_the_separator_is_no_row(folder, line):
    (folder / "t.csv").write_text(line + text_of(";", rows=[*ROWS, ("", "x", "val", "")]), newline="")
    for message in refusals(folder / "t.csv"):
        assert "row 5: the filepath is empty" in message
    (folder / "t.csv").write_text(line + text_of(";"), newline="")
    assert read(folder / "t.csv") == RIGHT


@pytest.mark.parametrize(
    ("name", "pack"),
    [("t.csv.gz", gzip.compress), ("t.tsv.bz2", bz2.compress), ("t.xz", lzma.compress), ("t.csv", gzip.compress)],
)
def test_packed_tables(folder, monkeypatch, name, pack):
    (folder / name).write_bytes(pack(text_of().encode()))
    assert read(folder / name) == RIGHT
    assert folder_beside(str(folder / name)).name == "t_predictions"
    monkeypatch.setattr(table_files, "MAX_BYTES", 2**20)
    (folder / name).write_bytes(pack(b"filepath,label\n" + b"\n" * 2**21))
    assert all("more than 1 MB" in message for message in refusals(folder / name))
    (folder / name).write_bytes(pack(text_of().encode())[:-12])
    assert all(str(folder / name) in message for message in refusals(folder / name))


def test_long_cells_and_long_headers(folder):
    limit = csv.field_size_limit()
    (folder / "t.csv").write_text(f'filepath,label,note\na.mp4,fox,"{"n" * 140_000}"\n' * 1 + "b.mp4,deer,\n" * 5)
    assert find_videos("t.csv").filepaths == ["a.mp4", "b.mp4"]
    (folder / "t.csv").write_text(f"{'x' * 140_000},y\n1,2\n")
    assert all(len(message) < 800 and "no column 'filepath'" in message for message in refusals(folder / "t.csv"))
    assert csv.field_size_limit() == limit


def test_rows_keep_their_numbers_as_in_a_spreadsheet(folder):
    lines = ["", "filepath,note,label", 'a.mp4,"two\r\nlines",fox', "", ",,", "b.mp4,x,"]
    (folder / "t.csv").write_text("\n".join(lines), newline="")
    with pytest.raises(InputError, match="row 6: the label is empty"):
        read_labels("t.csv")


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("t.xlsx", b"PK\x03\x04rest", ["a workbook of Excel", "CSV UTF-8"]),
        ("t.ods", b"PK\x03\x04rest", ["OpenDocument", "CSV UTF-8"]),
        ("t.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", [".xls", "CSV UTF-8"]),
        ("t.csv", b"PK\x03\x04rest", ["a zip archive", "CSV UTF-8"]),
        ("t.parquet", b"PAR1rest", ["Parquet", "CSV UTF-8"]),
        ("t.html", b"<html><table>", ["HTML", "CSV UTF-8"]),
        ("t.txt", b'{"images": []}', ["JSON", "CSV UTF-8"]),
        ("t.csv", b"filepath,label\na.mp4,fox\n\0\0\0\0", ["line 3", "null characters"]),
        ("t.csv", b"filepath,label\n", ["is empty"]),
        ("t.csv", b"", ["is empty"]),
        ("t.tsv", b"filepath\tlabel\n\xe9.mp4\tfox\n", ["not UTF-8 text (line 2: b'\\xe9')"]),
        ("t.csv.gz", b"filepath,label\n", ["cannot be read", "not packed"]),
    ],
)
def test_what_is_no_table_is_told_in_one_message(folder, name, content, parts):
    (folder / name).write_bytes(content)
    for message in refusals(folder / name):
        assert str(folder / name) in message
        assert all(part in message for part in parts)


@pytest.mark.parametrize(("name", "part"), [("clips.zip", "unpack it"), ("datapackage.json", "folder with its clips")])
def test_packages_and_archives_are_no_clips(folder, name, part):
    (folder / name).write_bytes(b"PK\x03\x04rest" if name.endswith("zip") else b'{"resources": []}')
    with pytest.raises(InputError, match=part):
        find_videos(name)


def test_a_clip_is_no_table(folder):
    (folder / "a.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    with pytest.raises(InputError, match="named like a clip"):
        read_labels("a.mp4")
    (folder / "a.dav").write_bytes(b"DHAV\xfd\0\0\0")
    assert find_videos("a.dav").filepaths == ["a.dav"]


MISSING = [
    "NA",
    "nan",
    "NaN",
    "None",
    "NULL",
    "null",
    "#N/A",
    "n/a",
    "N/A",
    "<NA>",
    "NaT",
    "\\N",
    "-nan",
    "#NV",
    "-",
    " NA ",
    "NAN",
    "<NaN>",
    "NA_integer_",
    "pd.NA",
    "undefined",
    "N/D",
    "Inf",
    "\u2014",
    "...",
    "#\u041d/\u0414",
    "#YOK",
    "#HI\xc1NYZIK",
    "#NEN\xcd_K_DISPOZICI",
    "\uff2e\uff21",
    "(NA)",
    "'NA'",
    "__na__",
    "=NA()",
    "None.",
    "n.a",
    "N\u2215A",
    "#n/a",
    "\u2205",
]


@pytest.mark.parametrize("value", MISSING)
def test_missing_values_are_empty(folder, value):
    row = "d.mp4,{},train,{}\n".format
    good = text_of()
    (folder / "t.csv").write_text(good + row(value, "S1"))
    with pytest.raises(InputError, match="row 5: the label is missing"):
        read_labels("t.csv")
    (folder / "t.csv").write_text(good + row(f"fox;{value}", "S1"))
    with pytest.raises(InputError, match="row 5: an empty label"):
        read_labels("t.csv")
    (folder / "t.csv").write_text(good + row("fox", value))
    assert read_labels("t.csv").clips[-1].site is None
    assert find_videos("t.csv").sites[-1] == ""
    (folder / "t.csv").write_text(good.replace("a.mp4", value))
    assert all("row 2: the filepath is empty" in message for message in refusals(folder / "t.csv"))
    (folder / "t.csv").write_text(good + f"d.mp4,fox,{value},S1\n")
    with pytest.raises(InputError, match=r"row 5: d\.mp4 has no split"):
        read_labels("t.csv")


@pytest.mark.parametrize("value", ["na", "k.A.", "Na", "TBD", "-9999", "no data"])
def test_what_may_be_a_class_is_warned_of_and_no_site(folder, value):
    (told,) = warnings_of(folder, f"a.mp4,{value},train,S1", "b.mp4,fox,val,S2")
    assert told == f"the label {value!r} often means a missing value, but is used as a class"
    (folder / "t.csv").write_text(f"filepath,label,split,site\na.mp4,fox,train,{value}\nb.mp4,fox,val,S2\n")
    assert read_labels("t.csv").clips[0].site is None
    assert find_videos("t.csv").sites == ["", "S2"]


@pytest.mark.parametrize("value", ["unknown", "None ", "Nan", "Unbekannt"])
def test_an_unknown_site_that_counts_as_a_place_is_warned_of(folder, value):
    told = warnings_of(folder, f"a.mp4,fox,train,{value}", "b.mp4,fox,val,S2")
    assert value.strip() == "None" or any(f"the site {value!r} often means an unknown site" in what for what in told)


def test_names_that_only_look_like_missing_values(folder):
    names = ["Inferno", "Nanny", "#1", "#A", "NAT", "n", "NA-1", "NA_1", "Nd1", "SD", "Nil", "9999"]
    (folder / "t.csv").write_text(
        "filepath,label,split\n" + "".join(f"{i}.mp4,{name},train\n" for i, name in enumerate(names))
    )
    assert read_labels("t.csv").class_names == tuple(sorted(names))


def test_splits_that_are_all_missing_are_drawn(folder):
    (folder / "t.csv").write_text("filepath,label,split\n" + "".join(f"{i}.mp4,fox,NA\n" for i in range(10)))
    assert Counter(clip.split for clip in read_labels("t.csv").clips) == {"train": 6, "val": 2, "holdout": 2}


@pytest.mark.parametrize(
    "value", ["#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#BEZUG!", "########", "#\xa1VALOR!", "Err:502"]
)
def test_errors_of_formulas_are_no_sites(folder, value):
    (folder / "t.csv").write_text(text_of().replace("S2", value))
    assert all(f"row 3: the site is {value!r}" in message for message in refusals(folder / "t.csv"))


def test_more_values_than_columns(folder):
    (folder / "t.csv").write_text("filepath,site\na,b.mp4,S1\nc.mp4,S1\n")
    with pytest.raises(
        InputError, match=r"row 2: 3 values for 2 columns\nPut values that contain the separator in double"
    ):
        find_videos("t.csv")
    (folder / "t.csv").write_text("filepath,site\na,b.mp4\nc.mp4,S1\n")
    with pytest.raises(InputError, match=r"row 2: the site 'b\.mp4' is the name of a file"):
        find_videos("t.csv")
    for header, row, cell in (
        ("filepath,note", "a,b.mp4", "note 'b.mp4'"),
        ("site,filepath,note,more", "S1,north, 3.MOV,x", "note '3.MOV'"),
        ("filepath,note,more", "a,b,c.mp4", "more 'c.mp4'"),
    ):
        (folder / "t.csv").write_text(f"{header}\n{row}\n")
        with pytest.raises(
            InputError, match=rf"row 2: the {cell} is the name of a file, and '\w+' is not\nPut filepaths"
        ):
            find_videos("t.csv")
    (folder / "a").write_bytes(b"x")  # a clip without an ending
    (folder / "t.csv").write_text("filepath,preview\na,b.mp4\n")
    assert find_videos("t.csv").filepaths == ["a"]
    (folder / "t.csv").write_text("filepath,label,note\na,b.mp4,fox\nc.mp4,fox,\n")
    with pytest.raises(InputError, match=r"row 2: the label 'b\.mp4' is the name of a file"):
        read_labels("t.csv")
    (folder / "t.csv").write_text('"filepath","label"\n"1","a.mp4","fox"\n"2","b.mp4","fox"\n')
    with pytest.raises(InputError, match=r"row 3: 3 values for 2 columns\n.*row\.names = FALSE"):
        read_labels("t.csv")


def test_tables_of_many_columns(folder):
    names = [f"gene{i}" for i in range(40_000)]
    (folder / "t.csv").write_text(",".join(["filepath", "label", "split", *names]) + "\na.mp4,fox,train\n")
    assert read_labels("t.csv").class_names == ("fox",)
    (folder / "t.csv").write_text(",".join(["filepath", *names]) + "\na.mp4\n")
    with pytest.raises(InputError, match=r"there is no column 'label'\. Its columns are 'filepath'"):
        read_labels("t.csv")


def test_joined_tables(folder):
    (folder / "t.csv").write_text(text_of() * 2)
    assert all("row 5: the header is repeated" in message for message in refusals(folder / "t.csv"))


def test_two_sites_of_a_clip(folder):
    (folder / "t.csv").write_text("filepath,site\na.mp4,S1\nb.mp4,S1\n./a.mp4,S2\n")
    with pytest.raises(InputError, match=r"row 4: the site of \./a\.mp4 is 'S2', but 'S1' further up \(row 2\)"):
        find_videos("t.csv")


SAME = [
    ("North", "north"),
    ("North 1", "North  1"),
    ("North\u00a01", "North 1"),
    ("No\u200brth", "North"),
    ("caf\u00e9", "cafe\u0301"),
    ("\uff21\uff11", "A1"),
    ("1", "1.0"),
    ("1", "01"),
    ("1,0", "1"),
    ("CT007", "CT7"),
    ("12", "+12"),
    ("12", "1.2e1"),
    ("0007", "7."),
    ("1.5", "1,5"),
    ("0.5", ".5"),
    ("0", "-0.0"),
]
OTHER = [("1", "10"), ("1.05", "1.5"), ("1.10", "1.1"), ("S1", "S2"), ("10", "100")]


@pytest.mark.parametrize(("first", "second"), SAME)
@pytest.mark.parametrize("column", ["label", "site"])
def test_one_name_in_two_spellings_is_refused(folder, column, first, second):
    rows = [["a.mp4", "x", "s"], ["b.mp4", "x", "s"]]
    for row, value in zip(rows, (first, second), strict=True):
        row[["label", "site"].index(column) + 1] = value
    with open("t.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("filepath", "label", "site"), *rows])
    with pytest.raises(InputError) as caught:
        read_labels("t.csv")
    assert f"row 3: the {column} " in str(caught.value)
    assert "(row 2)" in str(caught.value)
    assert f"Spell each {column} in one way" in str(caught.value)


@pytest.mark.parametrize(("first", "second"), [("1.5", "1.50"), ("1.10", "1.1"), ("2,5", "2,500")])
@pytest.mark.parametrize("column", ["label", "site"])
def test_numbers_that_may_be_two_plots_are_warned_of(folder, column, first, second):
    header = ";".join(["filepath", column, "site" if column == "label" else "label"])
    (folder / "t.csv").write_text(f"{header}\na.mp4;{first};x\nb.mp4;{second};x\n")
    told = [problem.what for problem in read_labels("t.csv", split_proportions={"train": 1}).warnings]
    assert f"the {column} {second!r} differs from {first!r} (row 2) only in trailing zeros" in told


def test_long_numbers_are_not_rounded(folder):
    numbers = ["1" * 40 + end for end in ("1", "2", "10")]
    (folder / "t.csv").write_text(
        "filepath,label,split\n" + "".join(f"{number}.mp4,{number},train\n" for number in numbers)
    )
    assert read_labels("t.csv").class_names == tuple(sorted(numbers))


def warnings_of(folder, *rows, header="filepath,label,split,site"):
    (folder / "t.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
    return [problem.what for problem in read_labels("t.csv").warnings]


@pytest.mark.parametrize(("first", "second"), OTHER)
def test_sites_that_are_not_one(folder, first, second):
    assert not [w for w in warnings_of(folder, f"a.mp4,x,train,{first}", f"b.mp4,x,val,{second}") if "case" in w]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *(("Peña", "Pena"), ("North-1", "North 1"), ("deer.", "deer")),
        *(("1'000", "1000"), ("1 000", "1'000"), ("S1.0", "S1"), ("Site 2", "Site 2.0")),
    ],
)
def test_names_that_differ_in_accents_or_punctuation_are_warned_of(folder, first, second):
    (what,) = warnings_of(folder, f"a.mp4,{first},train,S", f"b.mp4,{second},train,S")
    assert what == f"the label {second!r} differs from {first!r} (row 2) only in accents or punctuation"
    (what,) = warnings_of(folder, f"a.mp4,x,train,{first}", f"b.mp4,x,train,{second}")
    assert what.startswith(f"the site {second!r}")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("human", "Homo sapiens"),
        ("blank", "Empty"),
        ("false_trigger", "none"),
        ("vehicle", "Vehicles"),
        ("person", "human"),
    ],
)
def test_two_names_of_one_thing_are_warned_of(folder, first, second):
    (what,) = warnings_of(folder, f"a.mp4,{first},train,S", f"b.mp4,{second},train,S", "c.mp4,fox,train,S")
    assert what.startswith(f"the labels {second!r} and {first!r} (row 2) both mean ")


@pytest.mark.parametrize("joined", ["fox|deer", "fox, deer", "Fox / deer", "fox & deer", "fox+deer", "fox and deer"])
def test_labels_joined_by_another_sign_are_warned_of(folder, joined):
    rows = ("a.mp4,fox,train,S", f'b.mp4,"{joined}",train,S', "c.mp4,deer,train,S")
    (what,) = warnings_of(folder, *rows)
    assert what.startswith(f"the label {joined!r} is a class of its own, beside ")
    assert warnings_of(folder, *rows[:2], "c.mp4,hare,train,S") == []


@pytest.mark.parametrize(
    "rows", [["a.mp4,blank;fox"], ["a.mp4,fox", "a.mp4,Empty"], ["a.mp4,human", "a.mp4,no animal"]]
)
def test_a_clip_with_an_animal_is_not_blank(folder, rows):
    (folder / "t.csv").write_text("\n".join(["filepath,label", *rows, "b.mp4,deer"]))
    with pytest.raises(InputError, match=rf"row {1 + len(rows)}: a\.mp4 is '.*' here, but .*\nKeep what is right"):
        read_labels("t.csv")


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["A/x.mp4", "A/y.mp4", "B/z.mp4"], "2 in one folder"),
        (["A\\x.mp4", "A\\y.mp4", "B\\z.mp4"], "2 in one folder"),
        (["IMG_0007.mp4", "IMG_0008.mp4", "IMG_0100.mp4"], "2 with consecutive numbers"),
        (["IMG_0007 (1).mp4", "IMG_0008 (1).mp4", "IMG_0100.mp4"], "2 with consecutive numbers"),
        (["IMG_0007 - Copy.mp4", "IMG_0008.mp4", "IMG_0100.mp4"], "2 with consecutive numbers"),
        (["VID1000_a.mp4", "VID1001_a.mp4", "VID1001_b.mp4"], "2 with consecutive numbers"),
        (["c-2024-05-01T10:20:30.mp4", "c-2024-05-01T10:21:10.mp4", "c-2024-05-02T10:20:30.mp4"], "2 within a minute"),
        (["20240501_102030.mp4", "20240501_102045.mp4", "20240601_102045.mp4"], "2 within a minute"),
    ],
)
def test_clips_without_sites_that_look_like_one_event(folder, names, what):
    rows = [f"{name},x,{split}" for name, split in zip(names, ("train", "val", "train"), strict=True)]
    (warning,) = warnings_of(folder, *rows, header="filepath,label,split")
    assert warning.startswith(
        f"3 of 3 clips have no site, and 2 of them are in other splits than related clips ({what}"
    )
    assert f"such as {names[0]} (train) and {names[1]} (val)" in warning
    same = [row.replace(",val", ",train") for row in rows]
    assert warnings_of(folder, *same, header="filepath,label,split") == []


def test_a_column_of_times_tells_events(folder):
    rows = [
        "k7.mp4,x,train,2024:05:01 10:20:30",
        "k9.mp4,x,val,2024:05:01 10:20:59",
        "k1.mp4,x,val,2024:05:01 12:00:00",
    ]
    (warning,) = warnings_of(folder, *rows, header="filepath,label,split,DateTime")
    assert "(2 within a minute), such as k7.mp4 (train) and k9.mp4 (val)" in warning
    unlike = [row.replace("k7", "aaa").replace("k9", "bbb") for row in rows]  # names that tell no camera
    (warning,) = warnings_of(folder, *unlike, header="filepath,label,split,DateTime")
    assert "(2 within a minute), such as aaa.mp4 (train) and bbb.mp4 (val)" in warning
    days = [f"{row.partition('2024')[0]}2024-05-01" for row in rows]  # a day is no event
    assert warnings_of(folder, *days, header="filepath,label,split,DateTime") == []


@pytest.mark.parametrize(
    ("one", "near", "far"),
    [
        ("5/16/2024 11:59:40 PM", "5/16/2024 11:59:59 pm", "5/16/2024 11:59:40 AM"),
        ("2024-05-16 12:00 AM", "2024-05-16 12:01 AM", "2024-05-16 12:00 PM"),
        ("2024/05/16 14:30:05", "2024/05/16 14:30:55", "2024/05/16 14:40:05"),
        # summer time ends; clocks of two zones
        ("2024-10-27T02:59:50+02:00", "2024-10-27T02:00:20+01:00", "2024-10-27T02:59:55+01:00"),
        ("2024-05-16T10:00:00Z", "2024-05-16T20:00:30+10:00", "2024-05-16T10:00:20+10:00"),
        ("2024-05-16T10:00:00", "2024-05-16T10:00:30", "2024-05-16T10:00:10Z"),
    ],
)
def test_clocks_of_twelve_hours_and_of_several_zones(folder, one, near, far):
    rows = [f"k7.mp4,x,train,{one}", f"k9.mp4,x,val,{near}", f"k1.mp4,x,train,{far}"]
    (warning,) = warnings_of(folder, *rows, header="filepath,label,split,timestamp")
    assert "and 2 of them are in other splits" in warning
    assert "(2 within a minute), such as k7.mp4 (train) and k9.mp4 (val)" in warning


def test_half_filled_sites(folder):
    rows = ["k.mp4,x,train,S1", "q.mp4,x,val,NA", "z.mp4,x,val,S2"]
    assert warnings_of(folder, *rows) == ["1 of 3 clips have no site"]
    assert warnings_of(folder, *(row.replace("NA", "S3") for row in rows)) == []


def test_fit_refuses_before_anything_is_written(zamba, clips, folder, refused):
    rows = list(csv.DictReader((clips / "labels.csv").open(encoding="utf-8")))
    rows[3]["label"] = "NA"
    other_name = clips / rows[5]["filepath"]
    rows[4] |= {"filepath": str(other_name), "label": "zebra", "split": rows[5]["split"], "site": rows[5]["site"]}
    with open("t.csv", "w", newline="", encoding="utf-16") as file:
        table = csv.DictWriter(file, rows[0], delimiter="\t")
        table.writeheader()
        table.writerows(rows)
    message = refused(
        lambda: zamba("fit", "--data.data_dir", clips, labels="t.csv"), "data.labels: 3 problems in ", "t.csv"
    )
    assert "row 5: the label is missing: 'NA' means no value" in message
    assert f"row 7: {rows[5]['filepath']} is the same file as {other_name} (row 6)" in message
    assert not (folder / "runs").exists()


def test_fit_says_that_sites_are_missing(zamba, clips, folder):
    rows = list(csv.DictReader((clips / "labels.csv").open(encoding="utf-8")))
    with open("t.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows([rows[0], *({**row, "site": "NA"} for row in rows[1:])])
    with pytest.warns(UserWarning, match=r"row 3: 15 of 16 clips have no site.* Fill in the column site"):
        zamba("fit", "--data.data_dir", clips, "--trainer.max_epochs=1", labels="t.csv")


def test_tables_are_regular_files(folder):
    """Who opens a named pipe to read it may never come back."""
    for name in ("pipe.csv", "datapackage.json", "package.zip"):
        os.mkfifo(name)
    (folder / "link.csv").symlink_to("pipe.csv")
    for name in ("pipe.csv", "link.csv", ".", "package.zip"):
        with pytest.raises(InputError, match="regular file"):
            read_labels(name)
    for name in ("pipe.csv", "link.csv"):
        with pytest.raises(InputError, match=rf"data.videos: \S*{name} is neither a folder nor a regular file"):
            find_videos(name)
