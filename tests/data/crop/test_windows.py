"""From boxes to windows: they hold the animal, keep its shape, and stay in the picture."""

import numpy as np
import pytest

from helpers.video_files import write_video
from zamba_lcli.data.crop import AnimalCrop, Contrast, Detections, Motion, PictureSize
from zamba_lcli.data.sampling import EvenlySpaced, Timeline
from zamba_lcli.data.video.reading import ClipReader, read_clip
from zamba_lcli.errors import InputError

PICTURE, SQUARE = PictureSize(200, 400), PictureSize(64, 64)
TIMELINE = Timeline(np.arange(10) / 4, np.ones(10, bool))


def windows(boxes, output=SQUARE, bottom=0, **arguments):
    """Windows in pixels, (10, 4), of boxes by frame: x, y, width, height in pixels."""
    found = [np.array([[*(np.array(box) / [400, 200, 400, 200]), 0.9]]).reshape(-1, 5) for box in boxes.values()]
    detections = Detections.of_frames(np.array(list(boxes)), found)
    cut = AnimalCrop(Contrast(), **arguments).windows(detections, TIMELINE, np.arange(10), PICTURE, output, bottom)
    return None if cut is None else cut * [400, 200, 400, 200]


@pytest.mark.parametrize(
    ("boxes", "arguments", "expected"),
    [
        ({2: [100, 50, 40, 20]}, {"margin": 0.5}, [80, 20, 80, 80]),  # the wider side counts, the shape is kept
        ({2: [100, 50, 40, 20]}, {"margin": 0, "output": PictureSize(10, 40)}, [80, 50, 80, 20]),
        ({0: [10, 10, 20, 20], 9: [110, 30, 20, 20]}, {"margin": 0}, [10, 0, 120, 120]),  # holds both; moved inside
        ({0: [380, 180, 20, 20]}, {"margin": 1}, [340, 140, 60, 60]),  # in the corner
        ({0: [380, 180, 20, 20]}, {"margin": 1, "bottom": 10}, [340, 130, 60, 60]),  # above the bar
        ({0: [0, 90, 400, 20]}, {"margin": 0.3}, [0, -100, 400, 400]),  # larger than the picture
    ],
)
def test_one_window_for_the_clip(boxes, arguments, expected):
    cut = windows(boxes, **arguments)
    assert cut == pytest.approx(np.tile(expected, (10, 1)))


def test_a_window_that_follows_has_one_size_and_holds_each_box():
    middles = 60 + 30 * np.arange(10) + 12 * (-1) ** np.arange(10)  # a way that trembles
    boxes = {frame: [x - 15, 90, 20 + frame, 16] for frame, x in enumerate(middles) if frame != 4}
    cut = windows(boxes, margin=0.3, follow="per_frame")
    assert np.ptp(cut[:, 2:], axis=0) == pytest.approx(0)
    for frame, (x, y, width, height) in boxes.items():
        left, top, w, h = cut[frame]
        assert left <= x + 1e-6
        assert x + width <= left + w + 1e-6
        assert top <= y
        assert y + height <= top + h
    assert cut[3, 0] < cut[4, 0] < cut[5, 0]  # between them where nothing was found
    tremble = np.abs(np.diff(cut[:, 0], n=2)).mean()
    assert tremble < 0.5 * np.abs(np.diff(middles, n=2)).mean()


def test_boxes_that_are_unsure_or_hidden_do_not_count():
    found = {0: [10, 10, 20, 20]}
    assert windows(found, min_confidence=0.91) is None
    assert windows(found, min_confidence=0.9) is not None
    assert windows({0: [10, 195, 20, 5]}, bottom=10) is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [({"margin": -0.1}, "margin: -0.1"), ({"min_confidence": 1.1}, "min_confidence: 1.1 is not between 0 and 1")],
)
def test_wrong_arguments(arguments, text):
    with pytest.raises(InputError, match=text):
        AnimalCrop(Motion(), **arguments)


@pytest.fixture
def small_animal(folder):
    """A bright disk of 24 pixels that goes to the right on dark ground, and its middles: (16, 2) pixels."""
    rows, columns = np.mgrid[:240, :320]
    middles = np.stack([40 + 14 * np.arange(16), np.full(16, 130)], axis=1)
    pictures = np.full((16, 240, 320, 3), 60, np.uint8)
    for picture, (x, y) in zip(pictures, middles, strict=True):
        picture[(columns - x) ** 2 + (rows - y) ** 2 < 12**2] = 230
    return write_video(folder / "a.mp4", pictures, crf=10), middles


@pytest.mark.parametrize("finder", [Motion(), Contrast(), Contrast(fps=2)])
@pytest.mark.parametrize("size", [(64, 64), (40, 120)])
def test_a_small_animal_gains_pixels_and_keeps_its_shape(small_animal, finder, size):
    path, middles = small_animal
    crop = AnimalCrop(finder, margin=0.5, follow="per_frame")
    clip = ClipReader(EvenlySpaced(8), *size, crop=crop).read(path)
    whole = read_clip(path, EvenlySpaced(8), height=size[0], width=size[1])
    assert clip.numbers.tolist() == whole.numbers.tolist()
    for frame, picture, window in zip(clip.numbers, clip.frames, clip.windows, strict=True):
        left, top, width, height = window * [320, 240, 320, 240]
        assert left < middles[frame, 0] - 11
        assert middles[frame, 0] + 11 < left + width
        assert top < 130 - 11
        assert top + height > 130 + 11
        lit = picture[..., 1] > 145
        tall, wide = lit.any(axis=1).sum(), lit.any(axis=0).sum()
        assert abs(tall - wide) <= 2
        assert tall > 2 * (whole.frames[0, ..., 1] > 145).any(axis=1).sum()


def test_what_is_outside_of_the_picture_is_black(small_animal):
    path, _ = small_animal
    clip = ClipReader(EvenlySpaced(2), 64, 32, crop=AnimalCrop(Motion(), margin=0)).read(path)
    assert clip.windows[0, 1] < 0  # the way of the animal is wider than half of the picture's height
    assert clip.frames[:, 0].max() == 0
    assert clip.frames[:, 32].min() > 30
