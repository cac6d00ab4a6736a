"""Prints what W&B's SDK has kept of a run, as JSON: run in the SDK's own Python, with `.wandb` files as arguments.

For each file: "run" (id, project, name, ...), "config", "summary", "rows" (history), "artifacts", "exit", "metrics".
"""

import json
import struct
import sys
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record


def records(data):
    """LevelDB's log format, whose blocks of 32 KiB hold parts of records."""
    assert data[:4] == b":W&B"
    record, at = b"", 7
    while at < len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record = (b"" if kind in (1, 2) else record) + data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield Record.FromString(record)


def items(of):
    """Keys and values; nested ones as dictionaries."""
    told = {}
    for item in of:
        *outer, last = [item.key] if item.key else item.nested_key
        inside = told
        for key in outer:
            inside = inside.setdefault(key, {})
        inside[last] = json.loads(item.value_json)
    return told


def read(path):
    """One session of a run."""
    told = {"rows": [], "config": {}, "summary": {}, "artifacts": [], "metrics": [], "exit": None, "run": None}
    for record in records(Path(path).read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            told["run"] = {"id": run.run_id, "project": run.project, "name": run.display_name, "notes": run.notes,
                           "tags": list(run.tags), "entity": run.entity, "group": run.run_group}  # fmt: skip
            told["config"].update(items(run.config.update))
        elif kind == "config":
            told["config"].update(items(record.config.update))
        elif kind == "history":
            told["rows"].append(items(record.history.item))
        elif kind == "summary":
            told["summary"].update(items(record.summary.update))
        elif kind == "metric":
            told["metrics"].append([record.metric.name or record.metric.glob_name, record.metric.step_metric])
        elif kind == "artifact":
            entries = sorted(entry.path for entry in record.artifact.manifest.contents)
            told["artifacts"].append([record.artifact.type, record.artifact.name, entries])
        elif kind == "exit":
            told["exit"] = record.exit.exit_code
    return told


print(json.dumps([read(path) for path in sys.argv[1:]]))
