"""What `treadle export` writes of a radiance field: in the coordinates of the input, cropped, and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from treadle.cameras.procedural import camera_at
from treadle.engine.rows import RowEdit
from treadle.errors import UsageError
from treadle.export.exporter import Exporter
from treadle.export.mesh import Mesh, read_mesh
from treadle.export.setting import Setting
from treadle.fields.field import Field
from treadle.fields.grids.codebook import CodebookGrid
from treadle.fields.nerf.compact import read_compact
from treadle.fields.nerf.exporters import radiance_exporters
from treadle.fields.nerf.model import Radiance, build
from treadle.fields.nerf.scene import Scene
from treadle.fields.nerf.settings import NeRFConfig
from treadle.fields.structures.occupancy import OccupancyGrid
from treadle.fields.tracers.radiance import RadianceTracer

TO_INPUT = np.array([[1.2, -1.6, 0, 10], [1.6, 1.2, 0, 20], [0, 0, 2.0, 30], [0, 0, 0, 1]])
SMALL = {"max_steps": 1, "occupancy": 16, "steps": 64, "levels": 3, "features": 2, "log2_size": 9, "n_min": 4,
         "n_max": 16, "hidden": 16, "box": (0.0, 0.0, 0.0, 1.0), "bound": 1.0, "near": 0.0, "cone": 0.0,
         "contracted": False}  # fmt: skip


class Balls(Field):
    """A large ball, and a small one: dense within. Red where it is looked at downwards, else green."""

    channels = {"density": 1, "color": 3}
    balls = (((-0.2, 0.0, 0.0), 0.5), ((0.7, 0.6, 0.5), 0.15))

    def forward(
        self, points: Tensor, directions: Tensor | None = None, channels: Any = None, lod: int | None = None
    ) -> dict[str, Tensor]:
        inside = torch.stack(
            [radius - (points - points.new_tensor(center)).norm(dim=1) for center, radius in self.balls]
        )
        found = {"density": (inside.amax(0) * 400 + 15).clamp(min=0)[:, None]}
        if directions is not None:
            down = directions[:, 2] < 0
            found["color"] = torch.stack([down.float(), (~down).float(), torch.zeros(len(points))], 1)
        return found

    def density(self, points: Tensor) -> Tensor:
        return self(points)["density"][:, 0]


def balls() -> Radiance:
    occupancy = OccupancyGrid(32)
    field = Balls()
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        occupancy.update(field.density, generator, step=0.03)
    return Radiance(field, RadianceTracer(occupancy, step=0.03), TO_INPUT)  # type: ignore[arg-type]


def exporters(model: Radiance, config: NeRFConfig | None = None) -> dict[str, Exporter]:
    cameras = [camera_at(direction, 12) for direction in ((1, 0, 0.3), (0, 1, 0.3), (-1, 0, 0.3))]
    setting = Setting(cameras, torch.ones(3))
    config = NeRFConfig(**SMALL) if config is None else config
    scene = Scene(model, config, lambda: setting, lambda kind, setting, frames: cameras[:frames], {"step": 7})
    return radiance_exporters(lambda run: scene)


def export(exporter: Exporter, path: Path, **values: Any) -> Any:
    return exporter.write(path.parent, path, {option.name: option.default or False for option in exporter.options} | {
        "crop": None, "up": None, "scale": None, "width": None} | values)  # fmt: skip


def volume(mesh: Mesh) -> float:
    a, b, c = (mesh.vertices[mesh.faces[:, k]].astype(np.float64) for k in range(3))
    return float((np.cross(a, b) * c).sum() / 6)


def closed(mesh: Mesh) -> bool:
    edges = np.concatenate([mesh.faces[:, pair] for pair in ((0, 1), (1, 2), (2, 0))])
    back = {(b, a) for a, b in edges.tolist()}
    return back == set(map(tuple, edges.tolist()))


def back(mesh: Mesh) -> Mesh:
    """In the model's coordinates."""
    places = np.linalg.solve(TO_INPUT[:3, :3], (mesh.vertices - TO_INPUT[:3, 3]).T).T
    return Mesh(places.astype(np.float32), mesh.faces, mesh.colors)


def test_the_mesh_is_the_surface_closed_and_coloured_in_the_coordinates_of_the_input(tmp_path: Path) -> None:
    said = export(exporters(balls())["mesh"], tmp_path / "mesh.ply", resolution=48, density=15.0)
    mesh = back(read_mesh(tmp_path / "mesh.ply"))
    assert said["vertices"] == len(mesh.vertices) and said["step"] == 7
    assert said["voxel"] == pytest.approx(2 / 48 * 2)
    distance = np.stack([np.linalg.norm(mesh.vertices - center, axis=1) - radius for center, radius in Balls.balls])
    assert np.abs(distance[np.abs(distance).argmin(0), np.arange(len(mesh.vertices))]).max() < 0.03
    assert closed(mesh)
    assert volume(mesh) == pytest.approx(4 / 3 * np.pi * (0.5**3 + 0.15**3), rel=0.05), "faces are seen from outside"
    assert mesh.colors is not None
    large = mesh.vertices[:, 0] < 0.4
    top, bottom = large & (mesh.vertices[:, 2] > 0.3), large & (mesh.vertices[:, 2] < -0.3)
    assert top.sum() > 50 and bottom.sum() > 50
    assert (mesh.colors[top] == (255, 0, 0)).all() and (mesh.colors[bottom] == (0, 255, 0)).all()


