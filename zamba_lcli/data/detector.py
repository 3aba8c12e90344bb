"""A detector of animals, for ``DetectedBoxes`` and ``HighestScores``; needs ``pip install 'zamba-lcli[detector]'``."""

import importlib.util
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from zamba_lcli.errors import InputError

REMEDY = "Install it with: pip install 'zamba-lcli[detector]'."
LEAST_SCORE = 0.05  # of boxes that are told of
OVERLAP = 0.45  # intersection over union, above which two boxes are of one animal
LOADING = Lock()  # clips are looked at by several threads
SIDE = 640  # pixels of the square that the published weights were trained on
PUBLISHED = Path("object_detection", "yolox", "assets", "yolox_tiny_640_20220528.pth")  # in the package zamba


@dataclass
class _Yolox:
    """YOLOX-tiny; see ``YoloxDetector``."""

    weights: str | None = None
    batch_size: int = 8

    def __post_init__(self) -> None:
        """Refuses to be made where something is missing, which else the first clip would find out."""
        if importlib.util.find_spec("yolox") is None:
            raise InputError(f"{type(self).__name__} needs the package yolox. {REMEDY}")
        if not self._weights().is_file():
            raise InputError(
                f"{type(self).__name__}: there is no file of weights {self._weights()}. {REMEDY} Or state another file."
            )

    def _weights(self) -> Path:
        if self.weights is not None:
            return Path(self.weights)
        package = importlib.util.find_spec("zamba")
        if package is None or package.origin is None:
            raise InputError(
                f"{type(self).__name__}: its weights are in the package zamba. {REMEDY} Or state a file as weights."
            )
        return Path(package.origin).parent / PUBLISHED

    def outputs(self, frames: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns what the network says of pictures, uint8 (N, H, W, 3) RGB.

        Returns:
            Boxes, float (N, boxes, 4): middle, width and height as shares of the picture; and scores, 0 to 1, (N, boxes).
        """
        with torch.inference_mode():
            parts = [
                self._look(torch.from_numpy(part))
                for part in np.split(frames, range(self.batch_size, len(frames), self.batch_size))
            ]
        boxes, scores = zip(*parts, strict=True)
        return torch.cat(boxes), torch.cat(scores)

    def _look(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = frames.shape[1:3]
        scale = SIDE / max(height, width)
        size = (round(height * scale), round(width * scale))
        pictures = frames.permute(0, 3, 1, 2).float()  # (N, 3, H, W), 0 to 255
        if size != (height, width):
            pictures = F.interpolate(pictures, size, mode="bilinear", antialias=True)
        pictures = F.pad(pictures, (0, SIDE - size[1], 0, SIDE - size[0]))  # black, right and below
        with LOADING:
            network = self._network
        found = network(pictures)  # (N, boxes, 5 + classes): place, certainty of a thing, of each class
        return found[:, :, :4] / found.new_tensor([*size[::-1], *size[::-1]]), found[:, :, 4] * found[:, :, 5:].amax(
            dim=2
        )

    @cached_property
    def _network(self) -> Any:
        """The detector, loaded when it is first needed, in each process that reads clips."""
        from yolox.config import YoloxConfig

        config = YoloxConfig.get_named_config("yolox-tiny")
        config.num_classes = 1
        network = config.get_model()
        network.load_state_dict(torch.load(self._weights(), map_location="cpu", weights_only=True)["model"])
        return network.eval()


@dataclass
class YoloxScorer(_Yolox):
    """Scores a picture by the most certain animal in it, found by YOLOX-tiny.

    The published weights are those of MegadetectorLite, which the package ``zamba`` ships
    (https://github.com/drivendataorg/zamba).

    Args:
        weights: File of the weights; null for those in the package ``zamba``.
        batch_size: Pictures looked at together.
    """

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Returns scores between 0 and 1, (N,), of pictures, uint8 (N, H, W, 3) RGB."""
        return self.outputs(frames)[1].amax(dim=1).double().numpy()


@dataclass
class YoloxDetector(_Yolox):
    """Finds the animals in a picture with YOLOX-tiny.

    The published weights are those of MegadetectorLite, which the package ``zamba`` ships
    (https://github.com/drivendataorg/zamba).

    Args:
        weights: File of the weights; null for those in the package ``zamba``.
        batch_size: Pictures looked at together.
    """

    def __call__(self, frames: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
        """Returns the boxes in pictures, uint8 (N, H, W, 3) RGB: for each (M, 5), see ``DetectedBoxes``."""
        from torchvision.ops import box_convert, nms

        found = []
        for boxes, scores in zip(*self.outputs(frames), strict=True):
            sure = scores >= LEAST_SCORE
            corners = box_convert(boxes[sure], "cxcywh", "xyxy").clamp(0, 1)
            kept = nms(corners, scores[sure], OVERLAP)
            rows = torch.cat([box_convert(corners[kept], "xyxy", "xywh"), scores[sure][kept, None]], dim=1)
            found.append(rows.double().numpy())
        return found
