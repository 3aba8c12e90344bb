"""The terms of Camtrap DP, beside frictionless, which reads values as Table Schema has it."""

import pytest
from frictionless import Schema

from helpers.camtrap_dp import TABLES
from zamba_lcli.data.csv_tables import Place, Problems
from zamba_lcli.data.labels import camtrap_terms as terms

ODD = [
    "", "0", "-0", "1", "+5", "-1", "12", "12.0", "12.00", "12.5", "0.5", ".5", "5.", "1e3", "1e999", "-91", "90",
    "91", "180", "181", "360", "361", "400", "1_000", "1,000", "1,25", "52,125", "1 000", "٣", "inf", "NaN", "nan",
    "NA", "0x1F", "SW", "far", "12 m", "true", "True", "TRUE", "tRUE", "yes", "no", "WAHR", "maybe", "1.0",
    "2020-05-30T04:57:37Z", "2020-05-30T04:57:37+0200", "2020-05-30 04:57:37+02:00", "2020-05-30T04:57Z",
    "2020-05-30T04:57:37.5Z", "2020-05-30T04:57:37", "2020-05-30", "20200530T045737Z", "02/05/2024 10:00",
    "2020-13-30T04:57:37Z", "tree", "roadPaved", "roadpaved", "motion", "timeLapse", "machine", "media", "animal",
    "adult", "a.mp4", "a/b.mp4", "../a.mp4", "./a.mp4", "/a.mp4", "~/a.mp4", ".a.mp4", "a..b.mp4", "a/../b.mp4",
    "https://example.org/a.mp4", "mp4", "video/mp4", "VIDEO/mp4", "application/mp4", "image/", "video",
]  # fmt: skip
CONVERTED = {  # what other programs write -> what the standard knows
    "integer": {"12.0", "1.0"},
    "number": {"1,000", "1,25", "52,125"},
    "boolean": set(),
    "datetime": {"2020-05-30 04:57:37+02:00", "2020-05-30T04:57Z", "2020-05-30T04:57:37.5Z", "20200530T045737Z"},
}
STRICTER = {"inf", "1_000", "1e999", "٣"}  # which Python takes for numbers
COLUMNS = [(table, column) for table in terms.TABLES for column in terms.columns(table)]


@pytest.mark.parametrize(("table", "column"), COLUMNS, ids=lambda value: getattr(value, "name", value))
def test_values_are_what_table_schema_takes(table, column):
    schema = Schema.from_descriptor({"fields": [dict(column.descriptor)], "missingValues": ["", "NA", "NaN", "nan"]})
    (field,) = schema.fields
    kind = column.descriptor["type"]
    for text in ODD:
        _, errors = field.read_cell(text)
        problems = Problems(None)
        ((_, row),) = terms.check_rows(table, [(Place("", 2), {column.name: text})], problems)
        refused = any(column.name in what for _, what, _ in problems.found)
        if text in CONVERTED.get(kind, ()):
            assert errors, text
        else:
            assert refused == (bool(errors) or (text in STRICTER and kind in ("integer", "number"))), (text, errors)
        if not refused:
            _, errors = field.read_cell(row[column.name])
            assert not errors, (text, row[column.name])


@pytest.mark.parametrize(
    ("name", "text", "written"),
    [
        ("cameraDelay", "12.0", "12"),
        ("cameraDelay", "1.000", None),  # a thousand, as some write it
        ("cameraHeight", "1,25", "1.25"),
        ("cameraHeight", "1,250", None),  # 1.25 m, or 1250 m
        ("latitude", "52,125", "52.125"),  # 52125 degrees there are none
        ("latitude", "+52.5", "52.5"),
        ("baitUse", "TRUE", "true"),
        ("baitUse", "0", "false"),
        ("deploymentStart", "2020-05-30 04:57:37.5+02:00", "2020-05-30T04:57:37+02:00"),
        ("deploymentStart", "2020-05-30T04:57+00:00", "2020-05-30T04:57:00Z"),
    ],
)
def test_values_of_other_programs(name, text, written):
    (column,) = (column for column in terms.columns("deployments") if column.name == name)
    if written is None:
        with pytest.raises(ValueError, match=text):
            column.read(text)
    else:
        assert column.read(text) == written


def test_columns_are_those_of_the_standard():
    assert [len(terms.columns(table)) for table in terms.TABLES] == [24, 11, 28]
    for table, schema in TABLES.items():
        ours = {column.name: column.descriptor for column in terms.columns(table)}
        for field in schema["fields"]:
            if table == "media" and field["name"] == "eventID":  # older packages have it
                continue
            constraints = {k: v for k, v in ours[field["name"]].get("constraints", {}).items() if k != "pattern"}
            wanted = {k: v for k, v in field.get("constraints", {}).items() if k != "pattern"}
            assert constraints == wanted, field["name"]
            assert ours[field["name"]]["type"] == field["type"]


def test_each_row_has_its_own_identifier():
    problems = Problems(None)
    rows = [(Place("", i), {"deploymentID": name}) for i, name in enumerate(["a", "b", "a", ""], start=2)]
    terms.check_rows("deployments", rows, problems)
    told = [(place.row, what) for place, what, _ in problems.found if "deploymentID" in what]
    assert told == [(4, "the deploymentID 'a' is in row 2 too"), (5, "the deploymentID is empty")]
