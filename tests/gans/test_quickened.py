"""Networks that are quicker to use give the same pictures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from treadle.gans.quickened import FEW, DoublingConv, quickened
from treadle.gans.resnet import ResNetGenerator
from treadle.gans.unet import UNet


@pytest.mark.parametrize(("height", "width"), [(16, 32), (32, 32), (1, FEW), (FEW, 1), (2, 300), (4, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_doubling_and_convolution_are_one(height, width, bias):
    conv = nn.Conv2d(3, 5, 3, padding=1, bias=bias).double()
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    plain = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), conv)
    with torch.no_grad():
        torch.testing.assert_close(DoublingConv(conv)(x), plain(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
@pytest.mark.parametrize("kind", [UNet, ResNetGenerator])
def test_a_quickened_generator_gives_the_same_pictures(kind, norm, upsampling):
    torch.manual_seed(0)
    more = {"downs": 3} if kind is UNet else {"blocks": 1}
    model = kind(3, 3, features=4, norm=norm, upsampling=upsampling, **more)
    x = torch.rand(2, 3, 64, 96) * 2 - 1
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data.normal_(0, (2 / parameter[0].numel()) ** 0.5)
    model(x)  # running statistics that are none of a fresh batch norm's
    model.eval()
    quick = quickened(model)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(quick(x), expected, atol=2e-5, rtol=0)
        torch.testing.assert_close(model(x), expected)  # and the model itself is as it was
    assert expected.std() > 0.05
    kinds = [type(module) for module in quick.modules()]
    assert (DoublingConv in kinds) == (upsampling == "bilinear") and nn.BatchNorm2d not in kinds


def test_what_is_something_else_is_left_alone():
    for up, conv in (
        (nn.Upsample(scale_factor=2), nn.Conv2d(3, 3, 3, padding=1)),
        (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Conv2d(3, 3, 3, padding=1)),
        (nn.Upsample(size=9, mode="bilinear"), nn.Conv2d(3, 3, 3, padding=1)),
        (nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")),
        (nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(3, 3, 3)),
        (nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(3, 3, 3, padding=1, groups=3)),
    ):
        assert not any(isinstance(module, DoublingConv) for module in quickened(nn.Sequential(up, conv)).modules())
    training = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))
    assert isinstance(quickened(training)[1], nn.BatchNorm2d)
