"""Makes a lake with planted faults, and devices beside each that look almost like it: what docs/queries/ must tell apart.

Tables and types are those of the catalog. Each query has its own node, so that what is planted for one is a near miss for
the others. `FOUND` says what each query must return.
"""

import datetime
import json
import math
import os

import catalog
import deltalake
import pyarrow

SITE = "hall"
MINUTE, HOUR, DAY = (datetime.timedelta(**{unit: 1}) for unit in ("minutes", "hours", "days"))
MONDAY = datetime.datetime(2026, 3, 2, tzinfo=datetime.timezone.utc)
SECOND_NS = 1_000_000_000


class Lake:
    """Rows by table; a column that is not given is null."""

    def __init__(self):
        self.rows = {table: [] for table in ("gpu_sample", "gpu_health", "miner_sample", "event", "device", "coverage")}

    def add(self, table, ts, node, device_id, /, **values):
        rows = self.rows[table]
        row = {
            "ts": ts, "received_at": ts + datetime.timedelta(seconds=1), "site": SITE, "node": node,
            "device_id": device_id, "stream_id": "0" * 32, "seq": len(rows) + 1, "frame_rows": 1, "session_id": 1,
            "row_status": 0, "unsupported_mask": 0, "failed_mask": 0, "dt": ts.date(),
        } | values
        unknown = values.keys() - set(catalog.schema(table).names)
        assert not unknown, f"{table} has no {unknown}"
        rows.append(row)

    def event(self, ts, node, device_id, event, **values):
        event_id = f"{'0' * 32}-{len(self.rows['event']) + 1}"
        self.add("event", ts, node, device_id, event_id=event_id, event=event, **values)

    def write(self, folder):
        for table, rows in self.rows.items():
            batch = pyarrow.Table.from_pylist(rows, catalog.schema(table))
            deltalake.write_deltalake(os.path.join(folder, table), batch, partition_by=["site", "dt"])
        dictionary = [
            {"table": table, "column": c["name"], "bit": c.get("bit")}
            for table in self.rows
            for c in catalog.columns(table)
        ]
        types = [("table", pyarrow.string()), ("column", pyarrow.string()), ("bit", pyarrow.int32())]
        batch = pyarrow.Table.from_pylist(dictionary, pyarrow.schema(types))
        deltalake.write_deltalake(os.path.join(folder, "field_dictionary"), batch)


def ecc(lake):
    """Half-hourly error counts of 32 days; the burst is in the 13th hour of the last day but one."""
    burst = 30 * DAY + 13 * HOUR

    def count(device, errors, first=lambda session: 0, session=lambda age: 1):
        total, before = 0, None
        for step in range(32 * 48):
            age = step * HOUR / 2
            if session(age) != before:
                before = session(age)
                total = first(before)
            total += errors(age)
            lake.add("gpu_health", MONDAY + age, "n-ecc", device, session_id=before, ecc_corrected_volatile=total)

    def at(age, errors, otherwise=0):
        return errors if age == burst else otherwise

    count("ecc-burst", lambda age: at(age, 12))
    # 1 per half hour, then 40 in one.
    count("ecc-burst-among-errors", lambda age: at(age, 40, 1))
    count("ecc-few", lambda age: at(age, 9))
    count("ecc-many-always", lambda age: at(age, 100, 8))
    # The driver is loaded anew at the burst's time, and had counted before the collector came.
    count("ecc-new-session", lambda age: 0, lambda session: 500 * session, lambda age: 1 + (age >= burst))
    # A fall within a session says nothing; it must not make the hours before look quiet.
    count("ecc-fell", lambda age: -40_000 if age == 10 * DAY else at(age, 100, 8), lambda session: 50_000)
    for step in range(24):  # not known for a day
        values = {"ecc_corrected_volatile": 0 if step < 23 else 500}
        lake.add("gpu_health", MONDAY + burst + step * HOUR / 2, "n-ecc", "ecc-newcomer", **values)
    return {("ecc-burst", MONDAY + burst), ("ecc-burst-among-errors", MONDAY + burst)}


