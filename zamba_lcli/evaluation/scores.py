"""Numbers on predictions whose truth is known: plain functions of arrays, without a model or files.

Throughout, ``targets`` is bool (clips, classes), true where a clip has a label; ``named`` is bool (clips, classes), true where
the model says so; ``probabilities`` and ``logits`` are float (clips, classes).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from zamba_lcli.types import Task

Bools: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]
LOST = (0.01, 0.02, 0.05, 0.10, 0.15)  # shares of animals that may be lost
BINS = 15  # of reliability, as many as Guo et al. 2017 have
TEMPERATURES = (0.01, 100.0)  # the lowest and the highest that is fitted
CHANCE = 1000  # draws, of what a calibrated model would show


@dataclass(frozen=True)
class ClassScores:
    """Scores of each class, each (classes,); NaN where a score is not defined, such as the recall of a class without clips."""

    support: NDArray[np.int64]  # clips that have the label
    precision: Floats
    recall: Floats
    f1: Floats
    average_precision: Floats


def decide(probabilities: Floats, task: Task) -> Bools:
    """Returns which classes the model names: those above one half, or of a multiclass model the one with the highest."""
    if task == "multilabel":
        return probabilities > 0.5
    named = np.zeros(probabilities.shape, np.bool_)
    named[np.arange(len(named)), probabilities.argmax(axis=1)] = True
    return named


def class_scores(targets: Bools, named: Bools, probabilities: Floats) -> ClassScores:
    """Returns precision, recall, F1 and average precision of each class."""
    hits, false, missed = _counts(targets, named)
    return ClassScores(
        support=targets.sum(axis=0),
        precision=_share(hits, hits + false),
        recall=_share(hits, hits + missed),
        f1=_share(2 * hits, 2 * hits + false + missed),
        average_precision=np.array([average_precision(t, p) for t, p in zip(targets.T, probabilities.T, strict=True)]),
    )


def average_precision(target: Bools, scores: Floats) -> float:
    """Returns the area under precision over recall, by steps: the sum of precision times gain in recall; NaN without clips.

    Args:
        target: (clips,), which clips have the label.
        scores: (clips,), equal ones are taken together.
    """
    if not target.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of those with equal scores
    hits = target[order].cumsum()[last]
    precision = hits / (np.flatnonzero(last) + 1)
    return float((precision * np.diff(hits, prepend=0)).sum() / target.sum())


def macro_f1(targets: Bools, named: Bools) -> float:
    """Returns the mean F1 of all classes that a clip has or that are predicted; NaN without any.

    scikit-learn's ``f1_score(average="macro", zero_division=np.nan)``, as ``zamba_lcli.metrics.MacroF1`` has it in training.
    """
    hits, false, missed = _counts(targets, named)
    f1 = _share(2 * hits, 2 * hits + false + missed)
    return float(np.nanmean(f1)) if not np.isnan(f1).all() else float("nan")


def top_k_accuracy(targets: Bools, probabilities: Floats, k: int) -> float:
    """Returns the share of clips of which a label is among the ``k`` classes with the highest probabilities."""
    highest = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(targets, highest, axis=1).any(axis=1).mean())


def confusion_matrix(targets: Bools, probabilities: Floats) -> NDArray[np.int64]:
    """Returns (classes, classes): clips by their label (rows) and the class with the highest probability (columns).

    Clips with several labels, or none, are not counted.
    """
    one = targets.sum(axis=1) == 1
    matrix = np.zeros((targets.shape[1], targets.shape[1]), np.int64)
    np.add.at(matrix, (targets[one].argmax(axis=1), probabilities[one].argmax(axis=1)), 1)
    return matrix


# ---- operating points ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold by which clips are sorted out, and what that does; NaN where there is none."""

    may_lose: float  # share of the clips to keep
    threshold: float  # clips are sorted out on the far side of it
    lost: float  # share of the clips to keep that are sorted out
    removed: float  # share of the clips to get rid of that are sorted out
    expected_lost: float  # share to be lost of other clips of the same sites
    lost_at_new_sites: float  # share lost at each site by the threshold of all other sites


def operating_points(
    wanted: Bools, scores: Floats, sites: Sequence[str], may_lose: Sequence[float] = LOST
) -> list[OperatingPoint]:
    """Returns, for each share that may be lost, the threshold that removes most: clips with a score below it are sorted out.

    The threshold is the k-th lowest score of the n wanted clips. Of another clip like them the chance to be below it is
    k / (n + 1) (Vovk's conformal prediction), so that k is the largest with which this is at most the share; n below
    1 / share - 1 tell no threshold.

    Args:
        wanted: (clips,), clips to keep; all others are to be got rid of.
        scores: (clips,), the higher the more wanted.
        sites: (clips,), the site of each clip.
        may_lose: Shares of the wanted clips.

    Returns:
        A point for each share; none if there are no clips of one of the kinds.
    """
    if wanted.all() or not wanted.any():
        return []
    site_of = np.asarray(sites, dtype=object).astype(str)
    points = []
    for share in may_lose:
        threshold, expected = _threshold(scores[wanted], share)
        sorted_out = scores < threshold  # nothing, without a threshold
        lost, removed = (sorted_out[clips].mean() for clips in (wanted, ~wanted))
        if np.isnan(threshold):
            lost = removed = np.nan
        new_sites = _lost_at_new_sites(scores[wanted], site_of[wanted], share)
        points.append(OperatingPoint(share, threshold, float(lost), float(removed), expected, new_sites))
    return points


