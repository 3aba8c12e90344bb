"""Whether probabilities are what they say, and the thresholds that follow from them.

Throughout, ``targets`` is bool (clips, classes), true where a clip has a label; ``probabilities`` and ``logits`` are float64
(clips, classes).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zamba_lcli.evaluation.scores import Bools, Floats
from zamba_lcli.types import Task

MISS_RATES = (0.01, 0.02, 0.05, 0.10, 0.15)  # 1 - sensitivity, at most
BINS = 15  # of the reliability, as in Guo et al. 2017
TEMPERATURES = (0.01, 100.0)  # the lowest and the highest that is fitted
ENOUGH_CLIPS = 50  # to fit a temperature on
DRAWS = 1000  # of a calibrated model's labels


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold below which clips are negative, with its error rates; NaN where there is none."""

    max_miss_rate: float  # 1 - sensitivity, at most
    threshold: float
    miss_rate: float  # 1 - sensitivity: share of these positive clips below the threshold
    specificity: float  # share of these negative clips below the threshold
    expected_miss_rate: float  # of other clips of the same sites
    miss_rate_at_new_sites: float  # of each site by the threshold of all other sites


def operating_points(
    positive: Bools, scores: Floats, sites: Sequence[str], max_miss_rates: Sequence[float] = MISS_RATES
) -> list[OperatingPoint]:
    """Returns the threshold of the highest specificity for each miss rate: clips with a score below it are negative.

    The threshold is the k-th lowest score of the n positive clips. Another such clip is below it with probability k / (n + 1)
    (Vovk's conformal prediction), so k is the largest for which that is at most the miss rate; with n below
    1 / rate - 1 there is no threshold.

    Args:
        positive: (clips,), clips to keep; all others are to be sorted out.
        scores: (clips,), higher for positive clips.
        sites: (clips,), the site of each clip.
        max_miss_rates: 1 - sensitivity, at most.

    Returns:
        A point for each miss rate; none if all clips, or none, are positive.
    """
    if positive.all() or not positive.any():
        return []
    site_of = np.asarray(sites, dtype=object).astype(str)
    points = []
    for rate in max_miss_rates:
        threshold, expected = _threshold(scores[positive], rate)
        below = scores < threshold  # nothing, without a threshold
        miss_rate, specificity = (below[clips].mean() for clips in (positive, ~positive))
        if np.isnan(threshold):
            miss_rate = specificity = np.nan
        at_new_sites = _miss_rate_at_new_sites(scores[positive], site_of[positive], rate)
        points.append(OperatingPoint(rate, threshold, float(miss_rate), float(specificity), expected, at_new_sites))
    return points


def _threshold(scores: Floats, rate: float) -> tuple[float, float]:
    """Returns the threshold for the scores of positive clips, (n,), and the miss rate to expect; NaN for none."""
    position = int(np.floor(rate * (len(scores) + 1) + 1e-9)) - 1
    if position < 0:
        return float("nan"), float("nan")
    return float(np.sort(scores)[position]), (position + 1) / (len(scores) + 1)


def _miss_rate_at_new_sites(scores: Floats, site_of: NDArray[Any], rate: float) -> float:
    """Returns the share of positive clips below the threshold of the other sites' clips; NaN where these are too few."""
    missed = clips = 0
    for site in np.unique(site_of):
        threshold, _ = _threshold(scores[site_of != site], rate)
        if not np.isnan(threshold):
            missed += int((scores[site_of == site] < threshold).sum())
            clips += int((site_of == site).sum())
    return missed / clips if clips else float("nan")


def best_thresholds(targets: Bools, probabilities: Floats) -> Floats:
    """Returns for each class the threshold of the highest F1, (classes,): clips with a higher probability have the class.

    It is in the middle between two probabilities; of thresholds that are equally good, the nearest to one half. One half for a
    class without clips, of which no threshold is better than another.
    """
    return np.array([_best_threshold(*of_class) for of_class in zip(targets.T, probabilities.T, strict=True)])


