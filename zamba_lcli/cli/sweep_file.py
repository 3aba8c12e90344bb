"""The file of a sweep: which keys of the YAML get which values, and by which metric trials are compared."""

import json
import math
import os
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias

import yaml
from jsonargparse import Namespace

from zamba_lcli.cli.config_file import read_config
from zamba_lcli.cli.lists import quiet
from zamba_lcli.cli.messages import plain_message
from zamba_lcli.cli.names import did_you_mean
from zamba_lcli.cli.parser import ZambaArgumentParser
from zamba_lcli.cli.study import add_algorithms
from zamba_lcli.errors import InputError

Direction: TypeAlias = Literal["minimize", "maximize"]
Scalar = str | int | float | None
SWEPT = ("model", "data", "optimizer", "lr_scheduler", "lr_scheduler_interval", "trainer", "seed_everything")
SHARED = ("trainer.logger", "trainer.default_root_dir", "trainer.fast_dev_run", "trainer.barebones")  # by all trials
OF_ONE_RUN = ("version", "id", "run_id")  # arguments of loggers
RANGE = {"low", "high", "log", "step"}
MISSING = object()


@dataclass
class Parameter:
    """A key of the YAML and the values that it may have: choices, or a range.

    Args:
        key: As in the YAML, with dots.
        stated: As in the file.
        choices: Values; empty for a range.
        low: Lower end of a range, included.
        high: Upper end, included.
        log: Whether a range is drawn from by its logarithm.
        step: Distance between the values of a range; None for any.
        whole: Whether the values of a range are whole numbers.
    """

    key: str
    stated: Any
    choices: Sequence[Any] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    whole: bool = False

    @property
    def values(self) -> Sequence[Any]:
        """Choices, or both ends of the range."""
        return self.choices or (self.low, self.high)


@dataclass
class SweepFile:
    """What a sweep's file states, with sampler and pruner built."""

    path: Path
    metric: str
    direction: Direction
    trials: int | None
    hours: float | None
    parameters: list[Parameter]
    sampler: Any
    pruner: Any
    stated_sampler: Namespace | None


def read_sweep(path: Path) -> SweepFile:
    """Reads the file of a sweep.

    Raises:
        InputError: Names the file and the key.
    """
    if not path.is_file():
        raise InputError(f"--sweep: there is no file {path}.")
    parser = ZambaArgumentParser(exit_on_error=False)
    parser.add_argument("--metric", type=str)
    parser.add_argument("--direction", type=Direction | None)
    parser.add_argument("--trials", type=int | None)
    parser.add_argument("--hours", type=float | None)
    parser.add_argument("--parameters", type=dict[str, Any], default={})
    add_algorithms(parser)
    try:
        stated = read_config(parser, path)
        parameters = stated.pop("parameters", None)  # as they are: values are those of other keys
        config = parser.parse_object(stated)
        built = parser.instantiate_classes(config)
    except (ArgumentError, ValueError, TypeError) as error:
        message = error.message if isinstance(error, ArgumentError) else plain_message(str(error))
        raise InputError(message if str(path) in message else f"{path}: {message}") from error
    if not config.metric:
        raise InputError(f"{path}: metric is missing: a val metric that the run logs, such as metric: val_macro_f1.")
    if config.trials is None and config.hours is None:
        raise InputError(f"{path}: state trials (how many), or hours (after which no trial begins), or both.")
    for name in ("trials", "hours"):
        if config[name] is not None and not config[name] > 0:
            raise InputError(f"{path}: {name}: {config[name]} is not more than 0.")
    if not isinstance(parameters, dict) or not parameters:
        raise InputError(
            f"{path}: parameters: expected keys of the YAML and their values, such as `optimizer.init_args.lr: "
            "{low: 0.0001, high: 0.1, log: true}` or `data.batch_size: [4, 8]`."
        )
    direction: Direction = config.direction or ("minimize" if "loss" in config.metric else "maximize")
    found = [_parameter(str(key), values, f"{path}: parameters: {key}") for key, values in parameters.items()]
    return SweepFile(
        path,
        config.metric,
        direction,
        config.trials,
        config.hours,
        sorted(found, key=lambda parameter: parameter.key.count(".")),  # a class before its arguments
        built.sampler,
        built.pruner,
        config.sampler,
    )


