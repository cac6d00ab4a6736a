"""Live views of splats: parts and wholes, what each option leaves, exact numbers, held-out views, and no trace."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch

from treadle.cameras.camera import Camera
from treadle.cameras.naming import names_of
from treadle.cameras.procedural import procedural_capture
from treadle.images.judging import as_pixels
from treadle.reports.scene import Scene, checked
from treadle.reports.trainer_views import views_of
from treadle.reports.views import LiveView, Window
from treadle.sinks.base import Sink
from treadle.splats import live
from treadle.splats.cloud import Cloud
from treadle.splats.live import MOST_POINTS, HeldOutView, SplatsView, bounds_of
from treadle.splats.model import Splats
from treadle.splats.rendering import render
from treadle.splats.trainer import SplatsTrainer

SMALL = {"max_steps": 5, "cap": 150, "random": 80, "device": "cpu", "examples_every": None, "log_every": "10 steps",
         "validate_every": None, "seed": 3}  # fmt: skip


def make(**settings: Any) -> SplatsTrainer:
    return SplatsTrainer(data=procedural_capture(24, 7, 3, points=60), **SMALL | settings)


@lru_cache
def trained() -> SplatsTrainer:
    trainer = make()
    trainer.train()
    return trainer


@pytest.fixture
def view() -> LiveView:
    return views_of(trained())["splats"]


def window(view: LiveView, width: int = 90, height: int = 70, **options: Any) -> Window:
    camera = view.cameras()[0] if view.kind == "space" else None
    camera = None if camera is None else camera.resized(width, height)
    chosen = {option.name: option.default for option in view.options()} | options
    return Window(width, height, (0, 0, width, height), camera, chosen)


def drawn(view: LiveView, asked: Window) -> np.ndarray:
    with trained().evaluating():
        return np.asarray(view.draw(asked))


def test_it_shows_what_is_rendered(view: SplatsView) -> None:
    asked = window(view)
    wanted = render(trained().model.cloud(), asked.camera, background=torch.ones(3), near=trained().near)
    np.testing.assert_array_equal(drawn(view, asked), as_pixels(wanted.image).numpy())
    assert drawn(view, asked).std() > 3


@pytest.mark.parametrize("channel", ["color", "depth", "alpha", "overdraw"])
def test_tiles_are_parts_of_the_whole(view: SplatsView, channel: str) -> None:
    asked = window(view, channel=channel)
    whole = drawn(view, asked)
    tiles = np.full_like(whole, 77)
    for box in ((0, 0, 37, 29), (37, 0, 90, 29), (0, 29, 90, 30), (0, 30, 51, 70), (51, 30, 90, 70)):
        left, top, right, bottom = box
        tiles[top:bottom, left:right] = drawn(view, replace(asked, box=box))
    assert np.abs(tiles.astype(float) - whole).max() <= (1 if whole.dtype == np.uint8 else 1e-5)


def test_channels_are_what_they_say(view: SplatsView) -> None:
    wanted = render(trained().model.cloud(), window(view).camera, depth=True, near=trained().near)
    np.testing.assert_allclose(drawn(view, window(view, channel="alpha")), wanted.alpha.detach(), atol=1e-6)
    depth = drawn(view, window(view, channel="depth")).astype(int).sum(2)
    covered = wanted.alpha.detach().numpy() > 0.5
    assert (depth[~covered] == 0).all() and (depth[covered] > 0).all()
    near, far = (wanted.depth.detach().numpy()[covered] <= np.percentile(wanted.depth.detach().numpy()[covered], q)
                 for q in (20, 80))  # fmt: skip
    assert depth[covered][near].mean() > depth[covered][~far].mean()  # near is bright
    over = drawn(view, window(view, channel="overdraw"))
    asked = window(view)
    with trained().evaluating():
        counts = [[view.inspect(asked, x, y)["splats"] for x in range(0, 90, 9)] for y in range(0, 70, 9)]
    np.testing.assert_allclose(over[::9, ::9] ** 2 * 64, counts, atol=1e-3)
    centers, extents = wanted.projection.centers.detach(), wanted.projection.extents
    x, y = torch.arange(0, 90, 9) + 0.5, torch.arange(0, 70, 9) + 0.5
    reached = [((x[:, None] if axis == 0 else y[:, None]) - centers[:, axis]).abs() <= extents[:, axis]
               for axis in (0, 1)]  # fmt: skip
    reached = reached[0][None] & reached[1][:, None] & (extents[:, 0] > 0)
    np.testing.assert_array_equal(reached.sum(2), counts)
    assert np.max(counts) >= 3


def clouds(count: int) -> Cloud:
    """Small splats of any rotation in a box of 4."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(count, *shape, generator=random)

    return Cloud(normal(3), normal(4), normal(3) - 4, 2 * normal(), normal(3), 0.2 * normal(3, 3))


def one_splat(where: tuple[float, float, float]) -> Splats:
    cloud = clouds(1)
    cloud.means[:] = torch.tensor(where)
    cloud.log_scales[:], cloud.logits[:] = -3.0, 0.0
    return Splats(cloud)


