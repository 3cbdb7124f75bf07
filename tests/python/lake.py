"""Reads a table of the lake with each of the readers that racklake promises, as a pyarrow Table."""

import os
import sys

import deltalake
import duckdb
import duckdb_extension_delta
import polars
import pyarrow


def path(lake, table):
    return os.path.join(lake, table)


def read_delta(lake, table, columns=None):
    """The table as pyarrow reads the files that deltalake (delta-rs) names."""
    return deltalake.DeltaTable(path(lake, table)).to_pyarrow_table(columns=columns)


def read_delta_rs(lake, table):
    """The table as deltalake's own engine (DataFusion) reads it."""
    engine = deltalake.QueryBuilder().register("t", deltalake.DeltaTable(path(lake, table)))
    return pyarrow.table(engine.execute("SELECT * FROM t").read_all())


def duckdb_connection():
    """DuckDB with its delta extension, from the package that carries it."""
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    folder = os.path.dirname(duckdb_extension_delta.__file__)
    found = [os.path.join(base, f) for base, _, files in os.walk(folder) for f in files if f.endswith(".duckdb_extension")]
    connection.execute(f"LOAD '{found[0]}'")
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def read_duckdb(lake, table):
    """The table as DuckDB's delta_scan reads it."""
    return duckdb_connection().execute(f"SELECT * FROM delta_scan('{path(lake, table)}')").to_arrow_table()


def read_polars(lake, table):
    """The table as Polars reads it."""
    return polars.scan_delta(path(lake, table)).collect().to_arrow()


def read_pandas(lake, table):
    """The table as pandas holds it. Arrow's types keep integers with nulls whole; pandas' own make floats of them."""
    import pandas  # large, and only this reader needs it

    frame = deltalake.DeltaTable(path(lake, table)).to_pandas(types_mapper=pandas.ArrowDtype)
    return pyarrow.Table.from_pandas(frame, preserve_index=False)


def read_chdb(lake, table):
    """The table as chDB (ClickHouse) reads it."""
    import chdb  # large, and only this reader needs it

    place = os.path.abspath(path(lake, table))
    query = f"SELECT * FROM deltaLakeLocal('{place}') SETTINGS output_format_arrow_string_as_string = 1"
    before = os.getcwd()
    os.chdir(lake)  # it reads nothing outside of the folder that it runs in
    try:
        with pyarrow.ipc.open_stream(chdb.query(query, "ArrowStream").bytes()) as stream:
            return stream.read_all()
    finally:
        os.chdir(before)


def leave(status):
    """Ends the process at once: the readers' native threads do not always survive the interpreter's own way out."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
