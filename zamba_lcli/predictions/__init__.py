"""What predictions are written as. No Lightning in it."""

from zamba_lcli.predictions.camtrap_dp import CamtrapDPObservations
from zamba_lcli.predictions.camtrap_dp_package import CamtrapDPPackage
from zamba_lcli.predictions.formats import (
    ClipTimelines,
    CSVPredictions,
    HTMLReport,
    MegaDetectorJSON,
    ParquetPredictions,
    PredictedClip,
    PredictedPart,
    PredictionFormat,
    PredictionRun,
)

__all__ = [
    "CSVPredictions",
    "CamtrapDPObservations",
    "CamtrapDPPackage",
    "ClipTimelines",
    "HTMLReport",
    "MegaDetectorJSON",
    "ParquetPredictions",
    "PredictedClip",
    "PredictedPart",
    "PredictionFormat",
    "PredictionRun",
]
