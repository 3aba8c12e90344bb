import os
import random
from collections import Counter
from pathlib import Path

import pytest

from zamba_lcli.data.labels.checks import (
    check_classes_in_train,
    check_files,
    check_sites_apart,
    require_split,
    sites_in_several_splits,
)
from zamba_lcli.data.labels.table import LabelledClip, read_labels, write_labels
from zamba_lcli.errors import InputError


@pytest.fixture
def table(tmp_path):
    """Writes lines to labels.csv and returns its path."""

    def write(*lines: str, encoding: str = "utf-8", newline: str = "\n") -> Path:
        path = tmp_path / "labels.csv"
        path.write_bytes((newline.join(lines) + newline).encode(encoding))
        return path

    return write


def error_of(path, **arguments) -> str:
    with pytest.raises(InputError) as caught:
        read_labels(path, **arguments)
    return str(caught.value)


def test_reads_clips_in_order_of_first_appearance(table, tmp_path):
    path = table(
        "filepath,label,split,site",
        "b/2.mp4,zebra,train,S1",
        "a/1.mp4,lion,val,",
        "b/2.mp4,antelope,train,S1",
        "3.mp4,lion,holdout,007",
    )
    read = read_labels(path)
    assert read.source == path
    assert read.class_names == ("antelope", "lion", "zebra")
    assert read.clips == (
        LabelledClip("b/2.mp4", tmp_path / "b/2.mp4", ("antelope", "zebra"), "train", "S1"),
        LabelledClip("a/1.mp4", tmp_path / "a/1.mp4", ("lion",), "val", None),
        LabelledClip("3.mp4", tmp_path / "3.mp4", ("lion",), "holdout", "007"),
    )
    assert read.split("val") == [read.clips[1]]


def test_several_labels_in_one_row(table):
    read = read_labels(table("filepath,label,split", "1.mp4, zebra ; lion,train"))
    assert read.clips[0].labels == ("lion", "zebra")


def test_text_stays_text_and_case_is_kept(table):
    read = read_labels(
        table("filepath,label,split,site", "1.mp4,true,train,001", "2.mp4,1e3,train,Nan", "3.mp4,Ax,val,S1")
    )
    assert [clip.labels for clip in read.clips] == [("true",), ("1e3",), ("Ax",)]
    assert [clip.site for clip in read.clips] == ["001", "Nan", "S1"]


def test_blanks_blank_rows_and_extra_columns_do_not_count(table):
    read = read_labels(
        table("comment,filepath , label,split", "x, 1.mp4 ,  lion , val ", "", ",,,", 'y,"2, b.mp4",lion,train')
    )
    assert [(clip.filepath, clip.labels, clip.split) for clip in read.clips] == [
        ("1.mp4", ("lion",), "val"),
        ("2, b.mp4", ("lion",), "train"),
    ]


def test_quotes_after_a_blank(table):
    read = read_labels(table("filepath, label, split", '1.mp4, "bat, small", val'))
    assert read.class_names == ("bat, small",)


def test_same_row_twice_and_same_file_in_two_spellings_are_one_clip(table):
    read = read_labels(
        table("filepath,label,split", "1.mp4,lion,val", "1.mp4,lion,val", "./1.mp4,lion,val"), multiclass=True
    )
    assert [(clip.filepath, clip.labels) for clip in read.clips] == [("1.mp4", ("lion",))]


def test_site_may_stand_in_one_of_the_rows_of_a_clip(table):
    read = read_labels(table("filepath,label,split,site", "1.mp4,lion,val,", "1.mp4,zebra,val,S1"))
    assert read.clips[0].site == "S1"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_utf8_with_and_without_byte_order_mark(table, encoding, newline):
    read = read_labels(table("filepath,label,split", "é.mp4,Löwe,train", encoding=encoding, newline=newline))
    assert read.clips[0].filepath == "é.mp4"
    assert read.class_names == ("Löwe",)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_tables_of_european_excel(table, separator):
    read = read_labels(table(*(line.replace("|", separator) for line in ("filepath|label|split", '1.mp4|"b;a"|val'))))
    assert (read.clips[0].labels, read.clips[0].split) == (("a", "b"), "val")


