"""Columns of the tables of predictions beside those of the classes, whose names no class can have."""

from collections.abc import Iterable

OF_PART = ("part", "start", "end")  # in the table of timelines
OF_RESULT = ("top_class", "status", "error")
NOTE = "note"  # how much of a clip that is damaged or cut off could be read; the last column, which older tables lack
OF_CROP = ("crop", "crop_x", "crop_y", "crop_width", "crop_height")  # where clips are cropped
REMEDY = "Give the class another name: a table of predictions would have two columns of that name."


def of_test(class_names: Iterable[str]) -> list[str]:
    """Returns the columns of the table of predictions that a test writes."""
    return ["filepath", "site", "labels", *class_names, "top_class", "correct", "status", "error", NOTE]


RESERVED = frozenset([*of_test([]), *OF_PART, *OF_RESULT, NOTE])


def has_column(class_name: str) -> str:
    """Returns the column for whether a clip has a class."""
    return f"has_{class_name}"


def called_like_columns(class_names: Iterable[str]) -> list[str]:
    """Returns the classes that are called like a column, also that of another class, such as ``has_fox`` beside ``fox``."""
    class_names = list(class_names)
    taken = RESERVED.union(map(has_column, class_names))
    return [name for name in class_names if name in taken]
