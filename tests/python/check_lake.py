"""Compares a lake, cell by cell, with what the simulators say they served.

    check_lake.py LAKE --gpu ACCOUNT... --miner ACCOUNT...

Then it swaps a value between two devices in one row and demands that the comparison finds it: a check that cannot fail
proves nothing. Exit 0 only when the lake is exactly what was served and the swap was found.
"""

import argparse
import copy

import gpu_answers
import lake as readers
import miner_answers
from readers import plain


def rows(lake, table):
    found = readers.read_delta(lake, table).to_pylist()
    return [{name: plain(value) for name, value in row.items()} for row in found]


def bits(lake):
    dictionary = readers.read_delta(lake, "field_dictionary").to_pylist()
    return {row["column"]: row["bit"] for row in dictionary if row["table"] == "gpu_sample" and row["bit"] is not None}


def swapped(samples, column):
    """The rows with one cell exchanged between two devices that differ in it."""
    mutated = copy.deepcopy(samples)
    first = mutated[0]
    other = next(r for r in mutated if r["device_id"] != first["device_id"] and r[column] != first[column])
    first[column], other[column] = other[column], first[column]
    return mutated


def report(name, count, differences):
    print(f"{name}: {count} reads served, {len(differences)} differences")
    for difference in differences[:10]:
        print(f"  {difference}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("lake")
    parser.add_argument("--gpu", nargs="*", default=[])
    parser.add_argument("--miner", nargs="*", default=[])
    arguments = parser.parse_args()
    failed = False
    if arguments.gpu:
        samples, bit_of = rows(arguments.lake, "gpu_sample"), bits(arguments.lake)
        differences, count = gpu_answers.compare(samples, arguments.gpu, bit_of)
        report("gpu_sample", count, differences)
        mutated, _ = gpu_answers.compare(swapped(samples, "power_milliwatts"), arguments.gpu, bit_of)
        print(f"gpu_sample with two cells swapped: {len(mutated)} differences")
        failed |= bool(differences) or count == 0 or len(mutated) != 2
    if arguments.miner:
        miners, boards = rows(arguments.lake, "miner_sample"), rows(arguments.lake, "hashboard_sample")
        differences, count = miner_answers.compare(miners, boards, arguments.miner)
        report("miner_sample and hashboard_sample", count, differences)
        column = "hashrate_hashes_per_second"
        mutated, _ = miner_answers.compare(swapped(miners, column), boards, arguments.miner)
        print(f"miner_sample with two cells swapped: {len(mutated)} differences")
        failed |= bool(differences) or count == 0 or len(mutated) != 2
    return 1 if failed else 0


if __name__ == "__main__":
    readers.leave(main())
