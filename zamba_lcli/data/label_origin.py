"""Who gave a label: people, or a machine, whose answers are predictions."""

from collections import Counter
from collections.abc import Mapping

from pytorch_lightning.utilities import rank_zero_info

from zamba_lcli.data.tables import Place, Problems, counted
from zamba_lcli.errors import InputError, Problem

KEY = "data.machine_labels"
HUMAN, MACHINE = "human", "machine"
MAX_AUTHORS = 5  # named in a message


def is_machine_observation(record: Mapping[str, str], place: Place, problems: Problems) -> bool:
    """Returns whether an observation in Camtrap DP is a machine's.

    ``classificationMethod`` decides. The standard lets it be empty, and older exports leave it so: such an observation is
    taken for a person's, unless its ``classificationProbability`` is below 1, which people leave out.

    Args:
        record: The observation.
        place: Where it is.
        problems: Gets a method that is none; the observation then counts as a machine's.
    """
    method = record["classificationMethod"]
    if method.casefold() in (HUMAN, MACHINE):
        return method.casefold() == MACHINE
    if method:
        remedy = f"Write {HUMAN} or {MACHINE} in the column classificationMethod, or leave it empty for people."
        problems.add(place, f"unknown classificationMethod {method!r}", remedy)
        return True
    try:
        return float(record["classificationProbability"]) < 1
    except ValueError:
        return False


def tell_machine_labels(
    problems: Problems, what: str, authors: Counter[str], predicted: int, labelled: int, *, counts: bool
) -> None:
    """Says in the log, and as a warning of ``zamba check``, what became of a machine's predictions.

    Args:
        problems: Gets the warning.
        what: What the predictions are: an observation or a row.
        authors: Who made those that are passed over, how often; of those that count, how many clips.
        predicted: How many clips have predictions, and no label of people.
        labelled: How many clips have a label of people.
        counts: Whether the predictions count as labels.

    Raises:
        InputError: If they do not, and no clip has a label of people.
    """
    if not authors:
        return
    who = ", ".join(f"{name or 'not named'}: {number}" for name, number in authors.most_common(MAX_AUTHORS))
    who += ", ..." if len(authors) > MAX_AUTHORS else ""
    source = problems.source
    if counts:
        told = f"the labels of {counted(predicted, 'clip')} are a machine's predictions ({who}), those of {labelled} people's"
        remedy = f"Scores against predictions tell how far a model agrees with that machine; without {KEY} they are left out."
    elif predicted and not labelled:
        raise InputError(
            f"data.labels: {source.absolute()} has no label of people: its {counted(authors.total(), what)} by a machine "
            f"({who}) are predictions. Have people classify clips; or, to take the predictions for labels, set {KEY} to true."
        )
    else:
        left_out = counted(predicted, "clip") if predicted else "no clip"
        told = (
            f"{counted(authors.total(), what)} by a machine passed over ({who}), for predictions are no labels; {left_out} "
            "left out for want of a label of people"
        )
        remedy = f"To count predictions where people say nothing, set {KEY} to true."
    rank_zero_info(f"{source}: {told}. {remedy}")
    problems.warnings.append(Problem("", str(source), told, remedy, "warning"))
