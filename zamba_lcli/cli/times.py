"""Times in a configuration, which Lightning and jsonargparse take in different forms, and refuse or misread in silence."""

import re
from datetime import timedelta
from typing import Any, get_args

from zamba_lcli.cli.names import did_you_mean

UNITS = ("days", "hours", "minutes", "seconds", "weeks", "milliseconds", "microseconds")  # of a timedelta
DAYS_TO_SECONDS = re.compile(r"\d+:\d\d:\d\d:\d\d")  # Lightning's
HOURS_TO_SECONDS = re.compile(r"(\d+ days?, *)?\d+:\d\d:\d\d(\.\d+)?")  # jsonargparse's


def takes_time(typehint: Any) -> bool:
    """Returns whether a type is that of times, or one of several that a value may have."""
    return timedelta in (typehint, *get_args(typehint))


def check_time(val: Any, typehint: Any) -> None:
    """Refuses units that there are not, and texts that are no time.

    Args:
        val: What is given.
        typehint: What is expected, a time among others.

    Raises:
        ValueError: Says what may be given.
    """
    kinds = {getattr(kind, "__origin__", kind) for kind in (typehint, *get_args(typehint))}
    if isinstance(val, dict) and dict in kinds:
        for unit, number in val.items():
            if unit not in UNITS:
                hint = did_you_mean(str(unit), UNITS)
                raise ValueError(
                    f"{unit} is no unit of time.{hint} There are {', '.join(UNITS)}, such as {{minutes: 10}}."
                )
            if not isinstance(number, int) or isinstance(number, bool):
                raise ValueError(f"{unit}: {number} is not a whole number. Give one, if need be of a smaller unit.")
    elif isinstance(val, dict):
        raise ValueError(f"keys and values are no time here. {_form(kinds)}")
    elif isinstance(val, str) and not _is_number(val, kinds):
        form = DAYS_TO_SECONDS if str in kinds else HOURS_TO_SECONDS
        if val != "null" and form.fullmatch(val.strip()) is None:
            raise ValueError(f"{val} is no time. {_form(kinds)}")


def _form(kinds: set[Any]) -> str:
    text = '"00:00:10:00" (days, hours, minutes, seconds)' if str in kinds else '"0:10:00" (hours, minutes, seconds)'
    units = f"; or by units, which are {', '.join(UNITS)}, such as {{minutes: 10}}" if dict in kinds else ""
    return f"Give it as {text}{units}."


def _is_number(val: str, kinds: set[Any]) -> bool:
    return bool(kinds & {int, float}) and re.fullmatch(r"[-+]?[\d_]*\.?\d*(e[-+]?\d+)?", val) is not None
