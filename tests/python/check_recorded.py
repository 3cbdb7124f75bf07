"""Compares miner rows of a lake with the one recorded reply that a verbatim miner serves again and again.

    check_recorded.py LAKE ACCOUNT

Prints the row. Exit 0 only when every row of both tables is what the recording says.
"""

import json
import sys

import miner_answers
from check_lake import rows
from lake import leave


def main(lake, account):
    _, machines = miner_answers.units(miner_answers.load([account]))
    assert len(machines) == 1, f"one verbatim miner was asked, not {len(machines)}"
    unit = machines[0]
    poll = unit.poll(range(len(unit.answers)))
    mapping, boards = unit.make.MINER, unit.make.boards(poll)
    differences = []
    miners, hashboards = rows(lake, "miner_sample"), rows(lake, "hashboard_sample")
    for row in miners:
        differences += miner_answers.difference(row["ts"], mapping, poll, row, "miner_sample")
    for row in hashboards:
        key, index = (row["ts"], row["board_index"]), row["board_index"]
        differences += miner_answers.difference(key, boards[index], poll, row, "hashboard_sample")
    complete = len(miners) > 0 and len(hashboards) == len(miners) * len(boards)
    print(json.dumps({name: value for name, value in miners[0].items() if value is not None} if miners else {}, default=str))
    print(f"{len(miners)} miner rows, {len(hashboards)} board rows, {len(differences)} differences")
    print("\n".join(differences[:10]))
    return 0 if complete and not differences else 1


if __name__ == "__main__":
    leave(main(*sys.argv[1:]))
