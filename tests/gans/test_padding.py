"""Pictures of any size through networks that want multiples: same size, same pixels, no loss beyond the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from treadle.gans.padding import at_own_size, fitting, mirrored
from treadle.gans.resnet import ResNetGenerator
from treadle.gans.unet import UNet


class Same(nn.Module):
    """Gives back its input, and notes what it was given."""

    def __init__(self, multiple, least):
        super().__init__()
        self.multiple, self.least = multiple, least

    def forward(self, x):
        self.seen = x
        return x


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 4, 16, 32]), st.sampled_from([1, 8, 32]))
def test_what_comes_back_is_the_picture_and_what_goes_in_is_its_mirror_image(height, width, multiple, least):
    x = torch.arange(2 * height * width, dtype=torch.float32).reshape(1, 2, height, width)
    network = Same(multiple, least)
    assert torch.equal(at_own_size(network, x), x)
    rows, columns = network.seen.shape[2:]
    assert (rows, columns) == (fitting(height, multiple, least), fitting(width, multiple, least))
    assert rows % multiple == columns % multiple == 0 and min(rows, columns) >= least
    assert rows - height < max(multiple, least) + multiple
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (0, rows - height), (0, columns - width)), mode="symmetric")
    np.testing.assert_array_equal(network.seen.numpy(), expected)


def test_what_fits_is_not_touched():
    x, network = torch.rand(2, 3, 16, 32), Same(16, 16)
    at_own_size(network, x)
    assert network.seen is x
    assert mirrored(3, 8).tolist() == [0, 1, 2, 2, 1, 0, 0, 1]
    assert at_own_size(nn.Identity(), x[..., :7]).shape == (2, 3, 16, 7)  # a network that says nothing takes all


@pytest.mark.parametrize("network", [UNet(2, 5, features=2, downs=4), ResNetGenerator(2, 5, features=2, blocks=1)])
def test_gradients_are_those_of_the_picture_alone(network):
    x = torch.rand(1, 2, 21, 37, requires_grad=True)
    out = at_own_size(network, x)
    assert out.shape == (1, 5, 21, 37)
    out.square().mean().backward()
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0
