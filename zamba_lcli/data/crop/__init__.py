"""Crops: clips are looked at where the animal is. The finder of boxes is chosen by class path in the YAML."""

from zamba_lcli.data.crop.animal_crop import AnimalCrop, ClipCrop, NothingFoundError
from zamba_lcli.data.crop.boxes import Detections, PictureSize, Windows
from zamba_lcli.data.crop.detected import DetectedBoxes
from zamba_lcli.data.crop.finders import BoxFinder, Contrast, Motion, PictureFinder, TableFinder
from zamba_lcli.data.crop.megadetector import MegaDetectorBoxes

__all__ = [
    "AnimalCrop",
    "BoxFinder",
    "ClipCrop",
    "Contrast",
    "DetectedBoxes",
    "Detections",
    "MegaDetectorBoxes",
    "Motion",
    "NothingFoundError",
    "PictureFinder",
    "PictureSize",
    "TableFinder",
    "Windows",
]
