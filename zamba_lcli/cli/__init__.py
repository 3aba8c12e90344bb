"""The command line: Lightning's own, with what it gets wrong made right."""

from zamba_lcli.cli.cli import ZambaCLI, main

__all__ = ["ZambaCLI", "main"]
