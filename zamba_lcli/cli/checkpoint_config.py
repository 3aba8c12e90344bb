"""What a checkpoint says of model and data, and what the user's configuration overrides.

In Lightning the checkpoint's hyperparameters win over the user's (Lightning#21455). Here the user's win, and a difference is
printed.
"""

import pydoc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from pytorch_lightning.cli import LightningArgumentParser

from zamba_lcli._lightning import pop_class_path
from zamba_lcli.cli.checks import check_checkpoint_file
from zamba_lcli.cli.names import PREDICTING
from zamba_lcli.console import print_once, tell_difference
from zamba_lcli.data.datamodule import ZambaVideoDataModule
from zamba_lcli.errors import InputError
from zamba_lcli.models.weights import PUBLISHED, load_checkpoint
from zamba_lcli.types import POSITION, SPLITS_KEY, Task

HEAD_ARGUMENTS = (
    "head_hidden_layer_sizes",
    "head_dropout_rate",
    "post_backbone_dropout",
    "num_frames",
)  # zamba's, and ours
SPLIT_COMMANDS = ("fit", "validate", "test")  # that read labels
KEYWORDS = ("best", "last", "hpc")  # values of ckpt_path that Lightning takes besides a path


def complete(parser: LightningArgumentParser, config: Namespace, what_is_stated: Callable[[], Namespace]) -> Namespace:
    """Returns a configuration completed from the checkpoint: model, classes, and how frames are sampled.

    Args:
        parser: The program's.
        config: What it has parsed.
        what_is_stated: Parses again, without defaults.

    Raises:
        InputError: If the checkpoint or the model is missing.
    """
    name = config.subcommand
    ckpt_path = config[name].get("ckpt_path")
    _check_keyword(ckpt_path, name)
    if ckpt_path is not None and ckpt_path not in KEYWORDS:
        config = _with_checkpoint(parser, config, what_is_stated()[name], ckpt_path)
    if name == "check":
        return config
    if name not in ("fit", "sweep") and ckpt_path is None:
        _check_trained(config[name], name)
    if config[name].get("model") is None:
        raise InputError(
            "model is missing: give a recipe (--config slowfast_finetune.yaml), or a class (--model SlowFast)."
        )
    if name not in ("fit", "sweep") and ckpt_path is None:
        _take_from_weights(config[name], what_is_stated()[name])
    return config


def _check_keyword(ckpt_path: str | None, subcommand: str) -> None:
    if ckpt_path == "best" or (ckpt_path == "last" and subcommand != "fit"):
        newest = "last, for the newest in the run folder, or " if subcommand == "fit" else ""
        raise InputError(
            f"ckpt_path: {ckpt_path} names no file here. Give {newest}its path, such as "
            "runs/slowfast/version_0/checkpoints/last.ckpt."
        )
    if ckpt_path == "registry":
        raise InputError(
            "ckpt_path: registry: Lightning's model registry is not supported. Download the checkpoint and give its path."
        )


def _check_trained(config: Namespace, subcommand: str) -> None:
    """Refuses to use a model that has not been trained on the user's classes."""
    if config.get("model.init_args.weights") not in (None, *PUBLISHED):
        return
    videos = subcommand in PREDICTING and config.get("data.videos") is None
    raise InputError(
        f"ckpt_path is missing: without it {subcommand} would use a model that has not been trained on your classes. Give "
        "e.g. --ckpt_path runs/slowfast/version_0/checkpoints/last.ckpt"
        + (", and the clips, e.g. --data.videos FOLDER" if videos else "")
    )


