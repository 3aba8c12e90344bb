"""Tables of labels: a CSV or Camtrap DP in; clips with labels, splits and sites out. All that is wrong is said at once."""

import csv
import hashlib
import io
import math
import os
import stat
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from zamba_lcli.data.camtrap_dp import find_package, read_package
from zamba_lcli.data.label_origin import RowOrigin, add_predictions, check_label_column
from zamba_lcli.data.tables import (
    LabelRow,
    Place,
    Problems,
    check_columns,
    counted,
    listing,
    parse_cells,
    parse_label,
    read_text,
    records,
    separator_in,
)
from zamba_lcli.data.videos import VIDEO_SUFFIXES
from zamba_lcli.errors import InputError, Problem
from zamba_lcli.run_folder import keep_earlier

SPLITS = ("train", "val", "holdout")
DEFAULT_PROPORTIONS = {"train": 3, "val": 1, "holdout": 1}
COLUMNS = ("filepath", "label", "split", "site")
OTHER_NAMES = {  # what people call the columns that are needed
    "filepath": ("file", "filename", "file_name", "file_path", "path", "video", "clip"),
    "label": ("labels", "species", "class", "category", "taxon", "scientific_name"),
}
ANY_LABEL = ""  # counts all clips, whatever their labels


@dataclass(frozen=True)
class LabelledClip:
    """A clip and what is known of it."""

    filepath: str  # as the user wrote it
    path: Path  # where it is
    labels: tuple[str, ...]  # one or more class names, sorted
    split: str  # train, val or holdout
    site: str | None
    place: Place | None = field(default=None, compare=False)  # where the table names it first


@dataclass(frozen=True)
class LabelTable:
    """A table of labels that has been checked."""

    source: Path
    clips: tuple[LabelledClip, ...]  # in the order of first appearance in the table
    class_names: tuple[str, ...]  # sorted
    warnings: tuple[Problem, ...] = ()  # what is odd in the table but stops no run

    def split(self, name: str) -> list[LabelledClip]:
        """Returns the clips of one split in the order of the table."""
        return [clip for clip in self.clips if clip.split == name]


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_labels(
    path: str | Path,
    *,
    data_dir: str | Path | None = None,
    label_column: str | None = None,
    machine_labels: bool = False,
    multiclass: bool = False,
    split_proportions: Mapping[str, int | float] | None = None,
    seed: int = 0,
) -> LabelTable:
    """Reads and checks a table of labels; the clips themselves are not looked at.

    The table is UTF-8 text separated by commas, semicolons or tabs with the columns ``filepath`` and ``label``, and
    optionally ``split`` and ``site``. Several labels of a clip are several rows, or ``a;b`` in one (in quotes where
    semicolons separate the columns). All values are text; blanks around them do not count.

    Or it is a package of tables in Camtrap DP, see ``camtrap_dp.read_package``; it has sites, but no splits.

    Args:
        path: The table; or the package: its folder, its ``datapackage.json`` or a zip.
        data_dir: Folder that relative filepaths start from; ``None`` for the folder of the table, package or zip.
        label_column: The column with the labels; ``None`` for ``label``, or ``scientificName`` of a package.
        machine_labels: Whether a machine's predictions count as labels where people say nothing.
        multiclass: Refuse clips with several labels.
        split_proportions: Shares of train, val and holdout where the table has no split; ``None`` for 3 : 1 : 1.
        seed: Changes which clips or sites the drawn splits get.

    Raises:
        InputError: Names the table, every wrong row (1 is the header, as in a spreadsheet) and what to do.
    """
    source = Path(path)
    shares = _shares(DEFAULT_PROPORTIONS if split_proportions is None else split_proportions)
    package = find_package(source)
    source = package or source
    problems = Problems(source)
    if package is not None:
        rows = read_package(package, label_column or "scientificName", problems, machine_labels=machine_labels)
    else:
        rows = _read_table(source, label_column or "label", problems, machine_labels=machine_labels)
    has_splits = any(row.split for row in rows)
    if has_splits:
        if split_proportions is not None:
            warnings.warn(f"data.split_proportions is not used: {source} has a column split.", stacklevel=2)
        _check_all_have_split(rows, problems)
    _check_spellings(rows, problems)
    drafts = _merge_rows(rows, source.parent if data_dir is None else Path(data_dir), problems)
    if multiclass:
        _check_one_label_each(drafts.values(), problems)
    problems.raise_if_any()
    if not has_splits:
        _draw_splits(list(drafts.values()), shares, seed, source)
    clips = tuple(
        LabelledClip(row.filepath, where, tuple(row.labels), row.split, row.site or None, row.place)
        for where, row in drafts.items()
    )
    names = sorted({label for clip in clips for label in clip.labels})
    return LabelTable(source, clips, tuple(names), tuple(problems.warnings))


