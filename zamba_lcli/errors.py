"""The one exception for wrong input.

Ranges are checked in constructors and not by ``jsonargparse.typing``: from Python its types check nothing, and a message
of ours names the remedy.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

Severity: TypeAlias = Literal["problem", "warning"]


class Problem(NamedTuple):
    """Something wrong, as a row of a report; or, as a warning, something odd that no run is stopped by."""

    row: str  # where in the table it stands; empty if that is not known
    file: str  # the clip, or the table
    what: str
    remedy: str
    severity: Severity = "problem"


class InputError(ValueError):
    """Something the user gave is wrong: a key, a file, a row, a checkpoint.

    The message names it and says what to do about it. The command line prints the message alone, without a traceback,
    and exits with code 2.

    Args:
        message: The message.
        problems: The same one by one, where there are many.
    """

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        """Keeps the message and the problems."""
        super().__init__(message)
        self.problems = list(problems)
