"""Compares the lake of a drill with what the simulated devices say they served.

    check_drill.py LAKE --miner ACCOUNT --node NAME,KILLS,ACCOUNT... [--lossy]

Exit 0 only when every row is what was served and is there once, no frame of a stream is missing, what is missing was in
flight at a kill and is named by coverage (in a lossy drill: or was dropped, and counted so), or, where the worker that calls
NVML was killed, by its event, coverage balances, and each kill of a collector is told by one event.
"""

import argparse
import json
import sys

import gpu_answers
import miner_answers
from check_killed_collector import holes
from check_lake import bits, rows, swapped
from lake import leave

TABLES = ["gpu_sample", "miner_sample", "hashboard_sample", "event", "device", "coverage"]
# Rows that hold no answer: stale, unreachable, lost.
LOST = 5
WITHOUT_ANSWER = {2, 4, LOST}
COUNTS = ["expected", "collected", "failed", "late", "dropped", "lost_in_flight"]


def repeated(table):
    """How many rows are there twice, whatever their frame."""
    seen = [repr([value for name, value in sorted(row.items()) if name != "received_at"]) for row in table]
    return len(seen) - len(set(seen))


def answered(samples, counter):
    """The rows that hold an answer; and sentences about those that should hold none but do."""
    # A GPU that was lost between two calls has the values of before.
    has_answer = lambda row: row["row_status"] not in WITHOUT_ANSWER or row["row_status"] == LOST and row[counter] is not None
    empty = [row for row in samples if not has_answer(row)]
    odd = [f"{row['device_id']} at {row['ts']} has no answer and a value" for row in empty if row[counter] is not None]
    return [row for row in samples if has_answer(row)], odd


def coverage_of(tables, node, table):
    """Sums of the node's coverage of a table."""
    told = [row for row in tables["coverage"] if (row["node"], row["table"]) == (node, table)]
    sums = {name: sum(row[name] for row in told) for name in COUNTS}
    # A tick that was due while a read was in flight was never begun: coverage counts it, but no answer is missing.
    reasons = [json.loads(row["drop_reasons_json"] or "{}") for row in told]
    sums["skipped"] = sum(reason.get("tick_skipped", 0) for reason in reasons)
    return sums


def excused(told):
    """How many reads may be missing."""
    return told["lost_in_flight"] + told["dropped"] - told["skipped"]


def ticks_lost(tables, node):
    """(table, address) -> reads that the events of the kills call lost."""
    found = {}
    for row in tables["event"]:
        if row["node"] == node and row["event"] == "collector_killed":
            for tick in json.loads(row["details_json"])["ticks"]:
                key = (tick["table"], tick["address"])
                found[key] = found.get(key, 0) + 1
    return found


def cut_off(tables, node):
    """How many reads of GPUs the ends of workers cut off, as their events name them."""
    ends = [row for row in tables["event"] if row["node"] == node and row["event"] == "nvml_worker_ended"]
    reads = [read for row in ends for read in json.loads(row["details_json"])["reads"]]
    return sum(read["table"] == "gpu_sample" for read in reads)


def check_node(tables, node, kills, lossy):
    """Problems of a node's coverage and events."""
    problems = []
    for table in TABLES[:3]:
        told = coverage_of(tables, node, table)
        there = sum(row["node"] == node for row in tables[table])
        print(f"{node} {table}: {there} rows; coverage: {told}")
        if told["expected"] != told["collected"] + told["failed"] + told["dropped"] + told["lost_in_flight"]:
            problems.append(f"{node}: coverage of {table} does not balance: {told}")
        if told["collected"] + told["failed"] + told["late"] != there:
            problems.append(f"{node}: coverage of {table} tells other rows than the {there} that are there: {told}")
        if told["dropped"] != told["skipped"] and not lossy:
            problems.append(f"{node}: rows of {table} were dropped: {told}")
    starts = sum(row["node"] == node and row["event"] == "collector_killed" for row in tables["event"])
    if starts != kills:
        problems.append(f"{node}: {starts} events collector_killed for {kills} kills")
    return problems


def excuse(name, differences, allowed, problems):
    """Sorts what is missing from what is wrong. `allowed`: how many reads coverage calls lost or dropped."""
    lost = [difference for difference in differences if difference.endswith("served, not in the lake")]
    wrong = [difference for difference in differences if difference not in lost]
    problems += wrong
    print(f"{name}: {len(lost)} of them not in the lake, of {allowed} that coverage calls lost; {len(wrong)} differences")
    if len(lost) > allowed:
        problems += [f"{name}: {len(lost)} reads are missing, {allowed} are excused"] + lost[:20]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("lake")
    parser.add_argument("--miner", required=True)
    parser.add_argument("--node", action="append", default=[])
    parser.add_argument("--lossy", action="store_true")
    arguments = parser.parse_args()
    nodes = [node.split(",", 2) for node in arguments.node]
    tables, problems = {name: rows(arguments.lake, name) for name in TABLES}, []

    for name, table in tables.items():
        missing, streams = holes(table)
        again = repeated(table)
        print(f"{name}: {len(table)} rows, {again} twice, {len(streams)} streams, {len(missing)} frames missing")
        problems += [f"{name}: {again} rows are twice in the lake"] if again else []
        if not arguments.lossy:
            problems += [f"{name}: frame {frame} is missing" for frame in missing[:20]]
    for node, kills, _ in nodes:
        problems += check_node(tables, node, int(kills), arguments.lossy)

    gpus, odd = answered(tables["gpu_sample"], "energy_millijoules")
    problems += odd
    bit_of = bits(arguments.lake)
    for node, _, account in nodes:
        own = [row for row in gpus if row["node"] == node]
        differences, served = gpu_answers.compare(own, [account], bit_of)
        told = coverage_of(tables, node, "gpu_sample")
        print(f"{node}: {served} GPU reads served, {len(own)} in the lake")
        cut = cut_off(tables, node)
        print(f"{node}: {cut} reads cut off by the end of a worker")
        excuse(f"{node} GPUs", differences, excused(told) + cut, problems)
        named = sum(count for (table, _), count in ticks_lost(tables, node).items() if table == "gpu_sample")
        if named != told["lost_in_flight"] and not arguments.lossy:
            problems.append(f"{node}: events name {named} reads of GPUs lost in flight, coverage {told['lost_in_flight']}")
        mutated, _ = gpu_answers.compare(swapped(own, "power_milliwatts"), [account], bit_of)
        if len(mutated) != len(differences) + 2:
            problems.append(f"{node}: two cells were swapped, and the comparison did not find them")
        problems += [] if served else [f"{node}: nothing was served"]

    miners, odd = answered(tables["miner_sample"], "accepted_shares")
    problems += odd
    boards = [row for row in tables["hashboard_sample"] if row["row_status"] not in WITHOUT_ANSWER]
    differences, served = miner_answers.compare(miners, boards, [arguments.miner])
    told = [coverage_of(tables, node, "miner_sample") for node, _, _ in nodes]
    print(f"miners: {served} polls served, {len(miners)} in the lake")
    excuse("miners", differences, sum(excused(each) for each in told), problems)
    problems += [] if served else ["no poll was served"]
    print("\n".join(problems[:40]), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    leave(main())
