"""What happens around the steps of a run."""

from zamba_lcli.callbacks.averaging import ZambaEMAWeightAveraging, ZambaWeightAveraging
from zamba_lcli.callbacks.batch_size_finder import ZambaBatchSizeFinder
from zamba_lcli.callbacks.checkpoints import ZambaModelCheckpoint
from zamba_lcli.callbacks.evaluation import Evaluation
from zamba_lcli.callbacks.features import FrozenFeatureCache
from zamba_lcli.callbacks.figures import TensorBoardFigures
from zamba_lcli.callbacks.finetuning import ConstantFactor, ZambaBackboneFinetuning
from zamba_lcli.callbacks.interruption import NoCheckpointIO, SaveOnInterrupt, WholeCheckpointIO
from zamba_lcli.callbacks.lr_finder import ZambaLearningRateFinder
from zamba_lcli.callbacks.openvino import OpenVINORuntime
from zamba_lcli.callbacks.phases import GradualUnfreezing
from zamba_lcli.callbacks.predictions import WritePredictions
from zamba_lcli.callbacks.progress import ClipProgressBar
from zamba_lcli.callbacks.speed import Speed
from zamba_lcli.predictions import (
    CamtrapDPObservations,
    CamtrapDPPackage,
    ClipTimelines,
    CSVPredictions,
    HTMLReport,
    MegaDetectorJSON,
    ParquetPredictions,
)

__all__ = [
    "CSVPredictions",
    "CamtrapDPObservations",
    "CamtrapDPPackage",
    "ClipProgressBar",
    "ClipTimelines",
    "ConstantFactor",
    "Evaluation",
    "FrozenFeatureCache",
    "GradualUnfreezing",
    "HTMLReport",
    "MegaDetectorJSON",
    "NoCheckpointIO",
    "OpenVINORuntime",
    "ParquetPredictions",
    "SaveOnInterrupt",
    "Speed",
    "TensorBoardFigures",
    "WholeCheckpointIO",
    "WritePredictions",
    "ZambaBackboneFinetuning",
    "ZambaBatchSizeFinder",
    "ZambaEMAWeightAveraging",
    "ZambaLearningRateFinder",
    "ZambaModelCheckpoint",
    "ZambaWeightAveraging",
]
