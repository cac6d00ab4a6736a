"""What Comet's archives of offline experiments hold."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from treadle.sinks.services.comet import read_archive

Point = tuple[str, int, float]


def archives(directory: Path) -> list[Path]:
    """The archives there, the oldest first; their names do not say which that is."""
    return sorted(directory.glob("*.zip"), key=lambda path: described(path)["start_time"])


def described(path: Path) -> dict[str, Any]:
    """What an archive says of its experiment: "offline_id", "project_name", "resume_strategy", ..."""
    with zipfile.ZipFile(path) as archive:
        found: dict[str, Any] = json.loads(archive.read("experiment.json"))
    return found


def messages(path: Path, kind: str) -> list[dict[str, Any]]:
    """Everything of one kind in an archive, in its order."""
    return [message["payload"] for message in read_archive(path) if message["type"] == kind]


def told(path: Path) -> list[Point]:
    """Every number that was logged: name, step and value, in their order."""
    metrics = [message["metric"] for message in messages(path, "metric_msg")]
    points = [(metric["metricName"], metric["step"], float(metric["metricValue"])) for metric in metrics]
    return [point for point in points if point[0] != "process duration"]  # Comet's own


def others(path: Path) -> dict[str, Any]:
    """Its "others", the last of each name."""
    return {message["key"]: message["value"] for message in messages(path, "log_other")}


def files(path: Path) -> dict[str, bytes]:
    """Its files: assets and pictures by their names, texts by the name that stands beside them; STEP/ before it."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        for message in messages(path, "file_upload"):
            said = message["additional_params"]
            metadata = message.get("metadata") or {}
            name = said.get("figName") or metadata.get("name") or said["fileName"]
            step = f"{said['step']}/" if said.get("figName") or metadata.get("name") else ""
            found[step + name] = archive.read(message["file_path"])
    return found


def pixels(content: bytes) -> Any:
    """A picture's, as nested lists."""
    return np.asarray(Image.open(io.BytesIO(content))).tolist()
