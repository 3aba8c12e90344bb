"""Splits for tables without them: which sites and clips go to train, val and holdout."""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from pytorch_lightning.trainer.states import TrainerFn

from zamba_lcli.data.csv_tables import LabelRow, counted, listing
from zamba_lcli.data.labels.camtrap_package import find_package
from zamba_lcli.errors import InputError

SPLITS = ("train", "val", "holdout")
SPLITS_OF = {  # the splits that a command reads
    TrainerFn.FITTING: ("train", "val"),
    TrainerFn.VALIDATING: ("val",),
    TrainerFn.TESTING: ("holdout",),
    TrainerFn.PREDICTING: (),
}
DEFAULT_PROPORTIONS = {"train": 3, "val": 1, "holdout": 1}
ANY_LABEL = ""  # counts all clips, whatever their labels


def shares_of(proportions: Mapping[str, int | float]) -> dict[str, float]:
    """Returns the splits that get clips, in the order of ``SPLITS``, with shares that add up to 1."""
    unknown = [name for name in proportions if name not in SPLITS]
    invalid = {name: value for name, value in proportions.items() if not 0 <= value < math.inf}
    total = sum(proportions.values())
    if unknown or invalid or not total:
        what = f"unknown splits {unknown}" if unknown else f"wrong shares {invalid}" if invalid else "no share above 0"
        remedy = f"Give shares of 0 or more to {', '.join(SPLITS)}, such as {DEFAULT_PROPORTIONS}."
        raise InputError(f"data.split_proportions: {what}. {remedy}")
    return {name: proportions[name] / total for name in SPLITS if proportions.get(name)}


def draw_splits(
    clips: Sequence[LabelRow], shares: Mapping[str, float], seed: int, source: Path, *, complete: bool = True
) -> None:
    """Sets the splits of clips, each site in one split; see ``_stratify``.

    Args:
        clips: The clips.
        shares: Share of each split, see ``shares_of``.
        seed: Changes which clips or sites the splits get.
        source: The table, for the message.
        complete: Whether each split must get something.

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
    if empty and complete:
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
