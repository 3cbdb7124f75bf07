"""What miner_sample and hashboard_sample must hold, from the account of the simulated miners alone.

A second reading of Avalon's replies, written without a look at the collector's. A poll asks for `summary` first, and
the accepted shares rise with every summary, so (unit, accepted shares) names a poll; the other replies of that unit up
to the next summary are the rest of it.
"""

import json
import re
from decimal import Decimal


def load(paths):
    """The answers of the accounts, in order."""
    return [json.loads(line, parse_float=Decimal) for path in paths for line in open(path)]


def polls(paths):
    """(serial, mac, accepted) -> {command: reply}."""
    found, current = {}, {}
    for answer in load(paths):
        unit = answer["unit"]
        if answer["command"] == "summary" and answer["reply"]:
            accepted = answer["reply"]["SUMMARY"][0]["Accepted"]
            current[unit] = found.setdefault((answer["serial"], answer["mac"], accepted), {})
        if unit in current and answer["command"] != "version":
            current[unit].setdefault(answer["command"], answer["reply"])
    return found


def keys(stats):
    """Avalon's Key[value] text of the first STATS entry, as a dictionary of texts."""
    entry = stats["STATS"][0]
    text = " ".join(value for key, value in entry.items() if isinstance(value, str) and "[" in value)
    return dict(re.findall(r"(?:(?<=[ {])|^)([A-Za-z][\w ]*?)\[(.*?)\]", text))


def numbers(text):
    """The numbers of a list, or None where there is no list."""
    return None if text is None else [int(Decimal(item)) for item in text.split()]


def at(items, index):
    return items[index] if items is not None and len(items) > index else None


def scaled(value, factor):
    """A printed decimal times a power of ten."""
    return None if value is None else int(Decimal(str(value).strip("%")) * factor)


def miner_row(poll):
    """Column -> value of the poll's row of miner_sample; None is null."""
    summary, stats, pools = poll["summary"]["SUMMARY"][0], keys(poll["stats"]), poll["pools"]["POOLS"]
    ps = numbers(stats.get("PS"))
    active = next((pool for pool in pools if pool.get("Stratum Active")), None)
    row = {
        "accepted_shares": summary["Accepted"],
        "rejected_shares": summary["Rejected"],
        "stale_shares": summary["Stale"],
        "hardware_errors": summary["Hardware Errors"],
        "accepted_difficulty": float(summary["Difficulty Accepted"]),
        "rejected_difficulty": float(summary["Difficulty Rejected"]),
        "hashrate_hashes_per_second": scaled(stats.get("GHSspd"), 10**9),
        "hashrate_average_hashes_per_second": scaled(summary["MHS av"], 10**6),
        "hashrate_5s_hashes_per_second": scaled(summary["MHS 5s"], 10**6),
        "hashrate_1m_hashes_per_second": scaled(summary["MHS 1m"], 10**6),
        "hashrate_5m_hashes_per_second": scaled(summary["MHS 5m"], 10**6),
        "hashrate_15m_hashes_per_second": scaled(summary["MHS 15m"], 10**6),
        "hashrate_expected_hashes_per_second": scaled(stats.get("GHSmm"), 10**9),
        "power_milliwatts": scaled(at(ps, 6), 1000),
        "power_output_milliwatts": scaled(at(ps, 4), 1000),
        "power_limit_milliwatts": scaled(stats.get("MPO"), 1000),
        "psu_output_millivolts": scaled(at(ps, 2), 10),
        "psu_output_milliamperes": scaled(at(ps, 3), 1000),
        "psu_error_code": at(ps, 0),
        "inlet_temp_celsius": scaled(stats.get("ITemp", stats.get("Temp")), 1),
        "chip_temp_max_celsius": scaled(stats.get("TMax"), 1),
        "chip_temp_average_celsius": scaled(stats.get("TAvg"), 1),
        "fan_1_rpm": scaled(stats.get("Fan1"), 1),
        "fan_2_rpm": scaled(stats.get("Fan2"), 1),
        "fan_3_rpm": scaled(stats.get("Fan3"), 1),
        "fan_4_rpm": scaled(stats.get("Fan4"), 1),
        "fan_duty_percent": scaled(stats.get("FanR"), 1),
        "frequency_kilohertz": scaled(stats.get("Freq"), 1000),
        "uptime_seconds": summary["Elapsed"],
        "pool_url": active and active["URL"],
        "pool_status": active and active["Status"],
        "pools_alive": sum(pool["Status"] == "Alive" for pool in pools),
        "pool_ping_milliseconds": scaled(stats.get("PING"), 1),
        "pool_difficulty": active and float(active["Stratum Difficulty"]),
        "boards_found": scaled(re.search(r"Hash Board: *(\d+)", stats["SYSTEMSTATU"])[1], 1),
        "error_mask": scaled(stats.get("ECMM"), 1),
        "state": "mining" if "In Work" in stats["SYSTEMSTATU"] else "sleeping",
    }
    return row