def alone(model: Splats) -> SplatsView:
    return SplatsView(model, trained().capture, torch.zeros(3), 0.2, lambda: id(model))


def test_extents_are_scaled_and_splats_become_dots_or_solid() -> None:
    view = alone(one_splat((0.0, 0.0, 0.0)))
    area = {}
    for name, options in {"as they are": {}, "half": {"scale": 0.5}, "dots": {"look": "points"},
                          "solid": {"look": "ellipses"}}.items():  # fmt: skip
        alpha = drawn(view, window(view, 600, 600, channel="alpha", **options))
        area[name] = int((alpha > 0.3).sum()), float(alpha.max())
    assert area["half"][0] == pytest.approx(area["as they are"][0] / 4, rel=0.15)
    assert area["as they are"][1] == pytest.approx(0.5, abs=0.02) and area["solid"][1] == pytest.approx(0.99, abs=0.02)
    assert area["solid"][0] > 2 * area["as they are"][0]
    assert 1 <= area["dots"][0] <= 6 and area["dots"][1] > 0.4


def test_harmonics_are_shown_up_to_a_degree(view: SplatsView) -> None:
    (option,) = (option for option in view.options() if option.name == "degree")
    degree = trained().model.cloud().degree
    assert (option.low, option.high, option.default) == (0.0, degree, degree)
    asked = window(view, degree=0.0)
    wanted = render(trained().model.cloud(), asked.camera, degree=0, background=torch.ones(3), near=trained().near)
    np.testing.assert_array_equal(drawn(view, asked), as_pixels(wanted.image).numpy())


def test_opacity_and_crop_box_leave_out_splats_and_the_figures_count_them(view: SplatsView) -> None:
    model = trained().model
    with trained().evaluating():
        assert view.figures(window(view)) | {"in sight": 0} == {"splats": 150, "chosen": 150, "in sight": 0}
        least = float(model.opacities().median())
        found = view.figures(window(view, opacity=least))
        assert found["chosen"] == int((model.opacities() >= least).sum()) < 150
        middle = float(model.means[:, 0].median())
        found = view.figures(window(view, x_low=middle, background="black"))
        assert found["chosen"] == int((model.means[:, 0] >= middle).sum()) and found["in sight"] <= found["chosen"]
        shapes = view.shapes(window(view, x_low=middle))
    assert (shapes.points[:, 0] >= np.float32(middle)).all() and len(shapes.points) == found["chosen"]
    lower, upper = bounds_of(trained().capture)
    np.testing.assert_allclose(shapes.boxes, [[[middle, *lower[1:]], upper]], rtol=1e-6)
    assert (drawn(view, window(view, x_low=middle)) != drawn(view, window(view))).any()


def test_a_crop_box_at_its_ends_cuts_nothing() -> None:
    view = alone(one_splat((50.0, -50.0, 50.0)))
    assert view.figures(window(view))["chosen"] == 1


def test_few_centres_are_laid_over_in_their_colours() -> None:
    model = Splats(clouds(2 * MOST_POINTS + 7))
    view = alone(model)
    shapes = view.shapes(window(view))
    assert shapes.points.shape == shapes.colors.shape == (MOST_POINTS, 3) and shapes.boxes is None
    assert shapes.points.dtype == np.float32 and shapes.colors.dtype == np.uint8
    np.testing.assert_array_equal(shapes.points[[0, -1]], model.means.detach()[[0, -1]])
    np.testing.assert_allclose(shapes.colors[0], (0.5 + 0.28209 * model.dc.detach()[0]).clamp(0, 1) * 255, atol=1)


def test_the_numbers_under_a_pixel_are_those_of_the_render(view: SplatsView) -> None:
    asked = window(view)
    cloud, camera = trained().model.cloud(), asked.camera
    wanted = render(cloud, camera, depth=True, background=torch.ones(3), near=trained().near)
    y, x = np.unravel_index(int(wanted.alpha.argmax()), (70, 90))
    with trained().evaluating():
        found = view.inspect(asked, x, y)
    assert wanted.alpha[y, x] > 0.5
    colors = [found[name] for name in ("red", "green", "blue")]
    np.testing.assert_allclose(colors, wanted.image.detach()[y, x], atol=1e-5)
    assert found["alpha"] == pytest.approx(wanted.alpha[y, x].item(), abs=1e-5)
    assert found["depth"] == pytest.approx(wanted.depth[y, x].item(), rel=1e-4)
    place = camera.world_to_camera @ [found["x"], found["y"], found["z"], 1.0]
    assert place[2] == pytest.approx(found["depth"])
    assert camera.fx * place[0] / place[2] + camera.cx == pytest.approx(x + 0.5)
    assert camera.fy * place[1] / place[2] + camera.cy == pytest.approx(y + 0.5)
    corner = view.inspect(asked, 0, 0)
    assert ("depth" in corner) == (corner["alpha"] > 0.5)


def test_cameras_of_training_come_first_by_name_and_those_held_out_are_marked(view: SplatsView) -> None:
    names = [camera.name for camera in view.cameras()]
    assert len(names) == 7 + 3 == len(set(names))
    assert [name.endswith("(held out)") for name in names] == [False] * 7 + [True] * 3
    camera = Camera(4, 4, 4, 4, 2, 2, np.eye(4))
    assert names_of([camera, replace(camera, name="a"), replace(camera, name="a")]) == ["0000", "a", "a #2"]


