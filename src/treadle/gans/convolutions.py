"""Convolutions that are quick where a picture has become small: as one matrix product, while training on a CPU.

At the bottom of a U-Net a batch of one has a few pixels and millions of weights, and all there is to do is to read each
weight once. oneDNN reorders such weights, and their gradients, for every call. The product of a matrix with the few
columns of pixels takes a quarter of its time (1024 -> 512 channels on 2 x 2 pixels, forward and backward: 46 -> 12 ms).
The sums are the same in another order. In evaluation, and where the network is exported, torch's own operators run.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

FEW = 64
"""Pixels of a batch, at the smaller of the two sizes, up to which the product is quicker."""
MANY = 2**18
"""Weights from which it is."""


def as_product(conv: nn.Conv2d | nn.ConvTranspose2d, x: Tensor, pixels: int) -> bool:
    """Whether a convolution of `x`, of as many pixels at its smaller side, is done as a matrix product."""
    return conv.training and pixels <= FEW and conv.weight.numel() >= MANY and x.device.type == "cpu"


class Conv(nn.Conv2d):
    """`nn.Conv2d` with zero padding, without groups and dilation."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, h, w)."""
        n = len(x)
        height, width = (
            (size + 2 * padding - kernel) // stride + 1
            for size, padding, kernel, stride in zip(
                x.shape[2:], _pair(self.padding), self.kernel_size, self.stride, strict=True
            )
        )
        if not as_product(self, x, n * height * width):
            return super().forward(x)
        columns = functional.unfold(x, self.kernel_size, padding=_pair(self.padding), stride=self.stride)
        columns = columns.transpose(0, 1).flatten(1)  # (in_channels * kernel, N * h * w)
        out = torch.mm(self.weight.flatten(1), columns).view(-1, n, height, width).transpose(0, 1)
        return out if self.bias is None else out + self.bias.to(out.dtype)[:, None, None]


class ConvTranspose(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` with zero padding, without groups, dilation and output padding."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, in_channels, h, w) to (N, out_channels, H, W)."""
        n, channels, height, width = x.shape
        if output_size is not None or not as_product(self, x, n * height * width):
            return super().forward(x, output_size)
        pixels = x.transpose(0, 1).reshape(channels, -1)  # (in_channels, N * h * w)
        columns = torch.mm(self.weight.flatten(1).t(), pixels).view(-1, n, height * width).transpose(0, 1)
        rows, wide = (
            (small - 1) * stride - 2 * padding + kernel
            for small, stride, padding, kernel in zip(
                (height, width), self.stride, _pair(self.padding), self.kernel_size, strict=True
            )
        )
        # What overlaps is summed in float32 at least, as within torch's operator.
        exact = columns.to(torch.promote_types(columns.dtype, torch.float32))
        out = functional.fold(exact, (rows, wide), self.kernel_size, padding=_pair(self.padding), stride=self.stride)
        out = out.to(columns.dtype)
        return out if self.bias is None else out + self.bias.to(out.dtype)[:, None, None]


def _pair(padding: str | Sequence[int]) -> tuple[int, int]:
    assert not isinstance(padding, str)
    return padding[0], padding[1]
