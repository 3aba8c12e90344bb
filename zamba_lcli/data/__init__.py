"""From labels and files to batches."""

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
    "ClassBalanced",
    "DemoClips",
    "EarlyBias",
    "EvenlySpaced",
    "FixedRate",
    "GivenFrames",
    "HighestScores",
    "KeyFrames",
    "MostMotion",
    "SceneChanges",
    "SeveralClips",
    "TemporalJitter",
    "ZambaVideoDataModule",
]
