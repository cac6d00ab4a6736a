from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from treadle.cameras.procedural import procedural_capture
from treadle.data.views import ViewFeed, as_view
from treadle.fields.nerf import live
from treadle.fields.nerf.live import HeldOutRadianceView, RadianceView
from treadle.fields.nerf.model import Radiance
from treadle.fields.nerf_trainer import NeRFTrainer
from treadle.fields.showing import MOST_CELLS
from treadle.reports.scene import Scene, checked
from treadle.reports.views import Sample, Window, camera_of, chosen, described, numbers_of
from treadle.sinks.base import Sink

SIZE = 24
TILES = ((0, 0, SIZE, 7), (0, 7, 11, 8), (11, 7, SIZE, 8), (0, 8, SIZE, SIZE))
CHANNELS = ("color", "depth", "opacity", "normal", "density")


@pytest.fixture(scope="module")
def trainer() -> NeRFTrainer:
    """A few steps on a small scene of our own."""
    capture = procedural_capture(size=SIZE, train=6, test=2)
    made = NeRFTrainer(data=capture, max_steps=8, samples=4000, first_rays=128, batch_size=512, levels=3, log2_size=10,
                       n_max=32, hidden=16, occupancy=16, examples_every=None)  # fmt: skip
    made.train()
    return made


@pytest.fixture
def view(trainer: NeRFTrainer) -> RadianceView:
    found = trainer.views()["field"]
    assert isinstance(found, RadianceView)
    return found


def window(view: Any, size: int = SIZE, *, moving: bool = False, **given: Any) -> Window:
    camera = camera_of(numbers_of(view.cameras()[0]), size, size)
    return Window(size, size, (0, 0, size, size), camera, chosen(view.options(), given), moving)


def drawn(view: Any, whole: Window, *boxes: tuple[int, int, int, int]) -> Any:
    found = None
    with torch.no_grad():
        for left, top, right, bottom in boxes or [whole.box]:
            part = np.asarray(view.draw(replace(whole, box=(left, top, right, bottom))))
            found = np.zeros((whole.height, whole.width, *part.shape[2:]), part.dtype) if found is None else found
            found[top:bottom, left:right] = part
    return found


@pytest.mark.parametrize("channel", CHANNELS)
def test_tiles_are_the_picture(view: RadianceView, channel: str) -> None:
    assert view.options()[0].choices == CHANNELS
    whole = window(view, channel=channel)
    picture, parts = drawn(view, whole), drawn(view, whole, *TILES)
    if picture.dtype == np.uint8:
        assert np.array_equal(parts, picture)
    else:
        assert np.abs(parts - picture).max() < 1e-4
    assert len(np.unique(picture)) > 1


def test_from_a_training_camera_it_is_what_the_trainer_sees(trainer: NeRFTrainer, view: RadianceView) -> None:
    camera = trainer.capture.train.cameras[0]
    with torch.no_grad():
        seen = trainer.model.look(camera, trainer.background.in_tests(trainer.device))
    assert np.abs(drawn(view, window(view)) - seen.image.numpy()).max() < 1e-3
    names = [camera["name"] for camera in described("field", view)["cameras"]]
    assert len(names) == 8 and sum(name.endswith("(held out)") for name in names) == 2


def test_crop_box_background_and_level_are_obeyed(view: RadianceView) -> None:
    opacity = drawn(view, window(view, channel="opacity"))
    cut = drawn(view, window(view, channel="opacity", x_high=0.0))
    assert 0.05 * opacity.sum() < cut.sum() < 0.95 * opacity.sum()
    black, white = (drawn(view, window(view, background=name)) for name in ("black", "white"))
    apart = white - black
    assert np.abs(apart - (1 - opacity)[..., None]).max() < 1e-4
    assert not np.array_equal(drawn(view, window(view, level=0)), drawn(view, window(view)))
    assert np.array_equal(drawn(view, window(view, level=2)), drawn(view, window(view)))


def test_the_inspector_knows_places_in_the_inputs_coordinates_too(trainer: NeRFTrainer, view: RadianceView) -> None:
    opacity = drawn(view, window(view, channel="opacity"))
    row, column = np.unravel_index(opacity.argmax(), opacity.shape)
    opaque = replace(window(view), options={**window(view).options})
    with torch.no_grad():
        told = view.inspect(opaque, int(column), int(row))
    assert told["opacity"] == pytest.approx(float(opacity.max()), abs=1e-5)
    assert {"density", "color red", "color green", "color blue"} <= told.keys()
    if told["opacity"] > 0.5:
        place = trainer.model.to_input.numpy() @ [*(told[axis] for axis in "xyz"), 1.0]
        assert [told[f"input {axis}"] for axis in "xyz"] == pytest.approx(place[:3].tolist())
        assert window(view).camera is not None


