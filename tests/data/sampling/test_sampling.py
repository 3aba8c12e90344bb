"""Which times are chosen, against times worked out by hand; content strategies on clips whose content is known."""

from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pytest
import yaml

from helpers.video_files import numbered, numbers_in, write_video
from zamba_lcli import data
from zamba_lcli.data.sampling import ContentSampling, FrameSampling, Timeline, TooShortError
from zamba_lcli.data.video.reading import UnreadableClipError, read_clip
from zamba_lcli.errors import InputError


def timeline(frames, fps=10.0, gop=5):
    return Timeline(np.arange(frames) / fps, np.arange(frames) % gop == 0)


def brightness(frames):
    return frames.mean(axis=(1, 2, 3))


def wrong_shape(frames):
    return np.zeros((len(frames), 2))


def too_few(frames):
    return np.zeros(len(frames) - 1)


@dataclass
class Darkness:
    """A scorer with an argument."""

    sign: float = -1.0

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        return self.sign * brightness(frames)


class NotADataclass:
    def __call__(self, frames):
        return brightness(frames)


def test_evenly_spaced_goes_from_the_first_frame_to_the_last():
    assert data.EvenlySpaced(5).times(timeline(41)).tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_one_frame_or_one_time():
    assert data.EvenlySpaced(3).times(timeline(1)).tolist() == [0.0, 0.0, 0.0]
    assert data.EvenlySpaced(1).times(timeline(9)).tolist() == [0.0]
    assert data.FixedRate(num_frames=1).times(timeline(9)).tolist() == [0.0]


def test_fixed_rate():
    assert data.FixedRate(fps=4, num_frames=5, start=1).times(timeline(100)).tolist() == [1, 1.25, 1.5, 1.75, 2.0]
    assert data.FixedRate(fps=2, num_frames=4).times(timeline(12)).tolist() == [
        0,
        0.5,
        1.0,
        1.1,
    ]  # the last frame again


def test_fixed_rate_refuses_a_short_clip():
    strict = data.FixedRate(fps=2, num_frames=4, too_short="refuse")
    with pytest.raises(TooShortError, match=r"1\.20 s long, but 1\.50 s"):
        strict.times(timeline(12))
    assert strict.times(timeline(15)).tolist() == pytest.approx([0, 0.5, 1.0, 1.4])  # shown from 1.4 s to 1.5 s


def test_the_last_frame_is_shown_as_long_as_the_one_before():
    uneven = Timeline(np.array([0.0, 0.1, 0.5, 0.7]), np.ones(4, bool))
    assert uneven.end == pytest.approx(0.9)
    assert Timeline(np.array([0.0, 0.5]), np.ones(2, bool)).end == 1.0
    assert Timeline(np.zeros(1), np.ones(1, bool)).end == 0.0


def test_early_bias():
    early = data.EarlyBias()
    assert early.num_frames == 16
    frames = np.array([2, 8, 12, 18, 24, 36, 48, 60, 72, 84, 96, 108, 120, 132, 144, 156])
    assert early.times(timeline(200, fps=24)).tolist() == pytest.approx((frames / 24).tolist())
    assert early.times(timeline(30, fps=10)).max() == pytest.approx(2.9)
    with pytest.raises(TooShortError):
        data.EarlyBias(too_short="refuse").times(timeline(30, fps=10))


def test_given_frames():
    assert data.GivenFrames([0, 3, 3, 9]).times(timeline(8)).tolist() == pytest.approx([0, 0.3, 0.3, 0.7])
    for frames in (8, 9):  # of 9 the last one is frame 8
        with pytest.raises(TooShortError, match=f"{frames} frames, but frame 9"):
            data.GivenFrames([0, 3, 9], too_short="refuse").times(timeline(frames))
    assert len(data.GivenFrames([0, 3, 7], too_short="refuse").times(timeline(8))) == 3


