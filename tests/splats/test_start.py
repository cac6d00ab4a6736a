from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from treadle.cameras.bounds import Bounds
from treadle.cameras.capture import Capture
from treadle.cameras.procedural import procedural_capture
from treadle.cameras.rays import project
from treadle.errors import UsageError
from treadle.splats.ply import write_cloud
from treadle.splats.rendering import NEAR
from treadle.splats.settings import SplatsConfig
from treadle.splats.start import from_points, nearest, random_places, start


@pytest.fixture(scope="module")
def capture() -> Capture:
    return procedural_capture(16, 6, 1, points=40)


def config(**settings) -> SplatsConfig:
    return SplatsConfig(strategy="adc", **settings)


def test_splats_reach_to_their_neighbours_and_have_the_points_colours(capture: Capture) -> None:
    cloud = start(config(), capture)
    assert len(cloud) == 40 and cloud.degree == 3 and not cloud.antialiased
    np.testing.assert_allclose(cloud.means, capture.points, rtol=1e-6)
    squared = ((capture.points[:, None] - capture.points[None]) ** 2).sum(2)
    expected = np.sqrt(np.sort(squared, 1)[:, 1:4].mean(1))
    np.testing.assert_allclose(cloud.log_scales.exp(), np.repeat(expected[:, None], 3, 1), rtol=1e-5)
    np.testing.assert_allclose(0.5 + 0.28209479 * cloud.dc, capture.colors / 255, atol=1e-6)
    assert cloud.logits.sigmoid().tolist() == pytest.approx([0.1] * 40)
    assert cloud.quaternions.tolist() == [[1, 0, 0, 0]] * 40 and not cloud.rest.any()


def test_a_fixed_budget_starts_small_and_half_opaque(capture: Capture) -> None:
    adc, mcmc = start(config(), capture), start(SplatsConfig(strategy="mcmc"), capture)
    torch.testing.assert_close(mcmc.log_scales.exp(), 0.1 * adc.log_scales.exp())
    assert mcmc.logits.sigmoid().tolist() == pytest.approx([0.5] * 40)


def test_random_ones_come_beside_points_or_alone(capture: Capture) -> None:
    beside = start(config(random=25), capture)
    assert len(beside) == 65
    np.testing.assert_allclose(beside.means[:40], capture.points, rtol=1e-6)
    alone = start(config(init="random", random=30), capture)
    assert len(alone) == 30
    assert len(start(config(init="random"), capture)) == 5000 == len(start(config(), replace(capture, points=None)))
    assert torch.equal(alone.means, start(config(init="random", random=30), capture).means)
    assert not torch.equal(alone.means, start(config(init="random", random=30, seed=1), capture).means)


def test_no_more_than_the_cap(capture: Capture) -> None:
    capped = start(config(cap=10), capture)
    assert len(capped) == 10
    assert {tuple(row) for row in capped.means.tolist()} <= {
        tuple(row) for row in start(config(), capture).means.tolist()
    }


def test_random_places_are_in_a_box_around_what_is_looked_at_or_in_view(capture: Capture) -> None:
    cameras = capture.train.cameras
    bounds = Bounds.of(cameras)
    np.testing.assert_allclose(bounds.focus, 0, atol=1e-4)
    assert bounds.distance == pytest.approx(3, rel=1e-4)
    box = random_places(config(), cameras, 2000)
    assert np.abs(box).max() == pytest.approx(1, abs=0.02)
    places = random_places(config(random_in="frusta"), cameras, 500)
    seen = np.zeros(500, bool)
    for camera in cameras:
        pixels, depths = project(camera, places)
        inside = (pixels >= 0).all(1) & (pixels <= 16).all(1)
        seen |= inside & (depths >= 0.99) & (depths <= 9.01)
    assert seen.all()


def test_cameras_that_all_look_the_same_way_or_stand_at_one_place_have_bounds(capture: Capture) -> None:
    camera = capture.train.cameras[0]
    aside = camera.world_to_camera.copy()
    aside[0, 3] += 2
    parallel = Bounds.of([camera, replace(camera, world_to_camera=aside)])
    assert np.isfinite(parallel.focus).all() and parallel.extent == pytest.approx(1.1)
    assert (camera.world_to_camera[:3, :3] @ parallel.focus + camera.world_to_camera[:3, 3])[2] > 0
    still = Bounds.of([camera, camera])
    assert still.extent == 1 and np.isfinite(still.focus).all() and still.distance > 0


def test_points_at_one_place_or_alone_have_a_size(capture: Capture) -> None:
    for points in (np.zeros((5, 3)), np.zeros((1, 3)), np.array([[0.0, 0, 0], [1.0, 0, 0]])):
        cloud = from_points(points, np.full((len(points), 3), 0.5), 0.1, 1.0, 0)
        assert cloud.log_scales.isfinite().all()
    assert cloud.log_scales.tolist() == [[0.0] * 3] * 2
    crowded = from_points(np.zeros((5, 3)), np.full((5, 3), 0.5), 0.1, 1.0, 0)
    assert crowded.log_scales[0, 0].item() == pytest.approx(0.5 * np.log(1e-7))


def test_splats_of_a_file_get_the_degree_of_the_settings(capture: Capture, tmp_path) -> None:
    first = replace(start(config(degree=2), capture), antialiased=True)
    first.rest[:] = torch.rand(40, 8, 3)
    write_cloud(tmp_path / "a.ply", first)
    for degree, bands in ((3, 15), (2, 8), (1, 3), (0, 0)):
        again = start(config(init=str(tmp_path / "a.ply"), degree=degree), capture)
        assert again.rest.shape == (40, bands, 3) and again.antialiased
        common = min(8, bands)
        torch.testing.assert_close(again.rest[:, :common], first.rest[:, :common])
        assert not again.rest[:, common:].any()
    assert not start(config(init=str(tmp_path / "a.ply"), antialiased=False), capture).antialiased


@pytest.mark.parametrize(
    ("settings", "points", "said"),
    [
        ({"init": "points"}, None, "init is 'points', but the data has none"),
        ({"init": "points"}, np.zeros((0, 3)), "init is 'points', but the data has none"),
        ({"init": "random", "random": 0}, None, "there is no splat to start from"),
        ({"init": "nowhere.ply"}, None, "init is 'nowhere.ply': expected 'auto', 'points', 'random' or a file"),
    ],
)
def test_nothing_to_start_from_is_refused(capture: Capture, settings, points, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        start(config(**settings), replace(capture, points=points))


def test_splats_are_drawn_from_before_the_nearest_points_on(capture: Capture) -> None:
    depths = np.concatenate([project(camera, capture.points)[1] for camera in capture.train.cameras])
    assert 0.55 * depths.min() <= nearest(capture) <= 0.65 * np.percentile(depths, 5)
    assert nearest(replace(capture, points=None)) == NEAR
    assert nearest(replace(capture, points=capture.points * [[0, 0, 1]] + [[0, 0, 1e6]])) == NEAR  # nobody sees them
