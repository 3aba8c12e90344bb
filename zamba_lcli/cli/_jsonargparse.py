"""All private names of jsonargparse and argparse, and the faults of jsonargparse, mended while the program runs.

An import changes nothing: ``mended_jsonargparse`` replaces functions of jsonargparse and restores them, so that other programs
in the process parse as ever. To be reviewed at each upgrade; each function says when to delete it. Where no issue is
named, none was reported as of jsonargparse 4.53.
"""

import collections.abc
import copy
import inspect
import os
import re
from argparse import Action
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, NoReturn, get_args, get_origin

import jsonargparse._common
import jsonargparse._completions
import jsonargparse._completions_jsonschema
import jsonargparse._typehints
import torch
from jsonargparse import DefaultHelpFormatter, Namespace, set_parsing_settings  # type: ignore[attr-defined]
from jsonargparse._actions import _ActionHelpClassPath
from jsonargparse._loaders_dumpers import get_yaml_default_loader
from jsonargparse._typehints import get_all_subclass_paths
from jsonargparse._util import NestedArg, get_import_path, object_path_serializer
from jsonargparse.typing import get_registered_type, register_type, registered_type_handlers
from torch.optim.lr_scheduler import LRScheduler

from zamba_lcli.cli.lists import Added, Alone, misplaced_argument, namespace, settled, tell_left_out, with_added
from zamba_lcli.cli.repeatable import UNWRITABLE
from zamba_lcli.cli.times import check_time, takes_time
from zamba_lcli.schedulers import resolve_alias

INTEGER = re.compile(  # PyYAML's, without octals
    r"[-+]?0b[01_]+$|[-+]?(?:0|[1-9][0-9_]*)$|[-+]?0x[0-9a-fA-F_]+$|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+$"
)
ParserJsonschema = jsonargparse._completions_jsonschema.ParserJsonschema
adapt_to_type = jsonargparse._typehints.adapt_typehints
call = jsonargparse._typehints.ActionTypeHint.__call__
nested_options: list[str] = []  # the lists within whose items an argument is being parsed
takes_any_text = jsonargparse._typehints.ActionTypeHint._is_valid_string


def drop_init_args_of_other_class(parser: Any, previous: Any, value: Any) -> None:
    """Drops the arguments of a class when another class is named in its place.

    jsonargparse keeps those that the other class accepts: an AdamW's weight_decay for an SGD named later (jsonargparse#460).
    Delete when that issue is closed.
    """
    if previous and "init_args" in previous and previous["class_path"] != value["class_path"]:
        previous["init_args"] = Namespace()  # type: ignore[no-untyped-call]


def adapt(val: Any, typehint: Any, *args: Any, **kwargs: Any) -> Any:
    """Adapts a value to a type as jsonargparse does, except for lists, schedulers, times and enumerations.

    What ``+`` adds to a list of classes changes the item that it means, once all is read; ``zamba_lcli.cli.lists`` says which.
    Delete that part when jsonargparse can change one item of a list by its class.

    A list that is stated again replaces the one before. jsonargparse completes its items from those at the same position: an
    EarlyStopping got the ``verbose`` of a ModelCheckpoint (jsonargparse#478). Delete that part when items of a list are no
    longer matched by position.

    The names of torch's schedulers that a YAML cannot state mean those of ``zamba_lcli.schedulers``. Delete that part when
    torch's can be built from ``init_args`` alone.

    When a configuration is written, a default that is both a text and a member of an enumeration, such as a Timer's interval,
    is written as the text: YAML cannot represent the member. Delete that part when jsonargparse dumps such members.

    A misspelt time is refused, which jsonargparse accepts where a text or a dictionary may be given as well. Delete that part
    when it is refused there.
    """
    if kwargs.get("serialize") and isinstance(val, str) and isinstance(val, Enum):
        val = str(val.value)
    if kwargs.get("serialize") and isinstance(val, dict | list) and get_registered_type(typehint) is not None:
        # else {hours: 3} would be written as its text where a timedelta is one of several types
        raise ValueError(f"{val} is not a {typehint}")
    if not kwargs.get("serialize") and takes_time(typehint):
        check_time(val, typehint)
    if not kwargs.get("append") and isinstance(val, list):
        kwargs["prev_val"] = None
        if jsonargparse._typehints.sub_defaults.get():  # all is read
            val = settled(val)
    if is_scheduler(typehint):
        val = with_resolved_alias(val)
        if get_origin(typehint) is not None:
            refuse_plateau(val)
    before = kwargs.get("prev_val")
    if kwargs.get("append") and isinstance(before, Namespace) and "class_path" in before:
        kwargs["prev_val"] = [namespace(vars(before), Alone)]
    adapted = adapt_to_type(val, typehint, *args, **kwargs)  # type: ignore[no-untyped-call]
    if kwargs.get("append") and isinstance(adapted, list):
        return with_added(adapted, len(val) if isinstance(val, list) else 1)
    if isinstance(val, NestedArg) and isinstance(adapted, list) and isinstance(before, list) and before:
        return with_added(adapted, int(isinstance(before[-1], Added)))
    return adapted


