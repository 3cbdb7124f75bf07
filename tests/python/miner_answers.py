"""What miner_sample and hashboard_sample must hold, from the account of the simulated miners alone.

A row says when its poll began and ended (`ts`, `read_us`), and a miner has one poll at a time: the answers of its unit
within that time are the poll, unless the clock of the row's host was stepped. The accepted shares rise with every answer that tells them, so that a poll that no row
covers is known to be missing, and two rows of one poll are known to be two.
"""

import bisect
import json
from decimal import Decimal

import makes
import makes.antminer
import makes.avalon
import makes.braiins
import makes.epic
import makes.luxos
import makes.whatsminer

MAKES = {
    "avalon_1246": makes.avalon,
    "avalon_q": makes.avalon,
    "antminer_s19_pro": makes.antminer,
    "whatsminer_v2": makes.whatsminer,
    "braiins": makes.braiins,
    "luxos": makes.luxos,
    "epic": makes.epic,
}
CATALOG = {table: makes.columns(table) for table in ["miner_sample", "hashboard_sample"]}
# Told by the source from what it remembers.
OF_THE_SOURCE = {"state", "state_reason", "error_codes", "reply_json"}
# Asleep, a firmware may go on telling sensors that measure nothing.
ASLEEP = {"idle", "curtailed"}
# A row that tells only that a poll was due while another one went on.
STALE = 2
# Between the clock of the row and that of the account.
SLACK_US = 2000


def load(paths):
    """The answers of the accounts, in order."""
    return [json.loads(line, parse_float=Decimal) for path in paths for line in open(path)]


class Unit:
    """The answers of one machine: those of one unit while it has one serial number."""

    def __init__(self, answer):
        self.make = MAKES[answer["profile"]]
        self.name = answer["unit"]
        self.answers, self.times = [], []
        # Where the answer with so many accepted shares is.
        self.places = {}
        # When something was done to it: from before to after, in µs.
        self.changes = []

    def is_mixed(self, row):
        """Whether the poll of the row met a change: then some of its commands were answered in one way, some in another."""
        begin, end = row["ts"] - row["read_us"] - SLACK_US, row["ts"] + SLACK_US
        return any(before <= end and after >= begin for before, after in self.changes)

    def add(self, answer):
        self.answers.append(answer)
        self.times.append(answer["us"])
        shares = self.accepted(len(self.answers) - 1)
        if shares is not None:
            self.places[shares] = len(self.answers) - 1

    def of(self, row):
        """Answers of the poll that the row is about: those within its time, or, where the clock of the row's host was
        stepped, those from the one with its accepted shares on."""
        numbers, shares = self.within(row), row["accepted_shares"]
        if shares is None or any(self.accepted(number) == shares for number in numbers):
            return numbers
        begin = self.places.get(shares)
        if begin is None:
            return numbers
        end = begin + 1
        while end < len(self.answers) and self.answers[end]["command"] != self.make.COUNTS:
            end += 1
        return range(begin, end)

    def within(self, row):
        """Answers within the time of the row."""
        begin = bisect.bisect_left(self.times, row["ts"] - row["read_us"] - SLACK_US)
        end = bisect.bisect_right(self.times, row["ts"] + SLACK_US)
        return range(begin, end)

    def poll(self, numbers):
        """Command -> reply of these answers, None where it cannot be read; a challenge of a web server is no answer."""
        found = {}
        for number in numbers:
            answer = self.answers[number]
            name = " ".join(word for word in [answer["command"], answer["parameter"]] if word)
            if not answer["turned_away"] and found.get(name) is None:
                found[name] = answer["reply"]
        return found

    def accepted(self, number):
        """The accepted shares that an answer tells; None where it tells none."""
        answer = self.answers[number]
        counts = answer["command"] == self.make.COUNTS and answer["reply"]
        return makes.at(answer["reply"], *self.make.ACCEPTED) if counts else None


def units(answers):
    """What a device id ends with (serial number, MAC or address) -> the machine."""
    found, by_name = {}, {}
    for answer in answers:
        key = (answer["unit"], answer["serial"])
        if key not in by_name:
            unit = by_name[key] = Unit(answer)
            for tail in [answer["serial"], answer["mac"], answer["address"]]:
                found[tail.lower()] = unit
        by_name[key].add(answer)
    return found, list(by_name.values())


def unit_of(device_id, found):
    """The machine of a device id."""
    kind, _, tail = device_id.partition(":")
    return found.get(tail.split("#")[0].lower())


def cell(sources, poll):
    """The value of a mapping in a poll, and whether it should be marked as failed."""
    failed = False
    for command, read in sources:
        if command not in poll:
            continue
        if poll[command] is None:
            failed = True
            continue
        try:
            value = read(poll[command])
        except (KeyError, IndexError, TypeError, ValueError, ArithmeticError):
            value = None
        if value is not None:
            return value, False
    return None, failed


