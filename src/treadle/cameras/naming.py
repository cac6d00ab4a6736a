"""Cameras with names by which people can tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from treadle.cameras.camera import Camera
from treadle.cameras.capture import Capture


def cameras_of(capture: Capture) -> list[Camera]:
    """The cameras of a capture, each with a name of its own: of training, then those held out."""
    held = capture.validation.cameras if len(capture.validation) else capture.test.cameras
    cameras = [*capture.train.cameras, *held]
    names = names_of(cameras)
    held_out = [""] * len(capture.train) + [" (held out)"] * len(held)
    return [replace(camera, name=name + note) for camera, name, note in zip(cameras, names, held_out, strict=True)]


def names_of(cameras: Sequence[Camera]) -> list[str]:
    """A name for each camera: its own, or its number, and where another one has it, too, both."""
    seen: set[str] = set()
    found = []
    for number, camera in enumerate(cameras):
        name = camera.name or f"{number:04d}"
        found.append(name if name not in seen else f"{name} #{number}")
        seen.add(name)
    return found
