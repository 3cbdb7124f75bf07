"""Prints the rows of `event` that ingest has told itself, as one JSON list, in the order of their time.

    print_events.py LAKE
"""

import json
import os
import sys

from lake import leave, path, read_delta

COLUMNS = ["ts", "event", "severity", "site", "node", "source", "stream_id", "seq", "event_id", "details_json"]


def main(lake):
    if not os.path.exists(path(lake, "event")):
        print("[]")
        return 0
    rows = [row for row in read_delta(lake, "event", COLUMNS).to_pylist() if row["source"] == "ingest"]
    rows.sort(key=lambda row: row["ts"])
    for row in rows:
        row["ts"] = row["ts"].timestamp()
        row["details"] = json.loads(row.pop("details_json"))
    print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    leave(main(*sys.argv[1:]))
