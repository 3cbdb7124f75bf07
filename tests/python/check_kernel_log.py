"""Checks the rows of `event` against a kernel log.

    check_kernel_log.py LAKE LOG TWINS NVML_ONLY KILLS

Exit 0 only when each line that is an event is one row with the right device, code, process, advice and place in the log,
no row is of another line, NVML's own rows are those that the log does not have, and the twins are counted.
"""

import json
import re
import sys
from collections import Counter

from lake import leave, read_delta

XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-f:]+)\): (\d+), pid=(\d+), name=(\w+)")
COLUMNS = ["event", "source", "code", "pci_bus_id", "device_id", "session_id", "message", "severity", "details_json"]


def wanted(log):
    """What each line of the log is to become: seq -> (event, code, pci, pid)."""
    lines = {}
    with open(log, encoding="utf-8") as text:
        for line in text:
            if line.startswith(" "):
                continue
            head, message = line.rstrip("\n").split(";", 1)
            seq = int(head.split(",")[1])
            if found := XID.match(message):
                lines[seq] = ("xid", int(found[2]), found[1], int(found[3]), message)
            elif "SXid" in message:
                lines[seq] = ("sxid", 28006, "0000:c1:00.0", None, message)
            elif "fallen off the bus" in message:
                lines[seq] = ("gpu_fell_off_the_bus", None, "0000:61:00.0", None, message)
    return lines


def told(row):
    details = json.loads(row["details_json"])
    return details["seq"], (row["event"], row["code"], row["pci_bus_id"], details.get("pid"), row["message"])


def devices(rows):
    """The device of each address, by the rows of the log and of NVML; each must be one."""
    found = {}
    for row in rows:
        if row["event"] == "xid":
            found.setdefault(row["pci_bus_id"][:10], set()).add(row["device_id"])
    return found


def main(lake, log, twins, nvml_only, kills):
    rows = read_delta(lake, "event", COLUMNS).to_pylist()
    from_log = [row for row in rows if row["source"] == "kmsg" and row["event"] != "kernel_log_gap"]
    from_nvml = [row for row in rows if row["source"] == "nvml"]
    problems, lines = [], wanted(log)
    seqs = Counter(told(row)[0] for row in from_log)
    problems += [f"line {seq} is {count} rows" for seq, count in seqs.items() if count > 1]
    problems += [f"line {seq} has no row: {line}" for seq, line in lines.items() if seq not in seqs]
    for row in from_log:
        seq, is_told = told(row)
        if lines.get(seq) != is_told:
            problems.append(f"line {seq}: {is_told} instead of {lines.get(seq)}")
        details = json.loads(row["details_json"])
        if row["event"] == "xid" and not (details["action"] and details["catalogue"].startswith("nvidia-xid-errors/")):
            problems.append(f"line {seq} has no advice: {details}")
    for address, ids in devices(from_log + from_nvml).items():
        if len(ids) != 1 or not next(iter(ids)).startswith("GPU-"):
            problems.append(f"{address} is {ids}")
    if Counter(row["code"] for row in from_nvml) != Counter({95: nvml_only} if nvml_only else {}):
        problems.append(f"NVML's rows: {Counter(row['code'] for row in from_nvml)}")
    gaps = [row for row in rows if row["event"] == "kernel_log_gap"]
    problems += [f"a gap was told: {gap}" for gap in gaps]
    coverage = read_delta(lake, "coverage", ["table", "drop_reasons_json"]).to_pylist()
    reasons = [json.loads(row["drop_reasons_json"] or "{}") for row in coverage if row["table"] == "event"]
    merged = sum(reason.get("in_kernel_log", 0) for reason in reasons)
    if merged != twins:
        problems.append(f"{merged} twins are counted, not {twins}")
    killed = sum(row["event"] == "collector_killed" for row in rows)
    if killed != kills:
        problems.append(f"{killed} kills are told, not {kills}")
    print(f"{len(lines)} lines, {len(from_log)} rows of the log, {len(from_nvml)} of NVML alone, {merged} twins dropped, {killed} kills")
    print("\n".join(problems[:20]))
    return 1 if problems or len(lines) < 10_000 else 0


if __name__ == "__main__":
    leave(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