def test_the_largest_part_alone_and_a_cropped_one(tmp_path: Path) -> None:
    mesh = exporters(balls())["mesh"]
    export(mesh, tmp_path / "one.ply", resolution=32, density=15.0, largest=True)
    one = back(read_mesh(tmp_path / "one.ply"))
    assert one.vertices[:, 0].max() < 0.4 and closed(one)
    low, high = TO_INPUT[:3, :3] @ (0.4, 0.4, 0.3) + TO_INPUT[:3, 3], TO_INPUT[:3, :3] @ (1, 1, 0.8) + TO_INPUT[:3, 3]
    box = (*np.minimum(low, high) - 0.3, *np.maximum(low, high) + 0.3)
    export(mesh, tmp_path / "crop.ply", resolution=32, density=15.0, crop=box)
    cropped = read_mesh(tmp_path / "crop.ply")
    assert (cropped.vertices >= box[:3]).all() and (cropped.vertices <= box[3:]).all()
    assert np.linalg.norm(back(cropped).vertices - (0.7, 0.6, 0.5), axis=1).mean() == pytest.approx(0.15, abs=0.03)


def test_a_box_with_nothing_in_it_is_refused(tmp_path: Path) -> None:
    mesh = exporters(balls())["mesh"]
    with pytest.raises(UsageError, match="no density in the box reaches 15, where the surface is to be"):
        export(mesh, tmp_path / "mesh.ply", resolution=16, density=15.0, crop=(9.5, 19.5, 31.5, 9.6, 19.6, 31.6))
    with pytest.raises(UsageError, match="--resolution 7: expected 8 to 1024"):
        export(mesh, tmp_path / "mesh.ply", resolution=7, density=15.0)


def test_a_video_goes_along_the_cameras(tmp_path: Path) -> None:
    said = export(
        exporters(balls())["video"], tmp_path / "flight.gif", video="orbit", frames=3, fps=8.0, depth="beside"
    )
    assert (tmp_path / "flight.gif").is_file() and said["frames"] == "3 of 12 x 12 pixels"


def trained(config: NeRFConfig | None = None) -> Radiance:
    torch.manual_seed(0)
    model = build(NeRFConfig(**SMALL) if config is None else config, TO_INPUT)
    with torch.no_grad():
        for tensor in model.field.grid.parameters():
            tensor.uniform_(-1, 1)
    model.occupancy.mask[:] = torch.rand(model.occupancy.mask.shape) > 0.5
    return model


def test_the_small_file_is_the_field_in_half_precision(tmp_path: Path) -> None:
    model = trained()
    said = export(exporters(model)["compact"], tmp_path / "small.safetensors")
    size = (tmp_path / "small.safetensors").stat().st_size
    full = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    assert said["bytes"].startswith(f"{size} (") and size < 0.6 * full
    found = read_compact(tmp_path / "small.safetensors")
    assert torch.equal(found.occupancy.mask, model.occupancy.mask) and torch.equal(found.to_input, model.to_input)
    camera = camera_at((1, 0.5, 0.3), 16)
    one, two = (each.look(camera, torch.ones(3)).image for each in (model, found))
    assert 0 < (one - two).abs().max() < 0.02
    assert said["lost of color"].endswith(" rms") and float(said["lost of color"].split()[0]) < 0.01


def test_a_codebook_is_baked_to_some_bits_a_corner(tmp_path: Path) -> None:
    tables = dict.fromkeys(("log2_size", "n_min", "n_max"))
    config = NeRFConfig(**SMALL | tables | {"grid": "codebook", "base": 2, "bits": 3})
    model = trained(config)
    grid = next(module for module in model.modules() if isinstance(module, CodebookGrid))
    grid.prune(torch.rand(len(grid.cells), generator=torch.Generator().manual_seed(0)) > 0.5, RowEdit)
    said = export(exporters(model, config)["compact"], tmp_path / "small.safetensors")
    size, full = (tmp_path / "small.safetensors").stat().st_size, 4 * grid.logits.numel()
    assert said["what"].startswith("3 bits a corner") and size < 0.4 * full
    found = read_compact(tmp_path / "small.safetensors")
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert torch.equal(found.field.grid(points), model.field.grid(points)), "nothing of the grid is lost"
    camera = camera_at((1, 0.5, 0.3), 16)
    one, two = (each.look(camera, torch.ones(3)).image for each in (model, found))
    assert (one - two).abs().max() < 0.02


@pytest.mark.parametrize("spoil", [b"", b"no", None])
def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path, spoil: bytes | None) -> None:
    path = tmp_path / "small.safetensors"
    export(exporters(trained())["compact"], path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if spoil is None else spoil)
    with pytest.raises(UsageError, match=r"small\.safetensors"):
        read_compact(path)
    with pytest.raises(UsageError, match=r"missing\.safetensors"):
        read_compact(tmp_path / "missing.safetensors")


def test_another_safetensors_file_is_no_radiance_field(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="is no compact radiance field"):
        read_compact(tmp_path / "other.safetensors")
