"""A detector of animals that scores frames for ``HighestScores``; needs ``pip install 'zamba-lcli[detector]'``."""

import importlib.util
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from zamba_lcli.errors import InputError

REMEDY = "Install it with: pip install 'zamba-lcli[detector]'."
SIDE = 640  # pixels of the square that the published weights were trained on
PUBLISHED = Path("object_detection", "yolox", "assets", "yolox_tiny_640_20220528.pth")  # in the package zamba


@dataclass
class YoloxScorer:
    """Scores a picture by the most certain animal in it, found by YOLOX-tiny.

    The published weights are those of MegadetectorLite, which the package ``zamba`` ships
    (https://github.com/drivendataorg/zamba).

    Args:
        weights: File of the weights; null for those in the package ``zamba``.
        batch_size: Pictures looked at together.
    """

    weights: str | None = None
    batch_size: int = 8

    def __post_init__(self) -> None:
        """Refuses to be made where something is missing, which else the first clip would find out."""
        if importlib.util.find_spec("yolox") is None:
            raise InputError(f"YoloxScorer needs the package yolox. {REMEDY}")
        if not self._weights().is_file():
            raise InputError(
                f"YoloxScorer: there is no file of weights {self._weights()}. {REMEDY} Or state another file."
            )

    def _weights(self) -> Path:
        if self.weights is not None:
            return Path(self.weights)
        package = importlib.util.find_spec("zamba")
        if package is None or package.origin is None:
            raise InputError(f"YoloxScorer: its weights are in the package zamba. {REMEDY} Or state a file as weights.")
        return Path(package.origin).parent / PUBLISHED

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Returns scores between 0 and 1, (N,), of pictures, uint8 (N, H, W, 3) RGB."""
        with torch.inference_mode():
            parts = [
                self._score(torch.from_numpy(part))
                for part in np.split(frames, range(self.batch_size, len(frames), self.batch_size))
            ]
        return torch.cat(parts).double().numpy()

    def _score(self, frames: torch.Tensor) -> torch.Tensor:
        height, width = frames.shape[1:3]
        scale = SIDE / max(height, width)
        size = (round(height * scale), round(width * scale))
        pictures = frames.permute(0, 3, 1, 2).float()  # (N, 3, H, W), 0 to 255
        if size != (height, width):
            pictures = F.interpolate(pictures, size, mode="bilinear", antialias=True)
        pictures = F.pad(pictures, (0, SIDE - size[1], 0, SIDE - size[0]))  # black, right and below
        boxes = self._network(pictures)  # (N, boxes, 5 + classes): place, certainty of a thing, of each class
        return cast(torch.Tensor, (boxes[:, :, 4] * boxes[:, :, 5:].amax(dim=2)).amax(dim=1))

    @cached_property
    def _network(self) -> Any:
        """The detector, loaded when it is first needed, in each process that reads clips."""
        from yolox.config import YoloxConfig

        config = YoloxConfig.get_named_config("yolox-tiny")
        config.num_classes = 1
        network = config.get_model()
        network.load_state_dict(torch.load(self._weights(), map_location="cpu", weights_only=True)["model"])
        return network.eval()
