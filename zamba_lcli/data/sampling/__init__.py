"""Which frames of a clip are looked at: one small class each."""

from zamba_lcli.data.sampling.base import (
    ContentSampling,
    EarlyBias,
    EvenlySpaced,
    FixedRate,
    FrameSampling,
    GivenFrames,
    HighestScores,
    KeyFrames,
    MostMotion,
    SceneChanges,
    SeveralClips,
    TemporalJitter,
    Timeline,
    TooLongError,
    TooShortError,
    Watcher,
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