def call_action(action: Any, *args: Any, **kwargs: Any) -> Any:
    """Takes an argument of the command line as jsonargparse does, and says what happens to lists of classes.

    An argument below a list goes to its last item; delete that part when jsonargparse says to which item it would belong. A
    list that replaces another one is told; delete that part when jsonargparse merges lists.
    """
    if not args:
        return call(action, **kwargs)  # type: ignore[no-untyped-call]
    _, cfg, val, option = args
    before = cfg.get(action.dest)
    below = action.get_option_string_base(option)
    path = ".".join([*nested_options, action.dest])
    if below:
        argument = option[len(below) + 1 :].removeprefix("init_args.")
        message = misplaced_argument(path, argument, val, before, lambda: subclass_paths(action._typehint))
        if message is not None:
            raise TypeError(message)
    nested_options.append(action.dest)
    try:
        result = call(action, *args, **kwargs)  # type: ignore[no-untyped-call]
    finally:
        nested_options.pop()
    if option in action.option_strings and not option.endswith("+"):
        tell_left_out(path, before, cfg.get(action.dest), option)
    return result


def is_valid_text(action: Any, value: Any) -> bool:
    """Returns whether a text that cannot be adapted is a value itself, as for jsonargparse, unless it is a misspelt time.

    Delete when jsonargparse refuses a misspelt time where a text may be given as well.
    """
    return not takes_time(action._typehint) and takes_any_text(action, value)  # type: ignore[no-untyped-call]


def is_scheduler(typehint: Any) -> bool:
    """Returns whether a type is a scheduler, or a function that returns one."""
    if get_origin(typehint) is collections.abc.Callable and get_args(typehint):
        returned = get_args(typehint)[-1]
        return any(map(is_scheduler, (returned, *get_args(returned))))
    return inspect.isclass(typehint) and issubclass(typehint, LRScheduler)


def with_resolved_alias(val: Any) -> Any:
    """Returns a scheduler as stated, by name or ``class_path``, with the name of our class in place of torch's.

    Delete the branch of ``NestedArg`` when jsonargparse hands on ``--lr_scheduler.class_path NAME`` as a plain value.
    """
    if isinstance(val, str):
        return resolve_alias(val)
    if isinstance(val, NestedArg):  # --lr_scheduler.class_path NAME
        return val._replace(val=resolve_alias(val.val)) if val.key == "class_path" else val
    if isinstance(val, dict | Namespace) and isinstance(val.get("class_path"), str):
        val = val.clone() if isinstance(val, Namespace) else dict(val)  # type: ignore[no-untyped-call]
        val["class_path"] = resolve_alias(val["class_path"])
    return val


def refuse_plateau(val: Any) -> None:
    """Refuses ReduceLROnPlateau among several schedulers, as torch does; two classes share its name."""
    name = val if isinstance(val, str) else val.get("class_path") if isinstance(val, dict | Namespace) else None
    if isinstance(name, str) and name.rpartition(".")[2] == "ReduceLROnPlateau":
        raise ValueError(
            "ReduceLROnPlateau goes by a metric, not by a count, and cannot be one of several schedulers. State it as "
            "lr_scheduler itself."
        )


def as_import_path_or_itself(val: Any) -> Any:
    """Returns what is written to YAML for a value whose type is a class or function: numbers and texts as they are.

    jsonargparse looks for the import path of a 10 where a ``numbers.Number`` is expected (torchvision's RandomRotation), and of
    a text where a function or a text is (ModelPruning); delete that part when it writes them as they are. Other objects are
    reported by ``zamba_lcli.cli.repeatable``, which knows their keys.
    """
    if isinstance(val, str | int | float):
        return val
    try:
        return object_path_serializer(val)  # type: ignore[no-untyped-call]
    except ValueError:
        return f"{UNWRITABLE} {val}"


def yaml_loader() -> Any:
    """Returns the loader by which jsonargparse reads YAML. Delete when jsonargparse has a public function for it."""
    return get_yaml_default_loader()  # type: ignore[no-untyped-call]


def resolvers_without_octals(loader: Any) -> dict[str, Any]:
    """Returns the resolvers of a YAML loader without octal numbers: 010 is 10 as a number, "010" as a text.

    In YAML 1.1, which PyYAML reads, it is 8; on the command line jsonargparse reads 10, as YAML 1.2 does. Delete when
    jsonargparse reads YAML 1.2.
    """
    tag = "tag:yaml.org,2002:int"
    known = loader.yaml_implicit_resolvers.items()  # not shared with PyYAML's own loaders
    return {first: [(name, INTEGER if name == tag else re) for name, re in pairs] for first, pairs in known}


