"""Networks: each is trunk -> backbone -> head."""

from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.models.pytorchvideo import PytorchVideo
from zamba_lcli.models.slowfast import SlowFast
from zamba_lcli.models.time_distributed import SingleFrameResnet, TimeDistributedEfficientNet, TimeDistributedTimm
from zamba_lcli.models.torchvision import TorchvisionVideo
from zamba_lcli.models.transformers import TransformersVideo

__all__ = [
    "PytorchVideo",
    "SingleFrameResnet",
    "SlowFast",
    "TimeDistributedEfficientNet",
    "TimeDistributedTimm",
    "TorchvisionVideo",
    "TransformersVideo",
    "ZambaVideoClassificationLightningModule",
]
