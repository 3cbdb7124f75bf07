"""Runs docs/queries/j_per_th.sql and chips_lost.sql on the lake of a farm.

    check_farm_queries.py LAKE ACCOUNT J_PER_TH CHIPS_LOST UNIT BOARD CHIPS

Exit 0 only when chips_lost shows the one board of that unit that lost so many chips, and no other; and when j_per_th is, for
every miner, what the rows of the lake give when divided here.
"""

import collections
import sys

import miner_answers
from check_lake import rows
from lake import duckdb_connection, leave
from readers import plain

RATES = ["1m", "5m", "5s"]


def run(path, lake):
    """The rows of a query, as dictionaries."""
    with open(path, encoding="utf-8") as text:
        found = duckdb_connection().execute(text.read().replace("LAKE", lake)).to_arrow_table().to_pylist()
    return [{name: plain(value) for name, value in row.items()} for row in found]


def efficiencies(lake):
    """(device, hour) -> joules per terahash."""
    sums = collections.defaultdict(lambda: [0, 0])
    for row in rows(lake, "miner_sample"):
        power = row["power_milliwatts"]
        power = row["power_estimated_milliwatts"] if power is None else power
        names = [f"hashrate_{window}_hashes_per_second" for window in RATES]
        names += ["hashrate_hashes_per_second", "hashrate_average_hashes_per_second"]
        rate = next((row[name] for name in names if row[name] is not None), None)
        if row["state"] == "mining" and power and rate:
            sums[row["device_id"], row["ts"] // 3_600_000_000][0] += power
            sums[row["device_id"], row["ts"] // 3_600_000_000][1] += rate
    return {key: power * 1e9 / rate for key, (power, rate) in sums.items()}


def main(lake, account, j_per_th, chips_lost, unit, board, chips):
    machines, _ = miner_answers.units(miner_answers.load([account]))
    problems = []
    lost = run(chips_lost, lake)
    print(f"chips_lost: {lost}")
    found = [(miner_answers.unit_of(row["device_id"], machines).name, row["board_index"], row["chips_lost"]) for row in lost]
    if found != [(unit, int(board), int(chips))]:
        problems.append(f"chips_lost shows {found}, not board {board} of {unit} with {chips} chips")
    told = run(j_per_th, lake)
    wanted = efficiencies(lake)
    if len(told) != len(wanted):
        problems.append(f"j_per_th has {len(told)} rows, not {len(wanted)}")
    makes = collections.defaultdict(list)
    for row in told:
        key = (row["device_id"], row["hour"] // 3_600_000_000)
        if abs(row["joules_per_terahash"] - wanted.get(key, 0)) > 0.01:
            problems.append(f"{key}: {row['joules_per_terahash']} J/TH, not {wanted.get(key)}")
        makes[row["model"], row["algorithm"], row["is_estimated"]].append(row["joules_per_terahash"])
    for (model, algorithm, estimated), own in sorted(makes.items(), key=str):
        kind = "estimated" if estimated else "at the wall"
        print(f"{model} ({algorithm}): {len(own)} miners, {min(own)} to {max(own)} J/TH, power {kind}")
    print("\n".join(problems[:20]))
    return 1 if problems or not told else 0


if __name__ == "__main__":
    leave(main(*sys.argv[1:]))