def bounded(value, column):
    """The value as the catalog bounds it; items of a list that are none are null."""
    low, high = column.get("min"), column.get("max")
    outside = lambda item: item is not None and (low is not None and item < low or high is not None and item > high)
    if isinstance(value, list):
        nothing = (0, -40, 255) if "temps" in column["name"] else ()
        return [None if item in nothing or outside(item) else item for item in value]
    return None if not isinstance(value, (str, bool)) and outside(value) else value


def is_list(column):
    return column["type"].startswith("list")


def difference(key, mapping, poll, row, table, faults=frozenset()):
    """Cells of a row that are not what was served, as sentences."""
    found = []
    for name, column in CATALOG[table].items():
        if "bit" not in column or name in OF_THE_SOURCE and name not in mapping:
            continue
        told = row[name]
        if name not in mapping:
            if told is not None:
                found.append(f"{key} {name}: in the lake {told!r}, and no reply tells it")
            continue
        value, failed = cell(mapping[name], poll)
        wanted = bounded(value, column)
        if told is None and (is_list(column) and name != "error_codes" or faults & ASLEEP and is_of_sensors(name)):
            continue
        if told != wanted:
            found.append(f"{key} {name}: served {value!r}, in the lake {told!r}")
        elif told is None and failed and not (row["failed_mask"] | row["unsupported_mask"]) >> column["bit"] & 1:
            found.append(f"{key} {name}: its command failed, and the row does not say so")
    return found


def is_of_sensors(name):
    return "temp" in name or name == "chips_found"


def compare_row(unit, row, boards):
    """Differences of a miner's row and those of its boards."""
    numbers = unit.of(row)
    if unit.is_mixed(row):
        return [], numbers
    poll = unit.poll(numbers)
    faults = {unit.answers[number]["fault"] for number in numbers} - {None}
    accepted = next((shares for shares in map(unit.accepted, numbers) if shares is not None), None)
    key = (row["device_id"], accepted)
    found = difference(key, unit.make.MINER, poll, row, "miner_sample", faults)
    if accepted is not None and not faults and (row["state"], row["state_reason"]) != ("mining", None):
        found.append(f"{key} state: healthy, in the lake {row['state']} for {row['state_reason']}")
    wanted = unit.make.boards(poll)
    for board in boards:
        index = board["board_index"]
        if index not in wanted:
            found.append(f"{key} board {index}: in the lake twice or without a reply")
            continue
        found += difference((*key, index), wanted.pop(index), poll, board, "hashboard_sample", faults)
    found += [f"{key} board {index}: served, not in the lake" for index in wanted]
    return found, numbers


def owed(unit, covered):
    """Accepted shares of whole polls that no row covers."""
    usual = None
    for numbers in covered:
        commands = {unit.answers[number]["command"] for number in numbers}
        usual = commands if usual is None else usual & commands
    seen = {number for numbers in covered for number in numbers}
    begins = [number for number in range(len(unit.answers)) if unit.accepted(number) is not None]
    missing = []
    for number, following in zip(begins, begins[1:] + [len(unit.answers)]):
        commands = {answer["command"] for answer in unit.answers[number:following]}
        if number not in seen and (usual is None or usual <= commands):
            missing.append(unit.accepted(number))
    return missing, len(begins)


def compare(miners, boards, paths):
    """Differences between rows of the two tables and the account, as sentences; and how many polls there were."""
    return compare_with(miners, boards, load(paths))


def compare_with(miners, boards, answers, changes=()):
    """The same, with the answers of the account. Polls that met one of the changes (unit, before, after) are not compared
    cell by cell: a reader then takes from one reply what another has not told."""
    found, machines = units(answers)
    for machine in machines:
        machine.changes = [(before, after) for unit, before, after in changes if unit == machine.name]
    by_poll, differences, covered, seen = {}, [], {}, set()
    for row in boards:
        by_poll.setdefault((row["device_id"], row["ts"]), []).append(row)
    for row in miners:
        if row["row_status"] == STALE and row["accepted_shares"] is None:
            continue
        unit = unit_of(row["device_id"], found)
        own_boards = by_poll.pop((row["device_id"], row["ts"]), [])
        if unit is None:
            if row["accepted_shares"] is not None:
                differences.append(f"{row['device_id']}: the lake has a row that no reply gave")
            continue
        key = (unit.name, row["ts"])
        if key in seen:
            differences.append(f"{row['device_id']} at {row['ts']}: twice in the lake")
        seen.add(key)
        of_row, numbers = compare_row(unit, row, own_boards)
        differences += of_row
        covered.setdefault(unit, []).append(numbers)
    differences += [f"{key}: boards without a row of their miner" for key in by_poll]
    served = 0
    for unit in machines:
        missing, polls = owed(unit, covered.get(unit, []))
        served += polls
        differences += [f"({unit.name!r}, {accepted}): served, not in the lake" for accepted in missing]
    return differences, served
