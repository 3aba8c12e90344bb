"""Intervals over sites: which share of them holds the truth, by simulation, and what few sites tell."""

import numpy as np
import pytest

from zamba_lcli.evaluation import scores as ev
from zamba_lcli.evaluation.intervals import site_intervals

CLASSES = np.array([0.35, 0.25, 0.18, 0.12, 0.07, 0.03])  # shares of the clips
RIGHT = np.array([1.8, 1.2, 1.0, 0.8, 0.5, 0.2])  # log odds that a clip of the class is predicted right
MISTAKEN_FOR = np.array([0.3, 0.25, 0.2, 0.12, 0.08, 0.05])


def draw_sites(rng, number):
    """True and predicted class of each clip, and its site, of sites with few or many clips, each with species of its own."""
    truth, predicted, sites = [], [], []
    clips = np.clip(rng.lognormal(2.6, 0.9, number).astype(int), 1, 400)
    for site, count in enumerate(clips):
        true = rng.choice(6, count, p=rng.dirichlet(CLASSES * 4))
        odds = RIGHT + rng.normal(0, 0.8) + rng.normal(0, 0.6, 6)
        right = rng.random(count) < 1 / (1 + np.exp(-odds[true]))
        other = np.array([rng.choice(6, p=(p := np.where(np.arange(6) == t, 0, MISTAKEN_FOR)) / p.sum()) for t in true])
        truth.append(true)
        predicted.append(np.where(right, true, other))
        sites.append(np.full(count, site))
    return np.concatenate(truth), np.concatenate(predicted), np.concatenate(sites)


def intervals_of(truth, predicted, sites):
    targets, answers = np.eye(6, dtype=bool)[truth], np.eye(6, dtype=bool)[predicted]
    return targets, answers, site_intervals(targets, answers, answers.astype(float), sites)


@pytest.fixture(scope="module")
def population():
    """Scores on so many sites that they are the truth."""
    truth, predicted, _ = draw_sites(np.random.default_rng(1), 20_000)
    targets, answers = np.eye(6, dtype=bool)[truth], np.eye(6, dtype=bool)[predicted]
    return ev.class_scores(targets, answers, answers.astype(float)), (truth == predicted).mean()


@pytest.mark.slow
@pytest.mark.parametrize("sites", [8, 12, 20, 40])
def test_intervals_hold_the_truth(population, sites):
    scores, accuracy = population
    rng = np.random.default_rng(sites)
    covers = {name: [] for name in ("accuracy", "macro_f1", "precision", "recall", "f1")}
    for _ in range(800):
        truth, predicted, site_of = draw_sites(rng, sites)
        targets, answers, (overall, by_class) = intervals_of(truth, predicted, site_of)
        there = (targets | answers).any(axis=0)
        for name, expected in (("accuracy", accuracy), ("macro_f1", scores.f1[there].mean())):
            low, high = overall[name]
            covers[name].append(low <= expected <= high)
        for name, ends in by_class.items():
            told = ~np.isnan(ends[:, 0])
            expected = getattr(scores, name)[told]
            covers[name] += ((ends[told, 0] <= expected) & (expected <= ends[told, 1])).tolist()
    shares = {name: np.mean(held) for name, held in covers.items()}
    # of 800 draws a share of 0.93 is told to 0.018, twice the standard error
    assert all(0.93 - 0.018 <= share <= 0.97 + 0.018 for share in shares.values()), shares


@pytest.mark.parametrize("sites", [2, 3, 5, 8, 20])
def test_a_score_is_within_its_interval_which_has_a_width(sites):
    rng = np.random.default_rng(sites)
    for _ in range(40):
        targets, answers, (overall, by_class) = intervals_of(*draw_sites(rng, sites))
        found = ev.class_scores(targets, answers, answers.astype(float))
        all_scores = [(ev.macro_f1(targets, answers), overall["macro_f1"])]
        all_scores.append(((targets & answers).any(axis=1).mean(), overall["accuracy"]))
        for name, ends in by_class.items():
            all_scores += list(zip(getattr(found, name), ends, strict=True))
        for score, (low, high) in all_scores:
            assert np.isnan(low) or 0 <= low <= score + 1e-9
            assert np.isnan(low) or score - 1e-9 <= high <= 1
            assert np.isnan(low) or high - low > 0.01


def test_one_site_tells_no_interval():
    targets = np.eye(2, dtype=bool)[[0, 1, 1]]
    overall, by_class = site_intervals(targets, targets, targets.astype(float), ["a"] * 3)
    assert np.isnan(overall["macro_f1"]).all()
    assert np.isnan(overall["accuracy"]).all()
    assert np.isnan(by_class["f1"]).all()


def test_a_class_at_one_site_has_no_interval():
    targets = np.eye(2, dtype=bool)[[0, 0, 0, 1, 1, 1, 1, 1, 1, 1]]
    predicted = np.eye(2, dtype=bool)[[0, 0, 0, 1, 1, 1, 1, 1, 0, 0]]
    sites = ["a", "b", "c", "a", "a", "a", "a", "a", "a", "a"]
    _, by_class = site_intervals(targets, predicted, predicted.astype(float), sites)
    assert np.isnan(by_class["recall"][1]).all()  # 5 of 7 clips, all of one site
    low, high = by_class["recall"][0]  # right at each of three sites: not certain for that
    assert (low, high) == (pytest.approx(0.025 ** (1 / 3)), 1.0)
    assert not np.isnan(by_class["precision"][0]).any()


def test_clips_that_are_alike_by_site_count_as_one():
    truth = np.repeat([0, 1, 0, 1, 0, 1, 0, 1], 10)
    predicted = np.repeat([0, 0, 0, 1, 0, 1, 0, 1], 10)
    _, _, (by_site, _) = intervals_of(truth, predicted, np.repeat(np.arange(8), 10))
    _, _, (once, _) = intervals_of(truth[::10], predicted[::10], np.arange(8))
    _, _, (by_clip, _) = intervals_of(truth, predicted, np.arange(80))
    assert by_site["accuracy"] == pytest.approx(once["accuracy"])
    assert np.diff(by_site["accuracy"]) > 2 * np.diff(by_clip["accuracy"])


def test_the_interval_of_a_share_by_hand():
    """The jackknife over sites with as many clips each is the variance of the sites' mean."""
    right = np.array([9, 7, 8, 4, 10])
    truth = np.zeros(50, int)
    predicted = np.concatenate([np.repeat([0, 1], [n, 10 - n]) for n in right])
    _, _, (overall, _) = intervals_of(truth, predicted, np.repeat(np.arange(5), 10))
    share, error = right.mean() / 10, (right / 10).std(ddof=1) / np.sqrt(5)
    middle, spread = np.log(share / (1 - share)), 2.7764451 * error / (share * (1 - share))  # t of 4 degrees
    expected = 1 / (1 + np.exp([spread - middle, -spread - middle]))
    assert overall["accuracy"] == pytest.approx(expected, rel=1e-6)
