"""Runs ``zamba`` as ``python -m zamba_lcli``."""

from zamba_lcli.cli import main

main()