def test_labels_joined_by_semicolons_do_not_make_a_semicolon_table(table):
    read = read_labels(table("filepath,label", *(f"{i}.mp4,a;b;c;d;e" for i in range(3))))
    assert read.class_names == ("a", "b", "c", "d", "e")


def test_data_dir_and_absolute_filepaths(table, tmp_path):
    absolute = tmp_path / "elsewhere" / "2.mp4"
    path = table("filepath,label,split", "1.mp4,a,val", f"{absolute},a,val")
    assert [clip.path for clip in read_labels(path, data_dir="clips").clips] == [Path("clips/1.mp4"), absolute]
    assert [clip.path for clip in read_labels(path).clips] == [tmp_path / "1.mp4", absolute]


def test_missing_table_names_key_and_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = error_of("none.csv")
    assert "data.labels" in message
    assert str(tmp_path / "none.csv") in message


def test_folder_in_place_of_table(tmp_path):
    assert f"{tmp_path} is a folder" in error_of(tmp_path)


@pytest.mark.parametrize("lines", [(), ("filepath,label",), ("filepath,label", "", ",")])
def test_empty_table(table, lines):
    path = table(*lines)
    assert f"{path} is empty" in error_of(path)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "mac-roman", "cp437"])
def test_other_encodings(table, encoding):
    message = error_of(table("filepath,label", "1.mp4,lion", "é.mp4,lion", encoding=encoding))
    assert "labels.csv is not UTF-8 text (line 3: " in message
    assert "CSV UTF-8" in message


def test_unclosed_quote_names_the_line(table):
    message = error_of(table("filepath,label", "1.mp4,lion", '"2.mp4,lion'))
    assert "labels.csv, line 3" in message
    assert "quotes" in message


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ("Filepath,label", ["'Filepath' must be written 'filepath'", "Its columns are 'Filepath', 'label'"]),
        ("file,label", ["no column 'filepath' (is it 'file'?)"]),
        ("filepath,Species", ["no column 'label' (is it 'Species'?)"]),
        ("path,class", ["(is it 'path'?)", "(is it 'class'?)"]),
        ("filepath,xyz", ["no column 'label'. Its columns are 'filepath', 'xyz'"]),
        ("filepath,label,Split", ["'Split' must be written 'split'"]),
        ("filepath,label,SITE", ["'SITE' must be written 'site'"]),
        ("filepath,label,label", ["there are 2 columns 'label'"]),
    ],
)
def test_wrong_columns(table, header, parts):
    path = table(header, "1.mp4,lion,train")
    message = error_of(path)
    assert message.startswith(f"data.labels: {path}: ")
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("lines", "what", "remedy"),
    [
        ([",lion,val"], "row 2: the filepath is empty", "Give every row a filepath"),
        (["1.mp4,,val"], "row 2: the label is empty", "Give every row a label"),
        (["1.mp4,lion;,val"], "row 2: an empty label in 'lion;'", "Give every row a label"),
        (["1.mp4"], "row 2: the label is empty", "Give every row a label"),
        (["1.mp4,lion,test"], "row 2: unknown split 'test'", "Write one of train, val, holdout"),
        (["1.mp4,lion,Train"], "row 2: unknown split 'Train'", "Write one of train, val, holdout"),
        (["1.mp4,lion,val", "2.mp4,lion,"], "row 3: 2.mp4 has no split", "Give every row a split"),
        (
            ["1.mp4,lion,val", "1.mp4,zebra,train"],
            "row 3: the split of 1.mp4 is 'train', but 'val' further up",
            "Give all rows of a clip the same split",
        ),
        (
            ["1.mp4,lion,val,A", "", "1.mp4,zebra,val,B"],
            "row 4: the site of 1.mp4 is 'B', but 'A' further up",
            "Give all rows of a clip the same site",
        ),
        (
            ["1.mp4,\"['a','b']\",val"],
            "row 2: the label \"['a','b']\" looks like a list",
            "write a;b, or a row for each",
        ),
        (["1.mp4,[a],val"], "row 2: the label '[a]' looks like a list", "write a;b, or a row for each"),
        (["1.mp4,lion,val,A,B"], "row 2: 5 values for 4 columns", "double quotes"),
        (
            ["1.mp4,lion,val", "2.mp4,Lion,val", "3.mp4,Lion,val"],
            "row 3: the label 'Lion' differs from 'lion' (row 2) in case or blanks only",
            "Spell each label in one way",
        ),
        (
            ["1.mp4,Ape,val,", "2.mp4,Ape;lion,val", "3.mp4,Lion,val"],
            "row 4: the label 'Lion' differs from 'lion' (row 3)",
            "Spell",
        ),
        (["1.mp4,red  fox,val", "2.mp4,red fox,val"], "row 3: the label 'red fox' differs from 'red  fox'", "Spell"),
    ],
)
def test_wrong_row(table, lines, what, remedy):
    path = table("filepath,label,split,site", *lines)
    first, problem, *remedies = error_of(path).split("\n")
    assert first == f"data.labels: 1 problem in {path}:"
    assert what in problem
    assert remedy in "\n".join(remedies)


