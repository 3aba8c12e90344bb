"""The command line: LightningCLI with its faults mended."""

from zamba_lcli.cli.cli import ZambaCLI
from zamba_lcli.cli.main import main

__all__ = ["ZambaCLI", "main"]