@contextmanager
def replaced(owner: Any, **values: Any) -> Iterator[None]:
    """Replaces attributes of a module or class, and restores them."""
    before = {name: getattr(owner, name) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


@contextmanager
def mended_jsonargparse(
    raise_union_error: Callable[..., NoReturn],
    schema: type[ParserJsonschema],
    first_level: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> Iterator[None]:
    """Lets jsonargparse parse, complete and write configurations as the functions here do, for a while.

    Args:
        raise_union_error: Raises the error of a value that fits none of several types; jsonargparse's lists them all. Delete
            when the parser has a hook for it.
        schema: Writes the JSON schema of ``--print_completion``. Delete when jsonargparse's is right;
            ``zamba_lcli.cli.completion`` says what is wrong.
        first_level: Wraps the function that adds the arguments of classes to a shell's completion, to add fewer. Delete when
            jsonargparse takes seconds.
    """
    completions = jsonargparse._completions
    add = first_level(completions.add_subactions_and_get_subclass_choices)
    with (
        replaced(
            jsonargparse._typehints,
            adapt_typehints=adapt,
            discard_init_args_on_class_path_change=drop_init_args_of_other_class,
            raise_union_unexpected_value=raise_union_error,
            serialize_as_import_path=as_import_path_or_itself,
        ),
        replaced(jsonargparse._typehints.ActionTypeHint, _is_valid_string=is_valid_text, __call__=call_action),
        replaced(yaml_loader(), yaml_implicit_resolvers=resolvers_without_octals(yaml_loader())),
        replaced(jsonargparse._completions_jsonschema, ParserJsonschema=schema),
        replaced(completions, add_subactions_and_get_subclass_choices=add),
        registered_device(),
        print_completion_added(),
        no_deprecation_warnings(),
    ):
        yield


@contextmanager
def registered_device() -> Iterator[None]:
    """Lets a ``torch.device`` be written and read, a default of Lightning's StochasticWeightAveraging.

    Delete when jsonargparse registers it, as it does ``torch.dtype``.
    """
    if get_registered_type(torch.device) is not None:
        yield
        return
    register_type(torch.device, str, torch.device, (ValueError, TypeError, RuntimeError))
    try:
        yield
    finally:
        del registered_type_handlers[torch.device]


@contextmanager
def print_completion_added() -> Iterator[None]:
    """Adds ``--print_completion`` to parsers. Delete when it is an argument of the parser instead of a setting of all."""
    before = jsonargparse._common.get_parsing_setting("add_print_completion_argument")
    set_parsing_settings(add_print_completion_argument=True)
    try:
        yield
    finally:
        set_parsing_settings(add_print_completion_argument=before)


@contextmanager
def no_deprecation_warnings() -> Iterator[None]:
    """Silences warnings about calls of LightningCLI that version 5, which is excluded, removes.

    Delete when LightningCLI works with jsonargparse 5.
    """
    name = "JSONARGPARSE_DEPRECATION_WARNINGS"
    if name in os.environ:
        yield
        return
    os.environ[name] = "off"
    try:
        yield
    finally:
        os.environ.pop(name, None)


class HelpFormatter(DefaultHelpFormatter):
    """jsonargparse's formatter, with ``text_of`` and ``polished`` to override.

    argparse has no public hook for the help of one argument (bpo-13280). Delete when it has.
    """

    def text_of(self, action: Action) -> str | None:
        """Returns the text of an argument, to which jsonargparse adds type and default."""
        return action.help

    def polished(self, action: Action, text: str) -> str:
        """Returns the help of an argument as it is shown.

        Args:
            action: The argument.
            text: Its text with type and default.
        """
        return text

    def _get_help_string(self, action: Action) -> str:
        shown = copy.copy(action)
        shown.help = self.text_of(action)
        return self.polished(action, super()._get_help_string(shown))


def is_help_of_class(action: Action) -> bool:
    """Returns whether an option shows the help of a class, as ``--optimizer.help`` does.

    Delete when jsonargparse lists such options in one line.
    """
    return isinstance(action, _ActionHelpClassPath)


def typehint_of(action: Action) -> Any:
    """Returns the type of an argument. Delete when jsonargparse's actions have it as a public attribute."""
    return getattr(action, "_typehint", None)


def subclass_paths(typehint: Any) -> list[str]:
    """Returns the import paths of the classes that may be given for a type. Delete when jsonargparse lists them publicly."""
    return list(get_all_subclass_paths(typehint))


def import_path(of: Any) -> str | None:
    """Returns by which path jsonargparse knows a class. Delete with ``subclass_paths``."""
    path: str | None = get_import_path(of)
    return path
