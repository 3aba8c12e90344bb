"""The configuration as YAML with which the run can be repeated."""

import inspect
import math
import pydoc
from argparse import ArgumentError
from collections.abc import Iterator
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from zamba_lcli.errors import InputError

UNWRITABLE = "Unable to serialize instance"  # written in place of an object until its key is known


def without_objects(text: str) -> str:
    """Returns a configuration that can be read again: defaults that are objects are left out.

    Args:
        text: YAML as jsonargparse writes it.

    Raises:
        InputError: If it holds another object; names the key.
    """
    if UNWRITABLE not in text:
        return text
    config = yaml.safe_load(text)
    for path in list(_unwritable(config)):
        *parents, last = path
        holder = config
        for part in parents:
            holder = holder[part]
        owner = config
        for part in parents[:-1]:
            owner = owner[part]
        if parents and parents[-1] == "init_args" and _default(owner["class_path"], last) == holder[last]:
            del holder[last]
            continue
        key = ".".join(map(str, path))
        raise InputError(
            f"{key}: {str(holder[last]).removeprefix(UNWRITABLE).strip()} cannot be written to config.yaml, so the run could "
            "not be repeated. State it with class_path and init_args, or by its import path."
        )
    return yaml.safe_dump(config, sort_keys=False)


def _unwritable(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, str) and value.startswith(UNWRITABLE):
        yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _unwritable(item, (*path, key))


def _default(class_path: str, name: Any) -> str | None:
    """Returns what is written for the default of a class's argument."""
    parameter = inspect.signature(pydoc.locate(class_path)).parameters.get(name)  # type: ignore[arg-type]
    return None if parameter is None else f"{UNWRITABLE} {parameter.default}"


def check_repeatable(parser: ArgumentParser, config: Namespace) -> None:
    """Checks that the configuration is the same when it is written and read again.

    Args:
        parser: That of the subcommand.
        config: What it has parsed.

    Raises:
        InputError: Names the key that would be read as another value.
    """
    text = parser.dump(config, skip_unset=False)
    for path, value in _nodes(yaml.safe_load(text)):
        if isinstance(value, float) and math.isnan(value):
            raise InputError(f"{'.'.join(map(str, path))}: NaN is not a number. Give one, or leave the key out.")
    exits, parser.exit_on_error = parser.exit_on_error, False
    try:
        again = parser.parse_object(yaml.safe_load(text))
    except ArgumentError as error:
        raise InputError(f"The run could not be repeated with its config.yaml: {error.message}") from error
    finally:
        parser.exit_on_error = exits
    before, after = (dict(_nodes(c.clone(with_meta=False).as_dict())) for c in (config, again))
    for path, value in before.items():
        if path[:1] != ("config",) and path in after and after[path] != value:
            raise InputError(
                f"{'.'.join(map(str, path))}: {value} would be read from config.yaml as {after[path]}, so the run could not "
                "be repeated. State it differently."
            )


def _nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yields the paths and values of a configuration: plain values as they are, others as their kind."""
    value = value.as_dict() if isinstance(value, Namespace) else value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else None
    plain = value is None or isinstance(value, str | int | float)
    yield path, value if plain else "an object" if items is None else "keys" if isinstance(value, dict) else "a list"
    for key, item in items or ():
        yield from _nodes(item, (*path, key))


def differing_keys(before: Any, now: Any, key: str = "") -> list[str]:
    """Returns the keys, with dots, at which two configurations differ; of a list its own."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [key]
    keys = dict.fromkeys((*before, *now))
    return [
        differing
        for name in keys
        for differing in differing_keys(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    ]