def remap(lake):
    good = {"row_remap_failed": 0, "row_remap_pending": 0, "bank_remap_pending": 0, "remap_banks_none": 0,
            "remap_banks_low": 0, "memory_unrepairable": 0}

    def told(device, *states, serial="s", **last):
        for hour, state in enumerate(states):
            lake.add("gpu_health", MONDAY + hour * HOUR, "n-remap", device, **(good | state))
        if last:
            lake.add("gpu_health", MONDAY + len(states) * HOUR, "n-remap", device, **last)
        for hour, (slot, of_serial) in enumerate([(1, "old"), (2, serial)]):
            values = {"device_kind": "gpu", "slot_number": slot, "serial": of_serial, "model": "H100"}
            lake.add("device", MONDAY + hour * HOUR, "n-remap", device, observed_at=MONDAY, **values)

    told("remap-failed", {}, {"row_remap_failed": 1}, serial="s1")
    # The newest row is of a GPU that does not answer.
    told("remap-pending-then-lost", {}, {"row_remap_pending": 1}, serial="s2", row_status=5, failed_mask=-1)
    # The newest row has other values.
    told("remap-used-up", {"remap_banks_none": 1}, serial="s3", row_status=1, row_remap_failed=0)
    told("remap-bank-pending", {"bank_remap_pending": 1}, serial="s4")
    told("remap-was-pending", {"row_remap_pending": 1}, {})
    told("remap-few-left", {"remap_banks_low": 3})
    told("remap-not-supported", {key: None for key in good})
    # Serial, slot, and the hour that it was last read in.
    return {("remap-failed", "s1", 2, 1), ("remap-pending-then-lost", "s2", 2, 1), ("remap-used-up", "s3", 2, 1),
            ("remap-bank-pending", "s4", 2, 0)}


def xids(lake):
    """Two months of identities; the driver changes at the second month's begin."""
    begin = datetime.datetime(2026, 3, 1, tzinfo=datetime.timezone.utc)
    april = datetime.datetime(2026, 4, 1, tzinfo=datetime.timezone.utc)
    gpus = {"xid-a": "H100", "xid-b": "H100", "xid-c": "A100", "xid-app": "A100"}
    for hour in range(24 * 61):
        ts = begin + hour * HOUR
        driver = "580" if ts < april else "590"
        for device, model in gpus.items():
            identity = {"device_kind": "gpu", "model": model, "driver_version": driver, "observed_at": ts}
            lake.add("device", ts, "n-xid", device, **identity)
        identity = {"device_kind": "mig", "model": "H100", "driver_version": driver, "observed_at": ts}
        lake.add("device", ts, "n-xid", "xid-mig", **identity)

    def xid(ts, device, code):
        lake.event(ts, "n-xid", device, "xid", code=code, source="kmsg")

    for seconds in (0, 20, 50):  # one failure, told three times
        xid(begin + 2 * DAY + datetime.timedelta(seconds=seconds), "xid-a", 95)
    xid(begin + 3 * DAY, "xid-a", 64)
    xid(april + DAY, "xid-b", 140)
    # Half an hour after the last row that knows the driver of March.
    xid(april - HOUR / 2, "xid-c", 95)
    for day in range(20):
        xid(begin + day * DAY, "xid-app", 31)
        xid(begin + day * DAY, "xid-app", 63)
    xid(begin + DAY, None, 95)
    lake.event(begin + DAY, "n-xid", "xid-app", "sxid", code=95)
    return {
        ("H100", "580", datetime.date(2026, 3, 1)): (62.0, 2, "xid-a", 32.26),
        ("H100", "590", datetime.date(2026, 4, 1)): (60.0, 1, "xid-b", 16.67),
        ("A100", "580", datetime.date(2026, 3, 1)): (62.0, 1, "xid-c", 16.13),
        ("A100", "590", datetime.date(2026, 4, 1)): (60.0, 0, None, 0.0),
    }


def off_bus(lake):
    """A sample a minute for three hours around midnight."""
    begin = MONDAY + 23 * HOUR
    fell = begin + 80 * MINUTE
    for minute in range(180):
        for device in ("bus-xid", "bus-no-xid", "bus-app"):
            lake.add("gpu_sample", begin + minute * MINUTE, "n-bus", device, energy_millijoules=minute)
    lake.event(fell, "n-bus", "bus-xid", "xid", code=79)
    lake.event(fell + 5 * MINUTE, "n-bus", "bus-xid", "xid", code=79)
    lake.event(fell + 10 * MINUTE, "n-bus", "bus-xid", "gpu_fell_off_the_bus")
    lake.event(fell + 30 * MINUTE, "n-bus", "bus-no-xid", "gpu_fell_off_the_bus")
    lake.event(fell, "n-bus", "bus-app", "xid", code=31)
    lake.event(fell, "n-bus", None, "xid", code=79)
    # Both ends of the half hour count.
    return {("bus-xid", fell): set(range(50, 81)), ("bus-no-xid", fell + 30 * MINUTE): set(range(80, 111))}


