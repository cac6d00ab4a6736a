from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from treadle.fields import sdf_trainer
from treadle.fields.decoder import Decoder
from treadle.fields.grids.hash import HashEncoding
from treadle.fields.sdf import panels
from treadle.fields.sdf.exporters import surface
from treadle.fields.sdf.field import SDFField
from treadle.fields.sdf.live import SliceView, SurfaceView
from treadle.fields.sdf.settings import SDFConfig
from treadle.fields.sdf.solid import Solid, enclose
from treadle.fields.sdf_trainer import SDFTrainer, build_field
from treadle.fields.showing import MOST_CELLS
from treadle.reports.scene import Scene, checked
from treadle.reports.views import Window, camera_of, chosen, described, numbers_of
from treadle.sinks.base import Sink

SIZE = 40
pytest.importorskip("igl")

TILES = ((0, 0, SIZE, 7), (0, 7, 11, 8), (11, 7, SIZE, 8), (0, 8, SIZE, SIZE))


@pytest.fixture
def field() -> SDFField:
    """A ball with dents, in colours."""
    torch.manual_seed(0)
    grid = HashEncoding(3, levels=3, features=2, log2_size=10, n_min=4, n_max=16)
    found = SDFField(grid, Decoder(grid.width, 4, 16, 1, "none"), ball=0.6).eval()
    with torch.no_grad():
        grid.table.mul_(2e3)
        found.to_input.copy_(torch.tensor([[2.0, 0, 0, 1], [0, 2, 0, 0], [0, 0, 2, 5], [0, 0, 0, 1]]))
        for parameter in found.decoder.parameters():
            parameter.mul_(0.7)
    return found


@pytest.fixture
def solid(ball: Any) -> Solid:
    return enclose(ball())


def window(view: Any, size: int = SIZE, *, moving: bool = False, **given: Any) -> Window:
    camera = camera_of(numbers_of(view.cameras()[0]), size, size) if view.kind == "space" else None
    return Window(size, size, (0, 0, size, size), camera, chosen(view.options(), given), moving)


def drawn(view: Any, whole: Window, *boxes: tuple[int, int, int, int]) -> Any:
    found = None
    with torch.no_grad():
        for left, top, right, bottom in boxes or [whole.box]:
            part = np.asarray(view.draw(replace(whole, box=(left, top, right, bottom))))
            found = np.zeros((whole.height, whole.width, *part.shape[2:]), part.dtype) if found is None else found
            found[top:bottom, left:right] = part
    return found


CHANNELS = ("shaded", "normal", "occlusion", "color", "depth", "opacity", "sdf", "density")


@pytest.mark.parametrize("channel", CHANNELS)
def test_tiles_of_a_surface_are_the_picture(field: SDFField, channel: str) -> None:
    view = SurfaceView(field)
    assert view.options()[0].choices == CHANNELS
    whole = window(view, channel=channel)
    picture = drawn(view, whole)
    assert np.array_equal(drawn(view, whole, *TILES), picture)
    assert len(np.unique(picture)) > 1


def test_shading_is_that_of_the_reports(field: SDFField) -> None:
    view = SurfaceView(field)
    seen = panels.see(field, panels.camera_at(panels.VIEWS["front"], SIZE))
    assert np.abs(drawn(view, window(view)) - panels.shaded(seen._replace(colors=None))).max() < 0.02


def test_a_crop_box_cuts_the_solid_open(field: SDFField) -> None:
    view = SurfaceView(field)
    opacity = drawn(view, window(view, channel="opacity"))
    cut = drawn(view, window(view, channel="opacity", x_high=0.0))
    assert 0.2 < cut.sum() / opacity.sum() < 0.8
    assert view.shapes(window(view)).boxes is None
    boxes = view.shapes(window(view, x_high=0.0)).boxes
    assert boxes.tolist() == [[[-1, -1, -1], [0, 1, 1]]]


def test_levels_change_what_is_seen(field: SDFField) -> None:
    view = SurfaceView(field)
    finest = field.levels - 1
    assert np.array_equal(drawn(view, window(view, level=finest)), drawn(view, window(view)))
    assert not np.array_equal(drawn(view, window(view, level=0)), drawn(view, window(view)))


