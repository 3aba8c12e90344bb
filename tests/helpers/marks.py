"""Which values of a parameter the default run leaves out."""

import pytest


def some_slow(values, quick, several=False):
    """All values of a parameter, of which those that are not among the quick ones are run on demand.

    With ``several``, each value is those of several parameters.
    """
    return [
        value if value in quick else pytest.param(*value if several else [value], marks=pytest.mark.slow)
        for value in values
    ]
