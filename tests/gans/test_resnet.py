"""The ResNet generator: CycleGAN's size, any shape that its arguments promise, gradients everywhere, clear errors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.errors import UsageError
from treadle.gans.blocks import Residual
from treadle.gans.resnet import ResNetGenerator

OPTIONS = {
    "in_channels": st.integers(1, 4),
    "out_channels": st.integers(1, 4),
    "features": st.integers(1, 6),
    "blocks": st.integers(0, 3),
    "downs": st.integers(0, 3),
    "upsampling": st.sampled_from(["transposed", "bilinear"]),
    "norm": st.sampled_from(["batch", "instance", "none"]),
}


def test_it_is_cyclegans_generator_with_wider_doublings():
    with torch.device("meta"):
        network = ResNetGenerator()
        assert network(torch.empty(1, 3, 256, 256)).shape == (1, 3, 256, 256)
    # Theirs has 11,378,179, with a bias in each convolution and no weights in the norms. Here a norm's weight and bias
    # take the place of that bias, one more per channel, and a doubling has 4 x 4 weights where theirs has 3 x 3.
    normed_channels = 64 + 128 + 256 + 9 * 2 * 256 + 128 + 64
    wider = (16 - 9) * (256 * 128 + 128 * 64)
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_378_179 + normed_channels + wider
    assert sum(isinstance(module, Residual) for module in network.modules()) == 9


@settings(max_examples=40, deadline=None)
@given(options=st.fixed_dictionaries({}, optional=OPTIONS), rows=st.integers(0, 2), columns=st.integers(0, 2))
def test_any_options_keep_the_size_and_the_range(options, rows, columns):
    options = {"features": 3, "blocks": 1} | options
    network = ResNetGenerator(**options)
    m = network.multiple
    assert m == 2 ** options.get("downs", 2) and network.least % m == 0
    height, width = network.least + rows * m, network.least + columns * m
    out = network(torch.rand(1, options.get("in_channels", 3), height, width) * 2 - 1)
    assert out.shape == (1, options.get("out_channels", 3), height, width)
    assert out.abs().max() <= 1 and out.isfinite().all()


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
@pytest.mark.parametrize("downs", [0, 1, 2])
def test_one_picture_of_the_smallest_size_trains_every_parameter(norm, upsampling, downs):
    torch.manual_seed(0)
    network = ResNetGenerator(2, 1, features=8, blocks=2, downs=downs, norm=norm, upsampling=upsampling).train()
    target = torch.rand(1, 1, network.least, network.least)
    (network(torch.randn(1, 2, network.least, network.least)) - target).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(("downs", "least"), [(0, 4), (1, 4), (2, 8), (3, 16)])
def test_smaller_or_odd_sizes_are_refused(downs, least):
    network = ResNetGenerator(features=2, blocks=1, downs=downs)
    assert network.least == least
    wrong = least - network.multiple
    for height, width in ((wrong, least), (least, wrong), *(((least + 1, least),) if downs else ())):
        with pytest.raises(UsageError, match=rf"{width} x {height} pixels: the network takes .*at least {least}$"):
            network(torch.zeros(1, 3, height, width))


def test_it_has_no_noise_and_in_eval_mode_no_neighbours():
    network = ResNetGenerator(features=4, blocks=1)
    x = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(network(x), network(x))
        network.eval()
        assert torch.equal(network(x), network(x))
        torch.testing.assert_close(network(x)[1:2], network(x[1:2]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"in_channels": 0}, "in_channels is 0: expected a whole number of at least 1"),
        ({"out_channels": None}, "out_channels is None"),
        ({"features": 0}, "features is 0"),
        ({"blocks": -1}, "blocks is -1: expected a whole number of at least 0"),
        ({"downs": 2.0}, "downs is 2.0"),
        ({"norm": "instanse"}, "norm is 'instanse'; did you mean 'instance'"),
        ({"upsampling": "transpose"}, "upsampling is 'transpose'; did you mean 'transposed'"),
    ],
)
def test_bad_arguments_are_one_clear_line(arguments, said):
    with pytest.raises(UsageError) as raised:
        ResNetGenerator(**arguments)
    assert said in str(raised.value) and "\n" not in str(raised.value)
