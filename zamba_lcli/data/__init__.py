"""From labels and files to batches."""

from zamba_lcli.data.crop import AnimalCrop, Contrast, DetectedBoxes, MegaDetectorBoxes, Motion
from zamba_lcli.data.datamodule import ZambaVideoDataModule
from zamba_lcli.data.demo import DemoClips
from zamba_lcli.data.samplers import ClassBalanced
from zamba_lcli.data.sampling import (
    EarlyBias,
    EvenlySpaced,
    FixedRate,
    GivenFrames,
    HighestScores,
    KeyFrames,
    MostMotion,
    SceneChanges,
    SeveralClips,
    TemporalJitter,
)

__all__ = [
    "AnimalCrop",
    "ClassBalanced",
    "Contrast",
    "DemoClips",
    "DetectedBoxes",
    "EarlyBias",
    "EvenlySpaced",
    "FixedRate",
    "GivenFrames",
    "HighestScores",
    "KeyFrames",
    "MegaDetectorBoxes",
    "MostMotion",
    "Motion",
    "SceneChanges",
    "SeveralClips",
    "TemporalJitter",
    "ZambaVideoDataModule",
]
