"""What jsonargparse makes of a configuration that is stated in several places, corrected; all of its private names are here.

The patches are of functions through which every value goes, from the command line, a file, a file named in another
one, or Python. Measured with jsonargparse 4.53.
"""

import collections.abc
import inspect
import re
from enum import Enum
from typing import Any, get_args, get_origin

import jsonargparse._typehints
from jsonargparse import Namespace
from jsonargparse._loaders_dumpers import get_yaml_default_loader
from jsonargparse._util import NestedArg, object_path_serializer
from jsonargparse.typing import get_registered_type
from torch.optim.lr_scheduler import LRScheduler

from zamba_lcli.cli.repeatable import UNWRITABLE
from zamba_lcli.schedulers import resolve_alias

INTEGER = re.compile(  # PyYAML's, without octals
    r"[-+]?0b[01_]+$|[-+]?(?:0|[1-9][0-9_]*)$|[-+]?0x[0-9a-fA-F_]+$|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+$"
)
adapt_to_type = jsonargparse._typehints.adapt_typehints


def forget_arguments_of_another_class(parser: Any, previous: Any, value: Any) -> None:
    """Takes away the arguments of a class when another one is named in its place.

    jsonargparse hands on those that the other class accepts: an AdamW's weight_decay to an SGD named later (jsonargparse#460).
    Delete when that is closed.
    """
    if previous and "init_args" in previous and previous["class_path"] != value["class_path"]:
        previous["init_args"] = Namespace()  # type: ignore[no-untyped-call]


def adapt(val: Any, typehint: Any, *args: Any, **kwargs: Any) -> Any:
    """Adapts a value to a type, as jsonargparse does, but for lists and schedulers.

    A list that is given again replaces the one before. jsonargparse completes its items from those that had the same place:
    an EarlyStopping got the ``verbose`` of the ModelCheckpoint that stood there (jsonargparse#478). Delete that part when the
    items of a list are no longer matched by their place.

    Torch's schedulers that a YAML cannot state are those of ``zamba_lcli.schedulers``, wherever a scheduler may be named.

    When a configuration is written, a default that is a text and a member of an enumeration, such as a Timer's interval, is
    written as the text: YAML cannot represent the member.
    """
    if kwargs.get("serialize") and isinstance(val, str) and isinstance(val, Enum):
        val = str(val.value)
    if kwargs.get("serialize") and isinstance(val, dict | list) and get_registered_type(typehint) is not None:
        # else the text of {hours: 3} would stand for it, where a timedelta is one of several types
        raise ValueError(f"{val} is no {typehint}")
    if isinstance(val, list) and not kwargs.get("append"):
        kwargs["prev_val"] = None
    if is_scheduler(typehint):
        val = with_statable_name(val)
    return adapt_to_type(val, typehint, *args, **kwargs)  # type: ignore[no-untyped-call]


def is_scheduler(typehint: Any) -> bool:
    """Returns whether a type is that of schedulers, or of functions that make one."""
    if get_origin(typehint) is collections.abc.Callable and get_args(typehint):
        returned = get_args(typehint)[-1]
        return any(map(is_scheduler, (returned, *get_args(returned))))
    return inspect.isclass(typehint) and issubclass(typehint, LRScheduler)


def with_statable_name(val: Any) -> Any:
    """Returns what is given for a scheduler, a name or with ``class_path``, with the name of the class here."""
    if isinstance(val, str):
        return resolve_alias(val)
    if isinstance(val, NestedArg):  # --lr_scheduler.class_path NAME
        return val._replace(val=resolve_alias(val.val)) if val.key == "class_path" else val
    if isinstance(val, dict | Namespace) and isinstance(val.get("class_path"), str):
        val = val.clone() if isinstance(val, Namespace) else dict(val)  # type: ignore[no-untyped-call]
        val["class_path"] = resolve_alias(val["class_path"])
    return val


def as_import_path_or_itself(val: Any) -> Any:
    """Returns what stands in a YAML for a value whose type is a class or function: numbers and texts stand for themselves.

    jsonargparse looks for the import path of a 10 where a ``numbers.Number`` is expected (torchvision's RandomRotation), and of
    the text where a function or a text is (ModelPruning); delete that part when it writes them as they are. Other objects are
    told of by ``zamba_lcli.cli.repeatable``, which knows their keys.
    """
    if isinstance(val, str | int | float):
        return val
    try:
        return object_path_serializer(val)  # type: ignore[no-untyped-call]
    except ValueError:
        return f"{UNWRITABLE} {val}"


def yaml_loader() -> Any:
    """Returns the class by which jsonargparse reads YAML."""
    return get_yaml_default_loader()  # type: ignore[no-untyped-call]


def read_no_octals() -> None:
    """Leaves 010 in a YAML as it is written, as YAML 1.2 does: 10 where a number is expected, "010" where a text is.

    By YAML 1.1, which PyYAML reads, it is 8; but on the command line jsonargparse reads 10. Delete when it reads YAML 1.2.
    """
    resolvers = yaml_loader().yaml_implicit_resolvers  # not shared with PyYAML's own loaders
    tag = "tag:yaml.org,2002:int"
    for first, known in resolvers.items():
        resolvers[first] = [(name, INTEGER if name == tag else pattern) for name, pattern in known]


def mend_parsing() -> None:
    """Puts the functions here in place of jsonargparse's."""
    read_no_octals()
    jsonargparse._typehints.adapt_typehints = adapt  # type: ignore[assignment]
    jsonargparse._typehints.serialize_as_import_path = as_import_path_or_itself
    jsonargparse._typehints.discard_init_args_on_class_path_change = forget_arguments_of_another_class
