"""How each make tells its readings: a second reading of the replies, written without a look at the collector's.

A mapping names for each column the commands that tell it, the first one that answers counts, and how it is read from the
reply. Numbers are Decimal or int, as printed; a reading that is not there is None.
"""

import tomllib
from decimal import Decimal
from pathlib import Path

CATALOG = Path(__file__).parents[3] / "schemas/catalog"


def columns(table):
    """Name -> description of the columns of a table."""
    with open(CATALOG / f"{table}.toml", "rb") as text:
        return {column["name"]: column for column in tomllib.load(text)["column"]}


def shifted(value, places):
    """A printed decimal times a power of ten, cut to an integer; None where there is none."""
    if value is None or isinstance(value, bool) or value == "":
        return None
    return int(Decimal(str(value).strip().rstrip("%")).scaleb(places))


def at(tree, *way):
    """The value at a way of keys and positions; None where it ends before."""
    for step in way:
        try:
            tree = tree[step]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


def tell(command, *way, shift=0):
    """An integer from a reply."""
    return [(command, lambda reply: shifted(at(reply, *way), shift))]


def present(command, *way, shift=0):
    """A reading that is not there when it is 0: a voltage or a power that nothing measures."""
    return made(command, lambda reply: shifted(at(reply, *way), shift) or None)


def real(command, *way):
    """A number that stays a fraction."""
    def read(reply):
        value = at(reply, *way)
        return None if value is None else float(value)

    return [(command, read)]


def word(command, *way):
    """A text."""
    return [(command, lambda reply: at(reply, *way))]


def made(command, read):
    """What a function makes of a reply."""
    return [(command, read)]


def sensor(command, *way):
    """A temperature; 0, -40 and 255 are no reading."""
    return [(command, lambda reply: celsius(at(reply, *way)))]


def celsius(value):
    value = shifted(value, 0)
    return None if value in (0, -40, 255) else value


def active(pools, key="Stratum Active"):
    """The pool in use."""
    return next((pool for pool in pools if pool.get(key)), {})


def cgminer_pools(difficulty=("Stratum Difficulty",)):
    """Readings of cgminer's `pools`."""
    pools = lambda reply: reply["POOLS"]
    return {
        "pool_url": made("pools", lambda reply: active(pools(reply)).get("URL")),
        "pool_status": made("pools", lambda reply: active(pools(reply)).get("Status")),
        "pool_difficulty": real_of("pools", lambda reply: at(active(pools(reply)), *difficulty)),
        "pools_alive": made("pools", lambda reply: sum(pool["Status"] == "Alive" for pool in pools(reply))),
        "pools_configured": made("pools", lambda reply: len(pools(reply))),
    }


def real_of(command, read):
    def fraction(reply):
        value = read(reply)
        return None if value is None else float(value)

    return [(command, fraction)]


def cgminer_shares(*difficulties):
    """Readings of cgminer's `summary` that all makes tell alike."""
    way = lambda name: ("SUMMARY", 0, name)
    found = {
        "accepted_shares": tell("summary", *way("Accepted")),
        "rejected_shares": tell("summary", *way("Rejected")),
        "stale_shares": tell("summary", *way("Stale")),
        "hardware_errors": tell("summary", *way("Hardware Errors")),
        "accepted_difficulty": real("summary", *way("Difficulty Accepted")),
        "rejected_difficulty": real("summary", *way("Difficulty Rejected")),
        "stale_difficulty": real("summary", *way("Difficulty Stale")),
        "discarded_work": tell("summary", *way("Discarded")),
        "blocks_found": tell("summary", *way("Found Blocks")),
        "best_share_difficulty": real("summary", *way("Best Share")),
        "uptime_seconds": tell("summary", *way("Elapsed")),
    }
    return found


def windows(command, unit, shift, way=("SUMMARY", 0)):
    """Hashrates of cgminer's windows in one unit."""
    names = {"average": "av", "5s": "5s", "1m": "1m", "5m": "5m", "15m": "15m", "30m": "30m", "24h": "24h"}
    return {
        f"hashrate_{column}_hashes_per_second": tell(command, *way, f"{unit} {name}", shift=shift)
        for column, name in names.items()
    }