def _with_checkpoint(
    parser: LightningArgumentParser, config: Namespace, stated: Namespace, ckpt_path: str
) -> Namespace:
    """Returns the configuration completed from a checkpoint, and prints what differs from it."""
    if not Path(ckpt_path).is_file():
        raise InputError(f"ckpt_path: there is no file {Path(ckpt_path).absolute()}.")
    check_checkpoint_file(Path(ckpt_path))
    found = _configuration_in(load_checkpoint(Path(ckpt_path), mmap=True), ckpt_path)
    _check_same_model(stated.get("model.class_path"), found["model"]["class_path"], ckpt_path)
    names = stated.get("data.class_names")
    if names is None or sorted(names) == sorted(found["data"]["class_names"]):
        stated["data.class_names"] = found["data"]["class_names"]  # the same classes: in the checkpoint's order
    for key, theirs in (
        ("data.sampling", found["data"].get("sampling")),
        ("model.init_args.config", found["model"]["init_args"].get("config")),
    ):
        if stated.get(key) is None and (theirs is not None or key in stated):  # null is the default, not a choice
            stated[key] = theirs
    _take_task(config.subcommand, stated, found["model"]["init_args"])
    both = {}  # the checkpoint's values of what is stated
    for prefix, section in (("model.init_args", found["model"]["init_args"]), ("data", found["data"])):
        for key, theirs in section.items():
            if f"{prefix}.{key}" in stated:
                section[key] = _plain(stated[f"{prefix}.{key}"])
                both[f"{prefix}.{key}"] = theirs
    config = parser.parse_object({config.subcommand: found}, config)
    for key, theirs in both.items():
        ours = _plain(config[config.subcommand][key])  # complete, with the defaults of what is left out
        if _with_classes(ours) != _with_classes(theirs):
            tell_difference(key, ours, theirs)
    return config


def _take_task(subcommand: str, stated: Namespace, found: dict[str, Any]) -> None:
    """Takes the checkpoint's task where ``auto`` is stated, or none; labels may make it another one by now."""
    task = stated.get("model.init_args.task")
    if "task" not in found or task not in (None, "auto"):
        return
    if task == "auto":
        stated.pop("model.init_args.task")
    if task == "auto" or subcommand == "fit":
        print_once(f"model.init_args.task: {found['task']} as in the checkpoint.")


def decide_task(model: Any, datamodule: ZambaVideoDataModule, config: Namespace, ckpt_path: str | None) -> None:
    """Decides the task of a model for which ``auto`` is stated, and keeps it in the configuration, which is recorded.

    Args:
        model: The model.
        datamodule: Knows the labels.
        config: The program's.
        ckpt_path: The checkpoint, if there is one; of ``last`` the task is open until it is found.
    """
    if not model.task_is_open or ckpt_path in KEYWORDS:
        return
    stated = config[config.subcommand]
    if ckpt_path is None:
        known = _task_of_weights(stated, model.class_names, fits=config.subcommand == "fit")
    else:
        theirs = load_checkpoint(Path(ckpt_path), mmap=True).get("hyper_parameters", {}).get("task")
        known = None if theirs is None else (theirs, "as in the checkpoint")
    if config.subcommand in SPLIT_COMMANDS or known is not None:
        model.decide_task(datamodule, known)
    if "task" in stated.model.init_args:
        stated["model.init_args.task"] = model.task


def _task_of_weights(config: Namespace, class_names: list[str], *, fits: bool) -> tuple[Task, str] | None:
    """Returns the task of the checkpoint that a model's weights come from, and why; None if it does not matter.

    zamba's models are multilabel. Of ours the task matters if the head is kept.
    """
    init_args = config.model.init_args
    path = init_args.get("weights")
    if path is None or not Path(path).is_file() or not zipfile.is_zipfile(path):
        return None
    found = load_checkpoint(Path(path), mmap=True).get("hyper_parameters", {})
    if "species" in found and "class_names" not in found:
        return "multilabel", f"as zamba's models such as {path} are"
    keeps = sorted(found.get("class_names", [])) == sorted(class_names) or init_args.get("keep_matching_classes")
    if "task" in found and (keeps or not fits):
        return found["task"], f"as that of {path} is"
    return None


def _configuration_in(checkpoint: dict[str, Any], ckpt_path: str) -> dict[str, Any]:
    """Returns the model and data sections of the run that wrote a checkpoint, as far as later runs need them."""
    init_args = dict(checkpoint.get("hyper_parameters", {}))
    class_path = pop_class_path(init_args)
    class_names = init_args.pop("class_names", None)
    if class_path is None or class_names is None:
        raise InputError(
            f"ckpt_path: {ckpt_path} is not a checkpoint of this program: it does not name its model and classes. To start "
            "from its weights, set model.init_args.weights to it."
        )
    init_args.pop("weights", None)
    views = dict(checkpoint.get(ZambaVideoDataModule.__qualname__, {}))
    views.pop(POSITION, None)
    views.pop(SPLITS_KEY, None)
    return {
        "model": {"class_path": class_path, "init_args": init_args},
        "data": {**views, "class_names": list(class_names)},
    }


