"""The numbers, against scikit-learn and torchmetrics, and against values worked out by hand."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from torchmetrics.functional.classification import multiclass_calibration_error

from zamba_lcli.evaluation import calibration
from zamba_lcli.evaluation import scores as ev

CLASSES = 5
SITES = [f"site {i % 8}" for i in range(200)]


def sample(task, seed, clips=200, ties=False, classes=CLASSES):
    """Targets and logits that know something of them."""
    chance = np.random.default_rng(seed)
    if task == "multiclass":
        targets = np.eye(classes, dtype=bool)[chance.integers(classes, size=clips)]
    else:
        targets = chance.random((clips, classes)) < 0.3
    logits = 2 * targets - 1 + chance.normal(size=(clips, classes)) * 1.5
    return targets, np.round(logits) if ties else logits


def probabilities_of(logits, task):
    values = torch.from_numpy(logits)
    return (values.sigmoid() if task == "multilabel" else values.softmax(dim=1)).numpy()


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_scores_are_scikit_learns(task, ties, seed):
    targets, logits = sample(task, seed, ties=ties)
    probabilities = probabilities_of(logits, task)
    predicted = ev.predict_labels(probabilities, task)
    if task == "multiclass":
        assert (predicted == np.eye(CLASSES, dtype=bool)[probabilities.argmax(axis=1)]).all()
    scores = ev.class_scores(targets, predicted, probabilities)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        targets.astype(int), predicted.astype(int), average=None, zero_division=np.nan
    )
    assert scores.precision == pytest.approx(precision, nan_ok=True)
    assert scores.recall == pytest.approx(recall, nan_ok=True)
    assert scores.f1 == pytest.approx(f1, nan_ok=True)
    assert scores.support.tolist() == support.tolist()
    expected = [sk.average_precision_score(targets[:, i], probabilities[:, i]) for i in range(CLASSES)]
    assert scores.average_precision == pytest.approx(expected)
    assert ev.macro_f1(targets, predicted) == pytest.approx(np.mean(f1))
    if task == "multiclass":
        truth = targets.argmax(axis=1)
        accuracy = sk.accuracy_score(truth, predicted.argmax(axis=1))
        assert ev.is_top_class_right(targets, probabilities).mean() == pytest.approx(accuracy)
        assert (
            ev.confusion_matrix(targets, probabilities) == sk.confusion_matrix(truth, predicted.argmax(axis=1))
        ).all()


def test_what_is_not_defined_is_nan_and_not_counted():
    targets = np.array([[1, 0, 0], [1, 0, 0]], bool)
    predicted = np.array([[1, 0, 0], [0, 1, 0]], bool)
    scores = ev.class_scores(targets, predicted, predicted.astype(float))
    assert scores.precision == pytest.approx([1.0, 0.0, np.nan], nan_ok=True)
    assert scores.recall == pytest.approx([0.5, np.nan, np.nan], nan_ok=True)
    assert scores.f1 == pytest.approx([2 / 3, 0.0, np.nan], nan_ok=True)
    assert np.isnan(scores.average_precision[1:]).all()
    assert ev.macro_f1(targets, predicted) == pytest.approx((2 / 3 + 0) / 2)  # the third class is not there
    assert np.isnan(ev.macro_f1(targets[:, 2:], predicted[:, 2:]))


def test_clips_with_several_labels_are_not_in_the_confusion_matrix():
    targets = np.array([[1, 1], [1, 0], [0, 0], [0, 1]], bool)
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.1], [0.3, 0.4]])
    assert ev.confusion_matrix(targets, scores).tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_operating_points_are_on_scikit_learns_curve(seed, ties):
    targets, logits = sample("multilabel", seed, ties=ties)
    positive, scores = targets[:, 0], logits[:, 0]
    false_rate, true_rate, _ = sk.roc_curve(positive, scores, drop_intermediate=False)
    for point in calibration.operating_points(positive, scores, SITES):
        if np.isnan(point.threshold):
            continue
        lowest = point.expected_miss_rate * (positive.sum() + 1)  # the threshold is the so-and-so-many-th lowest score
        allowed = 1 - true_rate <= (lowest - 1) / positive.sum() + 1e-9
        assert point.expected_miss_rate <= point.max_miss_rate + 1e-9
        assert point.specificity == pytest.approx((1 - false_rate)[allowed].max())
        assert point.miss_rate == pytest.approx((scores[positive] < point.threshold).mean())
        assert point.specificity == pytest.approx((scores[~positive] < point.threshold).mean())


def test_operating_points_by_hand():
    positive = np.array([1] * 10 + [0] * 4, bool)
    scores = np.array([*range(1, 11), 0.5, 1.5, 2.5, 9.5], float)
    sites = ["a"] * 5 + ["b"] * 5 + ["c"] * 4
    none, one, two = calibration.operating_points(positive, scores, sites, (0.09, 0.1, 0.25))
    assert np.isnan(
        [none.threshold, none.miss_rate, none.specificity, none.expected_miss_rate]
    ).all()  # 10 clips do not tell 9 %
    assert (one.threshold, one.miss_rate, one.specificity, one.expected_miss_rate) == (1.0, 0.0, 0.25, 1 / 11)
    assert (two.threshold, two.miss_rate, two.specificity, two.expected_miss_rate) == (2.0, 0.1, 0.5, 2 / 11)
    # by the lowest of site b's five, 6, all of site a's are lost; by that of site a's, 1, none of b's
    assert np.isnan(one.miss_rate_at_new_sites)
    assert two.miss_rate_at_new_sites == 0.5
    assert calibration.operating_points(np.ones(3, bool), np.ones(3), ["a"] * 3) == []


@pytest.mark.parametrize("clips", [10, 20, 100])
def test_no_more_is_lost_of_other_clips_than_is_stated(clips):
    chance = np.random.default_rng(clips)
    lost = {share: [] for share in calibration.MISS_RATES}
    for _ in range(2000):
        scores, others = chance.normal(size=clips + 1), chance.normal(size=1000)
        for point in calibration.operating_points(np.arange(clips + 1) < clips, scores, ["a"] * (clips + 1)):
            lost[point.max_miss_rate].append((others < point.threshold).mean())
            assert np.isnan(point.threshold) == (clips < 1 / point.max_miss_rate - 1 - 1e-9)
    for share, found in lost.items():
        if clips >= 1 / share - 1:
            assert np.mean(found) <= share + 0.003, share
            assert np.mean(found) == pytest.approx(np.floor(share * (clips + 1) + 1e-9) / (clips + 1), rel=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_is_torchmetrics(seed):
    targets, logits = sample("multiclass", seed)
    probabilities = probabilities_of(logits, "multiclass")
    truth = torch.from_numpy(targets.argmax(axis=1))
    expected = multiclass_calibration_error(torch.from_numpy(probabilities), truth, CLASSES, n_bins=calibration.BINS)
    found = calibration.reliability(targets, probabilities)
    assert found.expected_calibration_error == pytest.approx(float(expected), abs=1e-6)
    assert found.count.sum() == len(targets)
    targets, logits = sample("multilabel", seed)
    probabilities = probabilities_of(logits, "multilabel")
    # of the top class; scikit-learn has the curve, as of any other class
    top = probabilities.argmax(axis=1)
    share, mean = calibration_curve(targets[np.arange(200), top], probabilities.max(axis=1), n_bins=calibration.BINS)
    found = calibration.reliability(targets, probabilities)
    full = found.count > 0
    assert found.accuracy[full] == pytest.approx(share)
    assert found.confidence[full] == pytest.approx(mean)
    errors = []
    for i in range(CLASSES):
        share, mean = calibration_curve(targets[:, i], probabilities[:, i], n_bins=calibration.BINS)
        count = np.histogram(probabilities[:, i], np.linspace(0, 1, calibration.BINS + 1))[0]
        errors.append((abs(share - mean) * count[count > 0]).sum() / 200)
    assert calibration.class_wise_calibration_error(targets, probabilities) == pytest.approx(np.mean(errors))


def test_a_multilabel_model_too_sure_of_its_top_class_is_told_so():
    """The many classes that are surely absent do not hide it."""
    chance = np.random.default_rng(0)
    targets, probabilities = np.zeros((1000, 10), bool), np.full((1000, 10), 0.005)
    targets[:, 0] = chance.random(1000) < 0.6
    probabilities[:, 0] = 0.95
    assert calibration.reliability(targets, probabilities).expected_calibration_error == pytest.approx(0.35, abs=0.04)
    assert calibration.class_wise_calibration_error(targets, probabilities) == pytest.approx(
        (0.35 + 9 * 0.005) / 10, abs=0.005
    )


@pytest.mark.parametrize("clips", [50, 200])
def test_the_calibration_error_by_chance_is_that_of_a_calibrated_model(clips):
    chance = np.random.default_rng(clips)
    errors, by_chance = [], []
    for i in range(300):
        probabilities = torch.from_numpy(chance.normal(size=(clips, 4)) * 1.5).softmax(dim=1).numpy()
        targets = np.array([chance.multinomial(1, p) for p in probabilities], bool)  # calibrated
        errors.append(calibration.reliability(targets, probabilities).expected_calibration_error)
        if i < 10:
            by_chance.append(calibration.calibration_by_chance(probabilities))
    assert np.mean([c.mean for c in by_chance]) == pytest.approx(np.mean(errors), rel=0.05)
    assert np.mean(np.array(errors) < np.mean([c.high for c in by_chance])) == pytest.approx(0.95, abs=0.03)
    assert np.mean(errors) > 0.05 * (50 / clips) ** 0.5  # by itself it would tell of a fault


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
@pytest.mark.parametrize("factor", [0.2, 1.0, 7.0])
def test_the_temperature_is_the_best_one(task, factor):
    targets, logits = sample(task, 3)
    logits = logits * factor
    found = calibration.fit_temperature(targets, logits, task)

    def loss(temperature):
        probabilities = probabilities_of(logits / temperature, task)
        if task == "multiclass":
            return sk.log_loss(targets.argmax(axis=1), probabilities, labels=range(CLASSES))
        return np.mean([sk.log_loss(targets[:, i], probabilities[:, i], labels=[0, 1]) for i in range(CLASSES)])

    best = minimize_scalar(loss, bounds=(0.01, 100), method="bounded", options={"xatol": 1e-9})
    assert found == pytest.approx(best.x, rel=1e-4)
    assert calibration.negative_log_likelihood(targets, logits, task, found) == pytest.approx(best.fun, rel=1e-7)


def test_a_model_that_is_never_wrong_has_a_temperature():
    targets = np.eye(3, dtype=bool)
    assert 0.01 <= calibration.fit_temperature(targets, np.eye(3), "multiclass") < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_thresholds_of_the_highest_f1(seed):
    targets, logits = sample("multilabel", seed)
    targets[:, 0] = False
    probabilities = probabilities_of(logits, "multilabel").round(1)  # many are equal
    thresholds = calibration.best_thresholds(targets, probabilities)
    assert thresholds[0] == 0.5  # without clips none is better
    for truth, p, threshold in zip(targets.T[1:], probabilities.T[1:], thresholds[1:], strict=True):
        tried = {at: sk.f1_score(truth, p > at, zero_division=0) for at in (*np.arange(0.05, 1, 0.1), 0.5)}
        assert sk.f1_score(truth, p > threshold) == pytest.approx(max(tried.values()))
        best = [at for at, f1 in tried.items() if f1 > max(tried.values()) - 1e-9]
        assert abs(threshold - 0.5) <= min(abs(at - 0.5) for at in best) + 1e-9
