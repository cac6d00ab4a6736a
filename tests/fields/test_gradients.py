from __future__ import annotations

import pytest
import torch

from treadle.errors import UsageError
from treadle.fields.gradients import gradient
from treadle.fields.grids.dense import DenseGrid


def some_points(count=40):
    return torch.rand(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def torus(points):
    ring = torch.stack((points[:, :2].norm(dim=1) - 0.6, points[:, 2]), dim=1)
    return ring.norm(dim=1, keepdim=True) - 0.25


def test_the_gradient_of_a_distance_has_length_one():
    points = some_points(200)
    found = gradient(torus, points, h=1e-4)
    assert (found.norm(dim=1) - 1).abs().max() < 1e-5
    leaf = points.clone().requires_grad_()
    (expected,) = torch.autograd.grad(torus(leaf).sum(), leaf)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_order_of_both_is_what_is_said():
    points = some_points()

    def function(p):
        return p[:, 0] * p[:, 1] + 2 * p[:, 2].square() + 3 * p[:, 0]

    exact = torch.stack((points[:, 1] + 3, points[:, 0], 4 * points[:, 2]), dim=1)
    torch.testing.assert_close(gradient(function, points, 0.1), exact, rtol=0, atol=1e-12)  # exact for quadratics
    error = gradient(function, points, 0.1, evaluations=4) - exact
    expected = torch.tensor([0.0, 0.0, 0.1], dtype=torch.float64)  # h times the mixed derivative, along the third axis
    torch.testing.assert_close(error, expected.expand_as(error), rtol=0, atol=1e-12)


@pytest.mark.parametrize("evaluations", [4, 6])
def test_it_can_be_differentiated_with_respect_to_parameters(evaluations):
    weight = torch.tensor([1.5, -0.5, 2.0], dtype=torch.float64, requires_grad=True)
    points = some_points(8)
    found = gradient(lambda p: (p @ weight).square(), points, 1e-3, evaluations)
    (slope,) = torch.autograd.grad((found.square().sum(1) - 1).square().mean(), weight)

    other = weight.detach().clone().requires_grad_()
    exact = 2 * (points @ other)[:, None] * other
    (expected,) = torch.autograd.grad((exact.square().sum(1) - 1).square().mean(), other)
    torch.testing.assert_close(slope, expected, rtol=5e-2 if evaluations == 4 else 1e-5, atol=0)


def test_an_eikonal_term_trains_a_grid_of_compiled_kernels():
    torch.manual_seed(0)
    grid = DenseGrid(3, levels=1, features=1, n_min=5, n_max=5)
    optimizer = torch.optim.Adam(grid.parameters(), lr=0.02)
    points = some_points(500).float() * 0.9
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (gradient(grid, points, 0.05).norm(dim=1) - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.9 and losses[-1] < 0.15


def test_no_points_and_what_does_not_fit():
    assert gradient(torus, torch.zeros(0, 3)).shape == (0, 3)
    for arguments, message in (((torch.zeros(4, 2),), "points"), ((torch.zeros(4, 3), 0.0), "h is")):
        with pytest.raises(UsageError, match=message):
            gradient(torus, *arguments)
    with pytest.raises(UsageError, match="evaluations is 5"):
        gradient(torus, torch.zeros(4, 3), evaluations=5)