def _threshold(scores: Floats, share: float) -> tuple[float, float]:
    """Returns the threshold for the scores of wanted clips, (n,), and the share of others to be lost; NaN for none."""
    position = int(np.floor(share * (len(scores) + 1) + 1e-9)) - 1
    if position < 0:
        return float("nan"), float("nan")
    return float(np.sort(scores)[position]), (position + 1) / (len(scores) + 1)


def _lost_at_new_sites(scores: Floats, site_of: NDArray[Any], share: float) -> float:
    """Returns the share of wanted clips below the threshold of the other sites' clips; NaN where these are too few."""
    lost = clips = 0
    for site in np.unique(site_of):
        threshold, _ = _threshold(scores[site_of != site], share)
        if not np.isnan(threshold):
            lost += int((scores[site_of == site] < threshold).sum())
            clips += int((site_of == site).sum())
    return lost / clips if clips else float("nan")


# ---- calibration -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reliability:
    """How often the model is right where it is so sure, in bins of equal width; each (bins,), NaN where a bin is empty."""

    count: NDArray[np.int64]
    confidence: Floats  # mean
    accuracy: Floats

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance of confidence and accuracy, weighted by the bins' counts."""
        full = self.count > 0
        return float((np.abs(self.confidence - self.accuracy) * self.count)[full].sum() / self.count.sum())


def reliability(targets: Bools, probabilities: Floats, bins: int = BINS) -> Reliability:
    """Returns how well the probability of the top class is calibrated (Guo et al. 2017), right being that it is a label."""
    top = probabilities.argmax(axis=1)
    return _reliability(probabilities.max(axis=1), targets[np.arange(len(top)), top], bins)


def class_wise_calibration_error(targets: Bools, probabilities: Floats, bins: int = BINS) -> float:
    """Returns the mean over classes of the calibration error of each class by itself, right being that a clip has the label.

    All classes in the same bins would dilute it: the many that are surely absent hide the few that are not.
    """
    each = zip(probabilities.T, targets.T, strict=True)
    return float(np.mean([_reliability(p, t, bins).expected_calibration_error for p, t in each]))


@dataclass(frozen=True)
class CalibrationByChance:
    """The expected calibration error of a calibrated model with the same probabilities, by chance alone."""

    mean: float
    high: float  # 95 % of calibrated models are below it


def calibration_by_chance(probabilities: Floats, bins: int = BINS, seed: int = 0) -> CalibrationByChance:
    """Returns which calibration error is to be expected of so few clips of a perfectly calibrated model.

    The error is a sum of absolute differences and so above 0 for any model, the more the fewer clips there are; to have what
    it tells beyond chance, answers are drawn with the model's own probabilities (Broecker and Smith 2007).
    """
    confidence = probabilities.max(axis=1)
    draws = np.random.default_rng(seed).random((CHANCE, len(confidence))) < confidence
    errors = [_reliability(confidence, drawn, bins).expected_calibration_error for drawn in draws]
    return CalibrationByChance(float(np.mean(errors)), float(np.percentile(errors, 95)))


def _reliability(confidence: Floats, right: Bools, bins: int) -> Reliability:
    # (0, 1/bins], (1/bins, 2/bins] and so on; 0 is in the first
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    return Reliability(
        count=count,
        confidence=_share(np.bincount(bin_of, confidence, bins), count),
        accuracy=_share(np.bincount(bin_of, right, bins), count),
    )


def negative_log_likelihood(targets: Bools, logits: Floats, task: Task, temperature: float = 1.0) -> float:
    """Returns the mean over clips (and classes, of a multilabel model) of minus the log probability of the truth."""
    scaled = torch.from_numpy(logits / temperature)
    return float(_cross_entropy(scaled, torch.from_numpy(targets.astype(float)), task))


def fit_temperature(targets: Bools, logits: Floats, task: Task) -> float:
    """Returns the temperature by which logits are to be divided so that the truth becomes most likely (Guo et al. 2017).

    It is kept between 0.01 and 100: where all clips are predicted right, the likelihood grows without end.
    """
    with torch.inference_mode(False), torch.enable_grad():  # Lightning tests without gradients
        inverse = torch.ones((), dtype=torch.float64, requires_grad=True)  # 1 / T, in which the likelihood is concave
        values, truth = torch.from_numpy(logits.astype(np.float64)), torch.from_numpy(targets.astype(np.float64))
        optimizer = torch.optim.LBFGS(
            [inverse], max_iter=200, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
        )

        def closure() -> float:
            optimizer.zero_grad()
            loss = _cross_entropy(values * inverse, truth, task)
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())

        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return float(np.clip(1 / max(inverse.item(), 1e-9), *TEMPERATURES))


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor, task: Task) -> torch.Tensor:
    if task == "multilabel":
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
    return torch.nn.functional.cross_entropy(logits, targets)


# ---- helpers ---------------------------------------------------------------------------------------------------------


def _counts(targets: Bools, named: Bools) -> tuple[Floats, Floats, Floats]:
    """Returns hits, false alarms and misses of each class, each (classes,)."""
    hits, false, missed = (
        both.sum(axis=0).astype(float) for both in (targets & named, ~targets & named, targets & ~named)
    )
    return hits, false, missed


def _share(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """Returns ``part / whole``, NaN where there is nothing to divide by."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    shares: Floats = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return shares