def _read_table(source: Path, label_column: str, problems: Problems, *, machine_labels: bool) -> list[LabelRow]:
    """Returns the rows of a CSV."""
    where = source.absolute()
    text = read_text(source)
    cells = parse_cells(text, separator_in(text), where)
    if not any(any(row) for row in cells[1:]):
        raise InputError(
            f"data.labels: {where} is empty. It needs a header filepath,{label_column} and a row for each clip."
        )
    check_label_column(cells[0], label_column, where, machine_labels=machine_labels)
    check_columns(
        cells[0],
        where,
        needed=["filepath", label_column],
        optional=["split", "site"],
        other_names=OTHER_NAMES,
        label_column=label_column,
    )
    origin = RowOrigin(cells[0])
    rows: list[LabelRow] = []
    predicted: list[tuple[LabelRow, str]] = []  # with who predicted it
    not_told = Problems(source)  # what is wrong with rows that do not count
    for place, value in records(cells[0], cells[1:], problems):
        if not value["filepath"]:
            problems.add(place, "the filepath is empty", "Give every row a filepath, or delete the row.")
            continue
        is_machine = origin.is_machine(value)
        told = not_told if is_machine and not machine_labels else problems
        labels = parse_label(value.get(label_column, ""), place, told)
        split = value.get("split", "")
        if split and split not in SPLITS:
            problems.add(place, f"unknown split {split!r}", f"Write one of {', '.join(SPLITS)} in the column split.")
        row = LabelRow(place, value["filepath"], labels, split, value.get("site", ""))
        if is_machine:
            predicted.append((row, origin.author(value)))
        else:
            rows.append(row)
    rows = add_predictions(rows, predicted, problems, machine_labels=machine_labels)
    labels = [label for row in rows for label in row.labels]
    if labels and all(_is_video(label) for label in labels) and not any(_is_video(row.filepath) for row in rows):
        raise InputError(
            f"data.labels: in {where} the labels are files, such as {labels[0]}, and the filepaths are not: exchange the heads "
            f"of the columns filepath and {label_column}."
        )
    return rows


def _is_video(name: str) -> bool:
    return PurePath(name).suffix.lower() in VIDEO_SUFFIXES


def _check_all_have_split(rows: Iterable[LabelRow], problems: Problems) -> None:
    for row in rows:
        if not row.split:
            remedy = "Give every row a split; or none, and the splits are drawn."
            problems.add(row.place, f"{row.filepath} has no split, but other rows have one", remedy)


def _check_spellings(rows: Iterable[LabelRow], problems: Problems) -> None:
    """Finds labels that differ in case or blanks only: they would silently become classes of their own."""
    first: dict[str, tuple[str, Place]] = {}  # normalized -> first spelling and where it is
    seen = set()
    for row in rows:
        for label in row.labels:
            if label in seen:
                continue
            seen.add(label)
            plain = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
            spelling, place = first.setdefault(plain, (label, row.place))
            if spelling != label:
                what = f"the label {label!r} differs from {spelling!r} ({place}) in case or blanks only"
                problems.add(row.place, what, "Spell each label in one way.")


def _merge_rows(rows: Iterable[LabelRow], data_dir: Path, problems: Problems) -> dict[Path, LabelRow]:
    """Joins the rows of each clip, in the order of first appearance; the same row twice is the same as once."""
    merged: dict[Path, LabelRow] = {}
    for row in rows:
        clip = merged.setdefault(data_dir / row.filepath, row)
        clip.labels = sorted({*clip.labels, *row.labels})
        for name in ("split", "site"):
            before, now = getattr(clip, name), getattr(row, name)
            if before and now and before != now:
                what = f"the {name} of {row.filepath} is {now!r}, but {before!r} further up"
                problems.add(row.place, what, f"Give all rows of a clip the same {name}.")
            setattr(clip, name, before or now)
    return merged


def _check_one_label_each(clips: Iterable[LabelRow], problems: Problems) -> None:
    for clip in clips:
        if len(clip.labels) > 1:
            what = f"{clip.filepath} has {len(clip.labels)} labels: {', '.join(clip.labels)}"
            problems.add(clip.place, what, "For several labels a clip set model.task to multilabel; else keep one.")


# ---- drawing splits --------------------------------------------------------------------------------------------------


def _shares(proportions: Mapping[str, int | float]) -> dict[str, float]:
    """Returns the splits that get clips, in the order of ``SPLITS``, with shares that add up to 1."""
    unknown = [name for name in proportions if name not in SPLITS]
    invalid = {name: value for name, value in proportions.items() if not 0 <= value < math.inf}
    total = sum(proportions.values())
    if unknown or invalid or not total:
        what = f"unknown splits {unknown}" if unknown else f"wrong shares {invalid}" if invalid else "no share above 0"
        remedy = f"Give shares of 0 or more to {', '.join(SPLITS)}, such as {DEFAULT_PROPORTIONS}."
        raise InputError(f"data.split_proportions: {what}. {remedy}")
    return {name: proportions[name] / total for name in SPLITS if proportions.get(name)}