def silences(lake):
    """Two hours, a sample a minute; the nodes are quiet together from minute 20 to 30."""
    last = 119

    def reports(device, minutes, node="n-silent", **values):
        for minute in minutes:
            lake.add("gpu_sample", MONDAY + minute * MINUTE, node, device, **values)

    up = [minute for minute in range(last + 1) if not 20 <= minute <= 30]
    reports("silent-witness", up)
    reports("silent-gone", [m for m in up if m <= 60])
    reports("silent-for-a-while", [m for m in up if not 70 <= m <= 79])
    reports("silent-but-told", [m for m in up if m <= 90])
    # Its rows go on and say that it is lost.
    reports("silent-but-told", range(91, last + 1), row_status=5, failed_mask=-1)
    lake.event(MONDAY + 91 * MINUTE, "n-silent", "silent-but-told", "device_lost", phase="start")
    reports("silent-short", [m for m in up if not 40 <= m <= 41])
    # Most of the time that it was silent nobody else was read.
    reports("silent-while-quiet", [m for m in up if not 19 <= m <= 31])
    # Moved to another node within two minutes.
    reports("silent-moved", [m for m in up if m <= 50])
    reports("silent-moved", range(53, last + 1), "n-silent-2")
    # Its node ends; nobody is left to see it.
    reports("silent-node", range(60), "n-silent-3")
    # Samples that were late, and came.
    reports("silent-late", [m for m in up if not 70 <= m <= 75])
    reports("silent-late", range(70, 76), row_status=2)
    reports("silent-late", range(70, 76), row_status=3)
    return {
        ("silent-gone", 60, None, 59, None), ("silent-for-a-while", 69, 80, 10, None),
        ("silent-but-told", 90, None, 29, "device_lost"),
        # Planted by `trust`.
        ("trust-9", 99, 150, 50, None),
    }


def throttles(lake):
    """A sample every ten minutes for two weeks; what is planted is in the second."""
    week = MONDAY + 7 * DAY
    planted = range(7 * 144 + 10, 7 * 144 + 28)  # three hours

    def throttled(device, column, seconds, clock=1000, steps=planted, begin=0, second=None, never=()):
        counters = {name: begin for name in (
            "throttle_thermal_nanoseconds", "throttle_hw_thermal_nanoseconds", "throttle_sw_thermal_nanoseconds",
            "throttle_hw_power_brake_nanoseconds", "throttle_power_nanoseconds") if name not in never}
        for step in range(14 * 144):
            held = step in steps
            session = 2 if second is not None and step >= 8 * 144 else 1
            if session == 2 and step == 8 * 144:
                counters = {name: second for name in counters}
            if held:
                counters[column] += seconds * SECOND_NS
            values = dict(counters, sm_clock_megahertz=clock if held else 1980)
            if step == planted[3]:  # not read this time; nothing of it is lost
                values = {"row_status": 1}
            lake.add("gpu_sample", MONDAY + step * 10 * MINUTE, "n-hot", device, session_id=session, **values)
        lake.add("gpu_health", MONDAY, "n-hot", device, sm_clock_max_megahertz=2000)

    throttled("hot-hardware", "throttle_hw_thermal_nanoseconds", 300)
    old = ("throttle_hw_thermal_nanoseconds", "throttle_sw_thermal_nanoseconds", "throttle_hw_power_brake_nanoseconds")
    throttled("hot-old-driver", "throttle_thermal_nanoseconds", 60, never=old)
    throttled("brake", "throttle_hw_power_brake_nanoseconds", 600, clock=500, begin=SECOND_NS * 3600)
    throttled("hot-seconds", "throttle_sw_thermal_nanoseconds", 1)
    throttled("hot-not-power-cap", "throttle_power_nanoseconds", 600)
    # A new session, in which the GPU had been held back before the collector came.
    throttled("hot-before-the-lake", "throttle_hw_thermal_nanoseconds", 0, second=SECOND_NS * 36_000)
    of_planted = len(planted)
    return {
        ("hot-hardware", week.date()): (300 * of_planted / 3600, 0.0, 50.0, None),
        ("hot-old-driver", week.date()): (60 * of_planted / 3600, 0.0, 50.0, None),
        ("brake", week.date()): (0.0, 600 * of_planted / 3600, None, 75.0),
    }


