"""Lists the columns of the GPU tables that no simulated GPU has ever filled.

    check_filled.py LAKE

Exit 0 only when these are the ones that the catalog's sources name as another device's (field_dictionary has them).
"""

import sys

from lake import duckdb_connection, leave, path

TABLES = ["gpu_sample", "gpu_health", "gpu_link_sample", "device"]
# Sources that a simulated NVIDIA GPU is not: answers of miners, files of AMD's driver, the config.
OTHERS = (
    "version", "Avalon", "Antminer", "Whatsminer", "model table of the reader",
    "collector config", "hwmon", "sysfs", "gpu_metrics", "amd",
)


def main(lake):
    connection = duckdb_connection()
    problems, filled = [], 0
    for table in TABLES:
        sources = dict(
            connection.execute(
                f"""SELECT "column", source FROM delta_scan('{path(lake, "field_dictionary")}') WHERE "table" = ?""", [table]
            ).fetchall()
        )
        counts = connection.execute(f"SELECT count(COLUMNS(*)) FROM delta_scan('{path(lake, table)}')")
        empty = {column[0] for column, count in zip(counts.description, counts.fetchone()) if count == 0}
        filled += len(counts.description) - len(empty)
        explained = {column for column in empty if sources.get(column, "").startswith(OTHERS)}
        print(f"{table}: {len(sources)} columns, empty: {sorted(empty)}")
        problems += [f"{table}.{column} was never filled: {sources.get(column)}" for column in sorted(empty - explained)]
    print("\n".join(problems))
    return 1 if problems or filled < 250 else 0


if __name__ == "__main__":
    leave(main(sys.argv[1]))
