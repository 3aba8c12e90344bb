"""The command line: Lightning's own, with what it gets wrong made right."""

from zamba_lcli.cli.cli import ZambaCLI
from zamba_lcli.cli.main import main

__all__ = ["ZambaCLI", "main"]
