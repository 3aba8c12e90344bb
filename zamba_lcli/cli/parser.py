"""The parser: errors as one message, and configurations that can be read again."""

import sys
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, NoReturn

from jsonargparse import Namespace
from pytorch_lightning.cli import ArgsType, LightningArgumentParser

from zamba_lcli import __version__
from zamba_lcli.cli.help import ABOUT, GROUPS, USAGE, PlainHelpFormatter
from zamba_lcli.cli.messages import describe_subcommand_error, plain_message
from zamba_lcli.cli.repeatable import without_objects

NO_KEYS = ("config", "help", "version")


def parser_arguments(is_asked_for: dict[str, bool]) -> dict[str, Any]:
    """Returns the arguments of the program's parser, and below the name of each subcommand those of its own.

    Args:
        is_asked_for: For each subcommand whether the command line may mean it.
    """
    common = {"allow_abbrev": False, "formatter_class": PlainHelpFormatter}
    return {
        **common,
        "prog": "zamba",
        "description": "Fine-tune, test and run video classifiers on camera-trap clips.",
        "version": __version__,
        "commands": tuple(is_asked_for),
        **{
            name: {
                **common,
                "usage": USAGE.format(name),
                "description": ABOUT[name],
                "command": name,
                "is_asked_for": asked,
            }
            for name, asked in is_asked_for.items()
        },
    }


def command_line(args: ArgsType) -> list[str]:
    """Returns the words of the command line; of the process if ``args`` is None."""
    return sys.argv[1:] if args is None else list(map(str, args))


def asked_for(args: ArgsType, subcommands: list[str]) -> dict[str, bool]:
    """Returns for each subcommand whether the command line may mean it: all, if there are options and none is named.

    Args:
        args: The command line; that of the process if None.
        subcommands: The subcommands there are.
    """
    words = set(command_line(args))
    if isinstance(args, dict | Namespace) or "--print_completion" in words:
        return dict.fromkeys(subcommands, True)
    options = any(word.startswith("-") for word in words - {"-h", "--help", "--version"})
    named = words.intersection(subcommands)
    return {name: name in named or (options and not named) for name in subcommands}


def with_values(words: list[str]) -> list[str]:
    """Returns the words of the command line with ``--thorough=true`` for ``--thorough``: other options need a value."""
    return [
        f"{word}=true" if word == "--thorough" and after not in ("true", "false") else word
        for word, after in zip_longest(words, words[1:])
    ]


class ZambaArgumentParser(LightningArgumentParser):
    """Lightning's parser, with one message for an error in place of three screens of options.

    Args:
        command: Its subcommand; None for the parser of the program and those of classes.
        commands: The subcommands that it has.
        is_asked_for: Whether the command line may mean the subcommand; if not, its arguments are not added, which takes long.
        args: Lightning's.
        kwargs: Lightning's.
    """

    dumping = False

    def __init__(
        self,
        *args: Any,
        command: str | None = None,
        commands: Sequence[str] = (),
        is_asked_for: bool = True,
        **kwargs: Any,
    ) -> None:
        """Keeps the arguments; see the class."""
        # jsonargparse states nothing for the parser that shows the help of a class
        super().__init__(*args, **{"prog": "zamba", "formatter_class": PlainHelpFormatter, **kwargs})
        self.command = command
        self.commands = commands
        self.is_asked_for = is_asked_for
        self._words: list[str] = []

    def add_lightning_class_args(
        self, lightning_class: Any, nested_key: str, subclass_mode: bool = False, required: bool = True
    ) -> list[str]:
        """Adds trainer, model or data; none is required, as a checkpoint may name the model."""
        return super().add_lightning_class_args(lightning_class, nested_key, subclass_mode, required=False)

    def add_method_arguments(self, *args: Any, **kwargs: Any) -> list[str]:
        """Adds the arguments of the subcommand, the last that there are."""
        if not self.is_asked_for:
            return []
        for key, title in GROUPS.items():
            if self.groups and key in self.groups:
                self.groups[key].title = title
        added: list[str] = super().add_method_arguments(*args, as_group=False, **kwargs)
        return added

    def parse_args(self, args: Sequence[str] | None = None, *more: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Parses the command line, and keeps its words for messages."""
        self._words = with_values(list(sys.argv[1:] if args is None else args))
        return super().parse_args(self._words, *more, **kwargs)

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """Returns the configuration as YAML that can be read again; see ``without_objects``."""
        if ZambaArgumentParser.dumping:
            return str(super().dump(*args, **kwargs))  # a class in the configuration
        ZambaArgumentParser.dumping = True
        try:
            return without_objects(super().dump(*args, **kwargs))
        finally:
            ZambaArgumentParser.dumping = False

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exits with the message in plain words."""
        parser: ZambaArgumentParser = getattr(ex, "subcommand_parser", None) or self  # whose options there are
        described = describe_subcommand_error(message, self._words, self.commands) if self.commands else None
        keys = parser.get_defaults(skip_validation=True).keys()
        options = [key for key in keys if key not in NO_KEYS]
        super().error(described or plain_message(message, options, parser.command), ex)

    def print_usage(self, file: Any = None) -> None:
        """Prints one line of usage, which the error follows."""
        print(f"usage: {self.prog.replace(' [options]', '')} [options]", file=file or sys.stdout)
