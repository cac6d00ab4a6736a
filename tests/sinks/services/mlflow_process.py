"""Tells an MLflow service and reads MLflow stores, in the SDK's own Python, which takes seconds to start: one for many.

Each line of the input is a request, and is answered by a line: {"service": [module, class], "calls": [[method,
{argument: value}], ...], "variables": {...}} makes a new service, which the next request goes on with where it names no
service; the answer is [{"returned": ...} or {"raised": "Type: message"}, ...]. {"read": URI} is answered by what the
store holds, {experiment: [run, ...]}; a run is its "id", "name", "status", "params", "tags", "metrics" ({key: [[step,
value, time in ms], ...]} in the order of MLflow's own history), "artifacts" ({path: content; pictures as lists}).
"""

import importlib
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from PIL import Image

from treadle.sinks.services.service import Opening


def argument(name, value):
    """`value` as the service expects it."""
    if name == "opening":
        return Opening(**value | {"directory": value["directory"] and Path(value["directory"])})
    if name == "picture":
        return np.array(value, dtype=np.uint8)
    return Path(value) if name == "path" else value


def call(service, method, arguments):
    """What came of it."""
    try:
        return {"returned": getattr(service, method)(**{name: argument(name, v) for name, v in arguments.items()})}
    except Exception as error:
        return {"raised": f"{type(error).__name__}: {error}"}


def content(path):
    """What a downloaded artifact holds."""
    if path.suffix in (".png", ".webp"):
        return np.asarray(Image.open(path)).tolist()
    return path.read_text(errors="replace")


def read(uri):
    """Everything there is."""
    client = MlflowClient(uri)
    told = {}
    for experiment in client.search_experiments():
        runs = told[experiment.name] = []
        for run in client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]):
            name = run.info.run_id
            history = {key: client.get_metric_history(name, key) for key in run.data.metrics}
            with tempfile.TemporaryDirectory() as directory:
                client.download_artifacts(name, "", directory)
                files = [path for path in sorted(Path(directory).rglob("*")) if path.is_file()]
                artifacts = {str(path.relative_to(directory)): content(path) for path in files}
            metrics = {key: [[m.step, m.value, m.timestamp] for m in points] for key, points in history.items()}
            runs.append(
                {
                    "id": name,
                    "name": run.info.run_name,
                    "status": run.info.status,
                    "params": run.data.params,
                    "tags": run.data.tags,
                    "metrics": metrics,
                    "artifacts": artifacts,
                }
            )
    return told


def main():
    """Answer until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr
    before, service = dict(os.environ), None
    for line in sys.stdin:
        request = json.loads(line)
        os.environ.clear()
        os.environ.update(before | request.get("variables", {}))
        if "read" in request:
            answer = read(request["read"])
        else:
            if "service" in request:
                module, name = request["service"]
                service = getattr(importlib.import_module(module), name)()
            answer = [call(service, method, arguments) for method, arguments in request["calls"]]
        print(json.dumps(answer), file=answers, flush=True)


main()