def board_rows(poll):
    """board_index -> {column: value} of the poll's rows of hashboard_sample."""
    stats = keys(poll["stats"])
    boards = len(numbers_or_texts(stats["MGHS"]))
    total = scaled(stats.get("TA"), 1)
    rows = {}
    for board in range(boards):
        def per_board(key, factor=1):
            return scaled(at((stats.get(key) or "").split() or None, board), factor)

        def chips(key):
            return numbers(stats.get(f"{key}{board}"))

        temps = chips("PVT_T")
        crc = numbers(stats.get(f"ASICCRC{board}"))
        rows[board] = {
            "hashrate_average_hashes_per_second": per_board("MGHS", 10**9),
            "hardware_errors": per_board("MH"),
            "crc_errors": sum(crc) if crc is not None else per_board("CRC"),
            "chip_temp_max_celsius": per_board("MTmax"),
            "chip_temp_average_celsius": per_board("MTavg"),
            "chips_found": None if temps is None else len(temps),
            "chips_expected": None if total is None else total // boards,
            "board_error_mask": per_board("ECHU"),
            "chip_temps_celsius": temps,
            "chip_voltages_millivolts": chips("PVT_V"),
            "chip_nonces": chips("MW"),
        }
    return rows


def numbers_or_texts(text):
    return text.split()


def difference(key, wanted, row):
    """Cells of a row that are not what was served, as sentences."""
    return [
        f"{key} {column}: served {value!r}, in the lake {row[column]!r}"
        for column, value in wanted.items()
        if row[column] != value
    ]


def compare(miners, boards, paths):
    """Differences between rows of the two tables and the account, as sentences; and how many polls there were."""
    found = {}
    for (serial, _, accepted), poll in polls(paths).items():
        if {"summary", "stats", "pools"} <= poll.keys():
            found[(f"avalon:{serial}", accepted)] = poll
    differences, seen, frames = [], set(), {}
    for row in miners:
        key = (row["device_id"], row["accepted_shares"])
        if key not in found:
            differences.append(f"{key}: the lake has a row that no reply gave")
            continue
        if key in seen:
            differences.append(f"{key}: twice in the lake")
        seen.add(key)
        frames[(row["device_id"], row["ts"])] = key
        differences += difference(key, miner_row(found[key]), row)
    differences += [f"{key}: served, not in the lake" for key in found.keys() - seen]
    wanted = {(key, board): row for key in seen for board, row in board_rows(found[key]).items()}
    for row in boards:
        # Both rows of a poll carry one ts.
        key = (frames.get((row["device_id"], row["ts"])), row["board_index"])
        if key not in wanted:
            differences.append(f"{row['device_id']} board {row['board_index']}: in the lake twice or without a reply")
            continue
        differences += difference(key, wanted.pop(key), row)
    differences += [f"{key}: served, not in the lake" for key in wanted]
    return differences, len(found)
