"""Sampling strategies: which frames of a clip are looked at. Chosen by class path in the YAML."""

from zamba_lcli.data.sampling.base import (
    ContentSampling,
    FrameSampling,
    Timeline,
    TooLongError,
    TooShortError,
    Watcher,
)
from zamba_lcli.data.sampling.content_based import HighestScores, MostMotion, SceneChanges
from zamba_lcli.data.sampling.time_based import (
    EarlyBias,
    EvenlySpaced,
    FixedRate,
    GivenFrames,
    KeyFrames,
    SeveralClips,
    TemporalJitter,
)

__all__ = [
    "ContentSampling",
    "EarlyBias",
    "EvenlySpaced",
    "FixedRate",
    "FrameSampling",
    "GivenFrames",
    "HighestScores",
    "KeyFrames",
    "MostMotion",
    "SceneChanges",
    "SeveralClips",
    "TemporalJitter",
    "Timeline",
    "TooLongError",
    "TooShortError",
    "Watcher",
]
