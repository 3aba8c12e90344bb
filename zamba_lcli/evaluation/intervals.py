"""95 % intervals of scores for new sites like those of the holdout, of which there are few.

Clips of one site resemble each other, so sites are the sampling unit. Percentiles of a bootstrap over few sites are too narrow
(with 8 sites their coverage is 85 % in place of 95 %, for rare classes 72 %), and a draw without clips of a class changes the
mean over classes. Here the variance is the jackknife's over sites (Efron and Stein 1981), with Student's t for as few sites as
have the class, on the scale of the logits, so that intervals stay within 0 and 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zamba_lcli.evaluation.scores import Bools, Floats, is_top_class_right
from zamba_lcli.metrics import f1_score

TAIL = 0.025  # on either side
CLIPS_OF_A_SITE = 1.5  # effective, where sites do not differ or one site alone has the class; by simulation
FEW_SITES = 4  # with a class; up to these the jackknife's estimate of the bias is as large as its error


def site_intervals(
    targets: Bools, predicted: Bools, probabilities: Floats, sites: Sequence[str]
) -> tuple[dict[str, tuple[float, float]], dict[str, Floats]]:
    """Returns 95 % intervals of the scores.

    Args:
        targets: (clips, classes), true where a clip has a label.
        predicted: (clips, classes), true where the class is predicted.
        probabilities: (clips, classes).
        sites: (clips,), the site of each clip, or another sampling unit.

    Returns:
        The low and high ends of ``accuracy`` (of the top class) and ``macro_f1``, whose classes are those of all clips; and
        those of ``precision``, ``recall`` and ``f1`` by class, float (classes, 2). NaN with fewer than two sites that have the
        class, or for which it is predicted: one site does not show how sites differ.
    """
    _, site_of = np.unique(np.asarray(sites, dtype=object).astype(str), return_inverse=True)

    def by_site(per_clip: NDArray[Any]) -> Floats:
        """Sums (clips, ...) over the clips of each site, (sites, ...)."""
        sums = np.zeros((int(site_of.max()) + 1, *per_clip.shape[1:]))
        np.add.at(sums, site_of, per_clip)
        return sums

    tp, fp, fn = by_site(targets & predicted), by_site(~targets & predicted), by_site(targets & ~predicted)
    right = by_site(is_top_class_right(targets, probabilities))
    clips = by_site(np.ones(len(targets)))
    either = tp + fp + fn  # clips that have the class or for which it is predicted
    parts = {
        "precision": (tp, tp + fp, tp + fp),
        "recall": (tp, tp + fn, tp + fn),
        "f1": (2 * tp, tp + either, either),
    }
    by_class = {
        name: np.array([_share_interval(*(part[:, i] for part in of_score)) for i in range(targets.shape[1])])
        for name, of_score in parts.items()
    }
    overall = {"accuracy": _share_interval(right, clips, clips), "macro_f1": _macro_interval(tp, fp, fn)}
    return overall, by_class


def _share_interval(part: Floats, whole: Floats, clips: Floats) -> tuple[float, float]:
    """Returns the interval of the ratio of ``part`` to ``whole``, each (sites,), to which ``clips``, (sites,), contribute."""
    number = int((whole > 0).sum())  # of sites that contribute
    if number < 2:
        return float("nan"), float("nan")
    share = part.sum() / whole.sum()
    variance = _jackknife(_without_one(part, whole)[:, None]).item()
    if 0 < share < 1 and variance > 0:
        spread = _student(number - 1) * np.sqrt(variance) / (share * (1 - share))
        middle = np.log(share / (1 - share))
        return _logistic(middle - spread), _logistic(middle + spread)
    # the sites agree, of which the jackknife makes a variance of 0: Clopper and Pearson's, with few clips of each
    from scipy.special import betaincinv

    counted = min(clips.sum(), CLIPS_OF_A_SITE * number)
    yes, no = share * counted, (1 - share) * counted
    low = float(betaincinv(yes, no + 1, TAIL)) if share > 0 else 0.0
    return low, float(betaincinv(yes + 1, no, 1 - TAIL)) if share < 1 else 1.0


def _macro_interval(tp: Floats, fp: Floats, fn: Floats) -> tuple[float, float]:
    """Returns the interval of macro F1 from true positives, false positives and false negatives, each (sites, classes).

    Rare classes, at few sites, dominate the uncertainty of the mean: its degrees of freedom are Satterthwaite's, and the
    variance of each class is at least that of one clip and a half of each site. The middle is the jackknife's, as F1 of few
    clips is biased downwards; the interval is Wilson's.
    """
    sites = len(tp)
    f1 = f1_score(*(torch.from_numpy(counts.sum(axis=0)) for counts in (tp, fp, fn))).numpy()
    there = ~np.isnan(f1)
    if sites < 2 or not there.any():
        return float("nan"), float("nan")
    f1, tp, sums = f1[there], tp[:, there], (2 * tp + fp + fn)[:, there]
    classes = len(f1)
    number = (sums > 0).sum(axis=0)  # of sites, (classes,)
    without = _without_one(2 * tp, sums)  # (sites, classes)
    variances = np.where(number > 1, _jackknife(without), 0.0)
    shrunk = (f1 * number + 1) / (number + 2)  # a variance that is not 0 where all is right
    least = np.maximum(variances, shrunk * (1 - shrunk) / (CLIPS_OF_A_SITE * number))
    variance = _jackknife(without.mean(axis=1, keepdims=True)).item() + (least - variances).sum() / classes**2
    degrees = least.sum() ** 2 / (least**2 / np.maximum(number - 1, 1)).sum()
    bias = np.where(number > FEW_SITES, (sites - 1) * (without.mean(axis=0) - f1), 0.0)
    middle = float(np.clip((f1 - bias).mean(), 0, 1))
    of_binary = max(middle * (1 - middle), shrunk.mean() * (1 - shrunk.mean()))
    low, high = _wilson(middle, of_binary / variance, _student(max(min(degrees, sites - 1), 1)))
    return min(low, float(f1.mean())), max(high, float(f1.mean()))


def _without_one(part: Floats, whole: Floats) -> Floats:
    """Returns the ratio without each of the sites in turn, (sites, ...); that of all sites where no clip is left."""
    all_part, all_whole = part.sum(axis=0), whole.sum(axis=0)
    left = all_whole - whole
    shares: Floats = np.where(left > 0, (all_part - part) / np.where(left > 0, left, 1), all_part / all_whole)
    return shares


def _jackknife(without: Floats) -> Floats:
    """Returns the variances, (scores,), from the scores without each of the sites, (sites, scores)."""
    sites = len(without)
    variances: Floats = (sites - 1) / sites * ((without - without.mean(axis=0)) ** 2).sum(axis=0)
    return variances


def _wilson(share: float, number: float, student: float) -> tuple[float, float]:
    square = student**2 / number
    middle = (share + square / 2) / (1 + square)
    half = np.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return float(middle - half), float(middle + half)


def _student(degrees: float) -> float:
    """Returns the quantile of Student's t that leaves 2.5 % above it."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 1 - TAIL))


def _logistic(x: float) -> float:
    return float(0.5 * (1 + np.tanh(x / 2)))