def _draw_splits(clips: Sequence[LabelRow], shares: Mapping[str, float], seed: int, source: Path) -> None:
    """Sets the splits of clips, each site in one split; see ``_stratify``.

    Raises:
        InputError: If there are too few sites or clips to give each split something.
    """
    names = [f"site {clip.site}" if clip.site else f"clip {PurePath(clip.filepath).as_posix()}" for clip in clips]
    groups: dict[str, Counter[str]] = {name: Counter() for name in names}  # how many clips of each label
    for name, clip in zip(names, clips, strict=True):
        groups[name].update((ANY_LABEL, *clip.labels))
    split_of = _stratify(groups, shares, seed)
    for name, clip in zip(names, clips, strict=True):
        clip.split = split_of[name]
    empty = [split for split in shares if split not in split_of.values()]
    if empty:
        clips_of = Counter(label for clip in clips for label in clip.labels)
        sites_of = Counter(label for label, _ in {(k, clip.site) for clip in clips if clip.site for k in clip.labels})
        own_splits = (
            "fill in a column split, or delete the column site (clips of one site then come into several splits)"
        )
        if find_package(source) is not None:
            own_splits = "give a table (CSV) with a column split in place of the package"
        lines = [f"{k}: {counted(n, 'clip')}, {counted(sites_of[k], 'site')}" for k, n in sorted(clips_of.items())]
        raise InputError(
            f"data.labels: {source.absolute()} has too few clips or sites to draw splits: nothing is left for "
            f"{' and '.join(empty)}, for a site stays in one split and train needs each class.\n{listing(lines)}\n"
            f"Add clips from other sites, or {own_splits}, or ask for fewer splits with data.split_proportions."
        )


