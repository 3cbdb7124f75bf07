"""Reads a table of the lake with each of the three readers that racklake promises: deltalake, DuckDB, Polars."""

import os
import sys

import deltalake
import duckdb
import duckdb_extension_delta
import polars


def path(lake, table):
    return os.path.join(lake, table)


def read_delta(lake, table, columns=None):
    """The table as deltalake (delta-rs) reads it, a pyarrow Table."""
    return deltalake.DeltaTable(path(lake, table)).to_pyarrow_table(columns=columns)


def duckdb_connection():
    """DuckDB with its delta extension, from the package that carries it."""
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    folder = os.path.dirname(duckdb_extension_delta.__file__)
    found = [os.path.join(base, f) for base, _, files in os.walk(folder) for f in files if f.endswith(".duckdb_extension")]
    connection.execute(f"LOAD '{found[0]}'")
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def read_duckdb(lake, table):
    """The table as DuckDB's delta_scan reads it, a pyarrow Table."""
    return duckdb_connection().execute(f"SELECT * FROM delta_scan('{path(lake, table)}')").to_arrow_table()


def read_polars(lake, table):
    """The table as Polars reads it, a pyarrow Table."""
    return polars.scan_delta(path(lake, table)).collect().to_arrow()


def leave(status):
    """Ends the process at once: the readers' native threads do not always survive the interpreter's own way out."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
