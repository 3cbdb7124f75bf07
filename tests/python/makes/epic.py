"""ePIC's PowerPlay over HTTP. A sensor that is not there prints 0."""

from . import at, celsius, made, present, real, shifted, tell

SUMMARY = "/summary"


def numbered(items, index):
    return next((item for item in items if item["Index"] == index), None)


MINER = {
    "accepted_shares": tell(SUMMARY, "Session", "Accepted"),
    "rejected_shares": tell(SUMMARY, "Session", "Rejected"),
    "uptime_seconds": tell(SUMMARY, "Session", "Uptime"),
    "hashrate_average_hashes_per_second": tell(SUMMARY, "Session", "Average MHs", shift=6),
    "hashrate_hashes_per_second": made(
        SUMMARY, lambda reply: sum(shifted(board["Hashrate"][0], 6) for board in reply["HBs"])
    ),
    "power_milliwatts": tell(SUMMARY, "Power Supply Stats", "Input Power", shift=3),
    "psu_output_millivolts": present(SUMMARY, "Power Supply Stats", "Output Voltage", shift=3),
    "power_limit_milliwatts": tell(SUMMARY, "PresetInfo", "Target Power", shift=3),
    **{f"fan_{fan}_rpm": tell(SUMMARY, "Fans Rpm", f"Fans Speed {fan}") for fan in range(1, 7)},
    "fan_duty_percent": tell(SUMMARY, "Fans", "Fans Speed"),
    "pool_url": made(SUMMARY, lambda reply: reply["Stratum"]["Current Pool"]),
    "pool_status": made(
        SUMMARY, lambda reply: "connected" if reply["Stratum"]["IsPoolConnected"] else "disconnected"
    ),
    "pool_difficulty": real(SUMMARY, "Session", "Difficulty"),
    "pool_ping_milliseconds": tell(SUMMARY, "Stratum", "Average Latency", shift=3),
    "pools_configured": made(SUMMARY, lambda reply: len(reply["StratumConfigs"])),
    "boards_found": made(SUMMARY, lambda reply: sum(board["Detected"] for board in reply["HBStatus"])),
    "pcb_temp_max_celsius": made(SUMMARY, lambda reply: max(celsius(board["Temperature"]) for board in reply["HBs"])),
    "power_mode": made(SUMMARY, lambda reply: next(iter(reply["PerpetualTune"]["Algorithm"]))),
}


def boards(poll):
    reply = poll.get(SUMMARY)
    return {} if reply is None else {board["Index"]: board_mapping(board["Index"]) for board in reply["HBStatus"]}


def board_mapping(index):
    def of_board(key, shift):
        return made(SUMMARY, lambda reply: shifted(at(numbered(reply["HBs"], index), *key), shift) or None)

    def of_chips(path, read):
        return made(path, lambda reply: chips(reply, read))

    def chips(reply, read):
        values = [read(item) or None for item in numbered(reply, index)["Data"]]
        return values if any(values) else None

    def status(reply):
        board = numbered(reply["HBStatus"], index)
        return "enabled" if board["Enabled"] else "disabled" if board["Detected"] else "not detected"

    return {
        "hashrate_hashes_per_second": made(
            SUMMARY, lambda reply: shifted(at(numbered(reply["HBs"], index), "Hashrate", 0), 6)
        ),
        "frequency_kilohertz": of_board(["Core Clock Avg"], 3),
        "voltage_millivolts": of_board(["Input Voltage"], 3),
        "pcb_temp_max_celsius": of_board(["Temperature"], 0),
        "pcb_temps_celsius": made("/temps", lambda reply: [celsius(item) for item in numbered(reply, index)["Data"]]),
        "board_status": made(SUMMARY, status),
        "chip_frequencies_kilohertz": of_chips("/clocks", lambda item: shifted(item, 3)),
        "chip_hashrates_megahashes_per_second": of_chips("/hashrate", lambda item: shifted(item[0], 0)),
    }


COUNTS = SUMMARY
ACCEPTED = ("Session", "Accepted")
