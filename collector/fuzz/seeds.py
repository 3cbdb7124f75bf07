"""Writes seeds for the fuzz targets: the recorded replies of miners, as fuzzing::read takes them.

    python3 seeds.py corpus
"""

import json
import pathlib
import sys

RECORDINGS = pathlib.Path(__file__).resolve().parents[2] / "tests" / "miner-sim" / "recordings"
FOLDERS = {
    "avalon": ["avalon_q", "avalon_1246", "avalon_1246/adapted"],
    "antminer": ["antminer"],
    "whatsminer": ["whatsminer"],
    "braiins": ["braiins"],
    "luxos": ["luxminer"],
}

# Places in Make::ALL; the target of all makes takes the make from the first byte.
PLACES = {"auradine": 5, "bitaxe": 6, "elphapex": 7, "epic": 8, "forgeaxe": 9, "proto": 14, "sealminer": 15}


def write(target, name, text):
    folder = pathlib.Path(sys.argv[1]) / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name.replace("/", "_")).write_text(text)


def names(file):
    """Commands that the reply may belong to: readers name them after the command, with or without a path."""
    stem = file.stem
    return [stem, stem.replace("_", "."), f"{stem}.cgi", f"/cgi-bin/{stem}.cgi"]


for make, folders in FOLDERS.items():
    for folder in folders:
        for version in {file.parent for file in (RECORDINGS / folder).rglob("*.json")}:
            files = sorted(version.glob("*.json"))
            replies = [(file, json.dumps(json.loads(file.read_text()), separators=(",", ":"))) for file in files]
            parts = [f"@{name}\n{text}" for file, text in replies for name in names(file)[: 1]]
            write(make, str(version.relative_to(RECORDINGS)), "\n".join(parts))
            for file, text in replies:
                name = str(file.relative_to(RECORDINGS))
                write("json", name, text)
                write("answer", name, " " + text)
                for index, command in enumerate(names(file)):
                    write(make, f"{name}.{index}", f"@{command}\n{text}")

for make, place in PLACES.items():
    for version in {file.parent for file in (RECORDINGS / make).rglob("*.json")}:
        files = sorted(version.glob("*.json"))
        parts = [f"@{file.stem}\n{json.dumps(json.loads(file.read_text()), separators=(',', ':'))}" for file in files]
        write("others", str(version.relative_to(RECORDINGS)), chr(place) + "\n".join(parts))
