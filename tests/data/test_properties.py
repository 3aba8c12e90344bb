"""What holds for any table and any clip, tried on ones that hypothesis makes up."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from zamba_lcli import data
from zamba_lcli.data.labels.table import SPLITS, read_labels
from zamba_lcli.data.sampling.base import Timeline
from zamba_lcli.errors import InputError

ANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
rows = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["", "s1", "s2", "s3", "s4", "s5", "s6"])), max_size=40
)


def drawn(labelled, order, seed):
    """Writes a table of clips, labels and sites in some order, and returns the split that each clip is drawn into."""
    clips = [(f"clip_{i}.mp4", label, site) for i, (label, site) in enumerate(labelled)]
    with Path("labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("filepath", "label", "site"), *(clips[i] for i in order)])
    return {clip.filepath: clip for clip in read_labels("labels.csv", seed=seed).clips}


@ANY
@given(rows=rows, seed=st.integers(0, 5), data_=st.data())
def test_drawn_splits(folder, rows, seed, data_):
    order = data_.draw(st.permutations(range(len(rows))))
    try:
        clips = drawn(rows, range(len(rows)), seed)
    except InputError:  # too few clips or sites, and the message says so
        assume(False)
    assert len(clips) == len(rows)
    assert {clip.split for clip in clips.values()} == set(SPLITS)
    splits_of = defaultdict(set)
    for clip in clips.values():
        if clip.site:
            splits_of[clip.site].add(clip.split)
    assert all(len(splits) == 1 for splits in splits_of.values())  # sites stay whole
    again = drawn(rows, order, seed)
    assert {k: clip.split for k, clip in again.items()} == {k: clip.split for k, clip in clips.items()}


STRATEGIES = st.one_of(
    st.builds(data.EvenlySpaced, num_frames=st.integers(1, 40)),
    st.builds(data.FixedRate, fps=st.floats(0.1, 60), num_frames=st.integers(1, 40), start=st.floats(0, 30)),
    st.builds(data.SeveralClips, fps=st.floats(0.1, 60), num_frames=st.integers(1, 12), num_clips=st.integers(1, 5)),
    st.builds(data.KeyFrames, num_frames=st.integers(1, 40)),
    st.builds(data.EarlyBias),
)


@ANY
@given(gaps=st.lists(st.floats(1e-3, 5), max_size=300), strategy=STRATEGIES, every=st.integers(1, 50))
def test_times_of_any_clip(gaps, strategy, every):
    """As many as stated, in order, none before the first frame or after the last; the same each time."""
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    timeline = Timeline(times, np.arange(len(times)) % every == 0)
    found = strategy.times(timeline)
    assert found.shape == (strategy.num_clips * strategy.num_frames,)
    assert (found >= 0).all()
    assert (found <= timeline.duration + 1e-9).all()
    assert (np.diff(found.reshape(strategy.num_clips, -1), axis=1) >= 0).all()
    assert np.array_equal(found, strategy.times(timeline))
