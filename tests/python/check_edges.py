"""Checks the events of a GPU that goes wrong in every way that rows show, and is well again.

    check_edges.py LAKE PCI_ADDRESS

Exit 0 only when each rise is told once, each state as a start and an end with one episode_id, both at a time when the rows
begin or cease to show it, nothing is told of any other GPU, and only the ill one was read more often after its events.
"""

import sys
from collections import Counter, defaultdict

from lake import leave, read_delta

STATES = [
    "throttled", "remap_pending", "remap_failed", "remap_rows_used_up", "sram_threshold_exceeded", "repair_pending", "recovery_action",
    "pcie_width_reduced", "nvlink_down",
]
RISES = ["ecc_uncorrected", "rows_remapped"]
# Ends ten minutes after the last error.
BEGUN = ["ecc_corrected"]
# Told of any GPU, whatever its state.
USUAL = {"collector_start", "collector_stop", "session_started", "nvml_event"}


def main(lake, address):
    devices = {row["pci_bus_id"]: row["device_id"] for row in read_delta(lake, "device").to_pylist()}
    ill, problems = devices[address], []
    columns = ["ts", "event", "phase", "episode_id", "device_id", "code", "severity", "details_json"]
    told = defaultdict(list)
    for row in sorted(read_delta(lake, "event", columns).to_pylist(), key=lambda row: row["ts"]):
        if row["event"] in USUAL:
            continue
        if row["device_id"] != ill:
            problems.append(f"told of another: {row}")
        told[row["event"]].append(row)
    for event, rows in told.items():
        print(event, [(row["phase"], row["code"], row["details_json"]) for row in rows])
    for event in STATES:
        episodes = defaultdict(list)
        for row in told[event]:
            episodes[row["episode_id"]].append(row["phase"])
        if not episodes or any(phases != ["start", "end"] for phases in episodes.values()):
            problems.append(f"{event}: {dict(episodes)}")
    for event in RISES:
        if [row["phase"] for row in told[event]] != [None]:
            problems.append(f"{event}: {told[event]}")
    for event in BEGUN:
        if [row["phase"] for row in told[event]] != ["start"]:
            problems.append(f"{event}: {told[event]}")
    surplus = set(told) - set(STATES + RISES + BEGUN)
    if surplus - {"page_retirement_pending", "pages_retired"}:
        problems.append(f"nothing else was to be told: {surplus}")

    samples = read_delta(lake, "gpu_sample", ["ts", "device_id", "throttle_reasons_mask", "row_status"]).to_pylist()
    shown = [row["ts"] for row in samples if row["device_id"] == ill and (row["throttle_reasons_mask"] or 0) & 128]
    brake = [row["ts"] for row in told["throttled"] if row["code"] == 128]
    if not brake or brake[0] != min(shown) or brake[1] <= max(shown):
        problems.append(f"the power brake was told at {brake}, and shown from {min(shown)} to {max(shown)}")
    per_second = {
        device: Counter(int(row["ts"].timestamp()) for row in samples if row["device_id"] == device)
        for device in devices.values()
    }
    for device, seconds in per_second.items():
        busiest = sorted(seconds.values())[-4:]
        print(f"{device}: up to {busiest} rows a second, {sum(seconds.values())} in {len(seconds)} s")
        if (min(busiest) < 8) if device == ill else (max(busiest) > 2):
            problems.append(f"{device} was read {busiest} times a second")
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    leave(main(*sys.argv[1:]))
