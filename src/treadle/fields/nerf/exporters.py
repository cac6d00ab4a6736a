"""What `treadle export` offers for radiance fields: a mesh, a video, the field made small; all where the input is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from treadle.cameras.similarity import box_around
from treadle.export.exporter import Exporter, Option
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
from treadle.fields.nerf.compact import differences, read_compact, write_compact
from treadle.fields.nerf.mesh import LEVEL, surface
from treadle.fields.nerf.scene import Scene


def _density(text: str) -> float:
    density = float(text)
    if not density > 0:
        raise ValueError
    return density


DENSITY = Option("density", f"the density at the surface, per half side of the box (default: {LEVEL:g})", "D",
                 _density, LEVEL)  # fmt: skip


def radiance_exporters(scene_of: Callable[..., Scene]) -> dict[str, Exporter]:
    """The formats of a trainer whose runs `scene_of` reads."""

    def mesh(run: Path, path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
        scene: Scene = chosen(scene_of, run, values)
        matrix = similarity(scene.to_input, values)
        box = np.array([[-1.0] * 3, [1.0] * 3]) if values["crop"] is None else box_around(values["crop"], matrix)
        found = surface(scene.model, box, values["resolution"], values["density"])
        if values["largest"]:
            found = largest_part(found)
        found = moved(found, matrix)
        if values["crop"] is not None:
            found = cropped(found, values["crop"])
        write_checked(path, found, ["from a radiance field, by treadle"])
        voxel = float((box[1] - box[0]).max()) / values["resolution"] * np.cbrt(np.linalg.det(matrix[:3, :3]))
        return {**scene.facts, "voxel": float(voxel), "vertices": len(found.vertices), "faces": len(found.faces),
                "read back": "the same"}  # fmt: skip

    def video(run: Path, path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
        scene: Scene = chosen(scene_of, run, values)
        setting = scene.setting()
        cameras = list(scene.path(values["video"], setting, values["frames"]))
        return {**scene.facts, **write_flight(path, scene.model.looking(setting.background), cameras, values)}

    def compact(run: Path, path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
        scene: Scene = chosen(scene_of, run, values)
        size, what = write_compact(path, scene.model, scene.config)
        full = sum(tensor.numel() * tensor.element_size() for tensor in scene.model.state_dict().values())
        lost = differences(scene.model, read_compact(path))
        return {
            **scene.facts,
            "what": what,
            **lost,
            "bytes": f"{size} ({100 * size / full:.1f}% of {full} in training)",
        }

    return {
        "mesh": Exporter(
            "as a coloured triangle mesh, .ply, .obj or .glb, of the surface where its density passes a level",
            "mesh.ply", mesh, (AT, CROP, UP, SCALE, RESOLUTION, DENSITY, LARGEST), endings=ENDINGS,
        ),
        "video": Exporter(
            "as a video, .mp4 or .gif, along orbit, spiral, dolly, zoom, cameras or the cameras of a PATH.json",
            "video.mp4", video, (AT, FRAMES, FPS, WIDTH, DEPTH), "PATH", VIDEOS,
        ),
        "compact": Exporter(
            "as a small file of its own, .safetensors, baked or in half precision, with what that loses",
            "radiance.safetensors", compact, (AT,), endings=(".safetensors",),
        ),
    }  # fmt: skip
