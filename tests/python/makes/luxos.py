"""LuxOS, all of it over cgminer's port."""

from . import at, cgminer_pools, cgminer_shares, made, present, shifted, tell, windows, word

STATS = ("STATS", 1)
CORNERS = ["TopLeft", "TopRight", "BottomLeft", "BottomRight"]


def corner_temps(board):
    return [shifted(board[corner], 0) for corner in CORNERS]


MINER = {
    **cgminer_shares(),
    **windows("summary", "GHS", 9),
    "hashrate_hashes_per_second": tell("summary", "SUMMARY", 0, "GHS 5s", shift=9),
    "hashrate_expected_hashes_per_second": made(
        "devs", lambda reply: sum(shifted(board["Nominal MHS"], 6) for board in reply["DEVS"])
    ),
    # `PSU` says that the supply has not measured it.
    "power_estimated_milliwatts": tell("power", "POWER", 0, "Watts", shift=3),
    "frequency_kilohertz": tell("stats", *STATS, "total_freqavg", shift=3),
    **{f"fan_{fan + 1}_rpm": tell("fans", "FANS", fan, "RPM") for fan in range(4)},
    "fan_duty_percent": tell("fans", "FANS", 0, "Speed"),
    "power_mode": word("config", "CONFIG", 0, "Profile"),
    **cgminer_pools(),
    "boards_found": made("devs", lambda reply: len(reply["DEVS"])),
    "pcb_temp_max_celsius": made("temps", lambda reply: max(max(corner_temps(board)) for board in reply["TEMPS"])),
}


def boards(poll):
    devs = poll.get("devs")
    return {} if devs is None else {board["ID"]: board_mapping(at_, board["ID"]) for at_, board in enumerate(devs["DEVS"])}


def board_mapping(place, board):
    key = lambda name: ("DEVS", place, name)
    chain = lambda name: (*STATS, f"{name}{board + 1}")
    marks = lambda reply: [1 if mark == "o" else 0 for mark in at(reply, *chain("chain_acs")).replace(" ", "")] or None
    temps = lambda reply: next(item for item in reply["TEMPS"] if item["ID"] == board)
    chips = lambda name, shift: lambda reply: [shifted(chip[name], shift) for chip in reply["CHIPS"]]
    labelled = lambda reply, name: [corner for corner in CORNERS if name in reply["METADATA"][0][corner]["Label"]]
    side = lambda name: lambda reply: max(shifted(temps(reply)[corner], 0) for corner in labelled(reply, name))
    return {
        "hashrate_hashes_per_second": tell("devs", *key("MHS 5s"), shift=6),
        "hashrate_average_hashes_per_second": tell("devs", *key("MHS av"), shift=6),
        "hashrate_5s_hashes_per_second": tell("devs", *key("MHS 5s"), shift=6),
        "hashrate_1m_hashes_per_second": tell("devs", *key("MHS 1m"), shift=6),
        "hashrate_5m_hashes_per_second": tell("devs", *key("MHS 5m"), shift=6),
        "hashrate_15m_hashes_per_second": tell("devs", *key("MHS 15m"), shift=6),
        "hashrate_expected_hashes_per_second": tell("devs", *key("Nominal MHS"), shift=6),
        "hardware_errors": tell("devs", *key("Hardware Errors")),
        "accepted_nonces": tell("devs", *key("Accepted")),
        "rejected_nonces": tell("devs", *key("Rejected")),
        "board_status": word("devs", *key("Status")),
        "board_serial": word("devs", *key("SerialNumber")),
        "voltage_millivolts": present(f"voltageget {board}", "VOLTAGE", 0, "Voltage", shift=3),
        "chips_found": tell("stats", *chain("chain_acn")),
        "chips_expected": made("stats", lambda reply: len(marks(reply) or []) or None),
        "frequency_kilohertz": tell("stats", *chain("freq"), shift=3),
        "chip_ok": made("stats", marks),
        "pcb_temp_max_celsius": made("temps", lambda reply: max(corner_temps(temps(reply)))),
        "pcb_temps_celsius": made("temps", lambda reply: corner_temps(temps(reply))),
        "inlet_temp_celsius": made("temps", side("Intake")),
        "outlet_temp_celsius": made("temps", side("Exhaust")),
        "chip_frequencies_kilohertz": made(f"healthchipget {board}", chips("Frequency", 3)),
        "chip_hashrates_megahashes_per_second": made(f"healthchipget {board}", chips("GHS 1m", 3)),
    }


COUNTS = "summary"
ACCEPTED = ("SUMMARY", 0, "Accepted")
