"""Checks a lake after kills of a collector against the account of the simulated NVML library.

    check_killed_collector.py LAKE ACCOUNT KILLS [AT_MOST]

Exit 0 only when one stream holds all frames without a hole, every row is what was served, coverage balances with the
rows, and the reads that are missing are no more than coverage calls lost in flight. Where each kill was a loss of power, it
must have cost something in all, and AT_MOST reads each time.
"""

import sys

import gpu_answers
from check_lake import bits, rows
from lake import leave

TABLES = ["gpu_sample", "event", "device", "coverage"]


def once(table):
    """The rows without those of frames that came again, and the number of those."""
    seen = {}
    for row in table:
        key = tuple(value for name, value in sorted(row.items()) if name != "received_at")
        seen.setdefault(repr(key), row)
    return list(seen.values()), len(table) - len(seen)


def holes(table):
    """(stream, seq) that are missing below the highest seq of their stream."""
    streams = {}
    for row in table:
        streams.setdefault(row["stream_id"], set()).add(row["seq"])
    return [(s, seq) for s, seqs in streams.items() for seq in range(1, max(seqs) + 1) if seq not in seqs], set(streams)


def main(lake, account, kills, at_most):
    problems, streams, tables = [], set(), {}
    for name in TABLES:
        tables[name], again = once(rows(lake, name))
        missing, of = holes(tables[name])
        streams |= of
        print(f"{name}: {len(tables[name])} rows, {again} that came again, {len(missing)} seqs missing")
        problems += [f"{name}: frame {frame} is missing" for frame in missing]
        problems += [f"{name}: {again} rows are twice in the lake"] if again else []
    if len(streams) != 1:
        problems.append(f"{len(streams)} streams, not one")
    differences, served = gpu_answers.compare(tables["gpu_sample"], [account], bits(lake))
    lost = [difference for difference in differences if difference.endswith("served, not in the lake")]
    problems += [difference for difference in differences if difference not in lost]

    told = [row for row in tables["coverage"] if row["table"] == "gpu_sample"]
    total = {name: sum(row[name] for row in told) for name in ["expected", "collected", "failed", "late", "dropped", "lost_in_flight"]}
    print(f"{served} reads served, {len(lost)} lost; coverage: {total}")
    if total["expected"] != total["collected"] + total["failed"] + total["dropped"] + total["lost_in_flight"]:
        problems.append("coverage does not balance")
    if total["collected"] + total["failed"] + total["late"] != len(tables["gpu_sample"]):
        problems.append("coverage and the rows of gpu_sample differ")
    devices = len({row["device_id"] for row in tables["gpu_sample"]})
    if at_most and not lost:
        problems.append("no read is lost: the power was not lost, or the disk had everything")
    if len(lost) > total["lost_in_flight"] or total["lost_in_flight"] > kills * (at_most or devices):
        problems.append(f"{len(lost)} reads are lost, of {total['lost_in_flight']} in flight at {kills} kills")
    starts = sum(row["event"] == "collector_killed" for row in tables["event"])
    if starts != kills:
        problems.append(f"{starts} events collector_killed for {kills} kills")
    print("\n".join(problems[:20]))
    return 1 if problems or served == 0 else 0


if __name__ == "__main__":
    leave(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) if sys.argv[4:] else None))
