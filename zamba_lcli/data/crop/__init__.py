"""Crops: clips are looked at where the animal is. The finder of boxes is chosen by class path in the YAML."""

from zamba_lcli.data.crop.animal_crop import AnimalCrop, ClipCrop, NothingFoundError
from zamba_lcli.data.crop.boxes import Detections, PictureSize, Windows
from zamba_lcli.data.crop.finders import BoxFinder, Contrast, Motion, PictureFinder

__all__ = [
    "AnimalCrop",
    "BoxFinder",
    "ClipCrop",
    "Contrast",
    "Detections",
    "Motion",
    "NothingFoundError",
    "PictureFinder",
    "PictureSize",
    "Windows",
]
