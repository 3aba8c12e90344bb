"""The origin of labels: people, or a machine, whose labels are predictions."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_info

from zamba_lcli.columns import OF_RESULT
from zamba_lcli.data.csv_tables import LabelRow, Place, Problems, counted
from zamba_lcli.errors import InputError, Problem

KEY = "data.machine_labels"
HUMAN, MACHINE = "human", "machine"
MAX_AUTHORS = 5  # named in a message
PREDICTIONS = re.compile(r"top_class|(?:predictions?|predicted|preds?|ai)(?:_.*)?", re.IGNORECASE)  # columns
# columns of other programs' tables with the origin of a label; names without _, in lower case
VERIFIED = ("isverified", "humanverified")  # AddaxAI: true or false
YES, NO = frozenset(["true", "1", "1.0", "yes", "y", "t"]), frozenset(["false", "0", "0.0", "no", "n", "f"])
METHOD = "classificationmethod"  # AddaxAI, Camtrap DP: human or machine
PROBABILITY = "classificationprobability"  # Camtrap DP: people leave it out
AUTHOR = ("identifiedby", "classifiedby")  # Wildlife Insights, Camtrap DP: a name
CONFIDENCE = "cvconfidence"  # Wildlife Insights: empty for people
COMPUTER_VISION = "computer vision"  # the author of a machine's labels in Wildlife Insights
NUMBER = re.compile(r"(\d*[.,]?\d+|\d+[.,])(e[+-]?\d{1,3})?\s?(%?)", re.IGNORECASE | re.ASCII)


def is_machine_observation(record: Mapping[str, str], place: Place, problems: Problems) -> bool:
    """Returns whether an observation in Camtrap DP is a machine's.

    ``classificationMethod`` decides. The standard allows it to be empty, and older exports leave it empty: such an observation
    counts as a person's unless its ``classificationProbability``, which people leave out, is below 1 (or 100 %).

    Args:
        record: The observation.
        place: Its file and row.
        problems: Gets an invalid method, or an invalid probability where the method is empty; the observation then counts
            as a machine's.
    """
    method = record["classificationMethod"]
    if method.casefold() in (HUMAN, MACHINE):
        return method.casefold() == MACHINE
    if method:
        remedy = f"Write {HUMAN} or {MACHINE} in the column classificationMethod, or leave it empty for people."
        problems.add(place, f"unknown classificationMethod {method!r}", remedy)
        return True
    if not (text := record["classificationProbability"]):
        return False
    probability = _probability(text)
    if probability is None:
        remedy = "Write a number from 0 to 1 in the column classificationProbability, or leave it empty for people."
        problems.add(place, f"invalid classificationProbability {text!r}", remedy)
    return probability is None or probability < 1


def _probability(text: str) -> float | None:
    """Returns a probability from 0 to 1, written with a decimal point or comma or in per cent; ``None`` if invalid."""
    number = NUMBER.fullmatch(text)
    if number is None:
        return None
    value = float(number[1].replace(",", ".") + (number[2] or ""))
    value = value / 100 if number[3] or value > 1 else value
    return value if value <= 1 else None


def tell_machine_labels(
    problems: Problems, what: str, authors: Counter[str], predicted: int, labelled: int, *, counts: bool
) -> None:
    """Logs what became of a machine's predictions, and adds it to the warnings of ``zamba check``.

    Args:
        problems: Gets the warning.
        what: The unit of a prediction: an observation or a row.
        authors: Number of ignored predictions by author; where predictions count, number of clips by author.
        predicted: Number of clips with predictions only.
        labelled: Number of clips with a label by people.
        counts: Whether the predictions count as labels.

    Raises:
        InputError: If they do not, and no clip has a label by people.
    """
    if not authors:
        return
    who = ", ".join(f"{name or 'unnamed'}: {number}" for name, number in authors.most_common(MAX_AUTHORS))
    who += ", ..." if len(authors) > MAX_AUTHORS else ""
    source = problems.source
    if counts:
        told = f"the labels of {counted(predicted, 'clip')} are a machine's predictions ({who}), {labelled} by people"
        remedy = f"Scores against predictions measure agreement with that machine; without {KEY} they are left out."
    elif predicted and not labelled:
        raise InputError(
            f"data.labels: {source.absolute()} has no label by people: its {counted(authors.total(), what)} by a machine "
            f"({who}) are predictions. Have people classify clips; or, to train on the predictions, set {KEY} to true."
        )
    else:
        left_out = counted(predicted, "clip") if predicted else "no clip"
        told = (
            f"{counted(authors.total(), what)} by a machine ignored ({who}): predictions are no labels; {left_out} "
            "left out because no person labelled them"
        )
        remedy = f"To use predictions where people gave no label, set {KEY} to true."
    rank_zero_info(f"{source}: {told}. {remedy}")
    problems.warnings.append(Problem("", str(source), told, remedy, "warning"))


def check_label_column(header: Sequence[str], label_column: str, where: Path, *, machine_labels: bool) -> None:
    """Refuses a table of predictions without a label column, and predictions as the label column.

    Args:
        header: The columns of the table.
        label_column: The label column.
        where: The table, for messages.
        machine_labels: Whether predictions count as labels.

    Raises:
        InputError: Names the table and the column.
    """
    is_own = set(OF_RESULT).issubset(header)
    if is_own and label_column not in header:
        labels = "; its column labels has them, set data.label_column to it" if "labels" in header else ""
        raise InputError(
            f"data.labels: {where} is a table of predictions and has no column {label_column!r} with labels{labels}. Give the "
            f"table of labels, or add what people saw as a column {label_column}."
        )
    predicted = PREDICTIONS.fullmatch(label_column) or (is_own and label_column.startswith("has_"))
    if label_column in header and predicted and not machine_labels:
        raise InputError(
            f"data.labels: the column {label_column!r} of {where} has a machine's predictions, not labels. Set "
            f"data.label_column to the column with what people saw; or, to train on the predictions, set {KEY} to true."
        )


class RowOrigin:
    """Finds the rows with a machine's labels, by the columns of AddaxAI, Wildlife Insights or Camtrap DP.

    Args:
        header: The columns of the table.
    """

    def __init__(self, header: Sequence[str]) -> None:
        """Finds the columns."""
        self._columns = {name.replace("_", "").replace(" ", "").casefold(): name for name in header}

    def author(self, record: Mapping[str, str]) -> str:
        """Returns the author of a row's label; empty if unknown."""
        return next((value for name in AUTHOR if (value := self._value(record, name))), "")

    def is_machine(self, record: Mapping[str, str]) -> bool:
        """Returns whether a row's label is a machine's that no person confirmed."""
        verified = {self._value(record, name).casefold() for name in VERIFIED}
        method = self._value(record, METHOD).casefold()
        identified, classified = (" ".join(self._value(record, name).casefold().split()) for name in AUTHOR)
        author = COMPUTER_VISION if classified == COMPUTER_VISION else identified
        if verified & YES or method == HUMAN or author not in ("", COMPUTER_VISION):
            return False
        confident = not author and bool(self._value(record, CONFIDENCE))
        if not method and METHOD in self._columns:
            probability = _probability(self._value(record, PROBABILITY))
            confident |= probability is not None and probability < 1
        return bool(verified & NO) or method == MACHINE or author == COMPUTER_VISION or confident

    def _value(self, record: Mapping[str, str], name: str) -> str:
        return record.get(self._columns.get(name, ""), "")


def add_predictions(
    rows: Sequence[LabelRow], predicted: Sequence[tuple[LabelRow, str]], problems: Problems, *, machine_labels: bool
) -> list[LabelRow]:
    """Returns the rows that count, in the order of the table, and reports the others.

    Args:
        rows: Those with labels by people.
        predicted: Those with a machine's, and its name.
        problems: Gets a warning.
        machine_labels: Whether they count for clips without a label by people.

    Raises:
        InputError: If they do not, and there are no others.
    """
    labelled = {_clip(row) for row in rows}
    lacking = [(row, author) for row, author in predicted if _clip(row) not in labelled]
    told = lacking if machine_labels else predicted
    authors = Counter(author for _, author in told)
    clips = {_clip(row) for row, _ in lacking}
    tell_machine_labels(problems, "row", authors, len(clips), len(labelled), counts=machine_labels)
    counting = [*rows, *(row for row, _ in lacking)] if machine_labels else list(rows)
    return sorted(counting, key=lambda row: row.place)


def _clip(row: LabelRow) -> str:
    """Returns the path in one spelling."""
    return os.path.normpath(row.filepath.replace("\\", "/"))
