"""Braiins OS+ of 2025 over its REST interface."""

from . import at, made, present, real, sensor, shifted, tell, word

PATH = "/api/v1/"
STATS, DETAILS, BOARDS = PATH + "miner/stats", PATH + "miner/details", PATH + "miner/hw/hashboards"
COOLING, POOLS, TUNER = PATH + "cooling/state", PATH + "pools", PATH + "performance/tuner-state"
WINDOWS = {"average": "since_restart", "5s": "last_5s", "1m": "last_1m", "5m": "last_5m", "15m": "last_15m"}
LONG = {"30m": "last_30m", "1h": "last_1h", "24h": "last_24h"}


def rate(*way):
    return lambda reply: shifted(at(reply, *way, "gigahash_per_second"), 9)


def pools(reply):
    return [pool for group in reply for pool in group["pools"]]


def in_use(reply):
    return next((pool for pool in pools(reply) if pool["active"]), None)


MINER = {
    "accepted_shares": tell(STATS, "pool_stats", "accepted_shares"),
    "rejected_shares": tell(STATS, "pool_stats", "rejected_shares"),
    "stale_shares": tell(STATS, "pool_stats", "stale_shares"),
    "blocks_found": tell(STATS, "miner_stats", "found_blocks"),
    "best_share_difficulty": real(STATS, "miner_stats", "best_share"),
    "hashrate_hashes_per_second": made(STATS, rate("miner_stats", "real_hashrate", "last_5s")),
    **{
        f"hashrate_{column}_hashes_per_second": made(STATS, rate("miner_stats", "real_hashrate", name))
        for column, name in (WINDOWS | LONG).items()
    },
    "hashrate_expected_hashes_per_second": made(STATS, rate("miner_stats", "nominal_hashrate")),
    "power_estimated_milliwatts": tell(STATS, "power_stats", "approximated_consumption", "watt", shift=3),
    "power_limit_milliwatts": tell(TUNER, "mode_state", "powertargetmodestate", "current_target", "watt", shift=3),
    "power_mode": made(TUNER, lambda reply: next(iter(reply["mode_state"])).removesuffix("modestate")),
    **{f"fan_{fan + 1}_rpm": tell(COOLING, "fans", fan, "rpm") for fan in range(4)},
    "fan_duty_percent": tell(COOLING, "fans", 0, "target_speed_ratio", shift=2),
    "uptime_seconds": tell(DETAILS, "bosminer_uptime_s"),
    "pool_url": made(POOLS, lambda reply: at(in_use(reply), "url")),
    "pool_status": made(POOLS, lambda reply: in_use(reply) and ("alive" if in_use(reply)["alive"] else "dead")),
    "pool_difficulty": made(POOLS, lambda reply: in_use(reply) and float(in_use(reply)["stats"]["last_difficulty"])),
    "pools_alive": made(POOLS, lambda reply: sum(pool["alive"] for pool in pools(reply))),
    "pools_configured": made(POOLS, lambda reply: len(pools(reply))),
    "boards_found": made(BOARDS, lambda reply: len(reply["hashboards"])),
    "chip_temp_max_celsius": made(
        BOARDS,
        lambda reply: max(shifted(at(board, "highest_chip_temp", "temperature", "degree_c"), 0) for board in reply["hashboards"]),
    ),
    "pcb_temp_max_celsius": made(
        BOARDS, lambda reply: max(shifted(at(board, "board_temp", "degree_c"), 0) for board in reply["hashboards"])
    ),
}


def boards(poll):
    reply = poll.get(BOARDS)
    if reply is None:
        return {}
    first = min(int(board["id"]) for board in reply["hashboards"])
    return {int(board["id"]) - first: board_mapping(place) for place, board in enumerate(reply["hashboards"])}


def board_mapping(place):
    key = lambda *way: ("hashboards", place, *way)
    return {
        "hashrate_hashes_per_second": made(BOARDS, rate(*key("stats", "real_hashrate", "last_5s"))),
        **{
            f"hashrate_{column}_hashes_per_second": made(BOARDS, rate(*key("stats", "real_hashrate", name)))
            for column, name in WINDOWS.items()
        },
        "hashrate_expected_hashes_per_second": made(BOARDS, rate(*key("stats", "nominal_hashrate"))),
        "chips_found": tell(BOARDS, *key("chips_count")),
        "chip_temp_max_celsius": sensor(BOARDS, *key("highest_chip_temp", "temperature", "degree_c")),
        "pcb_temp_max_celsius": sensor(BOARDS, *key("board_temp", "degree_c")),
        "inlet_temp_celsius": sensor(BOARDS, *key("lowest_inlet_temp", "degree_c")),
        "outlet_temp_celsius": sensor(BOARDS, *key("highest_outlet_temp", "degree_c")),
        "voltage_millivolts": present(BOARDS, *key("current_voltage", "volt"), shift=3),
        "frequency_kilohertz": tell(BOARDS, *key("current_frequency", "hertz"), shift=-3),
        "board_serial": word(BOARDS, *key("serial_number")),
        "board_status": made(BOARDS, lambda reply: "enabled" if at(reply, *key("enabled")) else "disabled"),
    }


COUNTS = STATS
ACCEPTED = ("pool_stats", "accepted_shares")
