"""How long reading a clip may take, whatever the file holds and whatever its disk does."""

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import TIMEOUT_MAX, Thread, get_ident
from typing import Any, TypeVar

import torch

T = TypeVar("T")
AnyPath = TypeVar("AnyPath", str, Path)

TIME_LIMIT = 120.0  # seconds for a clip; a healthy one takes a few at most
SLACK = 5.0  # seconds beyond the limit in which a decoder that goes round in circles ends by itself
MANY_UNANSWERED = 8  # reads of a process: maybe the drive is gone, so that others are first asked for one byte
FIRST_BYTE = 20.0  # seconds until that is there; drives that sleep take ten
MAX_UNANSWERED = 256  # each keeps a thread and an open file, and this many mean that the drive is gone


class UnreadableClipError(Exception):
    """A clip of which no frame can be had."""

    def __init__(self, reason: str) -> None:
        """Keeps ``reason``, one plain line."""
        super().__init__(reason)
        self.reason = reason


class NoAnswerError(RuntimeError):
    """Disk or network drive do not answer, so that the run cannot go on. The message, one line, names files."""


class Deadline:
    """Ends the reading of a clip that takes too long: some damaged files make a decoder go round in circles.

    Args:
        seconds: From now on.
    """

    def __init__(self, seconds: float) -> None:
        """Starts the clock."""
        self.seconds = seconds
        self.end = time.monotonic() + seconds

    def check(self) -> None:
        """Raises ``UnreadableClipError`` once the time is over."""
        if time.monotonic() > self.end:
            raise UnreadableClipError(f"reading it took more than {self.seconds:g} s")


class _Reader:
    """A thread that reads one clip after the other. As a daemon it keeps no process from ending, however long it is stuck."""

    def __init__(self) -> None:
        self.tasks: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self.answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self.thread = Thread(target=self._work, name="clip reader", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while (task := self.tasks.get()) is not None:
            self.answers.put(_answer(task))
            del task  # else the clip stays in memory until the next one


# A forked process has copies of both, but none of the threads; Python knows them as ended there.
_idle: list[_Reader] = []
_unanswered: dict[Path, Thread] = {}


def read_within(path: Path, seconds: float, read: Callable[[Deadline], T]) -> T:
    """Calls ``read``, which opens or reads a file, and gives up where it does not return.

    A system call on a dead network drive returns to no timeout and no signal. So the file is read in another thread, which is
    left behind where it is stuck, and replaced for the next file; else it is kept. The file of a thread that is still stuck
    is not tried again. Python's pools of threads are of no use here: the interpreter waits for their threads when it exits.

    Args:
        path: The file.
        seconds: What reading may take.
        read: Is given the deadline to check; called with the gradient mode of the caller.

    Raises:
        UnreadableClipError: If there is no answer in time, or too little memory for the file.
        NoAnswerError: If that happened to ``MAX_UNANSWERED`` files in this process.
    """
    reason = f"it could not be read within {seconds:g} s: the disk or network drive does not answer"
    stuck = [other for other, thread in list(_unanswered.items()) if thread.is_alive()]
    if path in stuck:
        raise UnreadableClipError(reason)
    if len(stuck) >= MAX_UNANSWERED:
        named = ", ".join(map(str, stuck[:MANY_UNANSWERED]))
        raise NoAnswerError(
            f"the disk or network drive does not answer: {len(stuck)} clips could not be read, so that no others are tried: "
            f"{named}, ... See to the drive, or take these clips away, and run again; to go on with a fit, give --ckpt_path."
        )
    if len(stuck) >= MANY_UNANSWERED and seconds > FIRST_BYTE:
        _await(path, FIRST_BYTE, lambda: _first_byte(path), reason.replace(f"{seconds:g}", f"{FIRST_BYTE:g}"))
    deadline = Deadline(seconds)
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def task() -> T:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return read(deadline)

    return _await(path, seconds + SLACK, task, reason)


def _await(path: Path, seconds: float, task: Callable[[], T], reason: str) -> T:
    """Returns the result of a task that a reader works on; raises ``UnreadableClipError`` if there is none in time."""
    reader = _free_reader()
    reader.tasks.put(task)
    answered = False
    try:
        result, error = reader.answers.get(timeout=min(seconds, TIMEOUT_MAX))
        answered = True
    except Empty:
        _unanswered[path] = reader.thread
        raise UnreadableClipError(reason) from None
    finally:  # also where Ctrl-C ends the waiting
        if answered:
            _idle.append(reader)
        else:
            reader.tasks.put(None)  # the thread ends, should it ever come back
    if isinstance(error, MemoryError):
        raise UnreadableClipError("there is not enough memory to read it")
    return _result(result, error)  # type: ignore[no-any-return]


def _result(result: Any, error: BaseException | None) -> Any:
    try:
        if error is not None:
            raise error
        return result
    finally:
        del error  # which refers to this frame


def _first_byte(path: Path) -> None:
    """Waits until a file can be read; what is wrong with it, its reader says."""
    with suppress(OSError, ValueError):
        if stat.S_ISREG(os.stat(path).st_mode):
            with path.open("rb", buffering=0) as file:
                file.read(1)


class Looks:
    """What the threads of a ``look_within`` are looking at, and since when."""

    def __init__(self) -> None:
        """Starts the clock."""
        self.paths: dict[int, str | Path] = {}  # by thread
        self.since = time.monotonic()

    def at(self, path: AnyPath) -> AnyPath:
        """Notes what the calling thread looks at next, and returns it."""
        self.paths[get_ident()] = path
        self.since = time.monotonic()
        return path

    def go_on(self) -> None:
        """Notes that a part of what is looked at came."""
        self.since = time.monotonic()

    def done(self) -> None:
        """Notes that the calling thread looks at nothing any more."""
        self.paths.pop(get_ident(), None)
        self.since = time.monotonic()


def look_within(seconds: float, key: str, look: Callable[[Looks], T]) -> T:
    """Calls ``look``, which looks at many files or folders one by one, and gives up where one of them does not return.

    Args:
        seconds: What each of them may take.
        key: The argument that named them, for the message.
        look: Is given ``Looks``, to say before each what it looks at.

    Raises:
        NoAnswerError: If one of them is not answered for in time.
    """
    looks = Looks()
    reader = _free_reader()
    reader.tasks.put(lambda: look(looks))
    answered = False
    try:
        while not answered:
            left = looks.since + seconds - time.monotonic()
            if left < 0:
                named = ", ".join(map(str, list(looks.paths.values())[:MANY_UNANSWERED]))
                raise NoAnswerError(
                    f"{key}: the disk or network drive does not answer within {seconds:g} s: {named}. See to the drive, or "
                    "take that away, and run again."
                )
            with suppress(Empty):
                result, error = reader.answers.get(timeout=min(left + 0.01, TIMEOUT_MAX))
                answered = True
    finally:
        if answered:
            _idle.append(reader)
        else:
            reader.tasks.put(None)
    return _result(result, error)  # type: ignore[no-any-return]


def _free_reader() -> _Reader:
    """Returns an idle reader, or a new one."""
    while True:
        try:
            reader = _idle.pop()
        except IndexError:
            return _Reader()
        if reader.thread.is_alive():
            return reader


def _answer(task: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Returns the result of a task, and what it raised, which is raised again by the thread that waits."""
    try:
        return task(), None
    except BaseException as error:
        return None, error
