"""The numbers, against scikit-learn and torchmetrics, and against values worked out by hand."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error

from zamba_lcli import evaluation as ev

CLASSES = 5


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
    named = ev.decide(probabilities, task)
    if task == "multiclass":
        assert (named == np.eye(CLASSES, dtype=bool)[probabilities.argmax(axis=1)]).all()
    scores = ev.class_scores(targets, named, probabilities)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        targets.astype(int), named.astype(int), average=None, zero_division=np.nan
    )
    assert scores.precision == pytest.approx(precision, nan_ok=True)
    assert scores.recall == pytest.approx(recall, nan_ok=True)
    assert scores.f1 == pytest.approx(f1, nan_ok=True)
    assert scores.support.tolist() == support.tolist()
    expected = [sk.average_precision_score(targets[:, i], probabilities[:, i]) for i in range(CLASSES)]
    assert scores.average_precision == pytest.approx(expected)
    assert ev.macro_f1(targets, named) == pytest.approx(np.mean(f1))
    if task == "multiclass":
        truth = targets.argmax(axis=1)
        for k in (1, 3) if not ties else (1,):
            assert ev.top_k_accuracy(targets, probabilities, k) == pytest.approx(
                sk.top_k_accuracy_score(truth, probabilities, k=k)
                if not ties
                else sk.accuracy_score(truth, named.argmax(1))
            )
        assert (ev.confusion_matrix(targets, probabilities) == sk.confusion_matrix(truth, named.argmax(axis=1))).all()


def test_what_is_not_defined_is_nan_and_not_counted():
    targets = np.array([[1, 0, 0], [1, 0, 0]], bool)
    named = np.array([[1, 0, 0], [0, 1, 0]], bool)
    scores = ev.class_scores(targets, named, named.astype(float))
    assert scores.precision == pytest.approx([1.0, 0.0, np.nan], nan_ok=True)
    assert scores.recall == pytest.approx([0.5, np.nan, np.nan], nan_ok=True)
    assert scores.f1 == pytest.approx([2 / 3, 0.0, np.nan], nan_ok=True)
    assert np.isnan(scores.average_precision[1:]).all()
    assert ev.macro_f1(targets, named) == pytest.approx((2 / 3 + 0) / 2)  # the third class is not there


def test_clips_with_several_labels_are_not_in_the_confusion_matrix():
    targets = np.array([[1, 1], [1, 0], [0, 0], [0, 1]], bool)
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.1], [0.3, 0.4]])
    assert ev.confusion_matrix(targets, scores).tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_operating_points_are_on_scikit_learns_curve(seed, ties):
    targets, logits = sample("multilabel", seed, ties=ties)
    wanted, scores = targets[:, 0], logits[:, 0]
    false_rate, true_rate, _ = sk.roc_curve(wanted, scores, drop_intermediate=False)
    for point in ev.operating_points(wanted, scores):
        assert point.lost <= point.may_lose + 1e-9
        allowed = 1 - true_rate <= point.may_lose + 1e-9
        assert point.removed == pytest.approx((1 - false_rate)[allowed].max())
        assert point.lost == pytest.approx((scores[wanted] < point.threshold).mean())
        assert point.removed == pytest.approx((scores[~wanted] < point.threshold).mean())


def test_operating_points_by_hand():
    wanted = np.array([1] * 10 + [0] * 4, bool)
    scores = np.array([*range(1, 11), 0.5, 1.5, 2.5, 9.5], float)
    one, two = ev.operating_points(wanted, scores, (0.1, 0.25))
    assert (one.threshold, one.lost, one.removed) == (2.0, 0.1, 0.5)
    assert (two.threshold, two.lost, two.removed) == (3.0, 0.2, 0.75)
    assert ev.operating_points(np.ones(3, bool), np.ones(3)) == []


@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_is_torchmetrics(seed):
    for task in ("multiclass", "multilabel"):
        targets, logits = sample(task, seed)
        probabilities = probabilities_of(logits, task)
        found = ev.reliability(targets, probabilities, task)
        if task == "multiclass":
            truth = torch.from_numpy(targets.argmax(axis=1))
            expected = multiclass_calibration_error(torch.from_numpy(probabilities), truth, CLASSES, n_bins=ev.BINS)
            assert found.expected_calibration_error == pytest.approx(float(expected), abs=1e-6)
        else:
            # torchmetrics takes max(p, 1 - p) for the confidence of a binary answer; scikit-learn has the curve of p
            share, mean = _curve(targets.ravel(), probabilities.ravel())
            full = found.count > 0
            assert found.accuracy[full] == pytest.approx(share)
            assert found.confidence[full] == pytest.approx(mean)
        assert found.count.sum() == (len(targets) if task == "multiclass" else targets.size)


def _curve(truth, probabilities):
    from sklearn.calibration import calibration_curve

    return calibration_curve(truth, probabilities, n_bins=ev.BINS)


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
@pytest.mark.parametrize("factor", [0.2, 1.0, 7.0])
def test_the_temperature_is_the_best_one(task, factor):
    targets, logits = sample(task, 3)
    logits = logits * factor
    found = ev.fit_temperature(targets, logits, task)

    def loss(temperature):
        probabilities = probabilities_of(logits / temperature, task)
        if task == "multiclass":
            return sk.log_loss(targets.argmax(axis=1), probabilities, labels=range(CLASSES))
        return np.mean([sk.log_loss(targets[:, i], probabilities[:, i], labels=[0, 1]) for i in range(CLASSES)])

    best = minimize_scalar(loss, bounds=(0.01, 100), method="bounded", options={"xatol": 1e-9})
    assert found == pytest.approx(best.x, rel=1e-4)
    assert ev.negative_log_likelihood(targets, logits, task, found) == pytest.approx(best.fun, rel=1e-7)


def test_a_model_that_is_never_wrong_has_a_temperature():
    targets = np.eye(3, dtype=bool)
    assert 0.01 <= ev.fit_temperature(targets, np.eye(3), "multiclass") < 0.1


def test_one_site_tells_no_interval():
    targets = np.eye(2, dtype=bool)[[0, 1, 1]]
    overall, by_class = ev.bootstrap(targets, targets, targets.astype(float), ["a"] * 3)
    assert np.isnan(overall["macro_f1"]).all()
    assert np.isnan(by_class["f1"]).all()


def test_intervals_draw_whole_sites():
    targets, logits = sample("multiclass", 0, clips=60)
    probabilities = probabilities_of(logits, "multiclass")
    named = ev.decide(probabilities, "multiclass")
    sites = [f"s{i % 6}" for i in range(60)]
    overall, by_class = ev.bootstrap(targets, named, probabilities, sites, resamples=300)
    # the same draws, clip by clip
    draws = np.random.default_rng(0).multinomial(6, np.full(6, 1 / 6), size=300)
    accuracies, f1s, first = [], [], []
    for draw in draws:
        clips = np.concatenate([np.flatnonzero(np.array(sites) == f"s{s}").repeat(n) for s, n in enumerate(draw)])
        t, n = targets[clips], named[clips]
        accuracies.append((t.argmax(1) == n.argmax(1)).mean())
        f1s.append(sk.f1_score(t.argmax(1), n.argmax(1), average="macro"))
        first.append(sk.recall_score(t[:, 0], n[:, 0], zero_division=np.nan))
    assert overall["accuracy"] == pytest.approx(np.percentile(accuracies, ev.INTERVAL))
    assert overall["macro_f1"] == pytest.approx(np.percentile(f1s, ev.INTERVAL))
    assert by_class["recall"][0] == pytest.approx(np.nanpercentile(first, ev.INTERVAL))
    # clips that are alike by site: drawn one by one the interval is too narrow
    alike = np.repeat(np.eye(2, dtype=bool)[[0, 1, 0, 1, 0, 1]], 10, axis=0)
    says = np.repeat(np.eye(2, dtype=bool)[[0, 0, 0, 1, 0, 1]], 10, axis=0)
    by_site, _ = ev.bootstrap(alike, says, says.astype(float), np.repeat(np.arange(6), 10).astype(str))
    by_clip, _ = ev.bootstrap(alike, says, says.astype(float), np.arange(60).astype(str))
    assert np.diff(by_site["accuracy"]) > 2 * np.diff(by_clip["accuracy"])
