"""Names of labels and sites that are one, written in two ways."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from decimal import Context, Decimal

from zamba_lcli.columns import REMEDY, called_like_columns
from zamba_lcli.data.csv_tables import Place, Problems
from zamba_lcli.data.missing_values import UNKNOWN_SITES, may_be_missing

BLANK = ("blank", "empty", "nothing", "no animal", "no animals", "false trigger", "false positive", "misfire")
SAME_THING = {  # what it is -> its names, as ``spelling`` returns them
    "a clip without animals": (*BLANK, "none"),
    "people": ("human", "humans", "person", "persons", "people", "homo sapiens", "homo sapiens sapiens", "man", "men"),
    "vehicles": ("vehicle", "vehicles", "motor vehicle", "motor vehicles", "motorised vehicle", "motorized vehicle"),
    "animals of an unknown kind": ("unknown", "unidentified", "unknown animal", "unknown species", "indeterminate"),
}
NUMBER = re.compile(r"([+-]?)(?=[.,]?\d)(\d*)(?:[.,](\d*))?(?:e([+-]?\d{1,4}))?")  # in small letters
GROUPED = re.compile(r"[1-9]\d{0,2}(?:[ ',.\u2019]\d{3})+")  # by thousands
NO_DECIMALS = re.compile(r"([^\W\d_] ?\d+)[.,]0+$")  # at the end of a name
LEADING_ZEROS = re.compile(r"(?<![\d.,])0+(?=\d)")
JOINS = re.compile(r"[|,/&+]|\sand\s")  # what people write between labels, beside ;


def spelling(text: str) -> str:
    """Returns what is the same for texts that differ in case, blanks, unseen characters or how Unicode composes them."""
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    return " ".join(text.casefold().split())


def number_spelling(text: str) -> str:
    """Returns what besides is the same for 1, 01, +1, 1.0 and 1e0, for 1.5, 1,5 and 1.50, and for S1 and S01."""
    text = spelling(text)
    number = NUMBER.fullmatch(text)
    if number is None:
        return LEADING_ZEROS.sub("", text)
    sign, whole, decimals, exponent = number.groups(default="")
    value = Decimal(f"{sign}{whole}.{decimals}e{exponent or 0}")
    return f"{value.normalize(Context(prec=len(text))):f}" if value else "0"


def _zeros_apart(one: str, other: str) -> bool:
    """Returns whether numbers have decimals, and zeros at the end of one are all they differ in."""
    one, other = spelling(one), spelling(other)
    number = NUMBER.fullmatch(one)
    has_decimals = number is not None and number[4] is None and bool((number[3] or "").strip("0"))
    return has_decimals and one != other and one.rstrip("0") == other.rstrip("0")


def look(text: str) -> str:
    """Returns what besides is the same for texts that differ in accents and punctuation, also within numbers (1,000; S1.0)."""
    plain = spelling(text)
    if GROUPED.fullmatch(plain):
        return re.sub(r"\D", "", plain)
    plain = unicodedata.normalize("NFD", number_spelling(NO_DECIMALS.sub(r"\1", plain)))
    plain = "".join(c for c in plain if not "\u0300" <= c <= "\u036f")  # other scripts' marks are their vowels
    words = re.findall(r"[^\W\d_]+|\d+", plain)
    return " ".join(words) or plain


def check_spellings(what: str, names: Mapping[str, Place], problems: Problems) -> None:
    """Refuses names that differ in case, blanks or zeros only; warns of those that differ only in accents or punctuation.

    Such labels would silently become classes of their own; of a site with two names, clips would come into several splits.
    Of numbers with decimals that differ in zeros at their end, such as 1.1 and 1.10, is only warned: they may be two plots.

    Args:
        what: What is named: label or site.
        names: Where each name stands first, in the order of the rows.
        problems: Gets what was found.
    """
    first: dict[str, str] = {}
    alike: dict[str, str] = {}
    for name, place in names.items():
        before = first.setdefault(number_spelling(name), name)
        if before != name and _zeros_apart(before, name):
            told = f"the {what} {name!r} differs from {before!r} ({names[before]}) only in trailing zeros"
            problems.warn(place, told, f"If it is the same {what}, write it the same way.")
            continue
        if before != name:
            how = "case or blanks" if spelling(before) == spelling(name) else "how its number is written"
            problem = f"the {what} {name!r} differs from {before!r} ({names[before]}) in {how} only"
            if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", before):
                problem += f" (how Unicode composes it: {name!a} and {before!a})"
            problems.add(place, problem, f"Spell each {what} in one way.")
            continue
        before = alike.setdefault(look(name), name)
        if before != name:
            told = f"the {what} {name!r} differs from {before!r} ({names[before]}) only in accents or punctuation"
            problems.warn(place, told, f"If it is the same {what}, spell it the same way.")


def warn_of_synonyms(labels: Mapping[str, Place], problems: Problems) -> None:
    """Warns of labels that are two names of one thing, such as human and Homo sapiens: each becomes a class.

    Args:
        labels: Where each label stands first, in the order of the rows.
        problems: Gets what was found.
    """
    for thing, names in SAME_THING.items():
        found = [label for label in labels if spelling(label).replace("_", " ").replace("-", " ") in names]
        for label in found[1:]:
            told = f"the labels {label!r} and {found[0]!r} ({labels[found[0]]}) both mean {thing}"
            problems.warn(labels[label], told, "If they are one class, give them one name.")


def warn_of_joined(labels: Mapping[str, Place], problems: Problems) -> None:
    """Warns of labels that are others joined by another sign than ``;``, such as ``fox, deer``: each becomes a class.

    Args:
        labels: Where each label stands first, in the order of the rows.
        problems: Gets what was found.
    """
    known = {spelling(label) for label in labels}
    for label, place in labels.items():
        parts = [part.strip() for part in JOINS.split(label)]
        if len(parts) > 1 and all(spelling(part) in known for part in parts):
            told = f"the label {label!r} is a class of its own, beside {', '.join(map(repr, parts))}"
            problems.warn(place, told, f"If the clip has several labels, write {';'.join(parts)}.")


def check_not_columns(labels: Mapping[str, Place], problems: Problems) -> None:
    """Refuses labels that are called like a column of the tables of predictions.

    Args:
        labels: Where each label stands first, in the order of the rows.
        problems: Gets what was found.
    """
    for label in called_like_columns(labels):
        problems.add(labels[label], f"the label {label!r} has the name of a column of predictions", REMEDY)


def warn_of_missing(labels: Mapping[str, Place], sites: Mapping[str, Place], problems: Problems) -> None:
    """Warns of labels and sites that may be meant to say that nothing is known.

    Args:
        labels: Where each label stands first, in the order of the rows.
        sites: Where each site stands first.
        problems: Gets what was found.
    """
    for label in filter(may_be_missing, labels):
        told = f"the label {label!r} often means a missing value, but is used as a class"
        problems.warn(labels[label], told, "If it is not one, label the clip, or delete the row.")
    for site in (site for site in sites if spelling(site) in UNKNOWN_SITES):
        told = f"the site {site!r} often means an unknown site, but is used as one place"
        problems.warn(sites[site], told, "Leave the cell empty where the site is not known.")


def is_blank(label: str) -> bool:
    """Returns whether a label says that there was no animal in a clip."""
    return spelling(label).replace("_", " ").replace("-", " ") in BLANK


def first_places(pairs: Iterable[tuple[str, Place]]) -> dict[str, Place]:
    """Returns where each name stands first; those without a name are left out."""
    found: dict[str, Place] = {}
    for name, place in pairs:
        if name:
            found.setdefault(name, place)
    return found
