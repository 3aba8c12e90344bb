"""What is printed for the user, once, by the first of several processes."""

from typing import Any

from pytorch_lightning.utilities import rank_zero_only

print_once = rank_zero_only(print)


def tell_difference(key: str, ours: Any, theirs: Any, why: str = " as you state") -> None:
    """Prints a setting that differs from that of the checkpoint's run.

    Args:
        key: As in the YAML.
        ours: Its value now.
        theirs: That of the checkpoint's run.
        why: Where the value comes from, after a space or a comma.
    """
    here, there = ("null" if value is None else value for value in (ours, theirs))
    print_once(f"{key}: {here}{why}; the checkpoint has {there}.")
