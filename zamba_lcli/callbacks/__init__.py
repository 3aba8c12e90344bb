"""What happens around the steps of a run."""

from zamba_lcli.callbacks.averaging import ZambaEMAWeightAveraging
from zamba_lcli.callbacks.features import FrozenFeatureCache
from zamba_lcli.callbacks.finetuning import ConstantFactor, ZambaBackboneFinetuning
from zamba_lcli.callbacks.interruption import SaveOnInterrupt, WholeCheckpointIO
from zamba_lcli.callbacks.lr_finder import ZambaLearningRateFinder
from zamba_lcli.callbacks.predictions import PredictionsCSV

__all__ = [
    "ConstantFactor",
    "FrozenFeatureCache",
    "PredictionsCSV",
    "SaveOnInterrupt",
    "WholeCheckpointIO",
    "ZambaBackboneFinetuning",
    "ZambaEMAWeightAveraging",
    "ZambaLearningRateFinder",
]