def test_occupied_cells_are_boxes(trainer: NeRFTrainer, view: RadianceView) -> None:
    occupancy = trainer.model.occupancy
    before = occupancy.mask.clone()
    try:
        occupancy.mask.zero_()
        occupancy.mask[0, 0, 15, 8] = True
        boxes = view.shapes(window(view)).boxes
        assert boxes is not None and boxes.tolist() == [[[-1, 0.875, 0], [-0.875, 1, 0.125]]]
        boxes = view.shapes(window(view, z_low=0.5)).boxes
        assert boxes is not None and boxes[-1].tolist() == [[-1, -1, 0.5], [1, 1, 1]]
        occupancy.mask.fill_(True)
        boxes = view.shapes(window(view)).boxes
        assert boxes is not None and len(boxes) in ((16**3, 8**3)[MOST_CELLS < 16**3],)
        assert view.figures(window(view)) == {"% occupied": 100.0}
    finally:
        occupancy.mask.copy_(before)


def held_out(trainer: NeRFTrainer, standing: Any = lambda: 0) -> HeldOutRadianceView:
    background = trainer.background.in_tests(trainer.device)
    assert isinstance(trainer.test_feed, ViewFeed)
    return HeldOutRadianceView(
        trainer.test_feed, trainer.model.looking(background), trainer.strip, trainer.judged,
        lambda view: view.colors(background), trainer.device, standing,
    )  # fmt: skip


def test_a_held_out_view_comes_in_pieces_and_is_the_whole(trainer: NeRFTrainer, monkeypatch: Any) -> None:
    monkeypatch.setattr(live, "PIECE", 0.0)
    monkeypatch.setattr(live, "ROWS", 5 * SIZE)
    view = held_out(trainer)
    whole = Window(400, 120, (0, 0, 400, 120), None, chosen(view.options(), {"sample": view.options()[0].choices[1]}))
    with torch.no_grad():
        ready = []
        while not ready or not ready[-1]:
            ready.append(view.prepare(whole))
            cells = view.cells(whole)
            assert (view.figures(whole) == {}) == (not ready[-1])
        assert ready == [False] * 4 + [True] and [cell.name for cell in cells][:2] == ["target", "render"]
        sample = as_view(trainer.capture.test[1], 1)
        seen = trainer.look(sample)
        assert np.abs(cells[1].picture.astype(int) - trainer.strip(seen, sample)[1]).max() <= 1
        assert view.figures(whole)["psnr"] == pytest.approx(trainer.judged(seen, sample)["psnr"], abs=0.01)
        assert view.prepare(whole)  # nothing is left to do for this state


def test_while_the_run_goes_on_the_last_whole_render_is_shown(trainer: NeRFTrainer, monkeypatch: Any) -> None:
    monkeypatch.setattr(live, "PIECE", 0.0)
    monkeypatch.setattr(live, "ROWS", 12 * SIZE)
    state = [0]
    view = held_out(trainer, lambda: state[0])
    whole = Window(400, 120, (0, 0, 400, 120), None, chosen(view.options(), {}))
    with torch.no_grad():
        assert [view.prepare(whole) for _ in range(2)] == [False, True]
        before = view.cells(whole)[1].picture
        state[0] = 1
        assert not view.prepare(whole) and np.array_equal(view.cells(whole)[1].picture, before)
        state[0] = 2  # it is finished all the same, or with short steps none ever would be
        assert view.prepare(whole)


def test_samples_are_measured_in_pieces(trainer: NeRFTrainer, monkeypatch: Any) -> None:
    monkeypatch.setattr(live, "PIECE", 0.0)
    monkeypatch.setattr(live, "ROWS", 12 * SIZE)
    view = held_out(trainer)
    with torch.no_grad():
        found = list(view.samples())
    samples = [sample for sample in found if isinstance(sample, Sample)]
    assert [sample.name for sample in samples] == list(view.options()[0].choices) and found.count(None) == 4
    assert all({"psnr", "ssim", "l1"} <= sample.figures.keys() for sample in samples)


def test_the_trainer_offers_both(trainer: NeRFTrainer) -> None:
    views = trainer.views()
    assert list(views) == ["field", "held out"] and isinstance(trainer.model, Radiance)
    assert described("held out", views["held out"])["has"] == ["samples", "inspect"]


def test_its_scene_is_the_occupied_cells_and_the_cameras_of_training(trainer: NeRFTrainer, view: RadianceView) -> None:
    scene, shapes = checked(trainer.scenes()["field"]), view.shapes(window(view))
    np.testing.assert_array_equal(scene.boxes, shapes.boxes)
    assert scene.boxes is not None and len(scene.boxes) > 0
    wanted = [camera.camera_to_world for camera in trainer.capture.train.cameras]
    np.testing.assert_array_equal(scene.poses, wanted)
    assert scene.intrinsics is not None and (scene.intrinsics[:, 4:] == SIZE).all()


def test_scenes_are_made_with_examples_and_change_no_bit_of_the_run() -> None:
    class Scenes(Sink):
        steps: list[int] = []

        def scene(self, step: int, name: str, scene: Scene) -> None:
            self.steps.append(step)

    digests = []
    for hooks in ([], [Scenes()]):
        made = NeRFTrainer(data=procedural_capture(size=12, train=4, test=1), max_steps=4, samples=1000, first_rays=64,
                           batch_size=128, levels=2, log2_size=8, n_max=16, hidden=16, occupancy=16, hooks=hooks,
                           examples_every="2 steps")  # fmt: skip
        made.train()
        digests.append(made.digest())
    assert Scenes.steps == [2, 4] and digests[0] == digests[1]
