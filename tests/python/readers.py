"""Reads every table of a lake with pyarrow, deltalake, pandas, DuckDB, Polars and chDB and demands that all see the same.

    readers.py LAKE

Prints the rows per table. Exit 0 only when every cell of every table is the same for all, and every column has the type
that the lake's field_dictionary gives it. Times must be microseconds UTC.
"""

import datetime
import os
import sys

import catalog
import lake as readers
import pyarrow

READERS = {
    "pyarrow": readers.read_delta, "deltalake": readers.read_delta_rs, "pandas": readers.read_pandas,
    "duckdb": readers.read_duckdb, "polars": readers.read_polars, "chdb": readers.read_chdb,
}


def plain(value):
    """A value in one form for all readers."""
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            value = value.replace(tzinfo=datetime.timezone.utc)
        since = value - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    if isinstance(value, float) and value != value:
        return "NaN"
    return value


def rows(table, names, emptied=()):
    """The rows in an order of their own, as tuples of plain values; lists that are null are empty in the emptied columns."""
    nothing = lambda name: [] if name in emptied else None
    columns = [[nothing(name) if v is None else plain(v) for v in table[name].to_pylist()] for name in names]
    return sorted(zip(*columns), key=repr)


def plain_type(found):
    """A type as the dictionary names it; readers differ in how they lay out texts and lists, and in how they spell UTC."""
    if found in (pyarrow.large_string(), pyarrow.string_view()):
        return pyarrow.string()
    if pyarrow.types.is_list(found) or pyarrow.types.is_large_list(found):
        return pyarrow.list_(plain_type(found.value_type))
    if pyarrow.types.is_timestamp(found) and found.tz in ("Etc/UTC", "+00:00"):
        return pyarrow.timestamp(found.unit, tz="UTC")
    return found


def same_type(found, wanted):
    found = plain_type(found)
    if pyarrow.types.is_list(wanted):  # the name of a list's items is nobody's business
        return pyarrow.types.is_list(found) and found.value_type == wanted.value_type
    return found == wanted


def dictionary(lake):
    """Type of each (table, column)."""
    told = readers.read_delta(lake, "field_dictionary", ["table", "column", "type"]).to_pylist()
    names = catalog.DICTIONARY_NAMES
    return {(row["table"], row["column"]): catalog.TYPES[names.get(row["type"], row["type"])] for row in told}


def wrong_types(seen, table, types):
    """Columns whose type is not that of the dictionary, or of pyarrow where the dictionary does not know the table."""
    reference = {field.name: plain_type(field.type) for field in seen["pyarrow"].schema}
    wanted = {name: types.get((table, name), found) for name, found in reference.items()}
    for reader, found in seen.items():
        for field in found.schema:
            if not same_type(field.type, wanted[field.name]):
                yield f"{reader}: {field.name} is {field.type}, not {wanted[field.name]}"


def tables(lake):
    return [table for table in sorted(os.listdir(lake)) if os.path.isdir(os.path.join(lake, table, "_delta_log"))]


def report(table, seen, types):
    """Says what each reader saw of a table; whether all is as it should be."""
    names = seen["pyarrow"].column_names
    cells = {reader: rows(found, names) for reader, found in seen.items()}
    # ClickHouse has no lists that are null.
    lists = [field.name for field in seen["pyarrow"].schema if pyarrow.types.is_list(plain_type(field.type))]
    wanted = {reader: cells["pyarrow"] for reader in cells} | {"chdb": rows(seen["pyarrow"], names, lists)}
    same = cells == wanted
    wrong = list(wrong_types(seen, table, types))
    counts = ", ".join(f"{reader} {len(found)}" for reader, found in cells.items())
    print(f"{table}: {counts} rows, {'the same cells' if same else 'DIFFERENT CELLS'}")
    for problem in wrong:
        print(f"  WRONG TYPE {problem}")
    return same and not wrong


def main(lake):
    types = dictionary(lake)
    found = tables(lake)
    good = [report(table, {name: read(lake, table) for name, read in READERS.items()}, types) for table in found]
    return 0 if good and all(good) else 1


if __name__ == "__main__":
    readers.leave(main(sys.argv[1]))
