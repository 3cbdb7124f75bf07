"""Checks a lake after a long outage was drained between BEGIN and END (µs UTC).

    check_drain.py LAKE BEGIN END WANTED

Exit 0 only when coverage balances and dropped nothing that was read, calls at least WANTED rows spooled, and the rows that
were read while the spool drained came in time.
"""

import json
import sys

from lake import leave, read_delta

# A row that was read while the spool drained may take this long to ingest, µs: it does not wait for the backlog.
FRESH_WITHIN = 30_000_000


def microseconds(column):
    return column.cast("int64").to_pylist()


def main(lake, begin, end, wanted):
    samples = read_delta(lake, "gpu_sample", ["ts", "received_at"])
    times = list(zip(microseconds(samples["ts"]), microseconds(samples["received_at"])))
    coverage = [row for row in read_delta(lake, "coverage").to_pylist() if row["table"] == "gpu_sample"]
    names = ["expected", "collected", "failed", "late", "dropped", "lost_in_flight", "spooled"]
    total = {name: sum(row[name] for row in coverage) for name in names}
    skipped = sum(json.loads(row["drop_reasons_json"] or "{}").get("tick_skipped", 0) for row in coverage)
    problems = []
    if total["expected"] != total["collected"] + total["failed"] + total["dropped"] + total["lost_in_flight"]:
        problems.append("coverage does not balance")
    if total["dropped"] != skipped or total["lost_in_flight"]:
        problems.append("rows were lost")
    if total["collected"] + total["failed"] + total["late"] != len(times):
        problems.append(f"the lake has {len(times)} rows")
    if total["spooled"] < wanted:
        problems.append(f"{total['spooled']} rows spooled, {wanted} at least")
    waited = sorted(received - ts for ts, received in times if begin <= ts <= end)
    if waited:
        middle, last = waited[len(waited) // 2], waited[-1]
        print(f"{len(waited)} rows were read while the spool drained; from read to ingest {middle / 1e6:.1f} s in the median, {last / 1e6:.1f} s at most")
        if last > FRESH_WITHIN:
            problems.append(f"a fresh row took {last / 1e6:.1f} s")
    print(f"coverage: {total}, {skipped} ticks skipped")
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    leave(main(sys.argv[1], *map(int, sys.argv[2:5])))
