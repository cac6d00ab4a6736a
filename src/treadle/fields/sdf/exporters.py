"""What `treadle export` offers for distance fields: the mesh of their surface, in the coordinates of the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from treadle.errors import RunError
from treadle.export.exporter import Exporter
from treadle.export.mesh import ENDINGS, Mesh, read_mesh, write_mesh
from treadle.export.mesh_parts import cropped, largest_part, moved
from treadle.export.options import AT, CROP, LARGEST, RESOLUTION, SCALE, UP, chosen, similarity
from treadle.fields.sdf.extraction import extract
from treadle.fields.sdf.field import SDFField
from treadle.fields.sdf.topology import topology


def sdf_exporters(field_of: Callable[..., SDFField]) -> dict[str, Exporter]:
    """The formats of a trainer whose runs' fields `field_of` loads."""

    def write(run: Path, path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
        field: SDFField = chosen(field_of, run, values)
        matrix = similarity(field.to_input.double().cpu().numpy(), values)
        mesh = moved(surface(field, values["resolution"]), matrix)
        if values["crop"] is not None:
            mesh = cropped(mesh, values["crop"])
        if values["largest"] and len(mesh.faces):
            mesh = largest_part(mesh)
        write_mesh(path, mesh, ["from a signed distance field, by treadle"])
        found = read_mesh(path)
        if len(found.vertices) != len(mesh.vertices) or not np.array_equal(found.faces, mesh.faces):
            path.unlink()
            raise RunError(f"{path} was not read back as it was written")
        voxel = 2 / values["resolution"] * np.cbrt(np.linalg.det(matrix[:3, :3]))
        return {"voxel": float(voxel), "vertices": len(found.vertices), "faces": len(found.faces),
                "shape": str(topology(found.faces)), "colours": "learnt" if mesh.colors is not None else "none",
                "read back": "the same"}  # fmt: skip

    return {
        "mesh": Exporter(
            "as a triangle mesh, .ply, .obj or .glb, coloured where colours were learnt", "mesh.ply", write,
            (AT, RESOLUTION, LARGEST, CROP, UP, SCALE), endings=ENDINGS,
        )
    }  # fmt: skip


def surface(field: SDFField, resolution: int) -> Mesh:
    """The zero surface in the field's own coordinates, with its colours where it has some; see `extract`."""
    vertices, faces = extract(field, resolution)
    places = vertices.astype(np.float32)
    colors = None
    if field.colored:
        shades = field.evaluate(torch.from_numpy(places), "color").cpu().numpy()
        colors = (shades.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return Mesh(places, faces.astype(np.int32), colors)
