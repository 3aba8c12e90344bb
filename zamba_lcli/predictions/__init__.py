"""Formats of predictions. No Lightning in it."""

from zamba_lcli.predictions.camtrap_dp import CamtrapDPObservations
from zamba_lcli.predictions.camtrap_dp_package import CamtrapDPPackage
from zamba_lcli.predictions.formats import (
    PredictedClip,
    PredictedPart,
    PredictedRow,
    PredictionFormat,
    PredictionRun,
)
from zamba_lcli.predictions.html import HTMLReport
from zamba_lcli.predictions.megadetector import MegaDetectorJSON
from zamba_lcli.predictions.tables import ClipTimelines, CSVPredictions, ParquetPredictions

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
    "PredictedRow",
    "PredictionFormat",
    "PredictionRun",
]
