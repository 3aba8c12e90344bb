"""The page that ``zamba predict`` and ``zamba test`` write."""

from zamba_lcli.report.page import Report

__all__ = ["Report"]
