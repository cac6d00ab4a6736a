"""What `treadle export` offers for splats: PLY, compressed, a mesh, a video; all in the coordinates of the input.

A trainer offers them so:

    @classmethod
    def exporters(cls) -> dict[str, Any]:
        return splat_exporters(partial(trained_scene, cls))  # of treadle.splats.scene
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.cameras.similarity import box_around
from treadle.errors import RunError, UsageError
from treadle.export.exporter import Exporter, Option
from treadle.export.fusion import fuse, truncation
from treadle.export.look import Look
from treadle.export.mesh import ENDINGS, write_checked
from treadle.export.mesh_parts import cropped, largest_part, moved
from treadle.export.options import (
    AT,
    CROP,
    DEPTH,
    FPS,
    FRAMES,
    LARGEST,
    RESOLUTION,
    SCALE,
    UP,
    WIDTH,
    chosen,
    similarity,
)
from treadle.export.video import ENDINGS as VIDEOS
from treadle.export.video import write_flight
from treadle.splats.cloud import Cloud
from treadle.splats.compressed_ply import chunk_order, read_compressed, write_compressed
from treadle.splats.format_loss import losses
from treadle.splats.ply import read_cloud, write_cloud
from treadle.splats.scene import Scene, looking, surfaces
from treadle.splats.spz import read_spz, write_spz
from treadle.splats.transform import inside, opaque, select, transformed

MIN_OPACITY = Option("min-opacity", "leave out splats that are less opaque, such as .05", "SHARE", float)
PLACING = (AT, CROP, MIN_OPACITY, UP, SCALE)


def splat_exporters(
    scene_of: Callable[..., Scene],
    looker: Callable[[Cloud, Tensor], Look] = looking,
    surface_looker: Callable[[Cloud, Tensor, float], Look] = surfaces,
) -> dict[str, Exporter]:
    """The formats of a trainer whose runs `scene_of` reads; the others make what renders, for videos and for meshes."""

    def ply(run: Path, path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
        scene: Scene = chosen(scene_of, run, values)
        cloud, facts = _placed(scene, values)
        size = write_cloud(path, cloud)
        _compare(path, read_cloud(path), cloud)
        return {**facts, "read back": "the same, bit for bit", **_size(size, cloud)}

    def compressed(run: Path, path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
        scene: Scene = chosen(scene_of, run, values)
        cloud, facts = _placed(scene, values)
        if path.suffix.lower() == ".spz":
            size = write_spz(path, cloud)
            lost = losses(cloud, read_spz(path))
        else:
            size = write_compressed(path, cloud)
            lost = losses(select(cloud, chunk_order(cloud)), read_compressed(path))
        said = {f"lost of {name}": f"{loss.rms:.2g} rms, {loss.largest:.2g} at most ({loss.unit})"
                for name, loss in lost.items()}  # fmt: skip
        left = {"left out": ", ".join(cloud.extra)} if cloud.extra else {}
        return {**facts, **left, **said, **_size(size, cloud)}

    def mesh(run: Path, path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
        scene: Scene = chosen(scene_of, run, values)
        kept, facts = _kept(scene, values)
        matrix = similarity(scene.to_input, values)
        box = _bounds(kept) if values["crop"] is None else box_around(values["crop"], matrix)
        setting = scene.setting()
        look = surface_looker(kept, setting.background, truncation(box, values["resolution"]))
        surface = fuse(look, setting.cameras, box, values["resolution"])
        if values["largest"]:
            surface = largest_part(surface)
        surface = moved(surface, matrix)
        if values["crop"] is not None:
            surface = cropped(surface, values["crop"])
        write_checked(path, surface, ["from Gaussian splats, by treadle"])
        voxel = float((box[1] - box[0]).max()) / values["resolution"] * np.cbrt(np.linalg.det(matrix[:3, :3]))
        return {**facts, "voxel": float(voxel), "vertices": len(surface.vertices), "faces": len(surface.faces),
                "read back": "the same"}  # fmt: skip

    def video(run: Path, path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
        scene: Scene = chosen(scene_of, run, values)
        kept, facts = _kept(scene, values)
        setting = scene.setting()
        cameras = list(scene.path(values["video"], setting, values["frames"]))
        return {**facts, **write_flight(path, looker(kept, setting.background), cameras, values)}

    return {
        "ply": Exporter("as splats in a standard 3DGS PLY", "splats.ply", ply, PLACING, endings=(".ply",)),
        "compressed": Exporter(
            "as compressed splats, .compressed.ply or .spz, with what that loses",
            "splats.compressed.ply", compressed, PLACING, endings=(".compressed.ply", ".spz"),
        ),
        "mesh": Exporter(
            "as a coloured triangle mesh, .ply, .obj or .glb, of the surface that the training cameras see",
            "mesh.ply", mesh, (*PLACING, RESOLUTION, LARGEST), endings=ENDINGS,
        ),
        "video": Exporter(
            "as a video, .mp4 or .gif, along orbit, spiral, dolly, zoom, cameras or the cameras of a PATH.json",
            "video.mp4", video, (AT, CROP, MIN_OPACITY, UP, SCALE, FRAMES, FPS, WIDTH, DEPTH), "PATH", VIDEOS,
        ),
    }  # fmt: skip


def _chosen(placed: Cloud, values: Mapping[str, Any]) -> Tensor:
    """Which splats, given in the coordinates of the file, are to be in it."""
    rows = torch.ones(len(placed), dtype=torch.bool)
    if values["crop"] is not None:
        rows &= inside(placed, values["crop"])
    if values["min-opacity"] is not None:
        rows &= opaque(placed, values["min-opacity"])
    if not bool(rows.any()):
        raise UsageError(f"nothing is left of {len(placed)} splats: choose a larger --crop or a smaller --min-opacity")
    return rows


def _facts(scene: Scene, rows: Tensor) -> dict[str, Any]:
    count = int(rows.sum())
    of = f"{count}" if count == len(rows) else f"{count} of {len(rows)}"
    return {**scene.facts, "splats": of, "degree": scene.cloud.degree}


def _placed(scene: Scene, values: Mapping[str, Any]) -> tuple[Cloud, dict[str, Any]]:
    """The splats of a file, in its coordinates."""
    matrix = similarity(scene.to_input, values)
    same = np.array_equal(matrix, np.eye(4))  # then not a bit is changed
    placed = scene.cloud if same else transformed(scene.cloud, matrix)
    rows = _chosen(placed, values)
    return placed if bool(rows.all()) else select(placed, rows), _facts(scene, rows)


def _kept(scene: Scene, values: Mapping[str, Any]) -> tuple[Cloud, dict[str, Any]]:
    """The same splats in the coordinates of training, where the cameras are."""
    rows = _chosen(transformed(scene.cloud, similarity(scene.to_input, values)), values)
    return select(scene.cloud, rows), _facts(scene, rows)


def _bounds(cloud: Cloud) -> NDArray[np.float64]:
    """A box around nearly all that is solid, with some room: single splats that have strayed do not stretch it."""
    solid = opaque(cloud, 0.5)
    means = cloud.means[solid if bool(solid.any()) else slice(None)].double().numpy()
    low, high = np.quantile(means, [0.01, 0.99], axis=0)
    room = 0.1 * (high - low).max() + 1e-6
    return np.stack([low - room, high + room])


def _compare(path: Path, found: Cloud, cloud: Cloud) -> None:
    pairs = [(found.means, cloud.means), (found.quaternions, cloud.quaternions), (found.dc, cloud.dc),
             (found.log_scales, cloud.log_scales), (found.logits, cloud.logits), (found.rest, cloud.rest)]  # fmt: skip
    if not all(torch.equal(a, b.cpu().float()) for a, b in pairs):
        path.unlink()
        raise RunError(f"{path} was not read back as it was written: the disk, or the splats hold infinite numbers")


def _size(size: int, cloud: Cloud) -> dict[str, Any]:
    plain = 4 * (17 + cloud.rest[0].numel()) * len(cloud)
    return {"bytes": f"{size} ({size / len(cloud):.1f} a splat, {100 * size / plain:.0f}% of a plain PLY)"}