def test_key_frames():
    assert data.KeyFrames(3).times(timeline(41, gop=5)).tolist() == [0.0, 2.0, 4.0]
    assert data.KeyFrames(3).times(timeline(30, gop=5)).tolist() == [0.0, 1.0, 2.5]  # of 6
    assert data.KeyFrames(4).times(timeline(9, gop=5)).tolist() == [0.0, 0.5, 0.5, 0.5]
    assert data.KeyFrames(2).times(Timeline(np.arange(3.0), np.zeros(3, bool))).tolist() == [0.0, 0.0]
    with pytest.raises(TooShortError, match="2 key frames, but 4"):
        data.KeyFrames(4, too_short="refuse").times(timeline(9, gop=5))
    assert data.KeyFrames(2, too_short="refuse").times(timeline(9, gop=5)).tolist() == [0.0, 0.5]


def test_several_clips():
    assert data.SeveralClips(num_clips=2, fps=2, num_frames=3).times(timeline(41)).tolist() == [0, 0.5, 1, 3, 3.5, 4]
    assert data.SeveralClips(num_clips=1, fps=2, num_frames=3).times(timeline(41)).tolist() == [1.5, 2.0, 2.5]
    assert data.SeveralClips(num_clips=2, fps=1, num_frames=3).times(timeline(11)).tolist() == [0, 1, 1, 0, 1, 1]


def test_scene_changes_of_a_clip(folder):
    grey = np.full((30, 48, 64, 3), 50, np.uint8)
    grey[10:] = 120
    grey[22:] = 250
    path = write_video(folder / "scenes.avi", grey, codec="libx264rgb", pix_fmt="rgb24", qp=0, fps=10)
    clip = read_clip(path, data.SceneChanges(num_frames=4), height=8, width=8)
    assert clip.times.tolist() == pytest.approx([0.0, 1.0, 2.2, 2.2])
    assert clip.frames[:, 0, 0, 0].tolist() == [50, 120, 250, 250]
    largest = read_clip(path, data.SceneChanges(num_frames=2), height=8, width=8)
    assert largest.times.tolist() == pytest.approx([0.0, 2.2])
    with pytest.raises(UnreadableClipError, match="too short: 3 scenes, but 4"):
        read_clip(path, data.SceneChanges(num_frames=4, too_short="refuse"), height=8, width=8)
    assert len(set(read_clip(path, data.SceneChanges(threshold=0.9), height=8, width=8).times)) == 1


def test_most_motion_of_a_clip(folder):
    pictures = np.full((40, 48, 64, 3), 50, np.uint8)
    for number in (7, 21, 22, 36):
        pictures[number, 10:20, number : number + 20] = 200  # what passes by
    path = write_video(folder / "motion.avi", pictures, codec="libx264rgb", pix_fmt="rgb24", qp=0, fps=8)
    clip = read_clip(path, data.MostMotion(num_frames=4), height=48, width=64)
    assert (clip.times * 8).round().astype(int).tolist() == [7, 21, 22, 36]
    assert np.array_equal(clip.frames, pictures[[7, 21, 22, 36]])


def test_scenes_that_get_darker_count_like_those_that_get_brighter():
    pictures = np.empty((6, 6, 8, 3), np.uint8)
    pictures[:] = np.array([100, 100, 40, 90, 90, 110])[:, None, None, None]  # changes of 0, 60, 50, 0, 20
    times = np.arange(6.0)
    assert data.SceneChanges(threshold=60 / 255, num_frames=2).choose(times, pictures).tolist() == [0, 0]  # not more
    assert data.SceneChanges(threshold=55 / 255, num_frames=2).choose(times, pictures).tolist() == [0, 2]
    assert data.SceneChanges(threshold=50 / 255, num_frames=2).choose(times, pictures).tolist() == [0, 2]
    assert data.SceneChanges(threshold=19 / 255, num_frames=4).choose(times, pictures).tolist() == [0, 2, 3, 5]
    assert data.SceneChanges(threshold=19 / 255, num_frames=3).choose(times, pictures).tolist() == [0, 2, 3]


def test_motion_is_the_mean_difference_from_the_median():
    pictures = np.full((9, 10, 30, 3), 100, np.uint8)
    pictures[2, 0, :10] = 200  # 10 of 300 pixels differ by 100: 3.3 on average
    pictures[5, 0, :] = 40  # 30 by 60, darker: 6
    pictures[7] = 105  # all by 5
    chosen = [data.MostMotion(num_frames=n).choose(np.arange(9.0), pictures).tolist() for n in (1, 2, 3)]
    assert chosen == [[5], [5, 7], [2, 5, 7]]


