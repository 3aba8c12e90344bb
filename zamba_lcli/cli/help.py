"""What ``--help`` shows: the keys that are stated most often first, in words that fit on a few screens."""

import inspect
import re
from argparse import SUPPRESS, Action
from collections import Counter
from typing import Any, get_args

from pytorch_lightning.cli import LightningArgumentParser
from torch import Tensor

from zamba_lcli.cli._jsonargparse import HelpFormatter, import_path, is_help_of_class, subclass_paths, typehint_of

USAGE = "zamba {} [--config FILE]... [--KEY VALUE]..."
CLASSES = (
    "The arguments of a class are told by e.g. --optimizer.help Adam, and stated as --optimizer.init_args.lr 0.001."
)
ABOUT = {
    "fit": "Train: the head of a network, then its last blocks as well, as the YAML says.",
    "validate": "Score a checkpoint on the val clips.",
    "test": "Score a checkpoint on the holdout clips; writes tables and a report to look at.",
    "predict": "Classify clips; writes a table and a report to look at.",
    "check": "Check labels and try every clip, without training.",
    "export": "Write the model of a checkpoint as an ONNX file.",
}
FIRST = {  # subcommand -> what is stated most often, in this order
    "predict": ("ckpt_path", "data.videos", "trainer.callbacks", "trainer.devices"),
    "export": ("ckpt_path", "output"),
    "check": ("data.labels", "data.data_dir", "report"),
}
FIRST_OF_OTHERS = (
    "ckpt_path", "data.labels", "data.data_dir", "data.sampling", "data.height", "data.width", "data.batch_size", "model",
    "optimizer", "lr_scheduler", "trainer.max_epochs", "trainer.precision", "trainer.devices",
)  # fmt: skip
GROUPS = {  # key -> title, in the order of --help; what is not named comes where it was, before the trainer
    "data": "data: labels and clips, and how they are looked at",
    "model": "model: the network, its head and its loss (SlowFast, PytorchVideo, TimeDistributedEfficientNet, ...)",
    "optimizer": "optimizer: any of torch.optim",
    "lr_scheduler": "lr_scheduler: any of torch.optim.lr_scheduler",
    "trainer": "trainer: Lightning's, with callbacks and logger",
}
FIRST_OF_TRAINER = ("max_epochs", "callbacks", "logger", "precision", "accelerator", "devices", "num_nodes", "strategy")
TEXTS = {  # where Lightning's are about calls from Python, have no unit, or take half a screen
    "seed_everything": "Seed of all that is random, from 0; true to draw one.",
    "ckpt_path": "Checkpoint to go on from (fit) or to use; for fit also 'last', the newest of the run folder.",
    "weights_only": "Lightning's. This program reads checkpoints of plain values only, whatever is said here.",
    "model": "The network, by the name of its class.",
    "optimizer": "The optimizer, by the name of its class, with a learning rate: --optimizer.init_args.lr 0.001.",
    "lr_scheduler": "What changes the learning rate during the run, by the name of its class; null for nothing.",
    "trainer.accelerator": "cpu, gpu, mps, tpu; auto for what the machine has.",
    "trainer.strategy": "How several processes train together, e.g. ddp; auto for what is usual.",
    "trainer.devices": "How many GPUs or processes (a number), or which (a list); auto or -1 for all.",
    "trainer.num_nodes": "Number of machines.",
    "trainer.precision": "Numbers to compute in: 32-true (as if left out), bf16-mixed, 16-mixed, 64-true, ...",
    "trainer.max_epochs": "Epochs to train at most; -1 for no end. Without max_steps and max_time, 1000.",
    "trainer.max_steps": "Steps of the optimizer to train at most; -1 for no limit.",
    "trainer.max_time": "Time to train at most, DD:HH:MM:SS.",
    "trainer.limit_train_batches": "Train batches of an epoch to use: a number (int), or a share from 0.0 to 1.0 (float).",
    "trainer.limit_val_batches": "Val batches to use: a number (int), or a share from 0.0 to 1.0 (float).",
    "trainer.limit_test_batches": "Test batches to use: a number (int), or a share from 0.0 to 1.0 (float).",
    "trainer.limit_predict_batches": "Batches to predict: a number (int), or a share from 0.0 to 1.0 (float).",
    "trainer.overfit_batches": "Batches to train and validate on alone: a number (int), or a share (float).",
    "trainer.val_check_interval": "When to validate: after so many train batches (int), such a share of an epoch (float), or "
    "a time (DD:HH:MM:SS).",
    "trainer.check_val_every_n_epoch": "Epochs between validations; null to count the batches of val_check_interval across "
    "epochs.",
    "trainer.num_sanity_val_steps": "Val batches to try before the first train batch; -1 for all. Default: ``2``.",
    "trainer.log_every_n_steps": "Batches between logged values. Default: ``50``.",
    "trainer.accumulate_grad_batches": "Batches for one step of the optimizer.",
    "trainer.gradient_clip_val": "Largest norm of the gradients (or value: gradient_clip_algorithm); null for no limit.",
    "trainer.gradient_clip_algorithm": "norm, as if left out, or value.",
    "trainer.fast_dev_run": "Tries all that a run does with one batch (true), or so many.",
    "trainer.barebones": "Turns off all that costs time beside training itself, to measure that.",
    "trainer.sync_batchnorm": "Whether BatchNorm averages over all processes.",
    "trainer.enable_progress_bar": "Whether to show progress. Default: ``True``.",
    "trainer.plugins": "Plugins of Lightning.",
}
MOST_CLASSES = 60  # that are listed; of torch's modules there are some hundreds
ROLE = re.compile(r":\w+:`~?(?:[\w.]+\.)?(\w+)`")  # Sphinx
SENTENCE = re.compile(r"(?<=[.])\s+(?=[A-Z])")
DEFAULT = re.compile(r"\s*Default: ``(.+?)``\.?")


