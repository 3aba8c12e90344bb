"""What ``--help`` shows: the most used keys first, on a few screens."""

import inspect
import re
from argparse import Action
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, get_args

from torch import Tensor

from zamba_lcli.cli._jsonargparse import HelpFormatter, import_path, is_help_of_class, subclass_paths, typehint_of

USAGE = "zamba {} [--config FILE]... [--KEY VALUE]..."
CLASSES = (
    "The arguments of a class are listed by e.g. --optimizer.help Adam, and set by --optimizer.init_args.lr 0.001."
)
ABOUT = {
    "fit": "Train: the head of a network, then its last blocks as well, as the YAML says.",
    "sweep": "Train again and again with other values of some keys, and tell which are best.",
    "validate": "Score a checkpoint on the val clips.",
    "test": "Score a checkpoint on the holdout clips; writes tables and a report.",
    "predict": "Classify clips; writes a table and a report.",
    "merge": "Join the shards of a prediction to one result.",
    "check": "Check the labels, or clips to predict (--data.videos), and open every clip, without training.",
    "export": "Export the model of a checkpoint to ONNX.",
}
FIRST = {  # subcommand -> the most used keys, in this order
    "sweep": ("config", "sweep", "data.labels", "data.data_dir", "trainer.max_epochs", "trainer.logger"),
    "predict": ("config", "ckpt_path", "data.videos", "trainer.callbacks", "trainer.devices"),
    "merge": ("config", "ckpt_path", "data.videos", "trainer.callbacks"),
    "export": ("config", "ckpt_path", "output"),
    "check": ("config", "data.labels", "data.data_dir", "data.videos", "thorough", "report"),
}
FIRST_OF_OTHERS = (
    "config", "ckpt_path", "data.labels", "data.data_dir", "data.sampling", "data.height", "data.width", "data.batch_size",
    "model", "optimizer", "lr_scheduler", "trainer.max_epochs", "trainer.precision", "trainer.devices",
)  # fmt: skip
GROUPS = {  # key -> title, in the order of --help
    "data": "data: labels and clips, and how frames are sampled and loaded",
    "model": "model: the network, its head and its loss (SlowFast, PytorchVideo, TimeDistributedEfficientNet, ...)",
    "optimizer": "optimizer: any of torch.optim",
    "lr_scheduler": "lr_scheduler: any of torch.optim.lr_scheduler",
    "trainer": "trainer: Lightning's, with callbacks and logger",
}
TEXTS = {  # in place of Lightning's, which are about calls from Python
    "seed_everything": "Random seed, 0 or more; true to draw one.",
    "ckpt_path": "Checkpoint to resume (fit) or to use; for fit also 'last', the newest in the run folder.",
    "weights_only": "Lightning's. Without effect: this program only reads checkpoints of plain values.",
    "model": "The network, by the name of its class.",
    "optimizer": "The optimizer, by the name of its class, with a learning rate: --optimizer.init_args.lr 0.001.",
    "lr_scheduler": "The learning rate scheduler, by the name of its class; null for none.",
    "trainer.accelerator": "cpu, gpu, mps, tpu; auto for what the machine has.",
    "trainer.strategy": "How several processes train together, e.g. ddp; auto for the usual one.",
    "trainer.devices": "How many GPUs or processes (a number), or which (a list); auto or -1 for all.",
    "trainer.precision": "Numerical precision: 32-true (the default), bf16-mixed, 16-mixed, 64-true, ...",
    "trainer.max_epochs": "Maximum number of epochs; -1 for no limit. 1000 without max_steps and max_time.",
}
MOST_CLASSES = 60  # listed; torch has some hundreds of modules
ROLE = re.compile(r":\w+:`~?(?:[\w.]+\.)?(\w+)`")  # Sphinx
SENTENCE = re.compile(r"(?<=[.])\s+(?=[A-Z])")
DEFAULT = re.compile(r"\s*Default: ``(.+?)``\.?")


