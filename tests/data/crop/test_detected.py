"""Boxes from any detector, and what is refused of one."""

import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from helpers.video_files import write_video
from zamba_lcli.data.crop import AnimalCrop, DetectedBoxes
from zamba_lcli.data.detector import YoloxDetector, YoloxScorer
from zamba_lcli.data.sampling import EvenlySpaced
from zamba_lcli.data.video.reading import ClipReader
from zamba_lcli.errors import InputError


@dataclass
class Brightest:
    """Finds the brightest pixel."""

    size: float = 0.1

    def __call__(self, frames):
        found = []
        for frame in frames[..., 1]:
            y, x = np.unravel_index(frame.argmax(), frame.shape)
            found.append([[x / frame.shape[1], y / frame.shape[0], self.size, self.size, frame.max() / 255]])
        return found


def test_any_callable_finds_boxes(folder):
    pictures = np.full((16, 120, 160, 3), 30, np.uint8)
    pictures[8:, 48:60, 96:112] = 250
    path = write_video(folder / "a.mp4", pictures, crf=5)
    crop = AnimalCrop(DetectedBoxes(Brightest(), fps=2, side=80), min_confidence=0.5)
    clip = ClipReader(EvenlySpaced(4), 32, 32, crop=crop).read(path)
    assert clip.boxes[:, 0].tolist() == [8, 12]
    assert clip.boxes[0, 1:5] == pytest.approx([0.6, 0.4, 0.1, 0.1], abs=0.02)
    assert crop.stated()["init_args"]["finder"]["init_args"]["detector"]["init_args"] == {"size": 0.1}
    with pytest.raises(InputError, match=r"data\.crop: .* cannot be named in a checkpoint"):
        AnimalCrop(DetectedBoxes(lambda frames: []))


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda frames: None, "for 2 pictures it returned NoneType"),
        (lambda frames: [[]], "for 2 pictures it returned 1 of them"),
        (lambda frames: [[0.1, 0.2, 0.3, 0.4, 0.5]] * 2, r"it returned \(5,\) for a picture"),
        (lambda frames: [[[0.1, 0.2, 0.3, 0.4]]] * 2, r"it returned \(1, 4\) for a picture"),
        (lambda frames: ["no"] * 2, "which is not numbers"),
        (lambda frames: [[[10, 20, 300, 400, 0.9]]] * 2, r"\[10.0, 20.0, 300.0, 400.0\] with the score 0.9 is no box"),
        (lambda frames: [[[0.1, 0.2, 0.3, np.nan, 0.9]]] * 2, "no box in the picture"),
        (lambda frames: [[[0.1, 0.2, 0.3, 0.3, 9]]] * 2, "with the score 9.0 is no box"),
    ],
)
def test_a_detector_that_returns_something_else(answer, text):
    with pytest.raises(InputError, match=text):
        DetectedBoxes(answer).find(np.zeros((2, 8, 8, 3), np.uint8))


class Network(torch.nn.Module):
    """Says, as YOLOX does, where an animal is in a square of 640 pixels: twice the same one, and something unsure."""

    def forward(self, pictures):
        of_each = [[320, 100, 64, 40, 0.9, 0.9], [322, 101, 64, 40, 0.8, 0.9], [600, 300, 60, 60, 0.1, 0.1]]
        return torch.tensor([of_each] * len(pictures))


def test_yolox_gives_boxes_and_scores(folder, monkeypatch):
    config = SimpleNamespace(get_model=Network)
    yolox = ModuleType("yolox.config")
    yolox.YoloxConfig = SimpleNamespace(get_named_config=lambda name: config)
    monkeypatch.setitem(sys.modules, "yolox", ModuleType("yolox"))
    monkeypatch.setitem(sys.modules, "yolox.config", yolox)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: SimpleNamespace(origin=None))
    torch.save({"model": {}}, folder / "own.pth")
    frames = np.zeros((3, 180, 320, 3), np.uint8)  # scaled to 360 x 640
    boxes = YoloxDetector("own.pth", batch_size=2)(frames)
    assert [len(found) for found in boxes] == [1, 1, 1]
    assert boxes[0][0] == pytest.approx([288 / 640, 80 / 360, 64 / 640, 40 / 360, 0.81])
    assert YoloxScorer("own.pth", batch_size=2)(frames) == pytest.approx([0.81] * 3)