def test_the_inspector_has_the_place_and_its_channels(field: SDFField) -> None:
    view = SurfaceView(field)
    seen = np.argwhere(drawn(view, window(view, channel="opacity"))[..., 0] > 0)
    row, column = seen[len(seen) // 2]
    with torch.no_grad():
        told = view.inspect(window(view), int(column), int(row))
        assert view.inspect(window(view), 0, 0) == {"seen": "nothing"}
    place = np.array([told[axis] for axis in "xyz"])
    assert abs(told["sdf"]) < 2e-3 and abs(field.evaluate(torch.tensor(place[None]).float()).item()) < 2e-3
    assert np.linalg.norm([told[f"normal {axis}"] for axis in "xyz"]) == pytest.approx(1, abs=1e-4)
    own = field.to_input.numpy() @ [*place, 1.0]
    assert [told[f"mesh {axis}"] for axis in "xyz"] == pytest.approx(own[:3].tolist(), abs=1e-6)
    assert {"color red", "density", "depth"} <= told.keys()


@pytest.mark.parametrize("show", ["learnt", "exact", "error"])
@pytest.mark.parametrize("given", [{}, {"axis": "x", "at": 0.25, "zoom": 3.0, "x": 0.3}])
def test_tiles_of_a_slice_are_the_picture(field: SDFField, solid: Solid, show: str, given: dict[str, Any]) -> None:
    view = SliceView(field, solid)
    whole = window(view, show=show, **given)
    assert np.array_equal(drawn(view, whole, *TILES), drawn(view, whole))


def test_a_slice_shows_inside_and_outside_where_they_are(field: SDFField, solid: Solid) -> None:
    view = SliceView(field, solid)
    exact = drawn(view, window(view, 64, show="exact")).astype(int)
    with torch.no_grad():
        for x, y in ((32, 32), (3, 2), (60, 58), (40, 30), (24, 26)):
            numbers = view.inspect(window(view, 64), x, y)
            assert numbers["error"] == numbers["learnt"] - numbers["exact"]
            assert numbers["x"] == pytest.approx((2 * x + 1) / 64 - 1) and numbers["z"] == 0
            assert numbers["y"] == pytest.approx(1 - (2 * y + 1) / 64)
            assert (exact[y, x, 0] > exact[y, x, 2]) == (numbers["exact"] > 0)
    learnt = drawn(view, window(view, 64)).astype(int)
    assert learnt[32, 32, 0] < learnt[32, 32, 2] and learnt[0, 0, 0] > learnt[0, 0, 2]


def test_cells_of_a_sparse_grid_are_boxes() -> None:
    config = SDFConfig(grid="octree", levels=3, base=2, hidden=16)
    cells = torch.tensor([[0, 0, 0], [0, 0, 1], [15, 15, 15]])
    view = SurfaceView(build_field(config, False, cells))
    assert view.shapes(window(view)).boxes.tolist() == [
        [[-1, -1, -1], [-0.875, -0.875, -0.875]],
        [[-1, -1, -0.875], [-0.875, -0.875, -0.75]],
        [[0.875, 0.875, 0.875], [1, 1, 1]],
    ]
    assert len(view.shapes(window(view, level=1)).boxes) == 2  # both are in one of the next coarser
    many = SurfaceView(build_field(config, False, torch.cartesian_prod(*[torch.arange(16)] * 3)))
    assert MOST_CELLS < 16**3 and len(many.shapes(window(many)).boxes) == 8**3


def test_the_trainer_offers_both(ball: Any) -> None:
    trainer = SDFTrainer(data=enclose(ball()), max_steps=1, batch_size=100, pool=200, levels=2, log2_size=8, n_max=16,
                         hidden=16, validation_points=100, test_points=100, examples_every=None)  # fmt: skip
    views = {name: described(name, view) for name, view in trainer.views().items()}
    assert [camera["name"] for camera in views["surface"]["cameras"]] == ["front", "back", "left", "right", "below"]
    assert views["surface"]["has"] == ["shapes", "inspect"] and views["slices"]["has"] == ["inspect"]
    assert views["slices"]["size"][0] == views["slices"]["size"][1]


def test_its_scene_is_the_surface_and_changes_no_bit_of_the_run(ball: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Scenes(Sink):
        def __init__(self) -> None:
            self.found: list[tuple[int, Scene]] = []

        def scene(self, step: int, name: str, scene: Scene) -> None:
            self.found.append((step, scene))

    monkeypatch.setattr(sdf_trainer, "SCENE_RESOLUTION", 24)
    scenes, digests = Scenes(), []
    for hooks in ([], [scenes]):
        trainer = SDFTrainer(data=enclose(ball(paint=True)), max_steps=20, batch_size=500, pool=1000, levels=2,
                             log2_size=10, n_max=16, hidden=16, validation_points=99, test_points=99, picture=16,
                             hooks=hooks, examples_every="10 steps")  # fmt: skip
        trainer.train()
        digests.append(trainer.digest())
    assert [step for step, _ in scenes.found] == [10, 20] and digests[0] == digests[1]
    scene = checked(scenes.found[-1][1])
    wanted = surface(trainer.model, 24)
    np.testing.assert_array_equal(scene.vertices, wanted.vertices)
    np.testing.assert_array_equal(scene.faces, wanted.faces)
    np.testing.assert_array_equal(scene.vertex_colors, wanted.colors)
    assert scene.faces is not None and len(scene.faces) > 100
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.mul_(0)
    trainer.model.ball = 3.0  # it encloses all of the box: there is no surface in it
    assert trainer.scenes()["surface"].empty