def _stratify(groups: Mapping[str, Counter[str]], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Returns the split of each group, so that each split gets its share of each label as far as the groups allow.

    A group is the clips of one site, or a clip of no known site. Labels are taken in turn, the one in the fewest groups
    first, because it leaves the least choice. Its groups are taken larger ones first (in powers of two), then as
    shuffled by the seed. Each goes to the split where it brings the numbers of clips closest to the shares; but when
    only as many groups are left as there are splits without the label, they go to those splits. In the end a label that
    train lacks gets its smallest group moved to train.

    The outcome depends on the seed and the groups, not on their order. It is iterative stratification (Sechidis et al.
    2011, https://doi.org/10.1007/978-3-642-23808-6_10) of groups in place of examples.
    """
    members: dict[str, list[str]] = {}  # label -> its groups
    for name in sorted(groups, key=lambda name: hashlib.blake2b(f"{seed} {name}".encode()).digest()):
        for label in groups[name]:
            members.setdefault(label, []).append(name)
    labels = sorted(members, key=lambda label: (len(members[label]), label))
    total = {label: sum(groups[name][label] for name in members[label]) for label in labels}
    wanted = {split: {label: share * total[label] for label in labels} for split, share in shares.items()}
    got: dict[str, Counter[str]] = {split: Counter() for split in shares}
    split_of: dict[str, str] = {}

    def gain(split: str, name: str) -> float:
        """Returns by how much Pearson's chi-squared, sum of (got - wanted)^2 / wanted, falls with this group."""
        got_, wanted_ = got[split], wanted[split]
        # fsum, unlike sum, gives the same in any order of the rows
        return math.fsum(n * (2 * (wanted_[k] - got_[k]) - n) / wanted_[k] for k, n in groups[name].items())

    for label in labels:
        left = [name for name in members[label] if name not in split_of]
        left.sort(key=lambda name: groups[name][label].bit_length())
        while left:
            name = left.pop()
            lacking = [split for split in shares if not got[split][label]]
            fills_gap = len(left) < len(lacking)  # else the groups to come can still do so
            candidates = lacking if fills_gap else list(shares)
            split_of[name] = max(candidates, key=lambda split: gain(split, name))
            got[split_of[name]].update(groups[name])
    for label in labels:
        if "train" in shares and not any(split_of[name] == "train" for name in members[label]):
            split_of[min(members[label], key=lambda name: groups[name][ANY_LABEL])] = "train"
    return split_of


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_labels(table: LabelTable, path: Path) -> None:
    """Writes a table that ``read_labels`` reads, with all splits; its filepaths start from where they did before.

    Another one that is there is kept as ``splits_1.csv``, say.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(COLUMNS)
    rows.writerows((clip.filepath, ";".join(clip.labels), clip.split, clip.site or "") for clip in table.clips)
    keep_earlier(path, text.getvalue())


# ---- checks that a command asks for ----------------------------------------------------------------------------------


def check_classes_in_train(table: LabelTable, class_names: Iterable[str] | None = None) -> None:
    """Refuses classes without a clip to train on.

    Args:
        table: The labels.
        class_names: The model's classes; ``None`` for those of the table.

    Raises:
        InputError: Names the classes and where their clips are.
    """
    number = {split: Counter(label for clip in table.split(split) for label in clip.labels) for split in SPLITS}
    lines = [
        f"{name!r}: " + ", ".join(f"{number[split][name]} in {split}" for split in SPLITS)
        for name in (table.class_names if class_names is None else class_names)
        if not number["train"][name]
    ]
    if lines:
        raise InputError(
            f"data.labels: {counted(len(lines), 'class', 'classes')} without a clip in the split train of "
            f"{table.source.absolute()}:\n{listing(lines)}\n"
            "Put clips (with their whole site) of each class into train, or take the class out of the table."
        )


def require_split(table: LabelTable, name: str) -> None:
    """Refuses a table without clips in the split ``name``.

    Raises:
        InputError: Says which splits there are.
    """
    number = Counter(clip.split for clip in table.clips)
    if not number[name]:
        there = ", ".join(f"{number[split]} in {split}" for split in SPLITS)
        raise InputError(
            f"data.labels: {table.source.absolute()} has no clip in the split {name} ({there}). Write {name} in the "
            f"column split for some clips; or, without that column, give {name} a share in data.split_proportions."
        )


def sites_in_several_splits(table: LabelTable) -> dict[str, set[str]]:
    """Returns the sites whose clips are in more than one split, with those splits."""
    splits: dict[str, set[str]] = {}
    for clip in table.clips:
        if clip.site is not None:
            splits.setdefault(clip.site, set()).add(clip.split)
    return {site: names for site, names in sorted(splits.items()) if len(names) > 1}


def check_sites_apart(table: LabelTable) -> None:
    """Refuses sites with clips in several splits: the score would not tell how well new sites are recognized.

    Raises:
        InputError: Names the sites and their splits.
    """
    lines = [
        f"{site!r}: {' and '.join(split for split in SPLITS if split in splits)}"
        for site, splits in sites_in_several_splits(table).items()
    ]
    if lines:
        raise InputError(
            f"data.labels: {counted(len(lines), 'site')} with clips in several splits of {table.source.absolute()}:\n"
            f"{listing(lines)}\n"
            "A model does better at sites that it was trained on, so val and holdout would promise too much of it. Give all "
            "clips of a site the same split, or empty the column split, and they are drawn so; or set "
            "data.allow_sites_across_splits to true."
        )


def check_files(clips: Iterable[LabelledClip], source: Path, *, data_dir: str | Path | None = None) -> None:
    """Refuses clips whose files are missing, empty, not files or not readable by this user; none is opened.

    Args:
        clips: The clips to look for.
        source: The table they are from, for the message.
        data_dir: The setting of that name, for the message; ``None`` for the folder of the table.

    Raises:
        InputError: Names the clips and says what to do.
    """
    clips = list(clips)
    wrong = [(clip, what) for clip in clips if (what := wrong_with_file(clip.path))]
    if not wrong:
        return
    folder = (source.parent if data_dir is None else Path(data_dir)).absolute()
    if folder.is_file() and data_dir is not None:
        raise InputError(
            f"data.data_dir: {folder} is a file. Give the folder that the filepaths in the table start from."
        )
    remedy = f"Filepaths start from data.data_dir, which is {folder}: check it, or correct the table or the files."
    if len(wrong) == len(clips) and all(what.startswith("missing") for _, what in wrong):
        first = clips[0].path.absolute()
        remedy = f"None is there: data.data_dir is probably wrong. It is {folder}; the first clip would be {first}."
    raise InputError(
        f"data.labels: {len(wrong)} of {counted(len(clips), 'clip')} in {source.absolute()} cannot be used:\n"
        f"{listing([f'{clip.filepath}: {what}' for clip, what in wrong])}\n{remedy}"
    )


def wrong_with_file(path: Path) -> str | None:
    """Returns why there is no clip at ``path``, or ``None`` if there may be one."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        is_there = os.path.exists(str(path).replace("\\", "/"))
        return "missing (write / instead of \\ and it is there)" if is_there else "missing"
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        return getattr(error, "strerror", None) or str(error)
    if not stat.S_ISREG(status.st_mode):
        return "a folder" if stat.S_ISDIR(status.st_mode) else "not a file"
    if not status.st_size:
        return "empty (0 bytes)"
    return None if os.access(path, os.R_OK) else "no permission to read it"