@pytest.mark.parametrize(
    ("scorer", "expected"), [(brightness, [3, 127]), (Darkness(), [0, 1]), (Darkness(1.0), [3, 127])]
)
def test_highest_scores_of_any_callable(folder, scorer, expected):
    pictures = numbered(128)[[3, 0, 127, 1, 2]]  # the more ones in its number, the brighter
    path = write_video(folder / "scores.avi", pictures, codec="libx264rgb", pix_fmt="rgb24", qp=0, fps=4)
    sampling = data.HighestScores(scorer, num_frames=2, preview_height=48, preview_width=64)
    assert numbers_in(read_clip(path, sampling, height=48, width=64).frames) == expected


@pytest.mark.parametrize(("scorer", "shape"), [(wrong_shape, r"\(3, 2\)"), (too_few, r"\(2,\)")])
def test_a_scorer_of_the_wrong_shape_is_refused(folder, scorer, shape):
    path = write_video(folder / "a.avi", numbered(5), codec="libx264rgb", pix_fmt="rgb24", qp=0)
    with pytest.raises(InputError, match=f"shape {shape} for 3 pictures"):
        read_clip(path, data.HighestScores(scorer), height=8, width=8)


@pytest.mark.parametrize("scorer", [lambda frames: brightness(frames), NotADataclass()])
def test_a_scorer_that_no_checkpoint_could_name_is_refused(scorer):
    with pytest.raises(InputError, match="cannot be named in a checkpoint"):
        data.HighestScores(scorer)


def test_previews_are_thinned_by_time():
    sampling = data.MostMotion(preview_fps=5)
    assert sampling.times(timeline(20, fps=10)).tolist() == pytest.approx([i / 5 for i in range(10)])
    assert len(sampling.times(timeline(20, fps=5))) == 20


STRATEGIES = [
    data.EvenlySpaced(3),
    data.FixedRate(fps=5.0, num_frames=4, start=0.5, too_short="repeat_last"),
    data.SeveralClips(2, 4.0, 3),
    data.EarlyBias(),
    data.GivenFrames([1, 2]),
    data.KeyFrames(2),
    data.SceneChanges(num_frames=2),
    data.MostMotion(num_frames=2),
    data.HighestScores(brightness, num_frames=2),
    data.HighestScores(Darkness(2.0), num_frames=2),
]


