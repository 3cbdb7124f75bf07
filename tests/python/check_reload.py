"""Checks a lake after reloads that changed the period of the simulated GPUs.

    check_reload.py LAKE ACCOUNT CHANGES

CHANGES: [[when in µs UTC, period in ms], ...], the first from the start on. Exit 0 only when every read that was served
is in the lake once, coverage balances in each minute and has no tick too many or too few, and no two reads of a device
are further apart than the longer of the periods around them.
"""

import json
import sys

import gpu_answers
from check_lake import bits, rows
from lake import leave

# What a busy machine may add to the time between two reads, µs.
TOLERANCE = 250_000
SUMS = ["expected", "collected", "failed", "dropped", "lost_in_flight"]


def gaps(table, changes):
    """Sentences about reads of a device that are too far apart, and the number of reads."""
    begun = {}
    for row in table:
        begun.setdefault(row["device_id"], []).append(row["ts"] - row["read_us"])
    problems = []
    for device, times in begun.items():
        times.sort()
        for before, after in zip(times, times[1:]):
            # The last change may be in force from this tick on, or from the one before it.
            since = max((i for i, (when, _) in enumerate(changes) if when <= before), default=0)
            longest = max(period for _, period in changes[max(since - 1, 0) : since + 1]) * 1000
            following = [period for when, period in changes if before < when <= after]
            longest = max([longest] + [period * 1000 for period in following])
            if after - before > longest + TOLERANCE:
                problems.append(f"{device}: {after - before} µs between two reads, {longest} µs at most")
    return problems, begun


def ticks_wanted(times, changes):
    """How many ticks a device should have between its first and its last, by the periods in force."""
    first, last = times[0], times[-1]
    begins = [max(when, first) for when, _ in changes]
    ends = begins[1:] + [last]
    return 1 + sum(max(end - begin, 0) / (period * 1000) for begin, end, (_, period) in zip(begins, ends, changes))


def main(lake, account, changes):
    changes = json.load(open(changes))
    samples, events = rows(lake, "gpu_sample"), rows(lake, "event")
    problems, served = gpu_answers.compare(samples, [account], bits(lake))
    wide, begun = gaps(samples, changes)
    problems += wide

    minutes, total = {}, dict.fromkeys(SUMS, 0)
    for row in rows(lake, "coverage"):
        if row["table"] == "gpu_sample":
            sums = minutes.setdefault(row["minute"], dict.fromkeys(SUMS, 0))
            for name in SUMS:
                sums[name] += row[name]
                total[name] += row[name]
    for minute, sums in minutes.items():
        if sums["expected"] != sum(sums[name] for name in SUMS[1:]):
            problems.append(f"coverage of minute {minute} does not balance: {sums}")
    if total["collected"] + total["failed"] != len(samples):
        problems.append(f"coverage says {total}, the lake has {len(samples)} rows")
    # Each change moves the grid of a device by less than one tick.
    wanted = sum(ticks_wanted(times, changes) for times in begun.values())
    slack = len(begun) * len(changes)
    if abs(wanted - total["expected"]) > slack:
        problems.append(f"{total['expected']} ticks, by the periods {wanted:.0f} within {slack}")
    told = [row["event"] for row in events]
    if told.count("config_reloaded") != len(changes) - 1 or told.count("config_refused") != 1:
        problems.append(f"events: {told}")
    print(f"{served} reads served, {len(samples)} rows, {total}; {wanted:.0f} ticks by the periods")
    print("\n".join(problems[:20]))
    return 1 if problems or served == 0 else 0


if __name__ == "__main__":
    leave(main(*sys.argv[1:4]))
