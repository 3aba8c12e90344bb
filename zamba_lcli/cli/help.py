"""What ``--help`` shows: the keys that are stated most often first, in words that fit on a few screens."""

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
    "predict": ("config", "ckpt_path", "data.videos", "trainer.callbacks", "trainer.devices"),
    "export": ("config", "ckpt_path", "output"),
    "check": ("config", "data.labels", "data.data_dir", "report"),
}
FIRST_OF_OTHERS = (
    "config", "ckpt_path", "data.labels", "data.data_dir", "data.sampling", "data.height", "data.width", "data.batch_size",
    "model", "optimizer", "lr_scheduler", "trainer.max_epochs", "trainer.precision", "trainer.devices",
)  # fmt: skip
GROUPS = {  # key -> title, in the order of --help
    "data": "data: labels and clips, and how they are looked at",
    "model": "model: the network, its head and its loss (SlowFast, PytorchVideo, TimeDistributedEfficientNet, ...)",
    "optimizer": "optimizer: any of torch.optim",
    "lr_scheduler": "lr_scheduler: any of torch.optim.lr_scheduler",
    "trainer": "trainer: Lightning's, with callbacks and logger",
}
TEXTS = {  # in place of Lightning's, which are about calls from Python
    "seed_everything": "Seed of all that is random, from 0; true to draw one.",
    "ckpt_path": "Checkpoint to go on from (fit) or to use; for fit also 'last', the newest of the run folder.",
    "weights_only": "Lightning's. This program reads checkpoints of plain values only, whatever is said here.",
    "model": "The network, by the name of its class.",
    "optimizer": "The optimizer, by the name of its class, with a learning rate: --optimizer.init_args.lr 0.001.",
    "lr_scheduler": "What changes the learning rate during the run, by the name of its class; null for nothing.",
    "trainer.accelerator": "cpu, gpu, mps, tpu; auto for what the machine has.",
    "trainer.strategy": "How several processes train together, e.g. ddp; auto for what is usual.",
    "trainer.devices": "How many GPUs or processes (a number), or which (a list); auto or -1 for all.",
    "trainer.precision": "Numbers to compute in: 32-true (as if left out), bf16-mixed, 16-mixed, 64-true, ...",
    "trainer.max_epochs": "Epochs to train at most; -1 for no end. Without max_steps and max_time, 1000.",
}
MOST_CLASSES = 60  # that are listed; of torch's modules there are some hundreds
ROLE = re.compile(r":\w+:`~?(?:[\w.]+\.)?(\w+)`")  # Sphinx
SENTENCE = re.compile(r"(?<=[.])\s+(?=[A-Z])")
DEFAULT = re.compile(r"\s*Default: ``(.+?)``\.?")


@dataclass
class Section:
    """A section of the help: its title, what is said below it, and its arguments."""

    title: str | None
    text: Any = None
    actions: list[Action] = field(default_factory=list)


class PlainHelpFormatter(HelpFormatter):
    """Shows texts without markup, classes by the names that a YAML may use, and first what is most often stated."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        """Takes the arguments of argparse's formatter; the program's name tells the subcommand."""
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
        """Keeps the arguments of a section; the help of a class is told of in the description."""
        self.sections[-1].actions = [action for action in actions if not is_help_of_class(action)]

    def end_section(self) -> None:
        """Does nothing, as the sections are written in the end."""

    def format_help(self) -> str:
        """Returns the help: what is most often stated, the run's own options, data and model, and Lightning's trainer last."""
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
        first = Section("most often stated", actions=[actions[name] for name in names if name in actions])
        for section in self.sections:
            section.actions = [action for action in section.actions if action not in first.actions]
        last = [section for title in GROUPS.values() for section in self.sections if section.title == title]
        own = [section for section in self.sections if section not in last and section.title != "Linked arguments"]
        return [first, *own, *last]

    def text_of(self, action: Action) -> str | None:
        """Returns what is said of an argument: of Lightning's trainer the first sentence, and what null stands for."""
        if action.dest in ABOUT and not action.option_strings:
            return ABOUT[action.dest]
        if action.dest in TEXTS:
            return TEXTS[action.dest]
        if action.dest.startswith("trainer.") and action.help:
            default = DEFAULT.search(action.help)
            return SENTENCE.split(action.help, maxsplit=1)[0] + (default[0] if default else "")
        return action.help

    def polished(self, action: Action, text: str) -> str:
        """Returns the help of an argument without markup, with the names of classes that may be given."""
        text, known, _ = ROLE.sub(r"\1", text).partition(", known subclasses: ")
        if known:
            names = short_names(typehint_of(action))
            text += f"; one of {', '.join(names)})" if len(names) <= MOST_CLASSES else ")"
        default = DEFAULT.search(text)
        if default is not None and default[1] not in ("None", str(action.default)):
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
