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
RESAMPLES = 1000  # of the sites
INTERVAL = (2.5, 97.5)  # percentiles: 95 % lie between


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
    """Returns the mean F1 of all classes that a clip has or is said to have; NaN without clips."""
    hits, false, missed = _counts(targets, named)
    return float(_macro(hits, false, missed))


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
    """A threshold by which clips are sorted out, and what that does."""

    may_lose: float  # share of the clips to keep
    threshold: float  # clips are sorted out on the far side of it
    lost: float  # share of the clips to keep that are sorted out
    removed: float  # share of the clips to get rid of that are sorted out


def operating_points(wanted: Bools, scores: Floats, may_lose: Sequence[float] = LOST) -> list[OperatingPoint]:
    """Returns, for each share that may be lost, the threshold that removes most: clips with a score below it are sorted out.

    Args:
        wanted: (clips,), clips to keep; all others are to be got rid of.
        scores: (clips,), the higher the more wanted.
        may_lose: Shares of the wanted clips.

    Returns:
        A point for each share; none if there are no clips of one of the kinds.
    """
    if wanted.all() or not wanted.any():
        return []
    kept_from = np.sort(scores[wanted])
    points = []
    for share in may_lose:
        # the threshold is a score of a wanted clip: as many as may be lost are strictly below it
        position = min(int(np.floor(share * len(kept_from) + 1e-9)), len(kept_from) - 1)
        threshold = float(kept_from[position])
        lost, removed = (float((scores[clips] < threshold).mean()) for clips in (wanted, ~wanted))
        points.append(OperatingPoint(share, threshold, lost, removed))
    return points


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


def reliability(targets: Bools, probabilities: Floats, task: Task, bins: int = BINS) -> Reliability:
    """Returns how well probabilities are calibrated (Guo et al. 2017).

    Of a multiclass model the confidence is the highest probability; of a multilabel model each probability of each class
    counts by itself, right being that the clip has the label.
    """
    if task == "multiclass":
        top = probabilities.argmax(axis=1)
        confidence = probabilities.max(axis=1)
        right = targets[np.arange(len(top)), top]
    else:
        confidence, right = probabilities.ravel(), targets.ravel()
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


# ---- intervals -------------------------------------------------------------------------------------------------------


def bootstrap(
    targets: Bools,
    named: Bools,
    probabilities: Floats,
    groups: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[dict[str, tuple[float, float]], dict[str, Floats]]:
    """Returns 95 % intervals: percentiles of the scores of clips of groups that are drawn with replacement.

    Clips of one site resemble each other; drawn one by one, they would make the intervals too narrow.

    Args:
        targets: See above, as ``named`` and ``probabilities``.
        named: The classes the model names.
        probabilities: Of the model.
        groups: (clips,), the site of each clip, or what else to draw together.
        resamples: How many times to draw.
        seed: Changes what is drawn.

    Returns:
        Of ``accuracy`` (the top class is a label) and ``macro_f1`` the low and high ends; and of ``precision``, ``recall`` and
        ``f1``, by class, float (classes, 2), NaN where a score is not defined, and everywhere if there is only one group, which
        tells nothing of how groups differ.
    """
    _, group_of = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    number = int(group_of.max()) + 1
    if number == 1:
        resamples = 0
    draws = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=resamples)
    top_is_right = targets[np.arange(len(targets)), probabilities.argmax(axis=1)]

    def drawn(per_clip: NDArray[Any]) -> Floats:
        """Sums (clips, ...) over the clips of each drawing, (resamples, ...)."""
        sums = np.zeros((number, *per_clip.shape[1:]))
        np.add.at(sums, group_of, per_clip)
        summed: Floats = np.tensordot(draws.astype(np.float64), sums, axes=1)
        return summed

    hits, false, missed = drawn(targets & named), drawn(~targets & named), drawn(targets & ~named)
    overall = {
        "accuracy": drawn(top_is_right) / drawn(np.ones(len(targets))),
        "macro_f1": _macro(hits, false, missed),
    }
    by_class = {
        "precision": _share(hits, hits + false),
        "recall": _share(hits, hits + missed),
        "f1": _share(2 * hits, 2 * hits + false + missed),
    }
    intervals = {name: _interval(values) for name, values in overall.items()}
    return intervals, {
        name: np.array([_interval(values[:, i]) for i in range(values.shape[1])]) for name, values in by_class.items()
    }


def _interval(values: Floats) -> tuple[float, float]:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.percentile(defined, INTERVAL)
    return float(low), float(high)


# ---- helpers ---------------------------------------------------------------------------------------------------------


def _counts(targets: Bools, named: Bools) -> tuple[Floats, Floats, Floats]:
    """Returns hits, false alarms and misses of each class, each (classes,)."""
    hits, false, missed = (
        both.sum(axis=0).astype(float) for both in (targets & named, ~targets & named, targets & ~named)
    )
    return hits, false, missed


def _macro(hits: Floats, false: Floats, missed: Floats) -> Floats:
    """Returns the mean F1 over the last axis, of the classes that are there or named."""
    f1 = _share(2 * hits, 2 * hits + false + missed)
    return _share(np.nansum(f1, axis=-1), (~np.isnan(f1)).sum(axis=-1))


def _share(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """Returns ``part / whole``, NaN where there is nothing to divide by."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    shares: Floats = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return shares
