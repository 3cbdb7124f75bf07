"""A consumer in another language: reads every topic with frame.proto alone and compares each cell with the lake.

    read_topics.py BOOTSTRAP PREFIX PROTO LAKE

Knows nothing of racklake but what frame.proto says. Exit 0 only when every row of every frame is in the lake with the
same values, and the lake has no other rows.
"""

import importlib
import os
import sys
import tempfile
import time

import confluent_kafka
from grpc_tools import protoc

import lake as readers
from readers import plain


def load_proto(path):
    """The Python module of the .proto file, made by protoc."""
    folder = tempfile.mkdtemp()
    status = protoc.main(["protoc", f"-I{os.path.dirname(path)}", f"--python_out={folder}", path])
    assert status == 0, "protoc refused the file"
    sys.path.insert(0, folder)
    return importlib.import_module("frame_pb2")


def column_names(proto, table):
    """Column id -> name, from the table's enum."""
    enum = "".join(part.capitalize() for part in table.split("_")) + "Column"
    values = proto.DESCRIPTOR.enum_types_by_name[enum].values
    return {value.number: value.name[len(table) + 1 :].lower() for value in values if value.number}


def nulls(bitmap, count):
    return [bool(bitmap) and bool(bitmap[i // 8] >> (i % 8) & 1) for i in range(count)]


def present(column, count):
    """The values of those that are not null, from whichever arm is set."""
    arm = column.WhichOneof("values")
    if arm is None:
        assert count == 0, f"column {column.id} lacks values"
        return []
    if arm == "constant":
        return [getattr(column.constant, column.constant.WhichOneof("value"))] * count
    if arm == "deltas":
        values, last = [], 0
        for delta in column.deltas.deltas:
            last = (last + delta + 2**63) % 2**64 - 2**63
            values.append(last)
    elif arm == "strings":
        values = [column.strings.dictionary[i] for i in column.strings.indices]
    else:
        values = list(getattr(column, arm).values)
    assert len(values) == count, f"column {column.id}: {len(values)} values for {count} rows"
    return values


def spread(values, absent):
    """Values and nulls in row order."""
    values = iter(values)
    return [None if is_null else next(values) for is_null in absent]


def cells(column, rows):
    absent = nulls(column.null_bitmap, rows)
    count = rows - sum(absent)
    if not column.list_lengths and column.WhichOneof("values"):
        return spread(present(column, count), absent)
    if not column.list_lengths:
        return spread(present(column, count), absent) if count == 0 else spread([[]] * count, absent)
    total = sum(column.list_lengths)
    items_absent = nulls(column.item_null_bitmap, total)
    items = iter(spread(present(column, total - sum(items_absent)), items_absent))
    return spread([[next(items) for _ in range(n)] for n in column.list_lengths], absent)


def rows_of(proto, payload):
    """Table, and the rows of a frame as dictionaries."""
    frame = proto.Frame.FromString(payload)
    assert frame.format == 1, f"format {frame.format}"
    names = column_names(proto, frame.table)
    columns = {names[c.id]: cells(c, frame.rows) for c in frame.columns if c.id in names}
    whole = {"node": frame.node, "stream_id": frame.stream_id, "seq": frame.seq, "frame_rows": frame.rows}
    for i in range(frame.rows):
        row = {name: None for name in names.values()}
        row.update({name: values[i] for name, values in columns.items()})
        row.update(whole)
        yield frame.table, row


def consume(bootstrap, topic):
    """Every message of a topic."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "read-topics", "auto.offset.reset": "earliest"}
    consumer = confluent_kafka.Consumer(settings)
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    left = {}
    for partition in partitions:
        low, high = consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, partition), timeout=10)
        if high > low:
            left[partition] = high
    consumer.assign([confluent_kafka.TopicPartition(topic, p, confluent_kafka.OFFSET_BEGINNING) for p in left])
    deadline = time.monotonic() + 60
    while left:
        assert time.monotonic() < deadline, f"{topic}: partitions {sorted(left)} do not end"
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        yield message.value()
        if message.offset() + 1 >= left.get(message.partition(), 0):
            left.pop(message.partition(), None)
    consumer.close()


def main(bootstrap, prefix, proto_path, lake):
    proto = load_proto(proto_path)
    failed = False
    for enum in proto.DESCRIPTOR.enum_types_by_name:
        table = "".join("_" + c.lower() if c.isupper() else c for c in enum.removesuffix("Column")).lstrip("_")
        if not os.path.isdir(os.path.join(lake, table)):
            continue
        wire = []
        for payload in consume(bootstrap, f"{prefix}.{table}"):
            for told, row in rows_of(proto, payload):
                assert told == table, f"a frame of {told} in the topic of {table}"
                wire.append(row)
        stored = readers.read_delta(lake, table).to_pylist()
        names = sorted(set(stored[0]) - {"dt", "received_at"}) if stored else []
        key = lambda row: repr([plain(row[name]) for name in names])
        same = sorted(map(key, wire)) == sorted(map(key, stored))
        failed |= not same
        print(f"{table}: {len(wire)} rows on the wire, {len(stored)} in the lake, {'equal' if same else 'DIFFERENT'}")
    return 1 if failed else 0


if __name__ == "__main__":
    readers.leave(main(*sys.argv[1:]))