def _parameter(key: str, stated: Any, where: str) -> Parameter:
    """Returns a parameter as stated, its key not checked yet."""
    if isinstance(stated, dict) and set(stated) == {"choices"}:
        stated = stated["choices"]
    if isinstance(stated, list):
        texts = [json.dumps(value, sort_keys=True, default=str) for value in stated]
        if not texts or len(set(texts)) < len(texts):
            raise InputError(f"{where}: give at least one value, each once.")
        return Parameter(key, stated, choices=stated)
    if not isinstance(stated, dict) or not {"low", "high"} <= set(stated) <= RANGE:
        wrong = sorted(set(stated) - RANGE - {"choices"}) if isinstance(stated, dict) else []
        hint = did_you_mean(str(wrong[0]), [*RANGE, "choices"]) if wrong else ""
        raise InputError(
            f"{where}: expected a list of values, or a range such as {{low: 0.0001, high: 0.1}}, which may have log: true or "
            f"a step.{f' There is no {wrong[0]}.' if wrong else ''}{hint}"
        )
    low, high, log, step = (stated.get(name) for name in ("low", "high", "log", "step"))
    for name, value in (("low", low), ("high", high), ("step", step)):
        if (value is not None or name != "step") and not _is_number(value):
            raise InputError(f"{where}: {name}: {value} is not a number.")
    if log not in (None, True, False):
        raise InputError(f"{where}: log: {log} is not true or false.")
    assert low is not None
    assert high is not None
    if low >= high:
        raise InputError(f"{where}: low: {low} is not less than high: {high}.")
    if step is not None and (log or not 0 < step <= high - low):
        raise InputError(f"{where}: step: {step} must be more than 0, at most high - low, and without log: true.")
    if log and low <= 0:
        raise InputError(f"{where}: low: {low} is not more than 0, as log: true needs.")
    return Parameter(key, stated, (), low, high, bool(log), step)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_alone(stated: Namespace) -> None:
    """Refuses a configuration that cannot be run several times, each in a run folder of its own.

    Raises:
        InputError: Names the key.
    """
    if stated.ckpt_path is not None:
        raise InputError(
            "ckpt_path: the trials of a sweep begin anew. Leave it out; model.init_args.weights says what to begin with."
        )
    if stated.seed_everything is True:
        raise InputError(
            "seed_everything: true draws another seed when the sweep goes on. Give a number; to compare seeds, make "
            "seed_everything one of the parameters."
        )
    trainer = stated.trainer
    if trainer.fast_dev_run:
        raise InputError(
            "trainer.fast_dev_run: a dry run leaves nothing to compare. Try the configuration with zamba fit."
        )
    if trainer.logger is False or trainer.logger == [] or trainer.barebones:
        raise InputError("trainer.logger: without a logger trials have no run folders. State one, or leave it out.")
    for logger in _classes(trainer.logger):
        for name in OF_ONE_RUN:
            if logger.init_args.get(name) is not None:
                raise InputError(f"trainer.logger: {name}: each trial has a run folder of its own. Leave {name} out.")
    for callback in _classes(trainer.callbacks):
        if callback.init_args.get("dirpath") is not None:
            name = callback.class_path.rpartition(".")[2]
            raise InputError(f"trainer.callbacks: {name}: dirpath: trials would share it. Leave it out.")


def study_folder(stated: Namespace) -> Path:
    """Returns the folder that holds the run folders of the trials: ``save_dir/name`` of the first logger."""
    root = stated.trainer.default_root_dir or "."
    for logger in _classes(stated.trainer.logger)[:1]:
        folder = Path(logger.init_args.get("save_dir") or root, logger.init_args.get("name") or "")
        return Path(os.path.expanduser(os.path.expandvars(folder)))
    return Path(root, "lightning_logs")


def _classes(stated: Any) -> list[Namespace]:
    items = stated if isinstance(stated, list) else [stated]
    return [item for item in items if isinstance(item, Namespace) and "class_path" in item and "init_args" in item]


