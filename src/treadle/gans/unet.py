"""The U-Net generator of pix2pix (Isola et al. 2017, https://arxiv.org/abs/1611.07004)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from treadle.errors import UsageError
from treadle.gans.blocks import (
    PADDINGS,
    Block,
    Padding,
    Residual,
    check,
    check_size,
    choose,
    doubling,
    halving,
    initialize,
    normed,
)

DROPPED = 3
"""The innermost stages of the decoder that have dropout."""


class UNet(nn.Module):
    """An encoder that halves the picture `downs` times, a decoder that doubles it back, and skips between them.

    With the defaults it is the generator of the paper for 256 x 256 pictures (54.4 million parameters). Its dropout is
    the only noise there is: in eval mode the output is a function of the input.

    Args:
        in_channels, out_channels: of the input and the output picture.
        features: channels after the first halving; they double with each further one, up to 8 times this.
        downs: halvings, at least 2; 8 take 256 pixels to one. Heights and widths must be multiples of `2 ** downs`.
        upsampling: "transposed" convolutions as in the paper, or "bilinear" interpolation and a convolution.
        norm: "batch" as in the paper, "instance" or "none". Neither the outermost nor the innermost stage has one.
        dropout: probability, in the three innermost stages of the decoder.
        padding: of what halves, and of the convolutions after interpolation: "zeros" as in the paper, or "reflect".
        rectify_skips: hand skips on through a ReLU, as the paper's and the official PyTorch code do (there the ReLU in
            front of each upward convolution acts on both of its halves); else as they leave the encoder's LeakyReLU.
        block: what follows each stage but the innermost, which may be a single pixel, and the last: None, "residual",
            or a function of the channels that makes a module keeping its input's shape.

    Attributes:
        multiple, least: heights and widths must be multiples of the one and at least the other.

    Raises:
        UsageError: an argument is out of its range.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        features: int = 64,
        downs: int = 8,
        upsampling: str = "transposed",
        norm: str = "batch",
        dropout: float = 0.5,
        padding: Padding = "zeros",
        rectify_skips: bool = False,
        block: str | Block | None = None,
    ) -> None:
        super().__init__()
        numbers = {"in_channels": (in_channels, 1), "out_channels": (out_channels, 1), "features": (features, 1)}
        check(norm, upsampling, **numbers, downs=(downs, 2))
        if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise UsageError(f"dropout is {dropout!r}: expected a probability, 0 or more and below 1")
        choose("padding", padding, PADDINGS)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.rectify_skips = rectify_skips
        self.multiple = self.least = 2**downs
        extra = _maker(block, norm)
        widths = [features * min(2**stage, 8) for stage in range(downs)]

        self.encoder = nn.ModuleList()
        for stage, width in enumerate(widths):
            outer, inner = stage == 0, stage == downs - 1
            conv = halving(in_channels if outer else widths[stage - 1], width, padding)
            activation = nn.ReLU(inplace=True) if inner else nn.LeakyReLU(0.2, inplace=True)
            halved = normed(conv, "none" if outer or inner else norm, activation)
            self.encoder.append(nn.Sequential(halved, *([] if inner else extra(width))))
        self.decoder = nn.ModuleList()
        for stage in reversed(range(downs - 1)):
            inputs = widths[stage + 1] * (1 if stage == downs - 2 else 2)
            first, up = doubling(inputs, widths[stage], upsampling, padding)
            dropped = [nn.Dropout(dropout)] if dropout and downs - 2 - stage < DROPPED else []
            self.decoder.append(
                nn.Sequential(*first, normed(up, norm, nn.ReLU(inplace=True)), *dropped, *extra(widths[stage]))
            )
        first, up = doubling(2 * widths[0], out_channels, upsampling, padding)
        self.head = nn.Sequential(*first, up, nn.Tanh())
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Translate pictures: (N, in_channels, H, W) in [-1, 1] to (N, out_channels, H, W) in [-1, 1].

        Raises UsageError for a size that is no multiple of `multiple`.
        """
        check_size(x, self.multiple, self.least)
        skips: list[Tensor] = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(torch.relu(x) if self.rectify_skips else x)
        skips.pop()
        for stage in self.decoder:
            x = torch.cat([stage(x), skips.pop()], 1)
        out: Tensor = self.head(x)
        return out


def _maker(block: str | Block | None, norm: str) -> Callable[[int], list[nn.Module]]:
    """What makes the modules that follow a stage, given its channels."""
    if block is None:
        return lambda channels: []
    if callable(block):
        return lambda channels: [block(channels)]
    choose("block", block, ("residual",))
    return lambda channels: [Residual(channels, norm)]
