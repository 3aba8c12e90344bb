"""Checks of labels and clips that a command asks for, before anything is trained or scored."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_warn

from zamba_lcli.data.clip_files import wrong_with_file
from zamba_lcli.data.csv_tables import counted, listing
from zamba_lcli.data.labels.split_record import SplitRecord, copies_apart
from zamba_lcli.data.labels.splits import SPLITS
from zamba_lcli.data.labels.table import LabelledClip, LabelTable
from zamba_lcli.data.video.deadline import TIME_LIMIT, Looks, look_within
from zamba_lcli.data.video.reading import UnreadableClipError, probe
from zamba_lcli.errors import InputError


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
    """Refuses sites with clips in several splits: the score would not measure how well new sites are recognized.

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


def check_files(
    clips: Iterable[LabelledClip],
    source: Path,
    *,
    data_dir: str | Path | None = None,
    time_limit: float = TIME_LIMIT,
) -> None:
    """Refuses clips whose files are missing, empty, not files or not readable by this user; none is opened.

    Args:
        clips: The clips to look for.
        source: The table they are from, for the message.
        data_dir: The setting of that name, for the message; ``None`` for the folder of the table.
        time_limit: Seconds that looking at a file may take.

    Raises:
        InputError: Names the clips and says what to do.
        NoAnswerError: If the disk of a clip does not answer.
    """
    clips = list(clips)

    def look(looks: Looks) -> list[tuple[LabelledClip, str]]:
        return [(clip, what) for clip in clips if (what := wrong_with_file(looks.at(clip.path)))]

    wrong = look_within(time_limit, "data.labels", look)
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


def check_readable(clips: Sequence[LabelledClip], source: Path, time_limit: float) -> None:
    """Opens every clip and refuses those that cannot be opened.

    Raises:
        InputError: Names them, with the reasons.
    """

    def reason(clip: LabelledClip) -> str | None:
        try:
            probe(clip.path, time_limit)
        except UnreadableClipError as error:
            return f"{clip.filepath}: {error.reason}"
        return None

    with ThreadPool(min(32, 4 * (os.cpu_count() or 1))) as pool:  # waiting for the disk, mostly
        bad = [text for text in pool.imap(reason, clips) if text is not None]
    if bad:
        raise InputError(
            f"{len(bad)} of the {len(clips)} clips in {source} cannot be read:\n{listing(bad)}\n"
            "Take their rows out of the table or mend the files; or set data.check_clips to false, and they are left out "
            "and listed in failed.csv of the run folder."
        )


def find_learned_clips(
    table: LabelTable, record: SplitRecord, *, fits: bool, allow_sites_across_splits: bool
) -> dict[Path, str]:
    """Returns the clips of val and holdout that a checkpoint's model has learned from, each with the reason.

    Args:
        table: The labels.
        record: The splits of the runs that the model comes from.
        fits: Whether the run trains on: clips whose split is as it was are then none of these.
        allow_sites_across_splits: Whether only clips count, not their sites.
    """
    learned: dict[Path, str] = {}
    for split in ("val", "holdout"):
        clips = table.split(split)
        for clip, before in zip(clips, record.learned_from(clips), strict=True):
            at_site = record.sites.get(clip.site or "", split)
            if fits and record.is_as_it_was(clip):
                continue  # the run goes on as it began, which warned of copies
            if before is not None:
                learned[clip.path] = f"{clip.filepath} ({split}): in {before[0]} of the checkpoint's run{before[1]}"
            elif not allow_sites_across_splits and SPLITS.index(at_site) < SPLITS.index(split):
                learned[clip.path] = f"{clip.filepath} ({split}): its site {clip.site!r} was in {at_site}"
    return learned


def warn_of_copies(table: LabelTable, digests: Sequence[bytes]) -> None:
    """Warns of clips that are copies of clips in other splits.

    Args:
        table: The labels.
        digests: Those of the contents of the clips.
    """
    if copies := copies_apart(table.clips, digests):
        listed = listing([f"{clip.filepath} ({clip.split}): {of.filepath} ({of.split})" for clip, of in copies])
        rank_zero_warn(
            f"{counted(len(copies), 'clip')} of {table.source.absolute()} are copies of clips in other splits, so "
            f"that scores promise too much:\n{listed}\nTake them out of the table, or give copies the same split."
        )
