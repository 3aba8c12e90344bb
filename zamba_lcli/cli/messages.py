"""The parser's messages on wrong input: the key, what is wrong with the value, and what may have been meant.

jsonargparse lists for each type of a key why the value does not fit, with types and values in Python's notation.
"""

import difflib
import inspect
import pydoc
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from zamba_lcli.cli.help import classes_in, short_names
from zamba_lcli.cli.names import PREDICTING, did_you_mean
from zamba_lcli.errors import InputError
from zamba_lcli.schedulers import stated_name

SYNONYMS = {  # what other programs call it -> the option here
    "epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "gpus": "trainer.devices",
    "lr": "optimizer.lr",
    "learning_rate": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
    "workers": "data.num_workers",
    "num_frames": "data.sampling.num_frames",
    "seed": "seed_everything",
    "checkpoint": "ckpt_path",
    "ckpt": "ckpt_path",
    "resume": "ckpt_path",
    "weights": "model.weights",
    "save_dir": "trainer.logger.save_dir",
    "data_directory": "data.data_dir",
    "filepaths": "data.videos",
}
ARGUMENT_SYNONYMS = {
    "learning_rate": "lr",
    "stepsize": "step_size",
    "depth": "model_depth",
    "dropout": "head_dropout_rate",
}
COMMAND_SYNONYMS = {"train": "fit", "finetune": "fit", "eval": "test", "evaluate": "test", "inference": "predict"}
OPTION_OF_SUFFIX = {".yaml": "--config", ".yml": "--config", ".ckpt": "--ckpt_path", ".pt": "--ckpt_path"}
WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
    list: "a list such as [a, b]",
    tuple: "a list such as [a, b]",
    timedelta: "a time",
    Iterable: "a list such as [a, b]",
    Callable: "a function by its path",
    dict: "keys and values",
}
LISTS = (list, tuple, set, Sequence, Iterable)
ITEMS: dict[Any, str] = {  # what those of lists are
    bool: ", {}, is true or false",
    int | float: ", {}, is a number",
    date: ", {}, is a date",
    str: ", {}, is a text",
    type(None): " is empty",
    list: " is a list",
    dict: " has keys and values",
    object: ", {}, is something else",
}
MOST_SHOWN = 60  # characters of a value
MOST_NAMES = 25  # listed in a message
NOT_A_CLASS = re.compile(r"Expected a dot import path string: (.+)|Import path (\S+) does not correspond to a subclass")
NO_SUCH_MODULE = re.compile(r"No module named '(\S+)'$")
NO_SUCH_ATTRIBUTE = re.compile(r"module '(\S+)' has no attribute '(\w+)'")
OF_CLASS = re.compile(r"Problem with given class_path '(\S+)':$")
OF_KEY = re.compile(r'Parser key "(\S+)":$')
NOT_OF_TYPE = re.compile(r"Expected an? (?:<class '([\w.]+)'>|(?:typing\.)?Literal\[(.+)\])\. Got value: (.*)")
NO_SUCH_OPTION = re.compile(r"(?:Subcommand '\w+' does not accept o|Group '(\w+)' does not accept o|O)ption '([^']+)'")
OF_LINK = re.compile(r"argument (\S+) --> (\S+): invalid .+ value: (.+)")
BEFORE_SUBCOMMAND = re.compile(r"is not accepted before subcommand|argument subcommand: invalid choice: '([^']+)'")
NO_ACCELERATOR = re.compile(r"No supported (gpu) backend found|`(\w+)Accelerator` can not run on your system")


def raise_best_union_error(subtypes: Sequence[Any], val: Any, exceptions: list[Exception]) -> NoReturn:
    """Raises the error of a value that fits none of several types, for the type that was most likely meant."""
    told = {subtype: str(error) for subtype, error in zip(subtypes, exceptions, strict=True)}
    classes = {subtype: text for subtype, text in told.items() if classes_in(subtype)}
    deep = [text for text in told.values() if "Problem with given class_path" in text or "Parser key" in text]
    lists = [text for t, text in classes.items() if get_origin(t) is list and isinstance(val, list)]
    if (
        isinstance(val, dict)
        and "class_path" in val
        and (beside := set(val) - {"class_path", "init_args", "dict_kwargs"})
    ):
        message = f"{', '.join(sorted(beside))} belongs below init_args, next to class_path."
    elif deep or lists:
        message = (deep or lists)[0]
        named = NOT_A_CLASS.search(message)
        if named is not None and not deep:
            message = _no_such_class(named[1] or named[2], classes)
    elif classes and isinstance(val, str):
        missing = NO_SUCH_ATTRIBUTE.search(" ".join(classes.values()))
        message = missing[0] if missing else _no_such_class(val, classes)
    elif classes:
        message = next(iter(classes.values()))
    elif isinstance(val, list) and (of_item := _of_items(val, subtypes)):
        message = of_item
    else:
        choices = [str(choice) for t in subtypes if get_origin(t) is Literal for choice in get_args(t)]
        wanted = [f"one of {', '.join(dict.fromkeys(choices))}"] if choices else []
        wanted += [_word(t) for t in subtypes if t is not Tensor and get_origin(t) is not Literal]
        given = val if isinstance(val, str | int | float) else f"a {type(val).__name__}"
        message = f"{given} is not {' or '.join(wanted)}.{_of_yaml(val, subtypes)}"
    raise ValueError(message) from exceptions[0]


