"""Logits of each clip, also of clips that are called blank without being looked at: nothing was found to be cut out."""

from collections.abc import Sequence

import torch
from torch import Tensor

from zamba_lcli.types import BLANK, Batch

SURE = 20.0  # logit of the class blank; all others have its negative


def by_clip(logits: Tensor, batch: Batch, class_names: Sequence[str]) -> Tensor:
    """Returns the logits of a batch by clip, with those of its blank clips.

    Args:
        logits: Float (N x parts, classes), of the clips that were looked at.
        batch: The batch; its last clips may be blank ones.
        class_names: The classes.

    Returns:
        Float (B, parts, classes).
    """
    blank = batch.get("blank", 0)
    seen = len(batch["index"]) - blank
    parts = len(logits) // seen if seen else batch["times"].shape[1]
    logits = logits.reshape(seen, parts, len(class_names))
    if not blank:
        return logits
    is_blank = torch.tensor([name.casefold() in BLANK for name in class_names], device=logits.device)
    row = torch.where(is_blank, SURE, -SURE).to(logits.dtype)
    return torch.cat([logits, row.expand(blank, parts, -1)])
