"""From labels and files to batches."""

from zamba_lcli.data.datamodule import ZambaVideoDataModule
from zamba_lcli.data.demo import DemoClips
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
)

__all__ = [
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
    "ZambaVideoDataModule",
]
