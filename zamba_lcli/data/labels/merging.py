"""From rows of a table to clips: what several rows say of one file."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from zamba_lcli.data.clip_files import ClipFile, locate
from zamba_lcli.data.csv_tables import LabelRow, Problems, counted
from zamba_lcli.data.labels.spellings import is_blank
from zamba_lcli.data.video.deadline import TIME_LIMIT


def merge_rows(
    rows: Sequence[LabelRow], folder: Path, problems: Problems, time_limit: float = TIME_LIMIT
) -> dict[Path, list[LabelRow]]:
    """Returns the rows of each clip in the order of first appearance; the first row of each says what all say.

    Rows with the same filepath add up: each may give a label. Rows that write the path in another way must agree.

    Args:
        rows: All rows, those of a clip anywhere.
        folder: What relative filepaths start from.
        problems: Gets what does not fit together, and warnings of what was joined.
        time_limit: Seconds that looking at a file may take.
    """
    names = list(dict.fromkeys(row.filepath for row in rows))
    files = locate(folder, names, problems.key, time_limit)
    file_of = dict(zip(names, files, strict=True))
    clips: dict[int, list[LabelRow]] = {}
    for row in rows:
        clips.setdefault(file_of[row.filepath].same_as, []).append(row)
    merged = {}
    repeated: list[LabelRow] = []
    for number, own in clips.items():
        _warn_of_other_name(own, file_of, problems)
        _check_other_names(own, problems)
        repeated += _join(own, problems)
        merged[folder / files[number].path] = own
    if repeated and not repeated[0].place.file:  # in a package, each animal has a row
        rest = f", and {counted(len(repeated) - 1, 'other row')} likewise" if len(repeated) > 1 else ""
        told = f"the row repeats one above on {repeated[0].filepath}{rest}"
        problems.warn(repeated[0].place, told, "Delete repeated rows.")
    return merged


def check_blank(clips: Iterable[Sequence[LabelRow]], problems: Problems) -> None:
    """Refuses clips where nothing and something was seen, as of observers who did not agree."""
    for rows in clips:
        said = [(label, row.place) for row in rows for label in row.labels]
        blank = next(((label, place) for label, place in said if is_blank(label)), None)
        other = next(((label, place) for label, place in said if not is_blank(label)), None)
        if blank is not None and other is not None:
            what = f"{rows[0].filepath} is {blank[0]!r} here, but {other[0]!r}"
            what += " too" if blank[1] == other[1] else f" in {other[1]}"
            problems.add(blank[1], what, "Keep what is right: a clip with an animal is not blank.")


def _warn_of_other_name(rows: Sequence[LabelRow], file_of: dict[str, ClipFile], problems: Problems) -> None:
    for row in {row.filepath: row for row in reversed(rows)}.values():
        file = file_of[row.filepath]
        if file.differs:
            told = f"{row.filepath!a} is called {file.path!a} on the disk, and that file is used"
            problems.warn(row.place, told, "Write filepaths exactly as the files are named.")


def _check_other_names(rows: Sequence[LabelRow], problems: Problems) -> None:
    """Refuses a clip that rows name in two ways and give different labels; warns of one where they agree."""
    by_name: dict[str, list[LabelRow]] = {}
    for row in rows:
        by_name.setdefault(row.filepath, []).append(row)
    (first, *_), *others = by_name.values()
    labels = _labels(by_name[first.filepath])
    for own in others:
        same = f"{own[0].filepath} is the same file as {first.filepath} ({first.place})"
        if (theirs := _labels(own)) == labels:
            problems.warn(own[0].place, f"{same}: it counts once", "Name each clip in one way.")
        else:
            what = f"{same}, but its label is {', '.join(theirs)}, and there {', '.join(labels)}"
            problems.add(own[0].place, what, "Keep the label that is right, and name each clip in one way.")


def _join(rows: Sequence[LabelRow], problems: Problems) -> list[LabelRow]:
    """Writes what all rows of a clip say into the first; returns the rows that say nothing new."""
    clip = rows[0]
    places = dict.fromkeys(("split", "site"), clip.place)
    labels = set(clip.labels)
    repeated = []
    for row in rows[1:]:
        is_new = not labels.issuperset(row.labels)
        labels.update(row.labels)
        for name in ("split", "site"):
            before, now = getattr(clip, name), getattr(row, name)
            if before and now and before != now:
                what = f"the {name} of {row.filepath} is {now!r}, but {before!r} further up ({places[name]})"
                problems.add(row.place, what, f"Give all rows of a clip the same {name}.")
            if now and not before:
                places[name] = row.place
                is_new = True
            setattr(clip, name, before or now)
        if not is_new:
            repeated.append(row)
    return repeated


def _labels(rows: Iterable[LabelRow]) -> list[str]:
    return sorted({label for row in rows for label in row.labels})