def _check_same_model(stated: str | None, found: str, ckpt_path: str) -> None:
    if stated is not None and pydoc.locate(stated) is not pydoc.locate(found):
        raise InputError(
            f"ckpt_path: {ckpt_path} holds a {found}, but model.class_path says {stated}. Leave out model.class_path, or give "
            "a checkpoint of that model."
        )


def _plain(value: Any) -> Any:
    """Returns a parsed value as a checkpoint holds it."""
    if isinstance(value, Namespace):
        return value.as_dict()
    return list(value) if isinstance(value, tuple) else value


def _with_classes(value: Any) -> Any:
    """Returns a plain value with classes in place of class paths, several of which may mean the same class."""
    if isinstance(value, dict):
        return {key: pydoc.locate(v) if key == "class_path" else _with_classes(v) for key, v in value.items()}
    return value


def _take_from_weights(config: Namespace, stated: Namespace) -> None:
    """Takes from another program's checkpoint, such as zamba's, its classes and the shape of its head."""
    weights = Path(config.model.init_args.weights)
    if not weights.is_file() or weights.suffix == ".safetensors":
        return  # the model says so, or cannot know
    found = load_checkpoint(weights, mmap=True).get("hyper_parameters", {})
    names = found.get("class_names", found.get("species"))
    if names is not None and config.get("data.class_names") is None:
        config["data.class_names"] = list(names)
    if names is None and config.get("data.class_names") is None and config.get("data.labels") is None:
        raise InputError(
            f"data.class_names is missing: {weights} does not name its classes. State them in the order of training, "
            "such as --data.class_names '[blank, leopard]'."
        )
    for key in HEAD_ARGUMENTS:
        if key in found and key in config.model.init_args and f"model.init_args.{key}" not in stated:
            config[f"model.init_args.{key}"] = found[key]
    frames = config.model.init_args.get("num_frames")
    if frames is not None and config.data.sampling is None:  # the network takes no other number
        sampling = {"class_path": "zamba_lcli.data.EvenlySpaced", "init_args": {"num_frames": frames}}
        config["data.sampling"] = Namespace(sampling)  # type: ignore[no-untyped-call]


def without_weights(config: Namespace) -> Namespace:
    """Returns the configuration to build from; where a checkpoint brings the weights, no others are loaded or downloaded."""
    config = config.clone()  # type: ignore[no-untyped-call]
    command = config[config.subcommand]
    if config.subcommand == "check":
        command.model = None
    elif (
        command.get("ckpt_path") is not None and "weights" in command.model.init_args
    ):  # a user's own model may have none
        command.model.init_args.weights = None
    return config


def seed_of_run(ckpt_path: str | None, seed: int, what_is_stated: Callable[[], Namespace]) -> int:
    """Returns the seed of the checkpoint's run, unless another number is stated: data order and dropout follow from it.

    Args:
        ckpt_path: The checkpoint, if the run resumes from one.
        seed: The seed otherwise.
        what_is_stated: Parses again, without defaults.
    """
    if ckpt_path is None or not Path(ckpt_path).is_file():
        return seed
    theirs = load_checkpoint(Path(ckpt_path), mmap=True).get("seed")
    if theirs is None or theirs == seed:
        return seed
    stated = what_is_stated()
    if type(stated[stated.subcommand].get("seed_everything")) is int:
        tell_difference("seed_everything", seed, theirs)
        return seed
    print_once(f"seed_everything: {theirs} as in the checkpoint.")
    return int(theirs)


def keep_splits(datamodule: ZambaVideoDataModule, config: Namespace, ckpt_path: str | None) -> None:
    """Keeps clips in the splits of the run that the model's weights come from.

    Args:
        datamodule: Draws the splits.
        config: That of the subcommand; knows the weights to start from.
        ckpt_path: The checkpoint, if there is one.
    """
    path = ckpt_path or config.model.get("init_args", {}).get("weights")
    if path is not None and Path(path).is_file() and zipfile.is_zipfile(path):
        checkpoint = load_checkpoint(Path(path), mmap=True)
        if ckpt_path is not None or "state_dict" in checkpoint:  # else a network's weights alone, as they are published
            datamodule.keep_splits(checkpoint)