class PlainHelpFormatter(HelpFormatter):
    """Shows texts without markup, and classes by the names that a YAML may use."""

    def help_of(self, action: Action, text: str) -> str:
        """Returns the help of an argument, with the names of classes that may be given."""
        text = ROLE.sub(r"\1", text)
        text, known, _ = text.partition(", known subclasses: ")
        if known:
            names = short_names(typehint_of(action))
            text += f"; one of {', '.join(names)})" if len(names) <= MOST_CLASSES else ")"
        told = DEFAULT.search(text)
        if told is not None and told[1] not in ("None", str(action.default)):
            text = text.replace(", default: %(default)s", "")  # null in the signature stands for what the text says
        else:
            text = DEFAULT.sub("", text)
        return text.replace("``", "")


def classes_in(typehint: Any) -> set[type]:
    """Returns the classes in a type hint that others may be made from, such as ``Callback`` in ``list[Callback] | None``."""
    parts = get_args(typehint)
    if parts:
        return set().union(*map(classes_in, parts))
    is_base = inspect.isclass(typehint) and typehint.__module__ not in (
        "builtins",
        "collections.abc",
        "datetime",
        "pathlib",
    )
    return {typehint} - {Tensor} if is_base else set()


def short_names(typehint: Any) -> list[str]:
    """Returns the names of the classes that may be given, by their paths where two have the same one.

    What they are all made from, such as ``Callback``, is left out.
    """
    bases = {import_path(base) for base in classes_in(typehint)}
    paths = [path for path in subclass_paths(typehint) if not path.startswith("pytorch_lightning.core.")]
    paths = [path for path in paths if path not in bases] or paths
    count = Counter(path.rpartition(".")[2] for path in paths)
    return [short if count[short := path.rpartition(".")[2]] == 1 else path for path in paths]


def arrange_help(parser: LightningArgumentParser, subcommand: str) -> None:
    """Puts first what is most often stated; then the run's own options, data and model, and Lightning's trainer last."""
    groups = parser.groups
    assert groups is not None
    last = [groups[key] for key in GROUPS]
    for key, title in GROUPS.items():
        groups[key].title = title
    own = [group for group in parser._action_groups if group not in last and group.title != "Linked arguments"]
    own[-1].title = "of this subcommand"  # added last; its title is Lightning's docstring
    first = parser.add_argument_group("most often stated")
    actions = {action.dest: action for group in own + last for action in group._group_actions}
    first._group_actions = [
        actions[name] for name in ("config", *FIRST.get(subcommand, FIRST_OF_OTHERS)) if name in actions
    ]
    for group in own + last:
        group._group_actions = [action for action in group._group_actions if action not in first._group_actions]
    groups["trainer"]._group_actions.sort(key=lambda action: _rank(action.dest.removeprefix("trainer.")))
    parser._action_groups = [first, *own, *last]
    parser.description = f"{parser.description} {CLASSES}"
    for action in actions.values():
        if is_help_of_class(action):
            action.help = SUPPRESS  # as the description tells
        elif action.dest in TEXTS:
            action.help = TEXTS[action.dest]
        elif action.dest.startswith("trainer.") and action.help:
            told = DEFAULT.search(action.help)
            action.help = SENTENCE.split(action.help, maxsplit=1)[0] + (told[0] if told else "")


def _rank(name: str) -> int:
    return FIRST_OF_TRAINER.index(name) if name in FIRST_OF_TRAINER else len(FIRST_OF_TRAINER)