def test_labels_that_look_the_same_but_are_other_characters(table):
    message = error_of(table("filepath,label,split", "1.mp4,L\u00f6we,val", "2.mp4,Lo\u0308we,val"))
    assert "row 3" in message
    assert "(row 2) in case or blanks only" in message


def test_label_in_brackets_or_with_a_comma_is_fine(table):
    read = read_labels(table("filepath,label,split", "1.mp4,(unknown),val", '2.mp4,"bat, small",val'))
    assert read.class_names == ("(unknown)", "bat, small")


def test_multiclass_refuses_several_labels_and_names_the_task(table):
    path = table("filepath,label,split", "1.mp4,lion,val", "2.mp4,a,val", "1.mp4,zebra,val")
    message = error_of(path, multiclass=True)
    assert "1 problem" in message
    assert "row 2: 1.mp4 has 2 labels: lion, zebra" in message
    assert "model.task to multilabel" in message
    assert len(read_labels(path).clips) == 2


def test_all_problems_are_told_at_once_in_the_order_of_the_rows(table):
    path = table("filepath,label,split", "1.mp4,Lion,val", "2.mp4,lion,", ",a,val", "4.mp4,,val", "1.mp4,a,train")
    lines = error_of(path).split("\n")
    assert lines[0].startswith("data.labels: 5 problems")
    assert [line.split(":")[0] for line in lines[1:6]] == ["  row 3", "  row 3", "  row 4", "  row 5", "  row 6"]
    assert len(lines) == 1 + 5 + 5  # each with a remedy


def test_long_lists_of_problems_are_cut_but_counted_and_keep_all_remedies(table):
    path = table("filepath,label", *(f"{i}.mp4," for i in range(25)), ",lion")
    lines = error_of(path).split("\n")
    assert lines[0].startswith("data.labels: 26 problems")
    assert lines[20].startswith("  row 21: ")
    assert lines[21] == "  ... and 6 more"
    assert lines[22].startswith("Give every row a label")
    assert lines[23].startswith("Give every row a filepath")


def splits_of(read) -> dict[str, str]:
    return {clip.filepath: clip.split for clip in read.clips}


def random_rows(rng, *, sites: int = 0, several: bool = False) -> list[str]:
    """Rows of clips with few to many labels of very unequal frequency; sites prefer some of them."""
    names = [f"species{i}" for i in range(rng.randint(1, 10))]
    weights = [[rng.paretovariate(1) for _ in names] for _ in range(max(sites, 1))]
    rows = []
    for i in range(rng.randint(60, 400)):
        site = min(int(rng.expovariate(3 / sites)), sites - 1) if sites else 0
        labels = set(rng.choices(names, weights[site], k=rng.randint(1, 3) if several else 1))
        rows.append(f"clip{i}.mp4,{';'.join(sorted(labels))},{f'site{site}' if sites else ''}")
    return rows


@pytest.mark.parametrize("seed", range(30))
def test_each_label_gets_its_share_of_each_split(table, seed):
    read = read_labels(table("filepath,label,site", *random_rows(random.Random(seed))), seed=seed)
    for name in read.class_names:
        numbers = Counter(clip.split for clip in read.clips if name in clip.labels)
        total = sum(numbers.values())
        for split, share in (("train", 3 / 5), ("val", 1 / 5), ("holdout", 1 / 5)):
            assert abs(numbers[split] - share * total) < 2, name
            assert numbers[split] >= (total >= 3), name
        assert numbers["train"] > 0, name


