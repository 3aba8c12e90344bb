"""What happens around the steps of a run."""

from zamba_lcli.callbacks.finetuning import ZambaBackboneFinetuning
from zamba_lcli.callbacks.predictions import PredictionsCSV

__all__ = ["PredictionsCSV", "ZambaBackboneFinetuning"]
