from __future__ import annotations

import math

import pytest
import torch

from treadle.errors import UsageError
from treadle.fields.siren import Siren


def test_it_is_the_function_of_the_paper():
    torch.manual_seed(0)
    siren = Siren(2, 3, hidden=16, layers=1, omega=30.0)
    first, second, last = siren.layers
    points = torch.rand(50, 2) * 2 - 1
    hidden = torch.sin(30 * (points @ first.weight.T + first.bias))
    hidden = torch.sin(30 * (hidden @ second.weight.T + second.bias))
    torch.testing.assert_close(siren(points), hidden @ last.weight.T + last.bias)
    assert siren.outputs == 3 and "omega=30" in repr(siren)


def test_weights_begin_as_in_the_paper():
    torch.manual_seed(0)
    siren = Siren(3, 1, hidden=128, layers=2, omega=20.0)
    bounds = [1 / 3, *[math.sqrt(6 / 128) / 20] * 3]
    for layer, bound in zip(siren.layers, bounds, strict=True):
        assert 0.9 * bound < layer.weight.abs().max() <= bound


def test_activations_have_the_same_distribution_in_each_layer():
    torch.manual_seed(0)
    siren = Siren(3, 1, hidden=256, layers=3)
    values = torch.rand(2000, 3) * 2 - 1
    for layer in siren.layers[:-1]:
        before = 30 * layer(values)
        values = before.sin()
        assert 0.55 < values.std() < 0.75  # the arcsine distribution has 1/sqrt(2)


def test_it_can_be_differentiated_twice():
    torch.manual_seed(0)
    siren = Siren(3, 1, hidden=8, layers=1, omega=3.0).double()
    points = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(siren, points)


def test_it_fits_what_it_is_shown():
    torch.manual_seed(0)
    siren = Siren(1, 1, hidden=32, layers=1, omega=10.0)
    points = torch.linspace(-1, 1, 200)[:, None]
    target = (7 * points).sin() * points
    optimizer = torch.optim.Adam(siren.parameters(), lr=3e-3)
    for _ in range(300):
        optimizer.zero_grad()
        loss = (siren(points) - target).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 1e-3 < 0.1 < target.square().mean()


@pytest.mark.parametrize("name", ["inputs", "outputs", "hidden", "layers", "omega"])
def test_what_cannot_be_built_is_named(name):
    with pytest.raises(UsageError, match=f"siren: {name} is -1"):
        Siren(**{"inputs": 3, "outputs": 1, name: -1})