@pytest.mark.parametrize("seed", range(30))
def test_labels_of_clips_with_several(table, seed):
    rows = random_rows(random.Random(seed), several=True)
    read = read_labels(table("filepath,label,site", *rows), seed=seed)
    for name in read.class_names:
        numbers = Counter(clip.split for clip in read.clips if name in clip.labels)
        assert numbers["train"] > 0
        if sum(numbers.values()) >= 20:
            assert abs(numbers["train"] / sum(numbers.values()) - 0.6) < 0.15, name
    for split, share in (("train", 3 / 5), ("val", 1 / 5), ("holdout", 1 / 5)):
        assert abs(len(read.split(split)) / len(read.clips) - share) < 0.05


@pytest.mark.parametrize("seed", range(30))
def test_sites_stay_whole_and_train_has_every_class(table, seed):
    rng = random.Random(seed)
    read = read_labels(table("filepath,label,site", *random_rows(rng, sites=rng.randint(20, 60))), seed=seed)
    assert sites_in_several_splits(read) == {}
    check_classes_in_train(read)
    for split, share in (("train", 3 / 5), ("val", 1 / 5), ("holdout", 1 / 5)):
        assert abs(len(read.split(split)) / len(read.clips) - share) < 0.15


@pytest.mark.parametrize(("sites", "several"), [(0, False), (0, True), (25, False), (25, True)])
def test_order_of_rows_does_not_matter(table, sites, several):
    rng = random.Random(7)
    rows = random_rows(rng, sites=sites, several=several)
    expected = splits_of(read_labels(table("filepath,label,site", *rows), seed=3))
    for _ in range(10):
        rng.shuffle(rows)
        assert splits_of(read_labels(table("filepath,label,site", *rows), seed=3)) == expected


def test_seed_draws_other_splits_and_data_dir_does_not(table):
    path = table("filepath,label", *(f"{i}.mp4,lion" for i in range(50)))
    first = splits_of(read_labels(path, seed=0))
    assert splits_of(read_labels(path, seed=0, data_dir="/elsewhere")) == first
    assert splits_of(read_labels(path, seed=1)) != first


@pytest.mark.slow
def test_order_of_rows_does_not_round_the_other_way(table):
    """Sums of fractions depend on their order in the last digit, which decides between splits that are as good."""
    for seed in range(150):
        rng = random.Random(seed)
        rows = [f"{i}.mp4,{';'.join(rng.sample('abcde', rng.randint(1, 2)))},S{rng.randrange(14)}" for i in range(30)]
        expected = splits_of(read_labels(table("filepath,label,site", *rows)))
        assert splits_of(read_labels(table("filepath,label,site", *rows[::-1]))) == expected
        assert splits_of(read_labels(table("filepath,label,site", *sorted(rows)))) == expected


def test_spelling_of_filepaths_and_order_of_proportions_do_not_matter(table):
    names = [f"{i}.mp4" for i in range(50)]
    plain = read_labels(table("filepath,label", *(f"{name},lion" for name in names)))
    dotted = read_labels(
        table("filepath,label", *(f"./{name},lion" for name in names)),
        split_proportions={"holdout": 1, "val": 1, "train": 3},
    )
    assert [clip.split for clip in dotted.clips] == [clip.split for clip in plain.clips]


def test_seed_matters_for_sites_of_about_one_size(table):
    path = table("filepath,label,site", *(f"{s}/{i}.mp4,lion,S{s}" for s in range(5) for i in range(8 + s)))
    largest = {splits_of(read_labels(path, seed=seed))["4/0.mp4"] for seed in range(20)}
    assert largest == {"train", "val", "holdout"}


def test_many_rare_labels_fill_val_and_holdout_alike(table):
    read = read_labels(table("filepath,label", *(f"{i}.mp4,species{i % 20}" for i in range(40))))
    assert Counter(clip.split for clip in read.clips) == {"train": 20, "val": 10, "holdout": 10}


def test_draw_is_the_same_in_every_version(table):
    """Splits that change with a release would leak holdout clips into training."""
    read = read_labels(table("filepath,label", *(f"{i}.mp4,{'ab'[i % 2]}" for i in range(10))))
    assert [clip.split[0] for clip in read.clips] == list("htvtthtvtt")


