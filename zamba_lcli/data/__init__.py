"""From labels and files to batches."""

from zamba_lcli.data.datamodule import ZambaVideoDataModule
from zamba_lcli.data.demo import DemoClips
from zamba_lcli.data.sampling import EvenlySpaced

__all__ = ["DemoClips", "EvenlySpaced", "ZambaVideoDataModule"]