@pytest.mark.parametrize("sampling", STRATEGIES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("frames", [1, 2, 25])
def test_every_strategy_gives_as_many_frames_as_it_says(folder, sampling, frames):
    path = write_video(folder / "a.mp4", numbered(frames), fps=8)
    clip = read_clip(path, sampling, height=24, width=32)
    total = sampling.num_clips * sampling.num_frames
    assert clip.frames.shape == (total, 24, 32, 3)
    parts = clip.times.reshape(sampling.num_clips, sampling.num_frames)
    assert (np.diff(parts, axis=1) >= 0).all()
    assert parts.min() >= 0
    assert parts.max() <= (frames - 1) / 8 + 1e-9


@pytest.mark.parametrize("sampling", STRATEGIES, ids=lambda s: type(s).__name__)
def test_every_strategy_can_be_stated(sampling):
    stated = sampling.stated()
    # checkpoints and keys of caches have the package's path, wherever in it the class is
    assert stated["class_path"] == f"zamba_lcli.data.sampling.{type(sampling).__name__}"
    if not isinstance(sampling, data.HighestScores):
        assert getattr(data, type(sampling).__name__)(**stated["init_args"]) == sampling


def test_what_is_not_stated():
    """What the recipes and users' runs go by, unless they say otherwise."""
    previews = {"num_frames": 16, "too_short": "repeat_last"}
    small = {"preview_height": 60, "preview_width": 80}
    assert data.EvenlySpaced().stated()["init_args"] == {"num_frames": 32}
    by_rate = {"fps": 8.0, "num_frames": 32, "too_short": "repeat_last"}
    assert data.FixedRate().stated()["init_args"] == {**by_rate, "start": 0.0}
    assert data.SeveralClips().stated()["init_args"] == {**by_rate, "num_clips": 3}
    assert data.KeyFrames().stated()["init_args"] == previews
    assert data.SceneChanges().stated()["init_args"] == {**previews, **small, "threshold": 0.1, "preview_fps": 30.0}
    assert data.MostMotion().stated()["init_args"] == {**previews, **small, "preview_fps": 8.0}
    large = {"preview_fps": 4.0, "preview_height": 360, "preview_width": 640}
    scorer = {"scorer": f"{__name__}.brightness"}
    assert data.HighestScores(brightness).stated()["init_args"] == {**previews, **large, **scorer}
    assert data.TemporalJitter() == data.TemporalJitter(shift=0.0, step=0.0)


@pytest.mark.parametrize("sampling", [*STRATEGIES, data.TemporalJitter()], ids=lambda s: type(s).__name__)
def test_a_strategy_cannot_be_changed(sampling):
    """It is a part of the key that cached frames and features are found by."""
    with pytest.raises(FrozenInstanceError):
        sampling.too_short = "refuse"


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: data.EvenlySpaced(0), "num_frames: 0 is less than 1"),
        (lambda: data.FixedRate(num_frames=0), "num_frames: 0 is less than 1"),
        (lambda: data.SeveralClips(num_frames=0), "num_frames: 0 is less than 1"),
        (lambda: data.KeyFrames(0), "num_frames: 0 is less than 1"),
        (lambda: data.SceneChanges(num_frames=0), "num_frames: 0 is less than 1"),
        (lambda: data.HighestScores(brightness, num_frames=0), "num_frames: 0 is less than 1"),
        (lambda: data.SceneChanges(preview_height=0), "preview_height: 0 is less than 1"),
        (lambda: data.SceneChanges(preview_width=0), "preview_width: 0 is less than 1"),
        (lambda: data.FixedRate(fps=0), "fps: 0 is not a number above 0"),
        (lambda: data.FixedRate(fps=float("inf")), "fps: inf is not a number above 0"),
        (lambda: data.FixedRate(start=-1), "start: -1 is less than 0"),
        (lambda: data.GivenFrames([]), "indices"),
        (lambda: data.GivenFrames([3, 1]), "indices"),
        (lambda: data.GivenFrames([-1, 0]), "indices"),
        (lambda: data.SeveralClips(num_clips=0), "num_clips: 0 is less than 1"),
        (lambda: data.MostMotion(preview_fps=-1), "preview_fps"),
        (lambda: data.SceneChanges(threshold=-1), "threshold"),
        (lambda: data.TemporalJitter(shift=float("inf")), "shift: inf is not a number of seconds"),
    ],
)
def test_wrong_arguments_are_refused(make, what):
    with pytest.raises(InputError, match=what):
        make()


@pytest.mark.parametrize(
    ("name", "init_args"),
    [
        pytest.param("FixedRate", {"fps": 4, "num_frames": 8}, marks=pytest.mark.slow),
        ("SeveralClips", {"num_clips": 2, "num_frames": 4, "fps": 4}),
        pytest.param("GivenFrames", {"indices": [0, 1, 2, 3]}, marks=pytest.mark.slow),
        pytest.param("MostMotion", {"num_frames": 8}, marks=pytest.mark.slow),
        pytest.param("HighestScores", {"num_frames": 8, "scorer": "test_sampling.brightness"}, marks=pytest.mark.slow),
        (
            "HighestScores",
            {"num_frames": 8, "scorer": {"class_path": "test_sampling.Darkness", "init_args": {"sign": 1.0}}},
        ),
    ],
)
def test_from_the_yaml_to_the_checkpoint_to_predictions(zamba, predict, clips, folder, name, init_args):
    stated = {"class_path": name, "init_args": init_args}
    (folder / "more.yaml").write_text(yaml.safe_dump({"data": {"sampling": stated}}))
    zamba("fit", "--config", "more.yaml", "--trainer.max_epochs=1")
    checkpoint = folder / "runs/tiny/version_0/checkpoints/last.ckpt"
    rows = predict(checkpoint, clips)
    assert len(rows) == 16
    assert all(row["status"] == "ok" for row in rows)


def test_base_classes_are_no_strategies():
    with pytest.raises(TypeError):
        FrameSampling()
    with pytest.raises(TypeError):
        ContentSampling()
