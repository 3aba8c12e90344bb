import csv
import os
import shutil
from collections import Counter

import av
import numpy as np
import pytest

from zamba_lcli.data.demo import DemoClips, draw_animal, track
from zamba_lcli.errors import InputError


def table(folder):
    with open(folder / "labels.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_clips_are_balanced_and_sites_disjoint():
    rows = DemoClips(clips_per_class=30).rows()
    counts = Counter((row["split"], row["label"]) for row in rows)
    assert set(counts.values()) == {20, 6, 4}
    sites = {split: {row["site"] for row in rows if row["split"] == split} for split in ("train", "val", "holdout")}
    assert [len(sites[split]) for split in sites] == [6, 2, 2]
    assert len(set.union(*sites.values())) == 10  # no site is in two splits
    assert len({row["filepath"] for row in rows}) == 120


def test_files_are_of_the_formats_of_camera_traps(clips):
    rows = table(clips)
    assert sorted(row["filepath"] for row in rows) == sorted(
        p.name for p in clips.iterdir() if p.suffix in (".mp4", ".avi")
    )
    formats = set()
    for row in rows:
        with av.open(str(clips / row["filepath"])) as file:
            stream = file.streams.video[0]
            formats.add((file.format.name.split(",")[0], stream.codec_context.name))
            assert sum(1 for _ in file.decode(stream)) == 32
    assert formats == {("mov", "h264"), ("avi", "mjpeg"), ("avi", "mpeg4")}


def test_the_same_seed_draws_the_same_clips():
    first, again, other = DemoClips(), DemoClips(), DemoClips(seed=1)
    clip = first.clip(3, "hopper", "train_0")
    assert clip.dtype == np.uint8
    assert clip.shape[0] == 32
    assert np.array_equal(clip, again.clip(3, "hopper", "train_0"))
    assert not np.array_equal(clip[:, :60, :60], other.clip(3, "hopper", "train_0")[:, :60, :60])


def test_rendering_again_changes_nothing_and_goes_on_where_it_stopped(folder):
    demo = DemoClips("demo", clips_per_class=3)
    demo.render()
    files = {path: path.stat().st_mtime_ns for path in (folder / "demo").iterdir()}
    demo.render()
    assert {path: path.stat().st_mtime_ns for path in (folder / "demo").iterdir()} == files
    gone = sorted(files)[1]
    content = gone.read_bytes()
    os.remove(gone)
    os.remove(folder / "demo" / "labels.csv")
    demo.render()
    assert set((folder / "demo").iterdir()) == set(files)
    assert gone.read_bytes() == content
    assert len(table(folder / "demo")) == 12


def test_other_files_and_other_settings_are_left_alone(folder, clips):
    (folder / "mine").mkdir()
    (folder / "mine" / "holiday.mp4").touch()
    with pytest.raises(InputError, match="folder"):
        DemoClips("mine").render()
    assert [p.name for p in (folder / "mine").iterdir()] == ["holiday.mp4"]
    shutil.copytree(clips, folder / "demo")
    with pytest.raises(InputError, match="other settings"):
        DemoClips("demo", clips_per_class=4, seed=1).render()
    with pytest.raises(InputError, match="clips_per_class"):
        DemoClips("demo", clips_per_class=2)


def test_classes_differ_by_how_they_move():
    rng = np.random.default_rng(0)
    for _ in range(20):
        animal = draw_animal(rng)
        tracks = {label: track(label, animal, rng) for label in DemoClips.class_names}
        steps = {label: np.diff(path, axis=0) for label, path in tracks.items()}
        turns = {label: int((np.diff(np.sign(step[:, 0])) != 0).sum()) for label, step in steps.items()}
        assert np.ptp(tracks["hopper"][:, 1]) > 0.3
        assert np.ptp(tracks["walker"][:, 1]) == np.ptp(tracks["pacer"][:, 1]) == 0
        assert 2 <= turns["pacer"] <= 5
        moved = np.sum(np.abs(steps["walker"][:, 0]) * (np.abs(steps["walker"][:, 0]) < 0.2))
        assert moved > 1.2  # crosses more than the width of the picture in four seconds
        assert np.ptp(tracks["hopper"][:, 0]) < 0.2
