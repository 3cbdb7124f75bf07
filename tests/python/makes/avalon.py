"""Avalon: `summary`, `stats` with its Key[value] texts, and `pools`."""

import re
from decimal import Decimal

from . import at, cgminer_pools, cgminer_shares, made, shifted, windows


def keys(reply):
    """Avalon's Key[value] text of the first entry of `stats`, as a dictionary of texts."""
    if "keys" not in reply:
        texts = [value for value in reply["STATS"][0].values() if isinstance(value, str) and "[" in value]
        # Read once: it is long, and asked for by every column.
        reply["keys"] = dict(re.findall(r"(?:(?<=[ {])|^)([A-Za-z][\w ]*?)\[(.*?)\]", " ".join(texts)))
    return reply["keys"]


def numbers(text):
    """The numbers of a list; None where there is none."""
    return None if text is None else [int(Decimal(item)) for item in text.split()]


def key(name, shift=0):
    return made("stats", lambda reply: shifted(keys(reply).get(name), shift))


def supply(place, shift):
    return made("stats", lambda reply: shifted(at(numbers(keys(reply).get("PS")), place), shift))


RATES = windows("summary", "MHS", 6)

MINER = {
    **cgminer_shares(),
    **{name: RATES[name] for name in RATES if "30m" not in name and "24h" not in name},
    **cgminer_pools(),
    "hashrate_hashes_per_second": key("GHSspd", 9),
    "hashrate_expected_hashes_per_second": key("GHSmm", 9),
    "power_milliwatts": supply(6, 3),
    "power_output_milliwatts": supply(4, 3),
    "power_limit_milliwatts": key("MPO", 3),
    "psu_output_millivolts": supply(2, 1),
    "psu_output_milliamperes": supply(3, 3),
    "psu_error_code": supply(0, 0),
    "inlet_temp_celsius": made("stats", lambda reply: shifted(keys(reply).get("ITemp", keys(reply).get("Temp")), 0)),
    "outlet_temp_celsius": key("HBOTemp"),
    "chip_temp_max_celsius": key("TMax"),
    "chip_temp_average_celsius": key("TAvg"),
    **{f"fan_{fan}_rpm": key(f"Fan{fan}") for fan in range(1, 5)},
    "fan_duty_percent": key("FanR"),
    "frequency_kilohertz": key("Freq", 3),
    "pool_ping_milliseconds": key("PING"),
    "boards_found": made("stats", lambda reply: int(re.search(r"Hash Board: *(\d+)", keys(reply)["SYSTEMSTATU"])[1])),
    "error_mask": key("ECMM"),
    "power_mode": made("stats", lambda reply: keys(reply).get("WORKMODE")),
}


def boards(poll):
    """Board -> mapping."""
    stats = poll.get("stats")
    return {} if stats is None else {board: board_mapping(board) for board in range(len(keys(stats)["MGHS"].split()))}


def board_mapping(board):
    per_board = lambda name, shift=0: made("stats", lambda reply: of_board(reply, name, shift))
    chips = lambda name: made("stats", lambda reply: numbers(keys(reply).get(f"{name}{board}")))

    def of_board(reply, name, shift):
        return shifted(at((keys(reply).get(name) or "").split(), board), shift)

    def crc(reply):
        errors = numbers(keys(reply).get(f"ASICCRC{board}"))
        return sum(errors) if errors is not None else of_board(reply, "CRC", 0)

    def found(reply):
        temps = numbers(keys(reply).get(f"PVT_T{board}"))
        return None if temps is None else len(temps)

    def expected(reply):
        total = shifted(keys(reply).get("TA"), 0)
        return None if total is None else total // len(keys(reply)["MGHS"].split())

    return {
        "hashrate_average_hashes_per_second": per_board("MGHS", 9),
        "hardware_errors": per_board("MH"),
        "crc_errors": made("stats", crc),
        "chip_temp_max_celsius": per_board("MTmax"),
        "chip_temp_average_celsius": per_board("MTavg"),
        "chips_found": made("stats", found),
        "chips_expected": made("stats", expected),
        "board_error_mask": per_board("ECHU"),
        "chip_temps_celsius": chips("PVT_T"),
        "chip_voltages_millivolts": chips("PVT_V"),
        "chip_nonces": chips("MW"),
    }


COUNTS = "summary"
ACCEPTED = ("SUMMARY", 0, "Accepted")