@dataclass
class Section:
    """A section of the help: title, text and arguments."""

    title: str | None
    text: Any = None
    actions: list[Action] = field(default_factory=list)


class PlainHelpFormatter(HelpFormatter):
    """Shows texts without markup, classes by the names that a YAML may use, and the most used keys first."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        """Takes the arguments of argparse's formatter; the program's name holds the subcommand."""
        super().__init__(prog, **kwargs)  # type: ignore[no-untyped-call]
        self.subcommand = next((word for word in prog.split() if word in ABOUT), None)
        self.sections: list[Section] = []

    def start_section(self, heading: str | None) -> None:
        """Keeps a section until all of them are known."""
        self.sections.append(Section(heading))

    def add_text(self, text: Any) -> None:
        """Adds the description of the program, or keeps that of a section."""
        if self.sections and text:  # what comes last, the epilog, is empty
            self.sections[-1].text = text
        elif text:
            super().add_text(f"{text} {CLASSES}" if self.subcommand else text)

    def add_arguments(self, actions: Iterable[Action]) -> None:
        """Keeps the arguments of a section; how to get the help of a class is in the description."""
        self.sections[-1].actions = [action for action in actions if not is_help_of_class(action)]

    def end_section(self) -> None:
        """Does nothing, as the sections are written in the end."""

    def format_help(self) -> str:
        """Returns the help: the most used keys, the subcommand's own options, data and model, and Lightning's trainer last."""
        for section in self._arranged() if self.subcommand else self.sections:
            super().start_section(section.title)
            super().add_text(section.text)
            super().add_arguments(section.actions)
            super().end_section()
        self.sections = []
        return super().format_help()

    def _arranged(self) -> list[Section]:
        names = FIRST.get(str(self.subcommand), FIRST_OF_OTHERS)
        actions = {action.dest: action for section in self.sections for action in section.actions}
        first = Section("most used", actions=[actions[name] for name in names if name in actions])
        for section in self.sections:
            section.actions = [action for action in section.actions if action not in first.actions]
        last = [section for title in GROUPS.values() for section in self.sections if section.title == title]
        own = [section for section in self.sections if section not in last and section.title != "Linked arguments"]
        return [first, *own, *last]

    def text_of(self, action: Action) -> str | None:
        """Returns the text of an argument: for Lightning's trainer the first sentence, and what null means."""
        if action.dest in ABOUT and not action.option_strings:
            return ABOUT[action.dest]
        if action.dest in TEXTS:
            return TEXTS[action.dest]
        if action.dest.startswith("trainer.") and action.help:
            default = DEFAULT.search(action.help)
            return SENTENCE.split(action.help, maxsplit=1)[0] + (default[0] if default else "")
        return action.help

    def polished(self, action: Action, text: str) -> str:
        """Returns the help of an argument without markup, with the names of its classes."""
        text, known, _ = ROLE.sub(r"\1", text).partition(", known subclasses: ")
        if known:
            names = short_names(typehint_of(action))
            few = len(names) <= MOST_CLASSES and Tensor.__name__ not in names
            text += f"; one of {', '.join(names)})" if few else ")"
        default = DEFAULT.search(text)
        if default is not None and default[1] not in ("None", str(action.default)):
            text = text.replace(", default: %(default)s", "")  # the text says what null means
        else:
            text = DEFAULT.sub("", text)
        return text.replace("``", "")


def classes_in(typehint: Any) -> set[type]:
    """Returns the base classes in a type hint, such as ``Callback`` in ``list[Callback] | None``."""
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
    """Returns the names of the classes that may be given, or their paths where two have the same name.

    Their base, such as ``Callback``, is left out.
    """
    bases = {import_path(base) for base in classes_in(typehint)}
    paths = [path for path in subclass_paths(typehint) if not path.startswith("pytorch_lightning.core.")]
    paths = [path for path in paths if path not in bases] or paths
    count = Counter(path.rpartition(".")[2] for path in paths)
    return [short if count[short := path.rpartition(".")[2]] == 1 else path for path in paths]
