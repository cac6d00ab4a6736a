"""The networks of other programs, restated with their names and order: what their state dicts are made of.

After `models/networks.py` of https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix (BSD) and `nectargan/models` of
https://github.com/ZacharyBork/NectarGAN (Apache 2.0): modules have the names and places that they have there, and
compute the same; what has no part in a state dict or an output is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]
BATCH: Norm = nn.BatchNorm2d
INSTANCE: Norm = partial(nn.InstanceNorm2d, affine=False, track_running_stats=False)
NONE: Norm = lambda channels: nn.Identity()  # noqa: E731
OLD_INSTANCE: Norm = partial(nn.InstanceNorm2d, affine=False, track_running_stats=True)
"""What instance norms kept before torch 0.4, and nothing read."""


def biased(norm: Norm) -> bool:
    """Theirs have biases before instance norms, and else only where there never is a norm."""
    return getattr(norm, "func", norm) is nn.InstanceNorm2d


class OfficialBlock(nn.Module):
    """Down, what is inside, and up again; the input is put before what comes of it, unless this is the outermost."""

    def __init__(
        self,
        outer: int,
        inner: int,
        inputs: int | None,
        inside: nn.Module | None,
        norm: Norm,
        outermost: bool,
        drop: bool,
    ) -> None:
        super().__init__()
        self.outermost = outermost
        bias = biased(norm)
        down = nn.Conv2d(inputs or outer, inner, 4, 2, 1, bias=bias)
        wide = inner if inside is None else 2 * inner
        up = nn.ConvTranspose2d(wide, outer, 4, 2, 1, bias=True if outermost else bias)
        leaky, relu = nn.LeakyReLU(0.2, True), nn.ReLU(True)
        if outermost:
            assert inside is not None
            layers = [down, inside, relu, up, nn.Tanh()]
        elif inside is None:
            layers = [leaky, down, relu, up, norm(outer)]
        else:
            layers = [leaky, down, norm(inner), inside, relu, up, norm(outer)]
            layers += [nn.Dropout(0.5)] if drop else []
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out if self.outermost else torch.cat([x, out], 1)


class OfficialUNet(nn.Module):
    """UnetGenerator."""

    def __init__(self, inputs: int, outputs: int, downs: int, features: int, norm: Norm, drop: bool = True) -> None:
        super().__init__()
        block = OfficialBlock(8 * features, 8 * features, None, None, norm, False, False)
        for _ in range(downs - 5):
            block = OfficialBlock(8 * features, 8 * features, None, block, norm, False, drop)
        for wide in (4, 2, 1):
            block = OfficialBlock(wide * features, 2 * wide * features, None, block, norm, False, False)
        self.model = OfficialBlock(outputs, features, inputs, block, norm, True, False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out


class OfficialResnetBlock(nn.Module):
    """Two convolutions, reflected."""

    def __init__(self, width: int, norm: Norm, drop: bool) -> None:
        super().__init__()
        bias = biased(norm)
        layers = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=bias), norm(width), nn.ReLU(True)]
        layers += [nn.Dropout(0.5)] if drop else []
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=bias), norm(width)]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv_block(x)
        return out


class OfficialResNet(nn.Module):
    """ResnetGenerator."""

    def __init__(self, inputs: int, outputs: int, features: int, blocks: int, norm: Norm, drop: bool = False) -> None:
        super().__init__()
        bias = biased(norm)
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(inputs, features, 7, bias=bias), norm(features), nn.ReLU(True)]
        for wide in (features, 2 * features):
            layers += [nn.Conv2d(wide, 2 * wide, 3, 2, 1, bias=bias), norm(2 * wide), nn.ReLU(True)]
        layers += [OfficialResnetBlock(4 * features, norm, drop) for _ in range(blocks)]
        for wide in (4 * features, 2 * features):
            up = nn.ConvTranspose2d(wide, wide // 2, 3, 2, 1, output_padding=1, bias=bias)
            layers += [up, norm(wide // 2), nn.ReLU(True)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(features, outputs, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out


class OfficialPatchGAN(nn.Module):
    """NLayerDiscriminator."""

    def __init__(self, inputs: int, features: int, layers: int, norm: Norm, spectral: bool = False) -> None:
        super().__init__()
        bias = biased(norm)
        sequence: list[nn.Module] = [nn.Conv2d(inputs, features, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        wide = features
        for layer in range(1, layers + 1):
            wider = features * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            sequence += [nn.Conv2d(wide, wider, 4, stride, 1, bias=bias), norm(wider), nn.LeakyReLU(0.2, True)]
            wide = wider
        sequence += [nn.Conv2d(wide, 1, 4, 1, 1)]
        if spectral:
            sequence = [nn.utils.spectral_norm(each) if isinstance(each, nn.Conv2d) else each for each in sequence]
        self.model = nn.Sequential(*sequence)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out


class OfficialPixelGAN(nn.Module):
    """PixelDiscriminator."""

    def __init__(self, inputs: int, features: int, norm: Norm) -> None:
        super().__init__()
        bias = biased(norm)
        self.net = nn.Sequential(
            nn.Conv2d(inputs, features, 1),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(features, 2 * features, 1, bias=bias),
            norm(2 * features),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(2 * features, 1, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class NectarBlock(nn.Module):
    """UnetBlock, or with `residual` ResidualUnetBlock, of which only the names matter here."""

    def __init__(
        self, inputs: int, outputs: int, up: str | None, activation: nn.Module, norm: bool, residual: bool = False
    ) -> None:
        super().__init__()
        layers: list[nn.Module]
        if up is None:
            layers = [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=not norm, padding_mode="reflect")]
        elif up == "Transposed":
            layers = [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=not norm)]
        else:
            layers = [
                nn.Upsample(scale_factor=2, mode="bilinear"),
                nn.ReflectionPad2d(1),
                nn.Conv2d(inputs, outputs, 3),
            ]
        layers += [nn.InstanceNorm2d(outputs) if norm else nn.Identity(), activation]
        self.conv = nn.Sequential(*layers)
        if residual:
            self.residual = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class NectarUNet(nn.Module):
    """UnetGenerator of NectarGAN 0.2, in evaluation: without dropout."""

    def __init__(self, channels: int, features: int, downs: int, up: str, residual: bool = False) -> None:
        super().__init__()
        widths = [features * min(2**stage, 8) for stage in range(downs + 1)]
        self.initial_down = NectarBlock(channels, features, None, nn.LeakyReLU(0.2), False, residual)
        pairs = pairwise(widths)
        self.downs = nn.ModuleList(NectarBlock(a, b, None, nn.LeakyReLU(0.2), True) for a, b in pairs)
        self.bottleneck = NectarBlock(widths[-1], widths[-1], None, nn.ReLU(), False)
        ins = [widths[-1], *(2 * wide for wide in reversed(widths[1:]))]
        outs = [widths[-1], *reversed(widths[:-1])]
        self.ups = nn.ModuleList(NectarBlock(a, b, up, nn.ReLU(), True) for a, b in zip(ins, outs, strict=True))
        self.final_up = NectarBlock(2 * features, channels, up, nn.Tanh(), False)

    def forward(self, x: Tensor) -> Tensor:
        skips = [x := self.initial_down(x)]
        for down in self.downs:
            skips.append(x := down(x))
        x = self.ups[0](self.bottleneck(x))
        for up in self.ups[1:]:
            x = up(torch.cat([x, skips.pop()], 1))
        out: Tensor = self.final_up(torch.cat([x, skips.pop()], 1))
        return out


class NectarLayer(nn.Module):
    """CNNBlock."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, 4, stride, 1, bias=False, padding_mode="reflect")
        self.conv = nn.Sequential(conv, nn.InstanceNorm2d(outputs), nn.LeakyReLU(0.2, True))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class NectarPatchGAN(nn.Module):
    """Discriminator; the two pictures of a pair come as one."""

    def __init__(self, channels: int, features: int, layers: int, most: int = 512) -> None:
        super().__init__()
        first = nn.Conv2d(2 * channels, features, 4, 2, 1, padding_mode="reflect")
        sequence: list[nn.Module] = [first, nn.LeakyReLU(0.2, True)]
        wide = features
        for layer in range(1, layers):
            wider = min(2 * wide, most)
            sequence.append(NectarLayer(wide, wider, 1 if layer == layers - 1 else 2))
            wide = wider
        self.model = nn.Sequential(*sequence, nn.Conv2d(wide, 1, 4, 1, 1, padding_mode="reflect"))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out
