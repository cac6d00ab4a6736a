"""Scenes as Rerun's archetypes: splats, points, lines, meshes, boxes and pinhole cameras, each an entity of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.sinks.services.service import Scene

PLANE = 0.1
"""How far in front of a camera its picture's plane is drawn, as a share of how far cameras are from their middle."""
MOST_SEGMENTS = 200_000
THIN = 1.0
"""The radius of lines, in points on the screen."""
GREY = (150, 150, 160)


def finite(scene: Scene) -> tuple[Scene, Counter[str]]:
    """A scene without what is NaN or infinite, and how much that was, by what it is. Of a line it is all of it."""
    parts: dict[str, Any] = {}
    dropped: Counter[str] = Counter()

    def keep(names: tuple[str, ...]) -> NDArray[np.bool_]:
        first = getattr(scene, names[0])
        arrays = [getattr(scene, name) for name in names if getattr(scene, name) is not None]
        good: NDArray[np.bool_] = np.ones(len(first), np.bool_)
        for array in arrays:
            good &= np.asarray(np.isfinite(array.reshape(len(array), -1)).all(1))
        return good

    def count(what: str, good: NDArray[np.bool_]) -> bool:
        bad = int((~good).sum())
        dropped.update({f"{what} that are not finite": bad} if bad else {})
        return bad > 0

    for what, names in (
        ("points", ("points", "scales", "rotations", "radii", "colors")),
        ("boxes", ("boxes",)),
        ("cameras", ("poses", "intrinsics")),
    ):
        if getattr(scene, names[0]) is not None:
            good = keep(names)
            if count(what, good):
                parts |= {name: getattr(scene, name)[good] for name in names if getattr(scene, name) is not None}
    if scene.lines is not None and scene.offsets is not None:
        lengths = np.diff(scene.offsets)
        line = np.repeat(np.arange(len(lengths)), lengths)
        good = np.ones(len(lengths), bool)
        good[line[~keep(("lines",))]] = False
        if count("lines", good):
            rows = good[line]
            parts |= {"lines": scene.lines[rows], "offsets": np.r_[0, lengths[good].cumsum()]}
            if scene.line_colors is not None:
                parts["line_colors"] = scene.line_colors[rows]
    if scene.vertices is not None and scene.faces is not None:
        there = keep(("vertices",))
        good = np.asarray(there[scene.faces].all(1))
        count("faces", good)
        if not there.all():
            parts |= {"faces": scene.faces[good], "vertices": np.where(there[:, None], scene.vertices, np.float32(0))}
    return replace(scene, **parts), dropped


def entities(scene: Scene) -> Iterator[tuple[str, list[Any]]]:
    """What a scene's parts are to Rerun, by their path below the scene's; for a part that is not there, no archetype.

    Cameras are "cameras/0", ... Whoever had a part and has it no more is to be cleared.
    """
    import rerun as rr

    if _there(scene.points) and scene.scales is not None:
        yield "splats", [rr.GaussianSplats3D(scene.points, scales=scene.scales, quaternions=scene.rotations,
                                             colors=scene.colors)]  # fmt: skip
    elif _there(scene.points):
        yield "points", [rr.Points3D(scene.points, colors=scene.colors, radii=scene.radii)]
    if _there(scene.lines) and scene.offsets is not None and scene.lines is not None:
        strips, colors = _strips(scene)
        yield "lines", [rr.LineStrips3D(strips, colors=colors, radii=-THIN)]
    if _there(scene.faces):
        yield "mesh", [rr.Mesh3D(vertex_positions=scene.vertices, triangle_indices=scene.faces,
                                 vertex_colors=scene.vertex_colors, vertex_normals=_normals(scene))]  # fmt: skip
    if _there(scene.boxes) and scene.boxes is not None:
        low, high = scene.boxes[:, 0], scene.boxes[:, 1]
        yield "boxes", [rr.Boxes3D(centers=(low + high) / 2, half_sizes=(high - low) / 2, colors=GREY, radii=-THIN / 2,
                                   fill_mode="MajorWireframe")]  # fmt: skip
    if _there(scene.poses) and scene.poses is not None and scene.intrinsics is not None:
        centers = scene.poses[:, :3, 3]
        apart = float(np.linalg.norm(centers - centers.mean(0), axis=1).mean()) or 1.0
        for number, (pose, (fx, fy, cx, cy, width, height)) in enumerate(
            zip(scene.poses, scene.intrinsics, strict=True)
        ):
            yield f"cameras/{number}", [
                rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]),
                rr.Pinhole(focal_length=[fx, fy], principal_point=[cx, cy], resolution=[width, height],
                           camera_xyz=rr.ViewCoordinates.RDF, image_plane_distance=PLANE * apart),
            ]  # fmt: skip


def _there(array: NDArray[Any] | None) -> bool:
    return array is not None and len(array) > 0


def _strips(scene: Scene) -> tuple[Any, NDArray[np.uint8] | None]:
    """Lines, and a colour for each, as Rerun has it: where points have colours, each segment is a line of its own.

    Of too many segments lines are kept whole, in the mean colour of their points.
    """
    assert scene.lines is not None and scene.offsets is not None
    lengths = np.diff(scene.offsets)
    line = np.repeat(np.arange(len(lengths)), lengths)
    if scene.line_colors is not None and len(line) <= MOST_SEGMENTS:
        same = line[1:] == line[:-1]
        return np.stack([scene.lines[:-1], scene.lines[1:]], axis=1)[same], scene.line_colors[:-1][same]
    whole = np.split(scene.lines, scene.offsets[1:-1])
    if scene.line_colors is None:
        return whole, None
    sums = np.zeros((len(lengths), 3))
    np.add.at(sums, line, scene.line_colors)
    return whole, (sums / np.maximum(lengths, 1)[:, None]).round().astype(np.uint8)


def _normals(scene: Scene) -> NDArray[np.float32]:
    """(V, 3): of the faces around each vertex, by area: without them a mesh is drawn flat, without any shading."""
    assert scene.vertices is not None and scene.faces is not None
    corners = scene.vertices[scene.faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    found = np.zeros_like(scene.vertices)
    for corner in range(3):
        np.add.at(found, scene.faces[:, corner], across)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
