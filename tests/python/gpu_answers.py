"""What gpu_sample must hold, from the account of the simulated NVML library alone.

The library writes every answer as a JSON line before it returns it. The reader asks for the energy counter first, and
that counter rises with every call, so (device, energy) names a read; the answers up to the next one of the same thread
are the rest of the row.
"""

import json

ENERGY = ("nvmlDeviceGetTotalEnergyConsumption", None)

# Column -> the call (and its argument) that it comes from, and the part of a struct's answer.
COLUMNS = {
    "energy_millijoules": (ENERGY, None),
    "gpu_temp_celsius": (("nvmlDeviceGetTemperature", 0), None),
    "memory_temp_celsius": (("field:82:0", None), None),
    "power_milliwatts": (("nvmlDeviceGetPowerUsage", None), None),
    "power_instant_milliwatts": (("field:186:0", None), None),
    "power_limit_milliwatts": (("nvmlDeviceGetEnforcedPowerLimit", None), None),
    "graphics_clock_megahertz": (("nvmlDeviceGetClockInfo", 0), None),
    "sm_clock_megahertz": (("nvmlDeviceGetClockInfo", 1), None),
    "memory_clock_megahertz": (("nvmlDeviceGetClockInfo", 2), None),
    "video_clock_megahertz": (("nvmlDeviceGetClockInfo", 3), None),
    "gpu_utilization_percent": (("nvmlDeviceGetUtilizationRates", None), "gpu"),
    "memory_utilization_percent": (("nvmlDeviceGetUtilizationRates", None), "memory"),
    "encoder_utilization_percent": (("nvmlDeviceGetEncoderUtilization", None), "utilization"),
    "decoder_utilization_percent": (("nvmlDeviceGetDecoderUtilization", None), "utilization"),
    "memory_used_bytes": (("nvmlDeviceGetMemoryInfo", None), "used"),
    "memory_total_bytes": (("nvmlDeviceGetMemoryInfo", None), "total"),
    "throttle_reasons_mask": (("nvmlDeviceGetCurrentClocksThrottleReasons", None), None),
    "performance_state": (("nvmlDeviceGetPerformanceState", None), None),
    "fan_speed_percent": (("nvmlDeviceGetFanSpeed_v2", 0), None),
    "throttle_power_nanoseconds": (("field:74:0", None), None),
    "throttle_thermal_nanoseconds": (("field:75:0", None), None),
    "throttle_sync_boost_nanoseconds": (("field:76:0", None), None),
    "throttle_board_limit_nanoseconds": (("field:77:0", None), None),
    "throttle_low_utilization_nanoseconds": (("field:78:0", None), None),
    "throttle_reliability_nanoseconds": (("field:79:0", None), None),
    "power_average_milliwatts": (("field:185:0", None), None),
    "module_power_instant_milliwatts": (("field:186:1", None), None),
    "module_power_average_milliwatts": (("field:185:1", None), None),
    "memory_power_instant_milliwatts": (("field:186:2", None), None),
    "memory_power_average_milliwatts": (("field:185:2", None), None),
    "temp_margin_celsius": (("nvmlDeviceGetMarginTemperature", None), "marginTemperature"),
    "jpeg_utilization_percent": (("nvmlDeviceGetJpgUtilization", None), "utilization"),
    "ofa_utilization_percent": (("nvmlDeviceGetOfaUtilization", None), "utilization"),
    "bar1_used_bytes": (("nvmlDeviceGetBAR1MemoryInfo", None), "bar1Used"),
}

UNSUPPORTED = {3, 13}


def load(path):
    """The answers of an account, in the order they were given."""
    return [json.loads(line) for line in open(path)]


def reads(paths):
    """(device, energy) -> {(call, argument): answer}; and the answers that belong to no read."""
    found, outside = {}, []
    for path in paths:
        current = {}
        for answer in load(path):
            key = (answer["call"], answer["arg"])
            place = (answer["device"], answer["thread"])
            if key == ENERGY and answer["rc"] == 0:
                current[place] = found.setdefault((answer["device"], answer["value"]), {})
            if place in current:
                current[place].setdefault(key, answer)
            else:
                outside.append(answer)
    return found, outside


def expected(read, column, unsupported, is_lost=False):
    """Value, unsupported and failed of a cell. `unsupported`: what earlier reads of the device were refused. `is_lost`: it
    was lost in the middle of the read, and asked no further."""
    key, part = COLUMNS[column]
    answer = read.get(key)
    if answer is None:
        # Not asked again: only what the device has said it lacks.
        return (None, True, False) if key in unsupported else (None, False, True) if is_lost else ("not read", False, False)
    if answer["rc"] in UNSUPPORTED:
        return None, True, False
    if answer["rc"] != 0:
        return None, False, True
    value = answer["value"]
    return (value[part] if part else value), False, False


def compare(rows, paths, bits):
    """Differences between rows of gpu_sample and the account, as sentences. `bits`: column -> bit in the masks."""
    found, _ = reads(paths)
    refused = {}
    for (device, _), read in found.items():
        for key, answer in read.items():
            if answer["rc"] in UNSUPPORTED:
                refused.setdefault(device, set()).add(key)
    differences, seen = [], set()
    for row in rows:
        key = (row["device_id"], row["energy_millijoules"])
        if key not in found:
            differences.append(f"{key}: the lake has a row that no answer gave")
            continue
        if key in seen:
            differences.append(f"{key}: twice in the lake")
        seen.add(key)
        for column in COLUMNS:
            value, unsupported, failed = expected(found[key], column, refused.get(key[0], set()), row["row_status"] == 5)
            bit = 1 << bits[column]
            told = (row[column], bool(row["unsupported_mask"] & bit), bool(row["failed_mask"] & bit))
            if told != (value, unsupported, failed):
                differences.append(f"{key} {column}: served {(value, unsupported, failed)}, in the lake {told}")
    for key in found.keys() - seen:
        differences.append(f"{key}: served, not in the lake")
    return differences, len(found)
