"""The U-Net: the paper's size, any shape that its arguments promise, gradients everywhere, errors in one line."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from treadle.errors import UsageError
from treadle.gans.blocks import Residual
from treadle.gans.unet import UNet


def own_block(channels):
    return nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Tanh())


OPTIONS = {
    "in_channels": st.integers(1, 4),
    "out_channels": st.integers(1, 4),
    "features": st.integers(1, 6),
    "downs": st.integers(2, 5),
    "upsampling": st.sampled_from(["transposed", "bilinear"]),
    "norm": st.sampled_from(["batch", "instance", "none"]),
    "dropout": st.sampled_from([0, 0.0, 0.3, 0.5]),
    "block": st.sampled_from([None, "residual", own_block]),
}


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_it_is_the_papers_generator():
    with torch.device("meta"):
        network = UNet()
        assert count(network) == 54_414_531
        assert network(torch.empty(1, 3, 256, 256)).shape == (1, 3, 256, 256)
    widths = [stage[0][0].out_channels for stage in network.encoder]
    assert widths == [64, 128, 256, 512, 512, 512, 512, 512]
    doubled = [(stage[0][0].in_channels, stage[0][0].out_channels) for stage in network.decoder]
    assert doubled == [(512, 512), (1024, 512), (1024, 512), (1024, 512), (1024, 256), (512, 128), (256, 64)]
    assert (network.head[0].in_channels, network.head[0].out_channels) == (128, 3)
    with_norm = [any(isinstance(m, nn.BatchNorm2d) for m in stage.modules()) for stage in network.encoder]
    assert with_norm == [False] + 6 * [True] + [False]
    dropped = [any(isinstance(m, nn.Dropout) for m in stage.modules()) for stage in network.decoder]
    assert dropped == 3 * [True] + 4 * [False]


@settings(max_examples=40, deadline=None)
@given(options=st.fixed_dictionaries({}, optional=OPTIONS), rows=st.integers(1, 3), columns=st.integers(1, 3))
def test_any_options_keep_the_size_and_the_range(options, rows, columns):
    options = {"features": 4, "downs": 3} | options
    network = UNet(**options)
    m = network.multiple
    assert m == network.least == 2 ** options["downs"]
    x = torch.rand(2, options.get("in_channels", 3), rows * m, columns * m) * 2 - 1
    out = network(x)
    assert out.shape == (2, options.get("out_channels", 3), rows * m, columns * m)
    assert out.abs().max() <= 1 and out.isfinite().all()


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("block", [None, "residual", own_block])
@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
def test_one_picture_of_the_smallest_size_trains_every_parameter(norm, block, upsampling):
    torch.manual_seed(0)
    network = UNet(2, 1, features=8, downs=3, norm=norm, block=block, upsampling=upsampling, dropout=0).train()
    x = torch.randn(1, 2, 8, 8)
    (network(x) - 0.5).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(("height", "width"), [(15, 16), (16, 24), (8, 8), (0, 16)])
def test_a_size_that_cannot_be_halved_so_often_is_refused(height, width):
    network = UNet(features=2, downs=4)
    with pytest.raises(UsageError, match=rf"{width} x {height} pixels: .* multiples of 16, at least 16$"):
        network(torch.zeros(1, 3, height, width))


def test_dropout_is_its_only_noise_and_is_off_in_eval_mode():
    network, still = UNet(features=4, downs=3), UNet(features=4, downs=3, dropout=0)
    x = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        assert not torch.equal(network(x), network(x))
        assert torch.equal(still(x), still(x))
        network.eval()
        assert torch.equal(network(x), network(x))


def test_dropout_is_in_the_three_innermost_stages():
    def dropped(downs):
        decoder = UNet(features=1, downs=downs).decoder
        return [any(isinstance(module, nn.Dropout) for module in stage.modules()) for stage in decoder]

    assert dropped(3) == [True, True]
    assert dropped(6) == [True, True, True, False, False]


def test_a_picture_does_not_depend_on_its_neighbours_in_the_batch_in_eval_mode():
    network = UNet(features=4, downs=3).eval()
    x = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network(x)[1:2], network(x[1:2]))


def test_blocks_follow_every_stage_but_innermost_and_last():
    def blocks(block, kind):
        network = UNet(features=2, downs=4, block=block)
        return [any(isinstance(m, kind) for m in stage.modules()) for stage in [*network.encoder, *network.decoder]]

    assert blocks("residual", Residual) == [True, True, True, False, True, True, True]
    assert blocks(own_block, nn.Tanh) == [True, True, True, False, True, True, True]
    assert not any(blocks(None, Residual))
    given_widths = []
    UNet(features=2, downs=4, block=lambda channels: given_widths.append(channels) or nn.Identity())
    assert given_widths == [2, 4, 8, 8, 4, 2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"in_channels": 0}, "in_channels is 0: expected a whole number of at least 1"),
        ({"out_channels": 1.5}, "out_channels is 1.5: expected a whole number"),
        ({"features": -3}, "features is -3"),
        ({"downs": 1}, "downs is 1: expected a whole number of at least 2"),
        ({"norm": "batsh"}, "norm is 'batsh'; did you mean 'batch'"),
        ({"upsampling": "nearest"}, "upsampling is 'nearest'; known: bilinear, transposed"),
        ({"dropout": 1}, "dropout is 1: expected a probability"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"dropout": "half"}, "dropout is 'half'"),
        ({"block": "residul"}, "block is 'residul'; did you mean 'residual'"),
        ({"block": 3}, "block is 3; known: residual"),
    ],
)
def test_bad_arguments_are_one_clear_line(arguments, said):
    with pytest.raises(UsageError) as raised:
        UNet(**arguments)
    assert said in str(raised.value) and "\n" not in str(raised.value)