def test_draw_of_sites_is_the_same_in_every_version(table):
    labels = ["a" + (";b" if i % 3 == 0 else "") + (";c" if i % 11 == 0 else "") for i in range(150)]
    rows = [f"{i}.mp4,{labels[i]},S{i * i % 37}" for i in range(150)]
    read = read_labels(table("filepath,label,site", *rows))
    split_of = {clip.site: clip.split[0] for clip in read.clips}
    assert "".join(split_of[site] for site in sorted(split_of)) == "vthtttvhttvthhttttv"


def test_a_rare_label_counts_as_much_as_a_common_one(table):
    """Measured as Pearson's chi-squared: 3 clips too many of 16 are more than 10 too many of 1020."""
    sites = {"A": (8, 0), "B": (4, 10), "C": (3, 10), "D": (1, 0), **{f"E{i}": (0, 50) for i in range(20)}}
    labels = {site: ["rare"] * rare + ["common"] * common for site, (rare, common) in sites.items()}
    rows = [f"{site}/{i}.mp4,{label},{site}" for site, names in labels.items() for i, label in enumerate(names)]
    read = read_labels(table("filepath,label,site", *rows), split_proportions={"train": 1, "val": 1})
    split_of = {clip.site: clip.split for clip in read.clips}
    assert split_of["C"] == split_of["B"] != split_of["A"]  # with A its common clips would be spread better


def test_empty_split_column_is_like_none(table):
    path = table("filepath,label,split", *(f"{i}.mp4,lion," for i in range(10)))
    assert Counter(splits_of(read_labels(path)).values()) == {"train": 6, "val": 2, "holdout": 2}


def test_clips_without_a_site_are_drawn_one_by_one(table):
    rows = [f"{i}.mp4,lion,{'A' if i < 10 else ''}" for i in range(50)]
    read = read_labels(table("filepath,label,site", *rows))
    assert sites_in_several_splits(read) == {}
    assert Counter(clip.split for clip in read.clips) == {"train": 30, "val": 10, "holdout": 10}
    assert len({clip.split for clip in read.clips if clip.site is None}) == 3


@pytest.mark.parametrize(
    ("proportions", "expected"),
    [
        ({"train": 1, "val": 1}, {"train": 20, "val": 20}),
        ({"train": 0.75, "val": 0.25, "holdout": 0}, {"train": 30, "val": 10}),
        ({"holdout": 2}, {"holdout": 40}),
        ({"holdout": 1, "val": 1, "train": 8}, {"train": 32, "val": 4, "holdout": 4}),
    ],
)
def test_split_proportions(table, proportions, expected):
    path = table("filepath,label", *(f"{i}.mp4,lion" for i in range(40)))
    read = read_labels(path, split_proportions=proportions)
    assert Counter(clip.split for clip in read.clips) == expected


@pytest.mark.parametrize(
    ("proportions", "what"),
    [
        ({"train": 3, "test": 1}, "unknown splits ['test']"),
        ({"train": 3, "val": -1}, "wrong shares {'val': -1}"),
        ({"train": float("nan")}, "wrong shares {'train': nan}"),
        ({"train": float("inf")}, "wrong shares {'train': inf}"),
        ({"train": 0}, "no share above 0"),
        ({}, "no share above 0"),
    ],
)
def test_wrong_split_proportions(table, proportions, what):
    message = error_of(table("filepath,label", "1.mp4,lion"), split_proportions=proportions)
    assert message.startswith(f"data.split_proportions: {what}")
    assert "train, val, holdout" in message


def test_split_proportions_beside_a_split_column_are_not_silently_ignored(table):
    path = table("filepath,label,split", "1.mp4,lion,val")
    with pytest.warns(UserWarning, match=r"data\.split_proportions is not used: .*labels\.csv has a column split"):
        read = read_labels(path, split_proportions={"train": 1})
    assert read.clips[0].split == "val"


