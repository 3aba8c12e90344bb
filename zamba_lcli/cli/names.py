"""Names that were most likely meant."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Returns a question for the name nearest to ``name``, to be put behind a sentence; empty if none is near.

    Args:
        name: What was given.
        known: What there is.
        cutoff: How alike the two must be, from 0 to 1, as in ``difflib``.
    """
    by_small_letters = {word.lower(): word for word in known}
    nearest = difflib.get_close_matches(name.lower(), by_small_letters, n=1, cutoff=cutoff)
    return f" Did you mean {by_small_letters[nearest[0]]}?" if nearest else ""