def _best_threshold(target: Bools, probabilities: Floats) -> float:
    if not target.any():
        return 0.5
    order = np.argsort(-probabilities)
    sorted_p = probabilities[order]
    predicted = np.arange(1, len(order) + 1)  # so many clips are above the threshold
    f1 = 2 * np.cumsum(target[order]) / (predicted + target.sum())
    next_p = np.append(sorted_p[1:], 0.0)
    f1[sorted_p == next_p] = -1.0  # no threshold is between equal ones
    holds_half = (next_p <= 0.5) & (sorted_p > 0.5)
    thresholds = np.where(holds_half, 0.5, (sorted_p + next_p) / 2)[f1 >= f1.max() - 1e-12]
    return float(thresholds[np.abs(thresholds - 0.5).argmin()])


@dataclass(frozen=True)
class Reliability:
    """Accuracy by confidence, in bins of equal width; each (bins,), NaN where a bin is empty."""

    count: NDArray[np.int64]
    confidence: Floats  # mean
    accuracy: Floats

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance of confidence and accuracy, weighted by the bins' counts."""
        full = self.count > 0
        return float((np.abs(self.confidence - self.accuracy) * self.count)[full].sum() / self.count.sum())


def reliability(targets: Bools, probabilities: Floats, bins: int = BINS) -> Reliability:
    """Returns the reliability of the top class (Guo et al. 2017), which is right if it is a label of the clip."""
    top = probabilities.argmax(axis=1)
    return _reliability(probabilities.max(axis=1), targets[np.arange(len(top)), top], bins)


def class_wise_calibration_error(targets: Bools, probabilities: Floats, bins: int = BINS) -> float:
    """Returns the mean over classes of each class's expected calibration error.

    One error over all classes would dilute it: the many that are surely absent hide the few that are not.
    """
    each = zip(probabilities.T, targets.T, strict=True)
    return float(np.mean([_reliability(p, t, bins).expected_calibration_error for p, t in each]))


@dataclass(frozen=True)
class CalibrationByChance:
    """The expected calibration error that a calibrated model with the same probabilities has by chance."""

    mean: float
    high: float  # 95 % of calibrated models are below it


def calibration_by_chance(probabilities: Floats, bins: int = BINS, seed: int = 0) -> CalibrationByChance:
    """Returns the expected calibration error that as few clips of a perfectly calibrated model have.

    The error is a sum of absolute differences and so above 0 for any model, the more the fewer clips there are. To compare
    with chance, labels are drawn with the model's own probabilities (Broecker and Smith 2007).
    """
    confidence = probabilities.max(axis=1)
    draws = np.random.default_rng(seed).random((DRAWS, len(confidence))) < confidence
    errors = [_reliability(confidence, drawn, bins).expected_calibration_error for drawn in draws]
    return CalibrationByChance(float(np.mean(errors)), float(np.percentile(errors, 95)))


def _reliability(confidence: Floats, right: Bools, bins: int) -> Reliability:
    # (0, 1/bins], (1/bins, 2/bins] and so on; 0 is in the first
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    return Reliability(
        count=count,
        confidence=_safe_divide(np.bincount(bin_of, confidence, bins), count),
        accuracy=_safe_divide(np.bincount(bin_of, right, bins), count),
    )


def _safe_divide(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """Returns ``part / whole``, NaN where ``whole`` is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    shares: Floats = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return shares


def negative_log_likelihood(targets: Bools, logits: Floats, task: Task, temperature: float = 1.0) -> float:
    """Returns the mean negative log-likelihood of the labels over clips (and classes, of a multilabel model)."""
    scaled = torch.from_numpy(logits / temperature)
    return float(_cross_entropy(scaled, torch.from_numpy(targets.astype(float)), task))


def fit_temperature(targets: Bools, logits: Floats, task: Task) -> float:
    """Returns the temperature, a divisor of the logits, that makes the labels most likely (Guo et al. 2017).

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


def doubt_of_temperature(temperature: float, clips: int) -> str | None:
    """Returns why a temperature fitted on ``clips`` clips is not reliable; None if it is."""
    if clips < ENOUGH_CLIPS:
        return f"it is fitted on {clips} val clips; {ENOUGH_CLIPS} or more are needed."
    if not TEMPERATURES[0] < temperature < TEMPERATURES[1]:
        return "no temperature fits best: the val clips are all right, or no better than chance."
    return None


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor, task: Task) -> torch.Tensor:
    if task == "multilabel":
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
    return torch.nn.functional.cross_entropy(logits, targets)