@pytest.mark.parametrize("train", [0.1, 3])
def test_class_of_one_site_goes_to_train(table, train):
    rows = [f"{i}.mp4,{'rare' if i == 5 else 'common'},S{i % 10}" for i in range(100)]
    for seed in range(10):
        path = table("filepath,label,site", *rows)
        read = read_labels(path, seed=seed, split_proportions={"train": train, "val": 1, "holdout": 1})
        assert next(clip.split for clip in read.clips if clip.labels == ("rare",)) == "train"


def test_label_that_train_lacks_costs_val_as_little_as_possible(table):
    # both sites with b are too large for a train of 5%, and go elsewhere
    sites = {"A": (90, "b"), "B": (60, "b"), **{f"C{i}": (10, "c") for i in range(5)}}
    rows = [f"{site}/{i}.mp4,{label},{site}" for site, (size, label) in sites.items() for i in range(size)]
    proportions = {"train": 1, "val": 9, "holdout": 10}
    read = read_labels(table("filepath,label,site", *rows), split_proportions=proportions)
    check_classes_in_train(read)
    assert {clip.site for clip in read.split("train")} & {"A", "B"} == {"B"}


def test_label_whose_clips_all_went_elsewhere_is_brought_back_to_train(table):
    # a and c are drawn before b, whose clips have a or c too
    path = table("filepath,label", "1.mp4,a", "2.mp4,a;b", "3.mp4,c", "4.mp4,b;c", "5.mp4,z", "6.mp4,z", "7.mp4,z")
    for seed in range(20):
        check_classes_in_train(read_labels(path, seed=seed))


def test_too_few_sites_to_draw_from(table):
    path = table("filepath,label,site", "1.mp4,lion,S1", "2.mp4,lion,S1", "3.mp4,lion,S2", "4.mp4,zebra,S2")
    message = error_of(path)
    assert str(path) in message
    assert "nothing is left for holdout" in message
    assert "lion: 3 clips, 2 sites" in message
    assert "zebra: 1 clip, 1 site" in message
    for remedy in ("a column split", "delete the column site", "Add clips", "data.split_proportions"):
        assert remedy in message


def test_classes_without_train_clips(table):
    path = table("filepath,label,split", "1.mp4,lion,train", "2.mp4,zebra,val", "3.mp4,zebra,holdout", "4.mp4,lion,val")
    read = read_labels(path)
    with pytest.raises(InputError) as caught:
        check_classes_in_train(read)
    message = str(caught.value)
    assert f"1 class without a clip in the split train of {path}" in message
    assert "'zebra': 0 in train, 1 in val, 1 in holdout" in message
    assert "lion" not in message
    check_classes_in_train(read, ["lion"])
    with pytest.raises(InputError, match="'okapi': 0 in train, 0 in val, 0 in holdout"):
        check_classes_in_train(read, ["lion", "okapi"])


def test_require_split(table):
    read = read_labels(table("filepath,label,split", "1.mp4,lion,train", "2.mp4,lion,train", "3.mp4,lion,holdout"))
    require_split(read, "train")
    require_split(read, "holdout")
    with pytest.raises(InputError) as caught:
        require_split(read, "val")
    message = str(caught.value)
    assert "labels.csv has no clip in the split val (2 in train, 0 in val, 1 in holdout)" in message
    assert "data.split_proportions" in message


def test_sites_in_several_splits(table):
    rows = ["1.mp4,a,val,S2", "2.mp4,a,train,S1", "3.mp4,a,val,S1", "4.mp4,a,holdout,S2", "5.mp4,a,val,S3"]
    read = read_labels(table("filepath,label,split,site", *rows, "6.mp4,a,train,", "7.mp4,a,val,"))
    assert list(sites_in_several_splits(read).items()) == [("S1", {"train", "val"}), ("S2", {"val", "holdout"})]


def test_sites_apart(table):
    rows = ["1.mp4,a,val,S2", "2.mp4,a,train,S1", "3.mp4,a,val,S1", "4.mp4,a,holdout,S2", "5.mp4,a,val,S3"]
    path = table("filepath,label,split,site", *rows)
    with pytest.raises(InputError) as caught:
        check_sites_apart(read_labels(path))
    message = str(caught.value)
    assert (
        f"2 sites with clips in several splits of {path}:\n  'S1': train and val\n  'S2': val and holdout\n" in message
    )
    assert "data.allow_sites_across_splits to true" in message
    check_sites_apart(read_labels(table("filepath,label,split,site", *rows[:2], "6.mp4,a,train,", "7.mp4,a,val,")))


