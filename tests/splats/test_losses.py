from __future__ import annotations

import numpy as np
import pytest
import torch

from treadle.cameras.camera import Camera
from treadle.data.views import Target
from treadle.kernels.splatting import Projection
from treadle.splats import losses
from treadle.splats.cloud import Cloud
from treadle.splats.model import Splats
from treadle.splats.rendering import Rendered


def model(log_scales: list[list[float]], logits: list[float]) -> Splats:
    count = len(logits)
    return Splats(Cloud(torch.zeros(count, 3), torch.ones(count, 4), torch.tensor(log_scales), torch.tensor(logits),
                        torch.zeros(count, 3), torch.zeros(count, 0, 3)))  # fmt: skip


def rendered(depth: torch.Tensor, normals: torch.Tensor | None = None, alpha: torch.Tensor | None = None) -> Rendered:
    none = torch.zeros(0)
    return Rendered(torch.zeros(*depth.shape, 3), torch.ones_like(depth) if alpha is None else alpha,
                    Projection(none, none, none, none, none), depth, normals)  # fmt: skip


def target(depth=None, normals=None, points=(), mask=None) -> Target:
    camera = Camera(2, 2, 1.0, 1.0, 1.0, 1.0, np.eye(4))
    places = torch.tensor(points, dtype=torch.float32).reshape(-1, 3)
    return Target(torch.zeros(2, 2, 3), mask, depth, normals, places, camera)


def test_sums_are_the_same_on_any_number_of_threads() -> None:
    values = torch.randn(300_001, generator=torch.Generator().manual_seed(0))
    before, found = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.add(losses.total(values).item())
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1
    assert found.pop() == pytest.approx(values.double().sum().item(), abs=1e-2)
    assert losses.total(torch.arange(5000.0)).item() == 12497500
    assert losses.mean(torch.zeros(0)).item() == 0


def test_faint_small_and_round_splats_cost_nothing() -> None:
    splats = model([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0]], [0.0, -100.0])
    assert losses.opacity(splats).item() == pytest.approx(0.25)
    assert losses.scale(splats).item() == pytest.approx((5 + np.exp(3)) / 6, rel=1e-6)
    assert losses.needles(splats).item() == pytest.approx((np.exp(3) - 10) / 2, rel=1e-6)
    losses.needles(splats).backward()
    assert splats.log_scales.grad[1].tolist() == pytest.approx(
        [np.exp(3) / 2, -np.exp(3) / 4, -np.exp(3) / 4], rel=1e-5
    )
    assert (splats.log_scales.grad[0] == 0).all()


def test_depth_counts_where_it_is_known_and_not_masked() -> None:
    seen = rendered(torch.tensor([[2.0, 4.0], [0.0, 1.0]]))
    known = torch.tensor([[1.0, 4.0], [2.0, 0.0]])
    assert losses.depth(seen, target(known), 3.0).item() == pytest.approx((0.5 + 0 + 0.5) / 3 * 3)
    mask = torch.tensor([[True, True], [False, True]])
    assert losses.depth(seen, target(known, mask=mask), 3.0).item() == pytest.approx(0.5 / 2 * 3)
    assert losses.depth(seen, target(torch.zeros(2, 2)), 3.0).item() == 0


def test_points_are_looked_up_in_the_pixel_that_they_fall_into() -> None:
    seen = rendered(torch.tensor([[2.0, 4.0], [8.0, 1.0]], requires_grad=True))
    # In the second column of the first row, the first column of the second row; outside; behind the camera.
    places = [[1.2, 0.9, 2.0], [0.0, 1.0, 8.0], [-0.1, 0.0, 1.0], [2.0, 1.0, 1.0], [0.5, 0.5, -1.0]]
    value = losses.points(seen, target(points=places), 2.0)
    assert value.item() == pytest.approx((0.25 + 0) / 2 * 2)
    value.backward()
    assert seen.depth.grad[0, 1] != 0 and (seen.depth.grad[[0, 1], [0, 1]] == 0).all()
    assert losses.points(seen, target(), 2.0).item() == 0


def test_normals_that_agree_cost_nothing_and_opposite_ones_two() -> None:
    up, side = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0])
    known = torch.stack([torch.stack([up, up]), torch.stack([up, torch.zeros(3)])])
    found = torch.stack([torch.stack([up, -up]), torch.stack([side, up])])
    assert losses.normals(rendered(torch.ones(2, 2), found), target(normals=known)).item() == pytest.approx(
        (0 + 2 + 1) / 3
    )
    faint = rendered(torch.ones(2, 2), 0.5 * found, torch.full((2, 2), 0.5))
    assert losses.normals(faint, target(normals=known)).item() == pytest.approx(0.5)
