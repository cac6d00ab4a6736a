"""Reads Rerun recordings with Rerun's own reader, as JSON: `python read_rerun.py FILE.rrd ...`, in an SDK's Python.

Prints {"ids": [...], "warned": [...], "views": [[class, name, contents], ...] of the largest blueprint, "entities":
{path: {"step": [...], "time": [seconds, ...], "columns": [...], "values": [...] of scalars, texts and pictures (mode,
width, height, first pixel), "first" and "last": {column: value} of a row}}, "static": {path: {column: value}}}, one
file after the other.
"""

import io
import json
import sys
import warnings

from PIL import Image
from rerun.chunk import RrdReader


def plain(value):
    """A value of Arrow's as JSON has it: long lists by their length."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, list):
        return [plain(each) for each in value] if len(value) < 100 else f"{len(value)} values"
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return value if isinstance(value, int | float | str | bool) or value is None else str(value)


def read(path, found):
    """Add what is in a file."""
    reader = RrdReader(path)
    for store in reader.recordings():
        found["ids"].append(store.recording_id)
        for chunk in reader.stream(store=store):
            add(chunk, found)
    for store in reader.blueprints():  # each holds what those before it held; they are in no order
        found["views"] = max(found["views"], views(reader.stream(store=store)), key=len)


def add(chunk, found):
    """Add the rows of a chunk."""
    batch = chunk.to_record_batch()
    times = () if chunk.is_static else chunk.timeline_names
    names = [name for name in batch.schema.names if name not in ("rerun.controls.RowId", *times)]
    path = str(chunk.entity_path)
    if chunk.is_static:
        found["static"].setdefault(path, {}).update({name: plain(batch.column(name)[-1].as_py()) for name in names})
        return
    entity = found["entities"].setdefault(path, {"step": [], "time": [], "values": []})
    entity["columns"] = sorted({*entity.get("columns", []), *names})
    entity["step"] += batch.column("step").to_pylist()
    if "time" in batch.schema.names:
        entity["time"] += [ns / 1e9 for ns in batch.column("time").cast("int64").to_pylist()]
    for name in ("Scalars:scalars", "TextLog:text", "TextDocument:text"):
        if name in names:
            entity["values"] += [row[0] for row in batch.column(name).to_pylist()]
    if "EncodedImage:blob" in names:
        for row in batch.column("EncodedImage:blob").to_pylist():
            picture = Image.open(io.BytesIO(bytes(row[0])))
            entity["values"].append([picture.mode, *picture.size, picture.getpixel((0, 0))])
    entity.setdefault("first", {name: plain(batch.column(name)[0].as_py()) for name in names})
    entity["last"] = {name: plain(batch.column(name)[-1].as_py()) for name in names}


def views(chunks):
    """The views of a blueprint."""
    told = {}
    for chunk in chunks:
        batch = chunk.to_record_batch()
        if chunk.entity_path.startswith("/view/"):
            view = told.setdefault("/".join(chunk.entity_path.split("/")[:3]), {})
            view |= {name: plain(batch.column(name)[-1].as_py()) for name in batch.schema.names if ":" in name}
    return [
        [
            *(view.get(f"ViewBlueprint:{name}", [""])[0] for name in ("class_identifier", "display_name")),
            view.get("ViewContents:query", []),
        ]
        for view in told.values()
    ]


def main():
    """Read all."""
    found = {"ids": [], "views": [], "entities": {}, "static": {}, "warned": []}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for path in sys.argv[1:]:
            read(path, found)
    found["warned"] = [str(each.message) for each in warned]
    print(json.dumps(found))


main()
