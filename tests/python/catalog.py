"""The tables of the catalog as pyarrow schemas, read from the same files that racklake is built from."""

import functools
import os
import tomllib

import pyarrow

FOLDER = os.path.join(os.path.dirname(__file__), "../../schemas/catalog")
TYPES = {
    "i8": pyarrow.int8(),
    "i32": pyarrow.int32(),
    "i64": pyarrow.int64(),
    "f32": pyarrow.float32(),
    "f64": pyarrow.float64(),
    "string": pyarrow.string(),
    "timestamp": pyarrow.timestamp("us", tz="UTC"),
    "list_i32": pyarrow.list_(pyarrow.int32()),
}
# How field_dictionary names a type, where that is not the name in the catalog's files.
DICTIONARY_NAMES = {"list<i32>": "list_i32"}
MASK_BITS = 63


@functools.cache
def load(name):
    with open(os.path.join(FOLDER, f"{name}.toml"), "rb") as file:
        return tomllib.load(file)


@functools.cache
def columns(table):
    """The columns of a table, common ones first, as schemas/build.rs chooses them."""
    own = load(table)
    sample, wide = own.get("sample", False), any(c.get("bit", 0) >= MASK_BITS for c in own["column"])
    there = {
        None: True,
        "device": sample or own.get("device", False),
        "sample": sample,
        "wide": sample and wide,
    }
    return [c for c in load("common")["column"] if there[c.get("on")]] + own["column"]


def schema(table):
    """What the lake's table has: the columns, and the partition column of the day."""
    fields = [pyarrow.field(c["name"], TYPES[c["type"]]) for c in columns(table)]
    return pyarrow.schema(fields + [pyarrow.field("dt", pyarrow.date32())])


def bit(table, column):
    """The bit of a column in the masks."""
    return next(c["bit"] for c in columns(table) if c["name"] == column)