def _of_items(val: Sequence[Any], subtypes: Iterable[Any]) -> str:
    """Returns which item of a list is not of the type of its items, and how to write it; empty where no list is wanted."""
    of_lists = [get_args(t)[0] for t in subtypes if get_origin(t) in LISTS and get_args(t)]
    wanted = list(dict.fromkeys(kind for of_list in of_lists for kind in get_args(of_list) or (of_list,)))
    if any(kind not in WORDS for kind in wanted):
        return ""
    for number, item in enumerate(val, start=1):
        if wanted and type(item) not in wanted and not (type(item) is int and float in wanted):
            is_what = next(word for kind, word in ITEMS.items() if isinstance(item, kind))
            told = f"item {number}{is_what.format(_shortened(item))} and not {' or '.join(map(_word, wanted))}"
            return f"{told}{_in_quotes(item) if str in wanted else '.'}"
    return ""


def _in_quotes(item: Any) -> str:
    """Returns how to write an item of a list where a text is meant."""
    if isinstance(item, list | dict):
        return "."
    more = _of_yaml(item, [str])
    return f": put it in quotes.{more}"


def _shortened(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 3] + "..."


def _of_yaml(val: Any, subtypes: Iterable[Any]) -> str:
    """Returns a hint where YAML read a text or a time as something else; empty otherwise."""
    wanted = {kind for subtype in subtypes for kind in (subtype, *get_args(subtype))}
    items = val if isinstance(val, list) else [val]
    if timedelta in wanted and not isinstance(val, str):
        days = str in wanted  # Lightning's max_time and Timer
        form = '"00:12:00:00" (days, hours, minutes, seconds)' if days else '"0:10:00" (hours, minutes, seconds)'
        return f" Put the time in quotes, such as {form}; without them YAML reads a number."
    if str not in wanted:
        return ""
    if any(isinstance(item, bool) for item in items):
        return ' YAML reads no, off, yes and on as false and true: put a name in quotes, such as "no".'
    if any(item is None for item in items):
        return ' YAML reads null, ~ and an empty place as nothing: put a name in quotes, such as "null".'
    if any(isinstance(item, int | float | date) for item in items):
        return ' YAML reads numbers and dates: put a name in quotes, such as "7".'
    return ""


def _word(typehint: Any) -> str:
    origin = get_origin(typehint) or typehint
    return WORDS.get(origin, getattr(origin, "__name__", str(origin)))


def _no_such_class(name: str, typehints: Iterable[Any]) -> str:
    """Returns the message for a name that is no class, or not one of the classes expected."""
    names = sorted({short for typehint in typehints for short in short_names(typehint)})
    found = pydoc.locate(name) if "." in name else None
    cause = "is not such a class" if inspect.isclass(found) else "is unknown: no class has that name"
    listed = f" Available: {', '.join(names)}." if len(names) <= MOST_NAMES else ""
    return f"{name} {cause}.{did_you_mean(name.rpartition('.')[2], names)}{listed}"


def plain_message(message: str, options: Iterable[str] = (), command: str | None = None) -> str:
    """Returns a message of the parser in plain words.

    Args:
        message: The parser's.
        options: The options there are, without dashes.
        command: The subcommand.
    """
    if message.startswith("unrecognized arguments: "):
        return _describe_unknown_arguments(message.partition(": ")[2].split(), list(options), command)
    if (linked := OF_LINK.match(message)) is not None:
        return f"{linked[2]}: {linked[3]} is stated, but it is taken from {linked[1]}. State it there."
    if (unknown := NO_SUCH_OPTION.match(message)) is not None:
        return _no_such_key(".".join(filter(None, unknown.groups())), list(options))
    where: list[str] = []
    leaves = []
    for line in (line.strip().removeprefix("- ") for line in message.splitlines()):
        if (key_of := OF_KEY.match(line)) is not None:
            where.append(key_of[1])
        elif (of_class := OF_CLASS.match(line)) is not None:
            where.append(stated_name(of_class[1]).rpartition(".")[2])
        elif line.startswith("Subclass types expect one of"):
            break
        elif line and not line.startswith("Expected a path but"):
            leaves.append(_plain_leaf(line))
    return ": ".join([*where, " ".join(leaves)])


