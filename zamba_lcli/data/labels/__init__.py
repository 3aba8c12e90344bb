"""From a labels table or a Camtrap DP package to clips with labels, sites and splits."""

from zamba_lcli.data.labels.table import LabelledClip, LabelTable, read_labels, write_labels

__all__ = ["LabelTable", "LabelledClip", "read_labels", "write_labels"]
