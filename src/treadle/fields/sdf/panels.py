"""Distance fields to look at: the surface from the front and the back, shaded, and slices of the distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.cameras.camera import Camera
from treadle.fields.field import Field
from treadle.fields.pipeline import Pipeline
from treadle.fields.rays import Rays
from treadle.fields.rendering import render
from treadle.fields.sdf.field import CHUNK, SDFField
from treadle.fields.tracers.sphere import SphereTracer
from treadle.images.panels import panel
from treadle.images.reading import Pixels

VIEWS = {"front": (0.55, 0.35, 1.0), "back": (-0.8, 0.5, -0.6)}
"""From where it is looked at, y up."""

DISTANCE = 3.2
"""How far cameras are from the origin."""

PLANES = ((2, 1), (0, 2), (0, 1))
"""In a slice across x, y or z: which axis is right, and which is up."""

CAPTIONS = ("shaded", "normals", "ambient occlusion", "colour")

_LIGHT = np.array([-0.4, -0.65, -0.65]) / math.sqrt(0.4**2 + 2 * 0.65**2)  # in the camera's frame: x right, y down
_CLAY, _PAPER = np.array([0.86, 0.84, 0.80]), np.array([1.0, 1.0, 1.0])
_ARRIVED = 2e-3  # the distance up to which a place is on the surface
_STEPS = 5  # along the normal, for occlusion
_LINE = 0.1  # between isolines


class Seen(NamedTuple):
    """What a camera sees of a surface; numpy arrays (H, W, ...), float32."""

    opacity: NDArray[np.float32]
    depth: NDArray[np.float32]
    normals: NDArray[np.float32]
    occlusion: NDArray[np.float32]
    """From 0, buried, to 1, in the open."""
    colors: NDArray[np.float32] | None
    light: NDArray[np.float64]
    """(3,) where light comes from, a unit vector: over the camera's left shoulder."""


def camera_at(direction: Sequence[float], size: int, distance: float = DISTANCE) -> Camera:
    """An upright camera (y up) with a square picture in which [-1, 1]^3 just fits, that looks at the origin."""
    back = np.asarray(direction, np.float64) / np.linalg.norm(direction)
    right = np.cross([0.0, 1.0, 0.0], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, -np.cross(back, right), -back])
    pose[2, 3] = distance
    focal = size * distance * 0.5 / 1.02  # the ball of the solid's radius, .9, with a margin
    return Camera(size, size, focal, focal, size / 2, size / 2, pose)


def see(field: Field, camera: Camera, lod: int | None = None) -> Seen:
    """Trace the surface of a field: its depth, normals, occlusion and, where it has them, colours."""
    colored = "color" in field.channels
    names = ("normal", "color") if colored else ("normal",)
    found = render(Pipeline(field, SphereTracer()), camera, names, lod=lod)
    rays = Rays.of(camera)
    places = rays.origins + found["distance"].reshape(-1, 1) * rays.directions
    hit = found["opacity"].reshape(-1) > 0.5
    # A tracer arrives where it gets no further, too: in a dip of a distance that is not quite one.
    hit[hit.clone()] = distances(field, places[hit], lod).abs() < _ARRIVED
    found = {name: values * hit.reshape(camera.height, camera.width, 1) for name, values in found.items()}
    open_ = torch.zeros(len(hit))
    open_[hit] = occlusion(field, places[hit], found["normal"].reshape(-1, 3)[hit], lod)
    return Seen(
        found["opacity"].numpy(),
        found["depth"].numpy(),
        found["normal"].numpy(),
        open_.reshape(camera.height, camera.width, 1).numpy(),
        found["color"].numpy() if colored else None,
        _LIGHT @ camera.world_to_camera[:3, :3],
    )


@torch.no_grad()
def occlusion(field: Field, points: Tensor, normals: Tensor, lod: int | None = None, reach: float = 0.25) -> Tensor:
    """(n,) how open it is at `points` (n, 3) on the surface, from 0 to 1.

    In the open the distance grows along the normal as fast as one goes; what it lacks is occlusion (Evans 2006, "Fast
    approximations for global illumination on dynamic scenes"), nearer steps counting for more.
    """
    if not len(points):
        return torch.zeros(0)
    ahead = reach * torch.arange(1, _STEPS + 1) / _STEPS
    lacking = torch.zeros(len(points))
    for number, step in enumerate(ahead.tolist()):
        values = distances(field, points + step * normals, lod)
        lacking += 0.65**number * (step - values).clamp(min=0) / step
    return (1 - lacking / sum(0.65**number for number in range(_STEPS))).clamp(0, 1)


