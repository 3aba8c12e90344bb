"""Names: of subcommands alike, and those that were most likely meant."""

import difflib
from collections.abc import Iterable

PREDICTING = ("predict", "merge")  # subcommands whose clips are ``data.videos``


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Returns ``Did you mean ...?`` with the most similar known name, after a space; empty if none is similar.

    Args:
        name: What was given.
        known: The names that exist.
        cutoff: Least similarity from 0 to 1, as in ``difflib``.
    """
    by_small_letters = {word.lower(): word for word in known}
    nearest = difflib.get_close_matches(name.lower(), by_small_letters, n=1, cutoff=cutoff)
    return f" Did you mean {by_small_letters[nearest[0]]}?" if nearest else ""
