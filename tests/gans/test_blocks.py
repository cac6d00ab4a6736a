"""The networks' parts: what they do to shapes and biases, how weights begin, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from treadle.errors import UsageError
from treadle.gans.blocks import NORMS, Residual, at_least, check_size, choose, doubling, halving, initialize, normed
from treadle.gans.patchgan import PatchGAN
from treadle.gans.resnet import ResNetGenerator
from treadle.gans.unet import UNet


def test_halving_and_doubling_are_each_others_inverse_in_size():
    x = torch.rand(2, 3, 12, 20)
    half = halving(3, 5)(x)
    assert half.shape == (2, 5, 6, 10)
    for upsampling in ("transposed", "bilinear"):
        first, conv = doubling(5, 7, upsampling)
        assert nn.Sequential(*first, conv)(half).shape == (2, 7, 12, 20)


def test_bilinear_upsampling_makes_no_checkerboard_of_a_flat_picture_and_transposed_convolutions_do():
    def step_between_neighbours(upsampling):
        torch.manual_seed(0)
        first, conv = doubling(4, 1, upsampling)
        inside = nn.Sequential(*first, conv)(torch.ones(1, 4, 8, 8))[..., 3:-3, 3:-3]
        return (inside[..., 1:] - inside[..., :-1]).abs().max().item()

    assert step_between_neighbours("bilinear") < 1e-6
    assert step_between_neighbours("transposed") > 1e-2


@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_takes_the_place_of_the_bias(norm):
    layer = normed(nn.Conv2d(3, 4, 3, padding=1), norm, nn.ReLU())
    assert (layer[0].bias is None) == (norm != "none")
    out = layer[:-1](5 + 3 * torch.randn(2, 3, 16, 16))
    per = {"batch": (0, 2, 3), "instance": (2, 3)}.get(norm)
    if per:
        torch.testing.assert_close(out.mean(per), torch.zeros_like(out.mean(per)), atol=1e-5, rtol=0)
        torch.testing.assert_close(out.std(per), torch.ones_like(out.std(per)), atol=0.02, rtol=0)
    else:
        assert out.std() > 0


def test_a_residual_block_without_weights_is_the_identity():
    block = Residual(4, "none")
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(2, 4, 5, 6)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(
    "network",
    [lambda: UNet(features=16, downs=6), lambda: ResNetGenerator(features=32, blocks=3), lambda: PatchGAN(norm="none")],
)
def test_weights_begin_as_in_the_papers(network):
    torch.manual_seed(0)
    convolutions, norms, biases = [], [], []
    for module in network().modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            convolutions.append(module.weight.flatten())
        elif isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d):
            norms.append(module.weight)
        else:
            continue
        if module.bias is not None:
            biases.append(module.bias)
    every = torch.cat(convolutions)
    assert every.mean().item() == pytest.approx(0, abs=3e-4)
    assert every.std().item() == pytest.approx(0.02, rel=0.01)
    assert (every.abs() > 0.04).float().mean().item() == pytest.approx(0.0455, rel=0.1)  # normal, beyond two sigmas
    assert torch.count_nonzero(torch.cat(biases)) == 0
    if norms:
        assert torch.cat(norms).mean().item() == pytest.approx(1, abs=5e-3)
        assert torch.cat(norms).std().item() == pytest.approx(0.02, rel=0.15)


def test_initialize_takes_the_width_of_the_weights():
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 64, 5)
    initialize(conv, std=0.5)
    assert conv.weight.std().item() == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("value", ["bat", "", 3, ["batch"]])
def test_choose_names_what_is_known(value):
    with pytest.raises(UsageError, match=r"^norm is .*; (known|did you mean).*batch") as raised:
        choose("norm", value, NORMS)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True, None])
def test_at_least_wants_whole_numbers(value):
    with pytest.raises(UsageError, match=r"^features is .*: expected a whole number of at least 1$"):
        at_least("features", value, 1)
    at_least("features", 1, 1)


def test_sizes_that_do_not_fit_are_named():
    check_size(torch.empty(1, 1, 16, 24), 8, 16)
    for height, width in ((16, 20), (20, 16), (8, 16), (16, 8)):
        with pytest.raises(UsageError, match=rf"{width} x {height} pixels: .* multiples of 8, at least 16$"):
            check_size(torch.empty(1, 1, height, width), 8, 16)
    with pytest.raises(UsageError, match=r"5 x 9 pixels: the network takes at least 6$"):
        check_size(torch.empty(1, 1, 9, 5), 1, 6)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_instance_norm_has_the_bits_of_torchs(batch, dtype):
    from treadle.gans.blocks import InstanceNorm

    ours, theirs = InstanceNorm(6), torch.nn.InstanceNorm2d(6, affine=True)
    torch.nn.init.normal_(ours.weight)
    torch.nn.init.normal_(ours.bias)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(batch, 6, 13, 8)
    results = []
    for norm in (ours, theirs):
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = norm(given.to(dtype))
        out.float().square().sum().backward()
        results.append((out, given.grad, norm.weight.grad, norm.bias.grad))
    for mine, yours in zip(*results, strict=True):
        assert torch.equal(mine, yours)
