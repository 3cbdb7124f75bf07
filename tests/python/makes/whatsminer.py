"""Whatsminer with version 2 of its interface."""

from . import at, cgminer_pools, made, real, sensor, shifted, tell, windows, word

SUMMARY = ("SUMMARY", 0)
RATES = windows("summary", "MHS", 6)

MINER = {
    "accepted_shares": tell("summary", *SUMMARY, "Accepted"),
    "rejected_shares": tell("summary", *SUMMARY, "Rejected"),
    "best_share_difficulty": real("summary", *SUMMARY, "Best Share"),
    "uptime_seconds": tell("summary", *SUMMARY, "Elapsed"),
    **{name: RATES[name] for name in RATES if "30m" not in name and "24h" not in name},
    "hashrate_hashes_per_second": tell("summary", *SUMMARY, "HS RT", shift=6),
    "hashrate_expected_hashes_per_second": tell("summary", *SUMMARY, "Factory GHS", shift=9),
    # Version 2 of the interface documents it as what is drawn at the wall.
    "power_milliwatts": tell("summary", *SUMMARY, "Power", shift=3),
    "power_limit_milliwatts": tell("summary", *SUMMARY, "Power Limit", shift=3),
    "power_mode": word("summary", *SUMMARY, "Power Mode"),
    "inlet_temp_celsius": sensor("summary", *SUMMARY, "Env Temp"),
    "chip_temp_max_celsius": sensor("summary", *SUMMARY, "Chip Temp Max"),
    "chip_temp_average_celsius": sensor("summary", *SUMMARY, "Chip Temp Avg"),
    "fan_1_rpm": tell("summary", *SUMMARY, "Fan Speed In"),
    "fan_2_rpm": tell("summary", *SUMMARY, "Fan Speed Out"),
    "psu_input_millivolts": tell("get_psu", "Msg", "vin", shift=1),
    "psu_input_milliamperes": tell("get_psu", "Msg", "iin"),
    "psu_temp_celsius": sensor("get_psu", "Msg", "temp0"),
    "psu_fan_rpm": tell("get_psu", "Msg", "fan_speed"),
    **cgminer_pools(),
    "boards_found": made("devs", lambda reply: sum(board["Effective Chips"] > 0 for board in reply["DEVS"])),
    "error_codes": made(
        "get_error_code", lambda reply: [int(code) for item in reply["Msg"]["error_code"] for code in item]
    ),
}


def boards(poll):
    devs = poll.get("devs")
    return {} if devs is None else {board["Slot"]: board_mapping(at_) for at_, board in enumerate(devs["DEVS"])}


def board_mapping(board):
    key = lambda name: ("DEVS", board, name)
    return {
        "hashrate_average_hashes_per_second": tell("devs", *key("MHS av"), shift=6),
        "hashrate_5s_hashes_per_second": tell("devs", *key("MHS 5s"), shift=6),
        "hashrate_1m_hashes_per_second": tell("devs", *key("MHS 1m"), shift=6),
        "hashrate_5m_hashes_per_second": tell("devs", *key("MHS 5m"), shift=6),
        "hashrate_15m_hashes_per_second": tell("devs", *key("MHS 15m"), shift=6),
        "hashrate_expected_hashes_per_second": tell("devs", *key("Factory GHS"), shift=9),
        "chip_temp_max_celsius": sensor("devs", *key("Chip Temp Max")),
        "chip_temp_average_celsius": sensor("devs", *key("Chip Temp Avg")),
        "chip_temp_min_celsius": sensor("devs", *key("Chip Temp Min")),
        "pcb_temp_max_celsius": sensor("devs", *key("Temperature")),
        "chips_found": tell("devs", *key("Effective Chips")),
        "frequency_kilohertz": tell("devs", *key("Chip Frequency"), shift=3),
        "accepted_nonces": tell("devs", *key("Accepted")),
        "rejected_nonces": tell("devs", *key("Rejected")),
        "board_status": word("devs", *key("Status")),
        "board_serial": word("devs", *key("PCB SN")),
    }


COUNTS = "summary"
ACCEPTED = (*SUMMARY, "Accepted")
__all__ = ["MINER", "boards", "COUNTS", "ACCEPTED", "at", "shifted"]
