"""Runs docs/queries/why_null.sql on a lake and checks that it tells the kinds of null apart.

    check_why_null.py LAKE QUERY LOST UNSUPPORTED DIVIDED

The last three are the PCI addresses of a GPU that is lost, of one without a fan, and of one that MIG has divided. Exit 0 only
when the answer for each is the right one, and another for each.
"""

import sys

from lake import duckdb_connection, leave, read_duckdb

FAN, CLOCK, LOAD = "fan_speed_percent", "sm_clock_megahertz", "gpu_utilization_percent"


def main(lake, query, lost, fanless, divided):
    with open(query, encoding="utf-8") as text:
        sql = text.read().replace("LAKE", lake)
    rows = duckdb_connection().execute(sql).fetchall()
    why = {}
    for device_id, column, reason, nulls in rows:
        why.setdefault((device_id, column), {})[reason] = nulls
    ids = {}
    for row in read_duckdb(lake, "device").to_pylist():
        ids.setdefault(row["pci_bus_id"], row["device_id"])
    problems = []

    def expect(address, column, reason):
        found = why.get((ids[address], column), {})
        print(f"{address} {column}: {found}")
        if reason not in found or (reason is None) != (not found):
            problems.append(f"{address} {column}: {found}, not {reason}")

    expect(fanless, FAN, "unsupported")
    if (ids[fanless], CLOCK) in why:
        problems.append(f"the clock of {fanless} is null: {why[ids[fanless], CLOCK]}")
    expect(lost, CLOCK, "failed with 15")
    expect(lost, FAN, "failed with 15")
    expect(divided, LOAD, "unsupported" if "unsupported" in why.get((ids[divided], LOAD), {}) else "not read")
    kinds = {reason for reasons in why.values() for reason in reasons}
    print(f"kinds of null: {sorted(kinds)}")
    if len(kinds) < 3:
        problems.append(f"only {kinds}")
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    leave(main(*sys.argv[1:]))
