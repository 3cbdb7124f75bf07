"""Compares the lake with what happened to NVML while collectors ran.

    check_hung_gpu.py LAKE TOLD

TOLD is a JSON list, one entry per node: node, account, stalls, worker_ends, period (µs); all_hung where all four GPUs hung,
orphaned and released (how often) where that happened; and, where a GPU hung, hung (its
address), call, began (µs UTC or null) and patience (µs). Exit 0 only when every other GPU has a good row for every tick,
what was served is in the lake, coverage balances, and the events say what happened, once.
"""

import json
import sys

import gpu_answers
from check_lake import bits, rows
from lake import leave

GOOD = {0, 1}
WITHOUT_ANSWER = {2, 4, 5}


def check_events(told, events):
    """Problems of the node's events."""
    problems = []
    named = lambda name: [event for event in events if event["event"] == name]
    ends = named("nvml_worker_ended")
    if len(ends) != told["worker_ends"]:
        problems.append(f"{len(ends)} events nvml_worker_ended")
    stalls = sorted(named("gpu_stalled"), key=lambda event: event["ts"])
    phases = [event["phase"] for event in stalls]
    if told.get("all_hung"):
        if sorted(phases) != ["end"] * 4 + ["start"] * 4 or len({event["episode_id"] for event in stalls}) != 4:
            problems.append(f"stalls of four GPUs are told as {phases}")
        stalls = []
    elif phases != ["start", "end"] * told["stalls"] or len({event["episode_id"] for event in stalls}) != told["stalls"]:
        problems.append(f"stalls are told as {phases}")
    for event in stalls[:1]:
        details = json.loads(event["details_json"])
        print(f"{told['node']}: {event['message']}")
        if details["call"] != told["call"]:
            problems.append(f"stalled in {details['call']}")
        if told["began"] is not None:
            took = event["ts"] - told["began"]
            print(f"{told['node']}: told {took / 1e6:.2f} s after the hang began")
            if took > told["patience"]:
                problems.append(f"told after {took} us, more than {told['patience']}")
    # The simulator's counters begin with its library, so after a worker was killed they are lower, and a new session is
    # right; that the worker was away is no reason for one.
    reasons = [json.loads(event["details_json"])["reason"] for event in named("session_started")]
    sessions = [reason for reason in reasons if reason != "counters fell" or not told["worker_ends"]]
    if sessions and not told.get("released"):
        problems.append(f"sessions began anew: {sessions}")
    releases = [len(named(name)) for name in ["nvml_released", "nvml_resumed"]]
    if releases != [told.get("released", 0)] * 2:
        problems.append(f"releases are told {releases} times")
    if len(named("nvml_worker_orphaned")) != told.get("orphaned", 0):
        problems.append(f"{len(named('nvml_worker_orphaned'))} events nvml_worker_orphaned")
    return problems


def check_coverage(told, coverage, samples):
    """Problems of the node's coverage of gpu_sample."""
    names = ["expected", "collected", "failed", "late", "dropped", "lost_in_flight", "stale"]
    sums = {name: sum(row[name] for row in coverage) for name in names}
    released = sum(json.loads(row["drop_reasons_json"] or "{}").get("released", 0) for row in coverage)
    print(f"{told['node']}: {len(samples)} rows, coverage {sums}, released {released}")
    problems = []
    if sums["expected"] != sums["collected"] + sums["failed"] + sums["dropped"]:
        problems.append(f"coverage does not balance: {sums}")
    if sums["collected"] + sums["failed"] + sums["late"] != len(samples):
        problems.append(f"coverage tells other rows than {len(samples)}: {sums}")
    if sums["dropped"] != released or (released > 0) != bool(told.get("released")):
        problems.append(f"ticks were missed: {sums}, released {released}")
    return problems


def check_others(told, samples, hung):
    """Problems of the GPUs that did not hang."""
    problems = []
    for device in {row["device_id"] for row in samples} - {hung}:
        own = sorted((row for row in samples if row["device_id"] == device), key=lambda row: row["ts"])
        bad = [row["row_status"] for row in own if row["row_status"] not in GOOD]
        if bad and not told["worker_ends"] and not told.get("released"):
            problems.append(f"{device}: rows of status {bad}")
        gaps = [b["ts"] - a["ts"] for a, b in zip(own, own[1:])]
        if gaps and max(gaps) > 2 * told["period"] and not told.get("released"):
            problems.append(f"{device}: {max(gaps)} us without a row")
    return problems


def main(lake, told_file):
    tables = {name: rows(lake, name) for name in ["gpu_sample", "event", "coverage"]}
    bit_of, problems = bits(lake), []
    for told in json.load(open(told_file)):
        own = {name: [row for row in table if row["node"] == told["node"]] for name, table in tables.items()}
        samples, found = own["gpu_sample"], []
        found += check_events(told, own["event"])
        found += check_coverage(told, [row for row in own["coverage"] if row["table"] == "gpu_sample"], samples)
        late = {row["device_id"] for row in samples if row["row_status"] in {2, 3}}
        hung = next(iter(late)) if len(late) == 1 and told.get("stalls") else None
        if told.get("began") and hung is None:
            found.append(f"stale are {late}")
        found += check_others(told, samples, hung)
        # Rows of a GPU that could not tell who it is have the id made of its address.
        renamed = {}
        for event in own["event"]:
            if event["event"] == "device_identified":
                details = json.loads(event["details_json"])
                renamed[details["device_id_before"]] = details["device_id"]
        samples = [{**row, "device_id": renamed.get(row["device_id"], row["device_id"])} for row in samples]
        answered = [row for row in samples if row["row_status"] not in WITHOUT_ANSWER]
        differences, served = gpu_answers.compare(answered, [told["account"]], bit_of)
        ends = [event for event in own["event"] if event["event"] == "nvml_worker_ended"]
        cut_off = sum(json.loads(event["details_json"])["reads_in_flight"] for event in ends)
        unsaid = [difference for difference in differences if difference.endswith("served, not in the lake")]
        print(f"{told['node']}: {served} reads served, {len(unsaid)} cut off, {cut_off} of which events tell")
        found += [difference for difference in differences if difference not in unsaid][:10]
        if cut_off < told.get("cut_off", 0):
            found.append("no kill met a read")
        # A release cuts off reads that it does not name: an operator asked for it.
        if len(unsaid) > cut_off + 8 * told.get("released", 0):
            found += unsaid[:10]
        if not served:
            found.append("nothing was served")
        problems += [f"{told['node']}: {problem}" for problem in found]
    print("\n".join(problems[:40]), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    leave(main(*sys.argv[1:]))
