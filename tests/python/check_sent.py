"""Compares gpu_sample of a lake with what the test's senders remember: nothing lost, nothing doubled.

    check_sent.py LAKE ACCOUNT

ACCOUNT is a JSON list of {"stream_id", "node", "frames": {seq: [energy, ...]}}. Exit 0 only when both agree.
"""

import json
import sys
from collections import Counter

from lake import leave, read_delta


def main(lake, account):
    wanted = Counter()
    for stream in json.load(open(account)):
        for seq, energies in stream["frames"].items():
            for energy in energies:
                wanted[(stream["stream_id"], int(seq), energy, stream["node"], len(energies))] += 1
    columns = ["stream_id", "seq", "energy_millijoules", "node", "frame_rows"]
    table = read_delta(lake, "gpu_sample", columns)
    found = Counter(zip(*(table[name].to_pylist() for name in columns)))
    lost = sum((wanted - found).values())
    extra = found - wanted
    doubled = sum(count for key, count in extra.items() if key in wanted)
    unknown = sum(count for key, count in extra.items() if key not in wanted)
    print(f"{sum(wanted.values())} rows sent, {lost} lost, {doubled} doubled, {unknown} unknown")
    return 0 if lost == doubled == unknown == 0 else 1


if __name__ == "__main__":
    leave(main(*sys.argv[1:]))
