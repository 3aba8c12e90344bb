"""The one exception for wrong input."""


class InputError(ValueError):
    """Something the user gave is wrong: a key, a file, a row, a checkpoint.

    The message names it and says what to do about it. The command line prints the message alone, without a traceback,
    and exits with code 2.
    """
