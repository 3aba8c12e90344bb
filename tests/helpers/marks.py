"""Which values of a parameter the default run leaves out."""

import pytest


def some_slow(values, quick):
    """All values of a parameter, of which those that are not among the quick ones are run on demand."""
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]