@torch.no_grad()
def distances(field: Field, points: Tensor, lod: int | None = None) -> Tensor:
    """(n,) what a field says of `points` (n, 3), on the CPU, in chunks."""
    tensors = [*field.parameters(), *field.buffers()]
    device = tensors[0].device if tensors else points.device
    parts = [field(part.to(device), None, ("sdf",), lod)["sdf"].float().cpu() for part in points.split(CHUNK)]
    return torch.cat(parts)[:, 0] if parts else points.new_empty(0)


def shaded(seen: Seen) -> NDArray[np.float32]:
    """(H, W, 3) a surface of clay, or in its own colours, under soft light from the upper left, on paper."""
    facing = (seen.normals @ seen.light)[..., None]
    light = (0.45 * (facing * 0.5 + 0.5) + 0.55 * facing.clip(0)) * (0.35 + 0.65 * seen.occlusion)
    base = _CLAY if seen.colors is None else seen.colors
    return np.where(seen.opacity > 0.5, (base * (0.15 + 1.1 * light)).clip(0, 1), _PAPER).astype(np.float32)


def pictures(seen: Seen) -> list[Pixels]:
    """The pictures of a view, (H, W, 3) uint8 each, as CAPTIONS says; the last where there are colours."""
    solid = seen.opacity > 0.5
    shown = [
        shaded(seen._replace(colors=None)),
        np.where(solid, seen.normals / 2 + 0.5, _PAPER),
        np.where(solid, np.repeat(seen.occlusion, 3, 2), _PAPER),
    ]
    if seen.colors is not None:
        shown.append(shaded(seen))
    return [(picture.clip(0, 1) * 255 + 0.5).astype(np.uint8) for picture in shown]


def views(field: SDFField, size: int) -> dict[str, list[Pixels]]:
    """The pictures of the surface from the front and from the back, by name; see `pictures`."""
    return {name: pictures(see(field, camera_at(direction, size))) for name, direction in VIEWS.items()}


def together(seen: dict[str, list[Pixels]]) -> Pixels:
    """One panel of views, a row each."""
    rows = list(seen.values())
    return panel(rows, CAPTIONS[: len(rows[0])])


def slices(field: SDFField, size: int) -> Pixels:
    """One panel of the distance in the planes x = 0, y = 0 and z = 0: inside blue, outside red, isolines every .1."""
    return panel([[slice_through(field, axis, size) for axis in range(3)]], [f"{name} = 0" for name in "xyz"])


def slice_through(field: SDFField, axis: int, size: int, at: float = 0.0) -> Pixels:
    """The distance in a plane across an axis (0 is x), (size, size, 3) uint8: across x, z is right and y up; else x is
    right, and z or y up."""
    ticks = (2 * torch.arange(size) + 1) / size - 1
    up, right = torch.meshgrid(-ticks, ticks, indexing="ij")
    across, above = PLANES[axis]
    points = torch.full((size * size, 3), at)
    points[:, across], points[:, above] = right.flatten(), up.flatten()
    values = field.evaluate(points).reshape(size, size).cpu().numpy()
    return isolines(values, 2 / size)


def isolines(values: NDArray[np.float32], pixel: float) -> Pixels:
    """Distances (H, W) as colours (H, W, 3) uint8: blue inside, red outside, a line every .1 and a thick one at 0.

    `pixel` is how far it is from one pixel to the next.
    """
    strength = (np.abs(values) / 0.8).clip(0, 1)[..., None]
    inside, outside = np.array([0.17, 0.37, 0.64]), np.array([0.78, 0.33, 0.18])
    pale = np.array([0.97, 0.96, 0.94])
    picture = pale + (0.25 + 0.6 * strength) * (np.where(values[..., None] < 0, inside, outside) - pale)
    slope = np.maximum(np.hypot(*np.gradient(values)), 0.1 * pixel)  # per pixel: less where the plane grazes a surface
    apart = np.abs((values / _LINE + 0.5) % 1 - 0.5) * _LINE / slope  # from the nearest line, in pixels
    thin = (1.0 - apart).clip(0, 1)[..., None] * 0.45
    thick = (2.2 - np.abs(values) / slope).clip(0, 1)[..., None]
    picture = picture * (1 - thin) * (1 - thick)
    shown: Pixels = (picture.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return shown