# Held-out views -----------------------------------------------------------------------------------------------------


def test_held_out_views_have_their_figures_and_stand_beside_their_photographs() -> None:
    view = views_of(trained())["held out"]
    assert isinstance(view, HeldOutView)
    with trained().evaluating():
        samples = list(view.samples())
        assert len(samples) == 3 and {sample.name for sample in samples} == set(view.options()[0].choices)
        worst = min(samples, key=lambda sample: sample.figures["psnr"])
        asked = window(view, 24 * 4 + 24, 24 + 6, sample=worst.name)
        assert view.figures(asked) == worst.figures
        mean = np.mean([sample.figures["psnr"] for sample in samples])
        picture = view.draw(asked)
        left, top, width, height = view.sheet(asked).place(0)
        number = view.options()[0].choices.index(worst.name)
        rendered, target = trained().seen(trained().validation_feed.gather(0, [number]))
        found = view.inspect(asked, left + 5, top + 7)
    assert mean == pytest.approx(trained().validate()["psnr"], abs=1e-9)
    assert (width, height) == (24, 24)
    np.testing.assert_array_equal(picture[top : top + 24, left : left + 24], as_pixels(target.colors).numpy())
    assert found["render: red"] == pytest.approx(float(rendered.image[7, 5, 0]))
    assert found["|error| x 4: red"] == pytest.approx(float(rendered.image[7, 5, 0] - target.colors[7, 5, 0]), abs=1e-6)
    assert (found["column"], found["row"]) == (5, 7) and "depth: depth" in found


def test_samples_of_a_state_are_measured_once() -> None:
    view = views_of(trained())["held out"]
    with trained().evaluating():
        first, second = list(view.samples()), list(view.samples())
    assert all(one.figures is other.figures for one, other in zip(first, second, strict=True))


def test_looking_changes_no_bit_of_the_run() -> None:
    looked, alone_run = make(), make()
    views = views_of(looked)

    def look() -> None:
        for view in views.values():
            asked = window(view)
            view.prepare(asked), view.draw(asked), view.figures(asked), view.shapes(asked), view.inspect(asked, 9, 9)
            list(view.samples())

    answers = [looked.commands.call(look)]
    while looked.iterate():
        answers.append(looked.commands.call(look))
    assert set(views) == {"splats", "held out", "examples"} and [answer.result() for answer in answers] == [None] * 6
    alone_run.train()
    assert looked.digest() == alone_run.digest()


class Scenes(Sink):
    """Keeps what is logged in space."""

    def __init__(self) -> None:
        self.found: list[tuple[int, str, Scene]] = []

    def scene(self, step: int, name: str, scene: Scene) -> None:
        self.found.append((step, name, scene))


def test_its_scene_is_all_gaussians_and_the_cameras_of_training() -> None:
    trainer = trained()
    cloud, scene = trainer.model.cloud().detached(), checked(trainer.scenes()["splats"])
    np.testing.assert_array_equal(scene.points, cloud.means)
    np.testing.assert_allclose(scene.scales, cloud.log_scales.exp())
    colors = np.concatenate([0.28209479 * cloud.dc + 0.5, torch.sigmoid(cloud.logits)[:, None]], 1)
    assert np.abs(scene.colors - 255 * colors.clip(0, 1)).max() <= 1
    turned = as_matrices(torch.from_numpy(scene.rotations)[:, [3, 0, 1, 2]])
    np.testing.assert_allclose(turned, as_matrices(cloud.quaternions), atol=1e-5)
    wanted = [camera.camera_to_world for camera in trainer.capture.train.cameras]
    np.testing.assert_array_equal(scene.poses, wanted)
    scene.points[:] = 9.0
    assert not (trainer.model.means == 9.0).any()


def as_matrices(quaternions: torch.Tensor) -> np.ndarray:
    """(n, 3, 3): the rotations of quaternions w, x, y, z."""
    w, x, y, z = (quaternions / quaternions.norm(dim=1, keepdim=True)).T.double()
    rows = [[1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]]  # fmt: skip
    return np.asarray(torch.stack([torch.stack(row, 1) for row in rows], 1))


def test_scenes_are_made_with_examples_and_change_no_bit_of_the_run() -> None:
    scenes = Scenes()
    watched, alone_run = make(examples_every="2 steps", hooks=[scenes]), make(examples_every="2 steps")
    watched.train(), alone_run.train()
    assert [(step, name) for step, name, _ in scenes.found] == [(2, "splats"), (4, "splats")]
    assert watched.digest() == alone_run.digest()


def test_of_many_splats_a_scene_has_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_GAUSSIANS", 10)
    scene = checked(live.scene_of(clouds(99), []))
    np.testing.assert_array_equal(scene.points, clouds(99).means[np.linspace(0, 98, 10).round().astype(int)])
    assert len(scene.colors) == len(scene.scales) == 10
    assert checked(live.scene_of(clouds(0), [])).empty
