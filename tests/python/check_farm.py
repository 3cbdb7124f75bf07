"""Compares the lake of a farm with what its miners served and with what was done to them.

    check_farm.py LAKE ACCOUNT CHANGES PERIOD_US

Exit 0 only when every value served is in the lake exactly once and equal, every change of state is told by one event and by
the rows, no miner had more than two connections at once, and the period was held.
"""

import collections
import json
import sys

import miner_answers
from check_lake import rows, swapped
from lake import leave

CONNECTIONS_MAX = 2
# Cells are swapped among so many miners.
SWAPPED_AMONG = 20


def check_values(miners, boards, answers, changes):
    """Problems of the values, and a comparison of some miners with two cells swapped that must find them."""
    times = [(change["unit"], change["before_us"], change["us"]) for change in changes]
    differences, served = miner_answers.compare_with(miners, boards, answers, times)
    stale = sum(row["row_status"] == miner_answers.STALE for row in miners)
    print(f"{served} polls served, {len(miners)} rows of miners ({stale} of them stale), {len(boards)} of boards")
    some = sorted({row["device_id"] for row in miners})[:SWAPPED_AMONG]
    own_miners, own_boards = ([row for row in table if row["device_id"] in some] for table in [miners, boards])
    machines, _ = miner_answers.units(answers)
    names = {unit.name for unit in (miner_answers.unit_of(device_id, machines) for device_id in some) if unit}
    own_answers = [answer for answer in answers if answer["unit"] in names]
    right, _ = miner_answers.compare_with(own_miners, own_boards, own_answers, times)
    mutated, _ = miner_answers.compare_with(swapped(own_miners, "accepted_shares"), own_boards, own_answers, times)
    print(f"{len(differences)} differences; of {len(names)} miners {len(right)}, with two cells swapped {len(mutated)}")
    found = [] if len(mutated) >= len(right) + 2 else ["two cells were swapped, and the comparison did not find them"]
    return differences + found + ([] if served else ["no poll was served"])


def by_unit(table, machines):
    """Unit -> its rows in order."""
    found = collections.defaultdict(list)
    for row in sorted(table, key=lambda row: row["ts"]):
        unit = miner_answers.unit_of(row["device_id"], machines)
        if unit is not None:
            found[unit.name].append(row)
    return found


def check_states(changes, miners, events):
    """Problems of the rows and of the events of every change."""
    problems, told = [], collections.Counter()
    per_unit = collections.defaultdict(list)
    for change in changes:
        per_unit[change["unit"]].append(change)
    for unit, own in per_unit.items():
        ends = [change["before_us"] for change in own[1:]] + [float("inf")]
        state, wanted = "mining", []
        for change, end in zip(own, ends):
            after = [row for row in miners[unit] if row["ts"] - row["read_us"] > change["us"] and row["ts"] < end]
            seen = {(row["state"], row["state_reason"]) for row in after}
            right = {(change["state"], reason) for reason in change["reasons"]}
            if not seen or not seen <= right:
                problems.append(f"{unit} with {change['fault']}: {seen or 'no row'}, not {right}")
            else:
                told[(change["fault"], *seen.pop())] += 1
            if change["state"] != state:
                wanted.append((state, change["state"], set(change["reasons"])))
            state = change["state"]
        found = [json.loads(event["details_json"]) for event in events[unit]]
        matches = len(found) == len(wanted) and all(
            (event["from"], event["to"]) == (before, after) and event["reason"] in reasons
            for event, (before, after, reasons) in zip(found, wanted)
        )
        if not matches:
            problems.append(f"{unit}: events {found}, not {wanted}")
    for unit in miners.keys() - per_unit.keys():
        if events[unit]:
            problems.append(f"{unit}: nothing was done to it, and its state changed: {events[unit][0]['message']}")
    for (fault, state, reason), count in sorted(told.items(), key=str):
        print(f"{count} x {fault}: {state}{f', {reason}' if reason else ''}")
    return problems


def check_lateness(miners, period_us, faulty):
    """Problems of the period: how much later than due the polls of the healthy miners began."""
    late = []
    for unit, own in miners.items():
        begins = [row["ts"] - row["read_us"] for row in own]
        if unit not in faulty:
            late += [begin - begins[0] - round((begin - begins[0]) / period_us) * period_us for begin in begins[1:]]
            missed = round((begins[-1] - begins[0]) / period_us) + 1 - len(begins)
            late += [period_us] * missed
    late.sort()
    at = lambda share: late[min(len(late) - 1, int(len(late) * share))] / 1000
    print(f"lateness of {len(late)} polls: p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms, most {late[-1] / 1000:.1f} ms")
    return [] if at(0.99) * 1000 < period_us / 2 else [f"the period was not held: p99 {at(0.99):.0f} ms late"]


def main(lake, account, changes, period_us):
    miners, boards, events = (rows(lake, table) for table in ["miner_sample", "hashboard_sample", "event"])
    with open(changes, encoding="utf-8") as text:
        changes = json.load(text)
    answers = miner_answers.load([account])
    machines, _ = miner_answers.units(answers)
    own_events = by_unit([event for event in events if event["event"] == "miner_state"], machines)
    problems = check_values(miners, boards, answers, changes)
    miners = [row for row in miners if row["row_status"] != miner_answers.STALE]
    of_unit = by_unit(miners, machines)
    problems += check_states(changes, of_unit, own_events)
    problems += check_lateness(of_unit, int(period_us), {change["unit"] for change in changes})
    most = max(answer["connections"] for answer in answers)
    turned_away = sum(answer["turned_away"] for answer in answers)
    print(f"connections at once to one miner: {most}; turned away: {turned_away}")
    problems += [f"a miner had {most} connections at once"] if most > CONNECTIONS_MAX or turned_away else []
    units = {answer["unit"] for answer in answers}
    print(f"{len(units)} miners asked, {len(of_unit)} in the lake, {len(own_events)} with events")
    problems += [f"{unit}: not in the lake" for unit in units - of_unit.keys()]
    print(f"{len(problems)} problems")
    print("\n".join(problems[:400]), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    leave(main(*sys.argv[1:]))
