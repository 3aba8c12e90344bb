"""The classes of a model, beside the labels of a table."""

from collections.abc import Sequence

from zamba_lcli.columns import REMEDY, called_like_columns
from zamba_lcli.data.labels.table import LabelTable
from zamba_lcli.errors import InputError

KEY = "data.class_names"


def check_names(class_names: Sequence[str]) -> None:
    """Refuses classes without a name, and those that are named twice.

    Raises:
        InputError: Says which.
    """
    for number, name in enumerate(class_names, start=1):
        if not name.strip():
            raise InputError(f"{KEY}: item {number} is empty. Give each class a name.")
        if (first := class_names.index(name) + 1) < number:
            raise InputError(f"{KEY}: {name!r} is there twice, as items {first} and {number}. Name each class once.")


def check_classes(table: LabelTable, class_names: Sequence[str], *, of_checkpoint: bool) -> None:
    """Refuses labels without a class, and classes that are called like a column of the tables of predictions.

    Args:
        table: The labels.
        class_names: The model's classes.
        of_checkpoint: Whether they are those of a checkpoint, for the message.

    Raises:
        InputError: Names them.
    """
    if unknown := sorted(set(table.class_names) - set(class_names)):
        remedy = "train without that checkpoint" if of_checkpoint else f"{KEY}, which may be left out"
        raise InputError(
            f"{table.source}: the model has no class for the labels {unknown}. It knows {list(class_names)}. Correct the "
            f"labels, or {remedy}."
        )
    if taken := called_like_columns(class_names):
        columns = "the name of a column" if len(taken) == 1 else "names of columns"
        raise InputError(f"{KEY}: {', '.join(map(repr, taken))}: {columns} of predictions. {REMEDY}")
