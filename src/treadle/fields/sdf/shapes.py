"""A mesh of our own to train on: a trefoil knot of an octagonal rope, with stripes that run around it."""

from __future__ import annotations

import numpy as np

from treadle.fields.sdf.paint import Paint
from treadle.fields.sdf.reading import Surface

_COLORS = np.array([[0.16, 0.36, 0.47], [0.95, 0.92, 0.84], [0.80, 0.27, 0.20], [0.95, 0.92, 0.84]])
"""Indigo and madder on undyed wool."""


def knot(along: int = 360, around: int = 48, thickness: float = 0.3) -> Surface:
    """A trefoil knot, watertight and of genus 1, with a groove that turns with the rope, and striped.

    Args:
        along: vertices along the rope, at least 12.
        around: vertices around it, at least 3.
        thickness: radius of the rope; the knot is 3 units wide, and from about .5 on it would touch itself.
    """
    t = np.linspace(0, 2 * np.pi, along, endpoint=False)[:, None]
    middle = np.concatenate([np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t), -1.2 * np.sin(3 * t)], 1)
    ahead = np.concatenate([np.cos(t) + 4 * np.cos(2 * t), -np.sin(t) + 4 * np.sin(2 * t), -3.6 * np.cos(3 * t)], 1)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    # The rope does not touch the z axis: what points away from that gives it a frame that closes.
    side = np.cross(ahead, middle * [1, 1, 0])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(side, ahead)
    angle = np.linspace(0, 2 * np.pi, around, endpoint=False)[None, :]
    radius = thickness * (1 + 0.09 * np.cos(6 * (angle + 2 * t)))
    ring = np.cos(angle)[..., None] * side[:, None] + np.sin(angle)[..., None] * up[:, None]
    vertices = (middle[:, None] + radius[..., None] * ring).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(along), np.arange(around), indexing="ij")
    corner = (i * around + j).ravel()
    ahead_, beside, both = (
        (((i + di) % along) * around + (j + dj) % around).ravel() for di, dj in ((1, 0), (0, 1), (1, 1))
    )
    faces = np.concatenate([np.stack([corner, ahead_, both], 1), np.stack([corner, both, beside], 1)])
    stripe = np.floor(24 * (t / (2 * np.pi)) + 2 * angle / (2 * np.pi)).astype(np.int64) % len(_COLORS)
    return Surface(vertices, faces, Paint.plain(_COLORS[stripe.reshape(-1)][faces]))
