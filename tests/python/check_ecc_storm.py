"""Checks what the lake shows of a storm of correctable errors that makes calls of one GPU slow.

    check_ecc_storm.py LAKE SLOW_US

Exit 0 only when the reads of exactly one GPU take longer and longer up to SLOW_US and more, its ECC counters rise, an episode
`ecc_corrected` of it has begun, and all other GPUs were read at every tick.
"""

import json
import sys
from collections import defaultdict

from lake import leave, read_delta

OK, PARTIAL, STALE, LATE = 0, 1, 2, 3


def by_device(rows):
    devices = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["ts"]):
        devices[row["device_id"]].append(row)
    return devices


def gaps(rows):
    times = [row["ts"].timestamp() for row in rows]
    return [after - before for before, after in zip(times, times[1:])]


def main(lake, slow_us):
    samples = by_device(read_delta(lake, "gpu_sample", ["device_id", "ts", "row_status", "read_us"]).to_pylist())
    columns = ["device_id", "ts", "row_status", "read_us", "ecc_corrected_volatile"]
    health = by_device(read_delta(lake, "gpu_health", columns).to_pylist())
    events = read_delta(lake, "event", ["event", "phase", "device_id", "details_json"]).to_pylist()
    problems, slow = [], []
    for device, rows in samples.items():
        returned = [row["read_us"] for row in rows if row["row_status"] in (OK, PARTIAL, LATE)]
        if max(returned) < slow_us / 2:
            if {row["row_status"] for row in rows} - {OK, PARTIAL}:
                problems.append(f"{device} has rows of status {({row['row_status'] for row in rows})}")
            if max(gaps(rows)) > 2.5 * sorted(gaps(rows))[len(rows) // 2] + 0.5:
                problems.append(f"{device} was not read for {max(gaps(rows))} s")
            continue
        slow.append(device)
        first = sorted(returned[: len(returned) // 2])[0]
        print(f"{device}: reads took {first} µs at first and up to {max(returned)} µs; "
              f"{sum(row['row_status'] == STALE for row in rows)} stale rows, {sum(row['row_status'] == LATE for row in rows)} late")
        if max(returned) < slow_us or first > slow_us / 10 or not any(row["row_status"] == STALE for row in rows):
            problems.append(f"{device}: read_us {returned}")
        counts = [row["ecc_corrected_volatile"] for row in health[device] if row["ecc_corrected_volatile"] is not None]
        print(f"{device}: corrected errors {counts}")
        if len(counts) < 3 or counts != sorted(counts) or counts[-1] <= counts[0]:
            problems.append(f"{device}: corrected errors {counts}")
    told = [event for event in events if event["event"] == "ecc_corrected" and event["phase"] == "start"]
    print(f"events: {[(event['device_id'], json.loads(event['details_json'])) for event in told]}")
    if len(slow) != 1 or [event["device_id"] for event in told] != slow:
        problems.append(f"slow are {slow}; told are {[event['device_id'] for event in told]}")
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    leave(main(sys.argv[1], int(sys.argv[2])))
