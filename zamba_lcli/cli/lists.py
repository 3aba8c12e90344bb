"""Lists of classes, such as ``trainer.callbacks``: what ``+`` adds or changes, and what a new list leaves out.

jsonargparse adds whatever is stated with ``+``. Of most callbacks, loggers, formats and transforms a run has one at most:
stated again, such a class means the one that is there, which is changed argument by argument and keeps its place.
"""

import inspect
import pydoc
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jsonargparse import Namespace
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import (
    BasePredictionWriter,
    Checkpoint,
    EarlyStopping,
    LambdaCallback,
    ModelCheckpoint,
    ProgressBar,
)
from pytorch_lightning.loggers import Logger
from torchvision.transforms import v2

from zamba_lcli import predictions
from zamba_lcli.callbacks import WritePredictions
from zamba_lcli.callbacks.predictions import DEFAULT_FORMATS
from zamba_lcli.console import print_once
from zamba_lcli.predictions import PredictionFormat

SEVERAL = (ModelCheckpoint, LambdaCallback)  # of which a run can have several
OF_A_MONITOR = EarlyStopping  # of which a run can have one for each monitor
BASES = (
    Callback,
    BasePredictionWriter,
    Checkpoint,
    ProgressBar,
)  # not classes to be stated, but what users derive from
PROVIDED = ("zamba_lcli", "pytorch_lightning")
DEFAULT_LISTS = {(WritePredictions, "formats"): DEFAULT_FORMATS}  # what null stands for
MOST_CLASSES = 12  # named in a message
_is_quiet = ContextVar("_is_quiet", default=False)


class Added(Namespace):
    """An item of a list that ``+`` stated, until all is read."""


class Alone(Namespace):
    """The value to which ``+`` added, where it was no list, until all is read."""


def namespace(values: Mapping[str, Any], kind: type[Namespace] = Namespace) -> Namespace:
    """Returns values as jsonargparse holds them.

    Args:
        values: By key.
        kind: ``Namespace``, or ``Added`` or ``Alone``.
    """
    return kind(dict(values))  # type: ignore[no-untyped-call]


@contextmanager
def quiet() -> Iterator[None]:
    """Parses without telling again what a list has lost."""
    token = _is_quiet.set(True)
    try:
        yield
    finally:
        _is_quiet.reset(token)


def with_added(items: list[Any], number: int) -> list[Any]:
    """Returns a list of which the last ``number`` classes are marked as added."""
    at = len(items) - number
    return items[:at] + [namespace(vars(i), Added) if type(i) is Namespace else i for i in items[at:]]


def settled(value: Any) -> Any:
    """Returns a value that is read completely: with the classes that were added in their places.

    Args:
        value: A list, or anything else, which is returned as it is. Not changed.

    Raises:
        ValueError: If a class that was added may mean several of the list.
    """
    if not isinstance(value, list) or not any(isinstance(item, Namespace) for item in value):
        return value
    items: list[Any] = []
    for item in value:
        at = _place(item, items) if isinstance(item, Added) else None
        if at is None:
            items.append(item)
        else:
            items[at] = _changed(items[at], item)
    if len(items) == 1 and isinstance(items[0], Alone):
        return _plain(items[0])
    return [_plain(item) for item in items]


def _place(item: Namespace, items: list[Any]) -> int | None:
    """Returns the position of the item that a class means which is stated again; None if it is another one."""
    kind = class_of(item)
    if kind is None or not _once(kind):
        return None
    kinds = [class_of(other) for other in items]
    related = [at for at, other in enumerate(kinds) if other is kind]
    related = related or [at for at, other in enumerate(kinds) if other and _once(other) and _related(kind, other)]
    monitor = _init_args(item).get("monitor")
    if issubclass(kind, OF_A_MONITOR) and monitor is not None:
        related = [at for at in related if _init_args(items[at]).get("monitor") == monitor]
    if len(related) > 1:
        hint = "State its monitor too" if issubclass(kind, OF_A_MONITOR) else "State the whole list anew"
        raise ValueError(f"{name_of(item)}: the list has {len(related)}, and + may mean any of them. {hint}.")
    return related[0] if related else None


def _related(kind: type, other: type) -> bool:
    return issubclass(_stated(kind), _stated(other)) or issubclass(_stated(other), _stated(kind))


def _stated(kind: type) -> type:
    """Returns the class as a configuration has it: Lightning's where it is one of ours in its place."""
    return next(base for base in kind.__mro__ if not (_is_provided(base) and base.__name__.startswith("Zamba")))


