"""ePIC's PowerPlay over HTTP."""

from . import tell

MINER = {
    "is_rounded": True,
    "accepted_shares": tell("/summary", "Session", "Accepted"),
    "uptime_seconds": tell("/summary", "Session", "Uptime"),
}


def boards(poll):
    return {}


COUNTS = "/summary"
ACCEPTED = ("Session", "Accepted")
