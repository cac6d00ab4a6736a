"""Calls a Service as the process beside a run does: in an SDK's own Python, with what the test wrote as JSON.

Input: {"service": "module:Class", "calls": [[method, {argument: value}], ...], "file_bytes": null or how long a file
may get}. An argument "picture" is nested lists, "path" and an opening's "directory" are paths. Prints a line of JSON
for each call: {"returned": ...} or {"raised": "Type: message"}.
"""

import importlib
import json
import os
import resource
import sys
from pathlib import Path

import numpy as np

from treadle.reports.scene import ARRAYS
from treadle.sinks.services.service import Opening, Scene


def argument(name, value):
    """`value` as the service expects it."""
    if name == "opening":
        return Opening(**value | {"directory": value["directory"] and Path(value["directory"])})
    if name == "picture":
        return np.array(value, dtype=np.uint8)
    if name == "scene":
        return Scene(**{key: np.array(array, ARRAYS[key][1]) for key, array in value.items()})
    return Path(value) if name == "path" else value


def main():
    """Call, and tell what came of it."""
    told = json.load(sys.stdin)
    module, _, name = told["service"].partition(":")
    if told["file_bytes"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (told["file_bytes"], told["file_bytes"]))
    service = getattr(importlib.import_module(module), name)()
    answers = sys.stdout
    read, write = os.pipe()
    os.close(read)  # what an SDK prints has no reader: as where the run was killed
    sys.stdout = os.fdopen(write, "w", buffering=1)
    for method, arguments in told["calls"]:
        try:
            answer = {
                "returned": getattr(service, method)(**{name: argument(name, v) for name, v in arguments.items()})
            }
        except Exception as error:
            answer = {"raised": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
    os._exit(0)  # as that process ends: what a service has not brought away is lost


main()
os._exit(0)  # as the process beside a run does: whatever an SDK has left behind keeps nobody
