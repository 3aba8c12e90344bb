"""Networks: each is trunk -> backbone -> head."""

from zamba_lcli.models.frames import TimeDistributedEfficientNet
from zamba_lcli.models.slowfast import SlowFast

__all__ = ["SlowFast", "TimeDistributedEfficientNet"]