def check_parameters(sweep: SweepFile, parser: ZambaArgumentParser, base: str) -> None:
    """Checks keys and values, both ends of ranges and every choice, against the parser, and finds out the types of ranges.

    Args:
        sweep: Its ranges of whole numbers are marked.
        parser: That of the subcommand.
        base: The configuration of all trials, as YAML.

    Raises:
        InputError: Names key and value.
    """
    where = f"{sweep.path}: parameters"
    for parameter in sweep.parameters:
        first = parameter.key.partition(".")[0].removesuffix("+")
        if first not in SWEPT:
            raise InputError(f"{where}: {parameter.key}: there is no such key.{did_you_mean(first, SWEPT)}")
        if parameter.key.startswith(SHARED):
            raise InputError(f"{where}: {parameter.key}: it is the same for all trials. Leave it out here.")
        parameter.whole = not any(isinstance(value, float) for value in (*parameter.values, parameter.step))
    exits, parser.exit_on_error = parser.exit_on_error, False
    try:
        for i in range(max(len(parameter.values) for parameter in sweep.parameters)):
            values = {p.key: p.values[i % len(p.values)] for p in sweep.parameters}
            with TemporaryDirectory() as folder, quiet():
                config = parser.parse_args(trial_arguments(Path(folder), base, values))
            for parameter in sweep.parameters:
                value, found = values[parameter.key], _found(config, parameter.key)
                _check_arrived(parameter.key, value, found, where)
                parameter.whole &= not isinstance(found, float)
    except ArgumentError as error:
        raise InputError(f"{where}: {error.message}") from error
    finally:
        parser.exit_on_error = exits


def _check_arrived(key: str, value: Any, found: Any, where: str) -> None:
    """Refuses a value that the configuration does not take over: it is taken from elsewhere, or nothing reads it."""
    if key.endswith("+"):
        return
    if found is MISSING:
        parent, _, last = key.rpartition(".")
        raise InputError(
            f"{where}: {key}: there is no such key, or it is there several times. Arguments of a class are below init_args "
            f"({parent}.init_args.{last}), those of an item of a list below its class "
            "(trainer.callbacks.BackboneFinetuning.unfreeze_backbone_at_epoch)."
        )
    if type(found) is type(value) and isinstance(value, Scalar) and found != value:
        raise InputError(f"{where}: {key}: {value} becomes {found}, which is taken from another key. Vary that one.")


def _found(config: Any, key: str) -> Any:
    """Returns the value at a key; ``MISSING`` if there is none, or several."""
    node, is_item = config, False
    for part in key.split("."):
        if is_item and part == "init_args":  # of an item they are meant anyway
            continue
        is_item = isinstance(node, list)
        if is_item:
            items = [item for item in _classes(node) if item.class_path.rpartition(".")[2] == part]
            node = items[0].init_args if len(items) == 1 else MISSING
        else:
            node = node[part] if isinstance(node, Namespace | dict) and part in node else MISSING
    return node


def trial_arguments(folder: Path, base: str, values: Mapping[str, Any]) -> list[str]:
    """Writes the configurations of a trial and returns the arguments that name them.

    Args:
        folder: Where they are written.
        base: The configuration of all trials, as YAML.
        values: Those of the parameters, a class before its arguments.
    """
    texts = [base, *(yaml.safe_dump(_overlay(key.split("."), value)) for key, value in values.items())]
    words = []
    for i, text in enumerate(texts):
        path = folder / f"{i}.yaml"
        path.write_text(text, encoding="utf-8")
        words += ["--config", str(path)]
    return words


def _overlay(parts: list[str], value: Any) -> dict[str, Any]:
    """Returns a configuration with one value; a class as a part of the key means the item of a list."""
    first, *rest = parts
    if rest and rest[0][:1].isupper():
        arguments = rest[1:] if rest[1:2] != ["init_args"] else rest[2:]
        return {f"{first}+": [{"class_path": rest[0], "init_args": _overlay(arguments, value) if arguments else {}}]}
    return {first: _overlay(rest, value) if rest else value}
