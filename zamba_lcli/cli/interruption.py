"""How the program ends on Ctrl-C and SIGTERM: with code 130 or 143, and how to go on."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from zamba_lcli.console import print_once

TO_GO_ON = {
    "fit": "Nothing was saved since the last checkpoint; if the run folder has one, --ckpt_path goes on from it.",
    "predict": "The clips that are done are kept: the same command goes on with the others.",
}
TO_BEGIN_AGAIN = "No results were written: give the same command again."


class Terminated(SystemExit):
    """SIGTERM has come, which ends the program as Ctrl-C does."""


@contextmanager
def ending_when_interrupted(words: list[str]) -> Iterator[None]:
    """Ends what runs in it on SIGINT and SIGTERM with code 130 or 143, and one line that says how to go on.

    Lightning ends with code 1 on SIGINT, which it ignores from then on, and listens to SIGTERM in ``fit`` alone. What ends
    ``fit`` by itself, when it has saved (``SaveOnInterrupt``), is left as it is.

    Args:
        words: The command line, which names the subcommand.

    Raises:
        SystemExit: With the code.
    """
    handlers: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():  # no other can
        handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as end:
        received = _signal_behind(end)
        if received is None:
            raise
        how = next((TO_GO_ON[word] for word in words if word in TO_GO_ON), TO_BEGIN_AGAIN)
        print_once(f"\nInterrupted by {received.name}. {how}", file=sys.stderr)
        raise SystemExit(128 + received) from None
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _signal_behind(end: BaseException) -> signal.Signals | None:
    """Returns the signal that ended the program; None if it ended otherwise."""
    if isinstance(end, Terminated):
        return signal.SIGTERM
    interrupted = isinstance(end, KeyboardInterrupt) or isinstance(end.__context__, KeyboardInterrupt)
    return signal.SIGINT if interrupted else None
