"""Checks a lake after the collector had to drop frames, against the account of the simulated NVML library.

    check_spool_limits.py LAKE ACCOUNT REASON KILLS

Exit 0 only when rows were dropped for REASON, every read that is missing is one that coverage calls dropped or lost in
flight, the events name as many rows, and coverage balances in each minute. A read that a kill cut off may have been served
or not, so each of KILLS may make a difference of one for each GPU.
"""

import json
import sys

import gpu_answers
from check_lake import bits, rows
from lake import leave

PARTS = ["collected", "failed", "dropped", "lost_in_flight"]


def main(lake, account, reason, kills):
    samples, coverage = rows(lake, "gpu_sample"), rows(lake, "coverage")
    differences, served = gpu_answers.compare(samples, [account], bits(lake))
    lost = [difference for difference in differences if difference.endswith("served, not in the lake")]
    problems = [difference for difference in differences if difference not in lost]

    sums, reasons = {}, {}
    for row in coverage:
        of = sums.setdefault((row["table"], row["minute"]), dict.fromkeys(["expected", "spooled", "late", *PARTS], 0))
        for name in of:
            of[name] += row[name]
        for name, count in json.loads(row["drop_reasons_json"] or "{}").items():
            reasons.setdefault(row["table"], {}).setdefault(name, 0)
            reasons[row["table"]][name] += count
    for key, of in sums.items():
        if of["expected"] != sum(of[name] for name in PARTS):
            problems.append(f"coverage of {key} does not balance: {of}")
    gpu = [of for (table, _), of in sums.items() if table == "gpu_sample"]
    total = {name: sum(of[name] for of in gpu) for name in gpu[0]}
    # A tick that was skipped served no read.
    read = dict(reasons.get("gpu_sample", {}))
    skipped = read.pop("tick_skipped", 0)
    if sum(read.values()) + skipped != total["dropped"]:
        problems.append(f"{total['dropped']} rows dropped, by reason {reasons}")
    excused = sum(read.values()) + total["lost_in_flight"]
    cut_off = kills * len({row["device_id"] for row in samples})
    if not excused - cut_off <= len(lost) <= excused:
        problems.append(f"{len(lost)} reads are missing, coverage says {reasons} and {total}")
    if total["collected"] + total["failed"] + total["late"] != len(samples):
        problems.append(f"the lake has {len(samples)} rows, coverage says {total}")
    if not read.get(reason):
        problems.append(f"nothing was dropped as {reason}: {reasons}")

    named = {}
    for row in rows(lake, "event"):
        if row["event"] == "frames_dropped":
            details = json.loads(row["details_json"])
            key = (details["table"], details["reason"])
            named[key] = named.get(key, 0) + details["rows"]
        if row["event"] == "collector_killed":
            for table, count in json.loads(row["details_json"]).get("rows_unwritten", {}).items():
                key = (table, "spool_not_written")
                named[key] = named.get(key, 0) + count
    told = {(table, name): n for table, of in reasons.items() for name, n in of.items() if name != "tick_skipped"}
    if named != told:
        problems.append(f"the events frames_dropped name {named}, coverage {told}")
    print(f"{served} reads served, {len(lost)} missing; coverage: {total}, {reasons}")
    print("\n".join(problems[:20]))
    return 1 if problems or served == 0 else 0


if __name__ == "__main__":
    leave(main(*sys.argv[1:4], int(sys.argv[4])))
