"""A generator that is told at every size what is where, and given noise to make texture of.

Normalization washes out what a large area of one class is: the flat input of a wall is normalized to nothing. Spatially
adaptive normalization (Park et al. 2019, https://arxiv.org/abs/1903.07291) gives the normalized features a scale and a
shift for every pixel, which depend on the input there. Here these are linear in the input, a row of a table for each
class where it is one-hot, as in class-adaptive normalization (Tan et al. 2021, https://arxiv.org/abs/2012.04644): as
good, for a fraction of the cost. A wall's texture needs something that varies, too: without noise all there is to make
detail of is the distance to the next edge, which shows as rings around windows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from treadle.gans.blocks import InstanceNorm, at_least, check_size, halving, initialize, normed

PRIME = 2**31 - 1


class SpadeGenerator(nn.Module):
    """A U-Net of which each stage of the decoder has noise and spatially adaptive normalization, in place of dropout.

    The encoder is that of a U-Net. A stage of the decoder doubles bilinearly, joins what the encoder had at that size
    (at full size the input), and convolves, 3 x 3. To that it adds noise, as much as each channel has learnt (Karras et
    al. 2019, https://arxiv.org/abs/1812.04948), and normalizes it. Borders are continued, not set to 0, which leaves a
    frame around the picture. In training noise comes from torch's global
    generator; in eval mode the output is a function of the input: the noise of a pixel follows from its place and from
    the picture (`key_of`). Were it from the place alone, all pictures would have one draw, and its chance peaks.

    Args:
        in_channels, out_channels: of the input, one for each class of a label map, and of the output picture.
        features: channels after the first halving; they double with each further one, up to 8 times this.
        downs: halvings, at least 2. Heights and widths must be multiples of `2 ** downs`.

    Attributes:
        multiple, least: heights and widths must be multiples of the one and at least the other.

    Raises:
        UsageError: an argument is out of its range.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 3, *, features: int = 32, downs: int = 5) -> None:
        super().__init__()
        numbers = {"in_channels": (in_channels, 1), "out_channels": (out_channels, 1), "features": (features, 1)}
        for what, (value, least) in {**numbers, "downs": (downs, 2)}.items():
            at_least(what, value, least)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.multiple = 2**downs
        self.least = 2 * self.multiple  # a single pixel cannot be normalized
        widths = [features * min(2**stage, 8) for stage in range(downs)]
        self.encoder = nn.ModuleList()
        for stage, width in enumerate(widths):
            conv = halving(widths[stage - 1] if stage else in_channels, width)
            self.encoder.append(normed(conv, "instance" if stage else "none", nn.LeakyReLU(0.2, inplace=True)))
        self.decoder = nn.ModuleList()
        finest = max(1, features // 2)  # at full size, where a channel costs most
        for stage in reversed(range(downs)):
            kept, outputs = (widths[stage - 1], widths[stage - 1]) if stage else (in_channels, finest)
            self.decoder.append(Stage(widths[stage] + kept, outputs, in_channels))
        self.head = nn.Sequential(nn.Conv2d(finest, out_channels, 3, padding=1, padding_mode="replicate"), nn.Tanh())
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Translate: (N, in_channels, H, W) to pictures (N, out_channels, H, W) in [-1, 1].

        Raises UsageError for a size that does not fit `multiple` and `least`.
        """
        check_size(x, self.multiple, self.least)
        told, kept = [x], [x]
        for stage in self.encoder:
            kept.append(stage(kept[-1]))
            told.append(functional.avg_pool2d(told[-1], 2))
        out = kept.pop()
        told.pop()
        key = None if self.training else key_of(x)
        for stage in self.decoder:
            out = stage(out, kept.pop(), told.pop(), key)
        picture: Tensor = self.head(out)
        return picture


class Stage(nn.Module):
    """One stage of the decoder: doubling, a convolution, noise, and a norm that depends on the input at that size."""

    def __init__(self, inputs: int, outputs: int, told: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate", bias=False)
        self.noise = nn.Parameter(torch.zeros(outputs, 1, 1))
        self.norm = InstanceNorm(outputs, affine=False)
        self.modulation = nn.Conv2d(told, 2 * outputs, 1)

    def forward(self, x: Tensor, kept: Tensor, told: Tensor, key: Tensor | None) -> Tensor:
        """(N, C, h, w), and (N, c, 2 h, 2 w) of the encoder and of the input, to (N, outputs, 2 h, 2 w).

        `key` (N,) is what each picture's noise follows from; None draws it.
        """
        x = functional.interpolate(x, scale_factor=2, mode="bilinear")
        x = self.conv(torch.cat([x, kept], 1))
        x = self.norm(x + self.noise * (drawn_noise(x) if key is None else still_noise(x, key)))
        scale, shift = self.modulation(told).chunk(2, 1)
        return functional.leaky_relu(x * (1 + scale) + shift, 0.2)


def drawn_noise(x: Tensor) -> Tensor:
    """Uniform noise of mean 0 and variance 1 from torch's global generator: (N, 1, H, W) for `x` (N, C, H, W)."""
    return (torch.rand_like(x[:, :1]) - 0.5) * 12**0.5


def key_of(pictures: Tensor) -> Tensor:
    """A whole number for each picture (N, C, H, W): how many values of each channel are above 0, mixed; (N,) int64."""
    counts = (pictures > 0).flatten(2).sum(2)
    channels = torch.arange(1, counts.shape[1] + 1, device=counts.device)
    return (counts * (channels * 1_299_721)).sum(1) % PRIME


def still_noise(x: Tensor, key: Tensor) -> Tensor:
    """Noise like `drawn_noise` that follows from a pixel's place and a picture's key, the same on every device.

    `key` is (N,) int64, the noise (N, 1, H, W). The numbers of rows and columns, scattered by squaring three times
    modulo a prime: whole numbers, so that any runtime of ONNX computes the same.
    """
    rows, columns = (torch.arange(size, device=x.device) for size in x.shape[2:])
    mixed = (rows[:, None] * 7_368_787 + columns * 1_299_709 + x.shape[1] + key[:, None, None, None]) % PRIME
    for added in (314_159_265, 271_828_182, 161_803_398):
        mixed = (mixed * mixed + added) % PRIME
    return (mixed.to(x.dtype) / PRIME - 0.5) * 12**0.5
