"""Reads every table of a lake with deltalake, DuckDB and Polars and demands that all three see the same rows.

    readers.py LAKE

Prints the rows per table. Exit 0 only when every cell of every table is the same for all three.
"""

import datetime
import os
import sys

import lake as readers


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


def rows(table, names):
    """The rows in an order of their own, as tuples of plain values."""
    columns = [[plain(v) for v in table[name].to_pylist()] for name in names]
    return sorted(zip(*columns), key=repr)


def main(lake):
    failed = False
    for table in sorted(os.listdir(lake)):
        if not os.path.isdir(os.path.join(lake, table, "_delta_log")):
            continue
        delta = readers.read_delta(lake, table)
        names = delta.column_names
        seen = {"deltalake": rows(delta, names)}
        seen["duckdb"] = rows(readers.read_duckdb(lake, table), names)
        seen["polars"] = rows(readers.read_polars(lake, table), names)
        same = all(other == seen["deltalake"] for other in seen.values())
        failed |= not same
        counts = ", ".join(f"{reader} {len(found)}" for reader, found in seen.items())
        print(f"{table}: {counts} rows, {'the same cells' if same else 'DIFFERENT CELLS'}")
    return 1 if failed else 0


if __name__ == "__main__":
    readers.leave(main(sys.argv[1]))