@pytest.mark.parametrize("sites", [0, 20])
def test_what_is_written_is_read_as_the_same_table(table, tmp_path, sites):
    odd = ['"a, b/é;1.mp4","Löwe;""x"", y",site0', "=1.mp4,-1,"]
    path = table("filepath,label,site", *random_rows(random.Random(1), sites=sites, several=True), *odd)
    drawn = read_labels(path, seed=5)
    write_labels(drawn, tmp_path / "runs" / "new" / "splits.csv")
    again = read_labels(tmp_path / "runs" / "new" / "splits.csv", data_dir=tmp_path)
    assert (again.clips, again.class_names) == (drawn.clips, drawn.class_names)


def clips_in(folder, *filepaths) -> list[LabelledClip]:
    return [LabelledClip(name, folder / name, ("lion",), "train", None) for name in filepaths]


def file_error(clips, source, **arguments) -> str:
    with pytest.raises(InputError) as caught:
        check_files(clips, source, **arguments)
    return str(caught.value)


def test_files_that_are_there_pass(tmp_path):
    (tmp_path / "1.mp4").write_bytes(b"x")
    (tmp_path / "2.mp4").symlink_to(tmp_path / "1.mp4")
    check_files(clips_in(tmp_path, "1.mp4", "2.mp4"), tmp_path / "labels.csv")
    check_files([], tmp_path / "labels.csv")


def test_files_that_cannot_be_clips_are_listed_together(tmp_path, monkeypatch):
    for name in ("good.mp4", "secret.mp4"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "gone.mp4")
    # root may read everything, so a file's mode says nothing where tests run as root
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "secret.mp4")
    names = ["good.mp4", "gone.mp4", "empty.mp4", "folder.mp4", "pipe.mp4", "secret.mp4", "dangling.mp4", "good.mp4/x"]
    message = file_error(clips_in(tmp_path, *names, "null\0.mp4", "n" * 300), tmp_path / "labels.csv")
    lines = message.split("\n")
    assert lines[0] == f"data.labels: 9 of 10 clips in {tmp_path / 'labels.csv'} cannot be used:"
    assert lines[1:8] == [
        "  gone.mp4: missing",
        "  empty.mp4: empty (0 bytes)",
        "  folder.mp4: a folder",
        "  pipe.mp4: not a file",
        "  secret.mp4: no permission to read it",
        "  dangling.mp4: missing",
        "  good.mp4/x: missing",
    ]
    assert "null" in lines[8]
    assert "too long" in lines[9]
    assert f"data.data_dir, which is {tmp_path}" in lines[10]


def test_all_files_missing_points_to_data_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clips = clips_in(Path("clips"), *(f"{i}.mp4" for i in range(30)))
    message = file_error(clips, tmp_path / "labels.csv", data_dir="clips")
    assert "30 of 30 clips" in message
    assert "  19.mp4: missing\n  ... and 10 more\n" in message
    assert "data.data_dir is probably wrong" in message
    assert f"It is {tmp_path / 'clips'}; the first clip would be {tmp_path / 'clips' / '0.mp4'}" in message


def test_one_file_that_is_there_speaks_for_data_dir(tmp_path):
    (tmp_path / "1.mp4").write_bytes(b"x")
    message = file_error(clips_in(tmp_path, "1.mp4", "2.mp4", "3.mp4"), tmp_path / "labels.csv")
    assert "2 of 3 clips" in message
    assert "probably wrong" not in message


def test_all_files_empty_does_not_point_to_data_dir(tmp_path):
    (tmp_path / "1.mp4").touch()
    assert "probably wrong" not in file_error(clips_in(tmp_path, "1.mp4"), tmp_path / "labels.csv")


@pytest.mark.skipif(os.name == "nt", reason="backslashes separate folders there")
def test_backslashes_get_a_hint(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.mp4").write_bytes(b"x")
    message = file_error(clips_in(tmp_path, "a\\1.mp4", "b\\1.mp4"), tmp_path / "labels.csv")
    assert "  a\\1.mp4: missing (write / instead of \\ and it is there)\n  b\\1.mp4: missing\n" in message