def trust(lake):
    """A hundred minutes with each of two versions of the collector, a sample a minute of ten GPUs."""
    bit = {name: 1 << catalog.bit("gpu_sample", name) for name in ("memory_temp_celsius", "fan_speed_percent")}
    readings = {name: 1 for name in ("energy_millijoules", "gpu_temp_celsius", "memory_temp_celsius")}
    for version, began in (("1.0.0", MONDAY), ("1.1.0", MONDAY + 100 * MINUTE)):
        details = json.dumps({"version": version})
        lake.event(began, "n-trust", None, "collector_start", details_json=details)
        for minute in range(100):
            ts = began + minute * MINUTE + MINUTE / 2
            account = {"table": "gpu_sample", "minute": began + minute * MINUTE, "expected": 10, "collected": 10}
            lake.add("coverage", ts, "n-trust", None, **account)
            lake.add("coverage", ts, "n-trust", None, **(account | {"table": "gpu_health", "expected": 1000}))
            for gpu in range(10):
                values = dict(readings, unsupported_mask=bit["fan_speed_percent"])
                if version == "1.1.0" and gpu < 3:
                    values |= {"memory_temp_celsius": None, "failed_mask": bit["memory_temp_celsius"], "row_status": 1}
                if version == "1.1.0" and gpu == 9 and minute < 50:
                    continue  # its rows never came
                lake.add("gpu_sample", ts, "n-trust", f"trust-{gpu}", **values)
    return {
        # received, failed, unsupported, missing
        ("1.0.0", "gpu_temp_celsius"): (1.0, 0.0, 0.0, 0.0),
        ("1.0.0", "memory_temp_celsius"): (1.0, 0.0, 0.0, 0.0),
        ("1.0.0", "fan_speed_percent"): (0.0, 0.0, 1.0, 0.0),
        ("1.0.0", "sm_clock_megahertz"): (0.0, 0.0, 0.0, 1.0),
        ("1.1.0", "gpu_temp_celsius"): (0.95, 0.0, 0.0, 0.05),
        ("1.1.0", "memory_temp_celsius"): (0.65, 0.3, 0.0, 0.05),
        ("1.1.0", "fan_speed_percent"): (0.0, 0.0, 0.95, 0.05),
    }


def fans(lake):
    """Two days, a sample every twenty minutes; duty and inlet follow the hour of the day."""
    def turns(device, model="S21", ratio=lambda fan, ts: 1.0, state="mining", duty_less=0):
        identity = {"device_kind": "miner", "model": model, "observed_at": MONDAY}
        lake.add("device", MONDAY, "n-fan", device, **identity)
        for step in range(2 * 72):
            ts = MONDAY + step * 20 * MINUTE
            warm = math.sin(ts.hour / 24 * 2 * math.pi)
            duty = round(60 + 20 * warm) - duty_less
            full = 60 * duty + 0.5 * duty * duty  # not in proportion to the duty
            rpm = {f"fan_{fan}_rpm": round(full * ratio(fan, ts)) for fan in (1, 2, 3, 4)}
            values = {"fan_duty_percent": duty, "inlet_temp_celsius": round(25 + 6 * warm), "state": state}
            lake.add("miner_sample", ts, "n-fan", device, **values, **rpm)

    tuesday = MONDAY + DAY
    for miner in range(6):
        turns(f"fan-good-{miner}", ratio=lambda fan, ts, miner=miner: 0.98 + miner / 150)
        turns(f"fan-other-model-{miner}", "M60", lambda fan, ts: 0.7)
        turns(f"fan-low-duty-{miner}", duty_less=20)
    turns("fan-worn", ratio=lambda fan, ts: 0.85 if fan == 2 else 1.0)
    turns("fan-stopped", ratio=lambda fan, ts: 0.0 if fan == 3 and ts >= tuesday else 1.0)
    turns("fan-half-a-day", ratio=lambda fan, ts: 0.5 if ts.hour < 12 else 1.0)
    turns("fan-a-little", ratio=lambda fan, ts: 0.93)
    turns("fan-asleep", ratio=lambda fan, ts: 0.0, state="sleeping")
    # Two of a kind do not say which is slow.
    turns("fan-of-two", "rare")
    turns("fan-of-two-slow", "rare", lambda fan, ts: 0.3)
    return {
        ("fan-worn", "fan_2_rpm", MONDAY.date()), ("fan-worn", "fan_2_rpm", tuesday.date()),
        ("fan-stopped", "fan_3_rpm", tuesday.date()),
    }


SCENARIOS = {
    "ecc_bursts": ecc, "remap_risk": remap, "fatal_xid_rate": xids, "before_off_bus": off_bus,
    "silent_detachment": silences, "throttled_hours": throttles, "data_trust": trust, "slow_fans": fans,
}


def make(folder):
    """Writes the lake; gives what each query must find."""
    lake = Lake()
    found = {query: plant(lake) for query, plant in SCENARIOS.items()}
    lake.write(folder)
    return found
