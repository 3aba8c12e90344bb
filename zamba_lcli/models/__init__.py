"""Networks: each is trunk -> backbone -> head."""

from zamba_lcli.models.frames import SingleFrameResnet, TimeDistributedEfficientNet, TimeDistributedTimm
from zamba_lcli.models.slowfast import SlowFast

__all__ = ["SingleFrameResnet", "SlowFast", "TimeDistributedEfficientNet", "TimeDistributedTimm"]