def _is_provided(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in PROVIDED


def _once(kind: type) -> bool:
    """Returns whether a run has one of a class at most; of early stopping, one for each monitor."""
    if issubclass(kind, Callback):
        base = next(base for base in kind.__mro__ if _is_provided(base))
        # of a user's own kind, Lightning accepts several if they have no state, or say what tells them apart in a checkpoint
        own = base in BASES and not (
            kind.state_dict is not Callback.state_dict and kind.state_key is Callback.state_key
        )
        return not own and not issubclass(kind, SEVERAL)
    if issubclass(kind, v2.Transform):
        return "transforms" not in inspect.signature(kind).parameters  # of others, such as RandomApply
    return issubclass(kind, Logger | PredictionFormat)


def _changed(there: Namespace, stated: Namespace) -> Namespace:
    """Returns an item with the arguments of another one in place of its own."""
    before, now = class_of(there), class_of(stated)
    assert before is not None
    assert now is not None
    # a class derived from the one stated again stays, unless both are provided, such as WeightAveraging and its EMA
    keeps = issubclass(_stated(before), _stated(now)) and not (_is_provided(before) and _stated(before) != _stated(now))
    changed = there.clone()  # type: ignore[no-untyped-call]
    init_args = _init_args(changed)
    if not keeps:
        changed["class_path"] = stated["class_path"]
        init_args = {name: value for name, value in init_args.items() if takes(now, name)}
    for name, value in _init_args(stated).items():
        init_args[name] = _changed_value(init_args.get(name), value)
    changed["init_args"] = namespace(init_args)
    if stated.get("dict_kwargs"):
        changed["dict_kwargs"] = {**(there.get("dict_kwargs") or {}), **stated["dict_kwargs"]}
    return changed  # type: ignore[no-any-return]


def _changed_value(before: Any, value: Any) -> Any:
    if isinstance(value, list) and value and all(isinstance(item, Added) for item in value):
        return [*(before if isinstance(before, list) else []), *value]
    if class_of(before) is not None and class_of(before) is class_of(value):
        return _changed(before, value)
    return value


def _plain(item: Any) -> Any:
    """Returns an item without marks, and the lists in it as they are meant."""
    if not isinstance(item, Namespace):
        return item
    plain = namespace(vars(item))
    if "init_args" in plain:
        init_args = _init_args(plain)
        plain["init_args"] = namespace({name: _whole_list(item, name, value) for name, value in init_args.items()})
    return plain


def _whole_list(item: Namespace, name: str, value: Any) -> Any:
    """Returns a list in an item as it is meant; one that only ``+`` states is added to what the class has without it."""
    if isinstance(value, list) and value and all(isinstance(part, Added) for part in value):
        defaults = next((d for (kind, arg), d in DEFAULT_LISTS.items() if arg == name and class_of(item) is kind), ())
        paths = [f"{predictions.__name__}.{kind.__name__}" for kind in defaults]
        value = [*(namespace({"class_path": path}) for path in paths), *value]
    return settled(value)


def _init_args(item: Any) -> dict[str, Any]:
    return dict(vars(item["init_args"])) if item.get("init_args") else {}


def class_of(item: Any) -> type | None:
    """Returns the class that an item names; None for anything else."""
    path = item.get("class_path") if isinstance(item, Namespace | dict) else None
    found = pydoc.locate(path) if isinstance(path, str) else None
    return found if inspect.isclass(found) else None


def name_of(item: Any) -> str:
    """Returns the short name of the class that an item names."""
    return str(item["class_path"]).rpartition(".")[2]


def takes(kind: type, argument: str) -> bool:
    """Returns whether a class has an argument, its own or one that it hands on to its base."""
    for base in kind.__mro__:
        parameters = inspect.signature(base).parameters if base is not object else {}
        if argument in parameters:
            return True
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            return False
    return False


def misplaced_argument(
    option: str, argument: str, value: Any, items: Any, known: Callable[[], list[str]]
) -> str | None:
    """Returns the message for an argument that the last item of a list does not take, but another class; None otherwise.

    Args:
        option: The list's, such as ``trainer.callbacks``.
        argument: The argument, without what is below it.
        value: Its value.
        items: The list so far.
        known: Returns the import paths of the classes that may be in the list.
    """
    if not isinstance(items, list) or not items or class_of(items[-1]) is None:
        return None
    name = argument.partition(".")[0].removesuffix("+")
    if takes(class_of(items[-1]), name):  # type: ignore[arg-type]
        return None
    there = [name_of(item) for item in items if (kind := class_of(item)) is not None and takes(kind, name)]
    if not there:
        others = [
            kind for path in known() if (kind := class_of({"class_path": path})) is not None and takes(kind, name)
        ]
        there = [_stated(kind).__name__ for kind in others]
    which = list(dict.fromkeys(there))
    if not which or len(which) > MOST_CLASSES:
        return None
    one = which[0]
    return (
        f"{option}.{argument}: {name} is no argument of {name_of(items[-1])}, the last of {option}, but of "
        f"{' and '.join(which)}. Name the class first: --{option}+={one} --{option}.{argument}={value}"
    )


def tell_left_out(key: str, before: Any, after: Any, where: str) -> None:
    """Prints, on stderr, the classes of a list that a new one in its place lacks.

    Args:
        key: The list's.
        before: The list before.
        after: What takes its place.
        where: What states it: a file or an option.
    """
    if _is_quiet.get() or not isinstance(before, list):
        return
    items = after if isinstance(after, list) else [after]
    added = [name_of(item) for item in before if isinstance(item, Added)]
    gone = Counter(map(_name, before)) - Counter(map(_name, items))
    gone += Counter({name: 1 for name in added if name not in gone})
    names = [f"{number} {name}" if number > 1 else name for name, number in gone.items() if name]
    if names and not any(isinstance(item, Added) for item in items):
        last = key.rpartition(".")[2]
        how = f"Give {where} before what it should not replace" if added else f"{last}+ would add to it and keep them"
        print_once(f"{where}: replaces {key}; no longer there: {', '.join(names)}. {how}.", file=sys.stderr)


def _name(item: Any) -> str:
    return name_of(item) if class_of(item) is not None else ""


def lists_in(config: Any, key: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Yields the lists of classes in a configuration with their keys; not those within the arguments of a class."""
    for name, value in vars(config).items() if isinstance(config, Namespace) else ():
        path = f"{key}.{name}" if key else name
        if isinstance(value, list) and any(class_of(item) is not None for item in value):
            yield path, value
        elif isinstance(value, Namespace) and "class_path" not in value:
            yield from lists_in(value, path)