def _plain_leaf(line: str) -> str:
    if (wrong := NOT_OF_TYPE.match(line)) is not None:
        type_name, choices, value = wrong.groups()
        words = {kind.__name__: word for kind, word in WORDS.items()}
        wanted = f"one of {choices}" if choices else words.get(type_name.rpartition(".")[2], type_name)
        is_text = wanted == WORDS[str]
        return f"{value} is not {wanted}." + ' Put it in quotes, such as "7".' * is_text
    if (missing := NO_SUCH_MODULE.match(line)) is not None:
        other = " Lightning's classes are those of pytorch_lightning here, such as pytorch_lightning.callbacks.ModelCheckpoint."
        return (
            f"there is no module {missing[1]}, neither among what is installed nor in the folder where zamba is run."
            + (other if missing[1].partition(".")[0] == "lightning" else "")
        )
    if (missing := NO_SUCH_ATTRIBUTE.search(line)) is not None:
        return f"{missing[1]} has no {missing[2]}.{did_you_mean(missing[2], dir(pydoc.locate(missing[1])))}"
    if line.startswith("Not a valid subclass of"):
        kind = line.split()[5].rstrip(".")
        return f"the class of the {kind} is not stated. Give class_path, and its arguments below init_args."
    return line


def _no_such_key(key: str, options: list[str]) -> str:
    hint = _nearest_option(key, options, dashes="")
    if key[0].isupper():
        hint = f" A class is stated as class_path: {key}, with its arguments below init_args."
    listed = f" Available: {', '.join(options)}." if options and len(options) <= MOST_NAMES else ""
    return f"{key}: there is no such key.{hint}{listed}"


def _nearest_option(name: str, options: list[str], dashes: str = "--") -> str:
    """Returns ``Did you mean ...?`` with the option that was most likely meant, after a space; empty if there is none."""
    last = name.rpartition(".")[2]
    roots = {option.partition(".")[0] for option in options}
    meant = [option for option in options if option.rpartition(".")[2] == last]
    usual = [names[last] for names in (ARGUMENT_SYNONYMS, SYNONYMS) if last in names]
    meant += [option for option in usual if option.partition(".")[0] in roots]
    meant += difflib.get_close_matches(name, options, n=1, cutoff=0.7)
    by_last = {option.rpartition(".")[2]: option for option in options}
    meant += [by_last[near] for near in difflib.get_close_matches(last, by_last, n=1, cutoff=0.7)]
    meant += difflib.get_close_matches(name.partition(".")[0], roots, n=1, cutoff=0.7)
    return f" Did you mean {dashes}{meant[0]}?" if meant else ""


def _describe_unknown_arguments(words: list[str], options: list[str], command: str | None) -> str:
    """Returns the message for words on the command line that belong to no option."""
    unknown = [word.partition("=")[0] for word in words if word.startswith("-")]
    if unknown:
        lines = [f"there is no option {word}.{_nearest_option(word.lstrip('-'), options)}" for word in unknown]
        return "\n".join(lines)
    usual = "--data.videos" if command in PREDICTING else "--data.labels"
    option = OPTION_OF_SUFFIX.get(Path(words[0]).suffix, usual)
    return f"{words[0]} has no option before it. Did you mean {option} {words[0]}?"


def describe_subcommand_error(message: str, words: Sequence[str], commands: Sequence[str]) -> str | None:
    """Returns the message for a subcommand that is missing, unknown or misplaced; None for other errors.

    Args:
        message: The parser's.
        words: The command line.
        commands: The subcommands there are.
    """
    wrong = BEFORE_SUBCOMMAND.search(message)
    given = [word for word in words if word in commands]
    if wrong is not None and given:
        others = [word for word in words if word != given[0]]
        return f"the subcommand comes first: zamba {given[0]} {' '.join(others)}"
    listed = f"Available: {', '.join(commands)}; begin with: zamba fit --config demo.yaml"
    if wrong is not None and wrong[1] is not None:
        meant = COMMAND_SYNONYMS.get(wrong[1])
        hint = f" Did you mean {meant}?" if meant else did_you_mean(wrong[1], commands)
        return f"there is no subcommand {wrong[1]}.{hint} {listed}"
    if message.startswith('expected "subcommand"'):
        return f"the subcommand is missing. {listed}"
    return None


def describe_lightning_error(message: str) -> str:
    """Returns a message of Lightning, with key and remedy added where it lacks them."""
    missing = NO_ACCELERATOR.search(message)
    if missing is None:
        return message
    name = (missing[1] or missing[2]).lower()
    return f"trainer.accelerator: {name}: none is available here. Use auto for what the machine has, or cpu."


def find_input_error(error: BaseException | None) -> BaseException | None:
    """Returns the error on wrong input behind an error, ours or Lightning's: jsonargparse wraps what a constructor raises."""
    while error is not None and not isinstance(error, InputError | MisconfigurationException):
        error = error.__cause__
    return error
