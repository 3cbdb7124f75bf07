"""Stock Antminer: `summary`, `stats` and `pools` of cgminer's port, and the web interface for the mode."""

from . import at, celsius, cgminer_pools, cgminer_shares, made, shifted, tell, windows, word

STATS = ("STATS", 1)
CONF, WEB = "/cgi-bin/get_miner_conf.cgi", "/cgi-bin/summary.cgi"


def sensors(text):
    """The places of `78-50-69-70`."""
    return [celsius(item) for item in text.split("-")] if text else []


def known(values):
    return [value for value in values if value is not None]


def hottest(values):
    return max(known(values), default=None)


def all_sensors(stats, key, boards=3):
    return [value for board in range(1, boards + 1) for value in sensors(at(stats, *STATS, f"{key}{board}"))]


def of_boards(stats, key):
    return [celsius(at(stats, *STATS, f"{key}{board}")) for board in range(1, 4)]


def mean(values):
    values = known(values)
    return sum(values) // len(values) if values else None


MINER = {
    **cgminer_shares(),
    **cgminer_pools(),
    **windows("summary", "GHS", 9),
    "pool_difficulty": made("pools", lambda reply: difficulty(reply["POOLS"])),
    "hashrate_expected_hashes_per_second": tell("stats", *STATS, "total_rateideal", shift=9),
    "frequency_kilohertz": tell("stats", *STATS, "total_freqavg", shift=3),
    **{f"fan_{fan}_rpm": tell("stats", *STATS, f"fan{fan}") for fan in range(1, 5)},
    "boards_found": made("stats", lambda reply: sum(at(reply, *STATS, f"chain_acn{board}") > 0 for board in range(1, 5))),
    "chip_temp_max_celsius": made(
        "stats", lambda reply: hottest(all_sensors(reply, "temp_chip") + of_boards(reply, "temp2_"))
    ),
    "chip_temp_average_celsius": made("stats", lambda reply: mean(all_sensors(reply, "temp_chip"))),
    "pcb_temp_max_celsius": made(
        "stats", lambda reply: hottest(all_sensors(reply, "temp_pcb") + all_sensors(reply, "temp_pic"))
    ),
    "power_mode": word(CONF, "bitmain-work-mode"),
    # Each code once, in order: two boards may raise the same one.
    "error_codes": made(WEB, lambda reply: sorted({item["code"] for item in reply["SUMMARY"][0]["status"] if item["code"]})),
}


def difficulty(pools):
    """`524K` is rounded; the last share's is exact."""
    pool = next((pool for pool in pools if pool["Stratum Active"]), None)
    return pool and float(pool["Last Share Difficulty"])


def boards(poll):
    """Board -> mapping; the firmware has places for four, of which three are there."""
    stats = poll.get("stats")
    return {} if stats is None else {board - 1: board_mapping(board) for board in range(1, 4)}


def board_mapping(board):
    key = lambda name: (*STATS, f"{name}{board}")
    marks = lambda reply: [1 if mark == "o" else 0 for mark in at(reply, *key("chain_acs")).replace(" ", "")] or None
    chips = lambda reply: sensors(at(reply, *key("temp_chip")))
    around = lambda reply: sensors(at(reply, *key("temp_pcb"))) + sensors(at(reply, *key("temp_pic")))
    return {
        "hashrate_hashes_per_second": tell("stats", *key("chain_rate"), shift=9),
        "hardware_errors": tell("stats", *key("chain_hw")),
        "chips_found": tell("stats", *key("chain_acn")),
        "chips_expected": made("stats", lambda reply: most_chips(reply)),
        "frequency_kilohertz": tell("stats", *key("freq"), shift=3),
        "chip_ok": made("stats", marks),
        "chip_temp_max_celsius": made(
            "stats", lambda reply: hottest(chips(reply) + [celsius(at(reply, *key("temp2_")))])
        ),
        "chip_temp_min_celsius": made("stats", lambda reply: min(known(chips(reply)), default=None)),
        "chip_temp_average_celsius": made("stats", lambda reply: mean(chips(reply))),
        "pcb_temp_max_celsius": made(
            "stats", lambda reply: hottest(around(reply) + [celsius(at(reply, *key("temp")))])
        ),
        "pcb_temps_celsius": made("stats", around),
    }


def most_chips(stats):
    """Chips of a whole board: the longest map."""
    return max(len(at(stats, *STATS, f"chain_acs{board}").replace(" ", "")) for board in range(1, 5))


# The firmware asks the boards' clock and prints 0 for a board that is not there.
COUNTS = "summary"
ACCEPTED = ("SUMMARY", 0, "Accepted")
__all__ = ["MINER", "boards", "COUNTS", "ACCEPTED", "shifted"]
