"""Runs the queries of docs/queries on a lake with planted faults: each must return exactly what was planted for it.

    check_queries.py FOLDER QUERIES

FOLDER is made anew for the lake. Exit 0 only when every query finds all of its faults and no device that only looks so.
"""

import os
import shutil
import sys

import planted_lake
from lake import duckdb_connection, leave
from planted_lake import MINUTE, MONDAY


def minute(ts):
    return None if ts is None else (ts - MONDAY) // MINUTE


def by_key(pairs):
    """A dict, in which a key that comes twice shows."""
    answer = {}
    for key, value in pairs:
        answer[key] = ("twice", answer[key], value) if key in answer else value
    return answer


def off_bus(rows):
    answer = {}
    for r in rows:
        answer.setdefault((r["device_id"], r["fell_at"]), []).append(r["energy_millijoules"])
    return {key: set(minutes) if len(set(minutes)) == len(minutes) else minutes for key, minutes in answer.items()}


def xids(rows):
    told = ("gpu_days", "failures", "device_ids", "failures_per_1000_gpu_days")
    rows = [r for r in rows if r["driver_version"]]  # that of other scenarios is not told
    return by_key(((r["model"], r["driver_version"], r["month_begin"]), tuple(r[name] for name in told)) for r in rows)


def trust(rows):
    asked = ("gpu_temp_celsius", "memory_temp_celsius", "fan_speed_percent")
    answer = by_key(((r["version"], r["column_name"]), tuple(r[n] for n in ("received", "failed", "unsupported", "missing")))
                    for r in rows)
    return {key: value for key, value in answer.items() if key[1] in asked or key == ("1.0.0", "sm_clock_megahertz")}


def throttles(rows):
    told = ("heat_hours", "power_brake_hours", "clock_lost_to_heat_percent", "clock_lost_to_power_brake_percent")
    return by_key(((r["device_id"], r["week_begin"]), tuple(r[name] for name in told)) for r in rows)


def each(*names):
    """The rows as a set of tuples; a list where one comes twice, which equals no set."""
    def answer(rows):
        found = [tuple(r[name] for name in names) for r in rows]
        return set(found) if len(set(found)) == len(found) else found
    return answer


def remaps(rows):
    return {(r["device_id"], r["serial"], r["slot_number"], minute(r["last_read"]) // 60) for r in rows}


def silences(rows):
    return {(r["device_id"], minute(r["last_minute"]), minute(r["back"]), r["silent_minutes"], r["told"]) for r in rows}


# What is compared of the rows that a query returns.
ANSWERS = {
    "ecc_bursts": each("device_id", "hour"), "remap_risk": remaps,
    "fatal_xid_rate": xids, "before_off_bus": off_bus, "silent_detachment": silences, "throttled_hours": throttles,
    "data_trust": trust, "slow_fans": each("device_id", "fan", "day"),
}


def main(folder, queries):
    shutil.rmtree(folder, ignore_errors=True)
    expected = planted_lake.make(folder)
    connection, failed = duckdb_connection(), False
    for query, answer in ANSWERS.items():
        with open(os.path.join(queries, f"{query}.sql"), encoding="utf-8") as text:
            rows = connection.execute(text.read().replace("LAKE", folder)).to_arrow_table().to_pylist()
        found = answer(rows)
        same = found == expected[query]
        failed |= not same
        print(f"{query}: {len(found)} found, {'exactly what was planted' if same else 'NOT WHAT WAS PLANTED'}")
        if not same:
            print(f"  planted {expected[query]}\n  found   {found}")
    return 1 if failed else 0


if __name__ == "__main__":
    leave(main(*sys.argv[1:]))
