"""What the networks are made of: convolutions with a norm and an activation, residual blocks, initial weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional

from treadle.errors import UsageError, nearest
from treadle.gans.convolutions import Conv, ConvTranspose

Norm = Literal["batch", "instance", "none"]
Upsampling = Literal["transposed", "bilinear"]
Padding = Literal["zeros", "reflect"]
PADDINGS: tuple[str, ...] = get_args(Padding)
Block = Callable[[int], nn.Module]
"""Makes a module that keeps its input's shape, given the number of channels."""


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm with weights. A batch of one is normalized as a batch: the same bits, 2 % of a step less."""

    def __init__(self, channels: int, *, affine: bool = True) -> None:
        super().__init__(channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same; H * W at least 2 in training."""
        if self.training and len(x) == 1:
            return functional.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        return super().forward(x)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": InstanceNorm,
    "none": lambda channels: nn.Identity(),
}


def normed(conv: nn.Conv2d | nn.ConvTranspose2d, norm: str, activation: nn.Module) -> nn.Sequential:
    """`conv`, the norm of its outputs, `activation`; a norm takes the place of the bias."""
    if norm != "none":
        conv.bias = None
        return nn.Sequential(conv, NORMS[norm](conv.out_channels), activation)
    return nn.Sequential(conv, activation)


def halving(inputs: int, outputs: int, padding: Padding = "zeros") -> nn.Conv2d:
    """The 4 x 4 convolution of stride 2 that halves a picture, with one pixel of "zeros" or "reflect" around it."""
    return convolution(inputs, outputs, 4, stride=2, padding=padding)


def convolution(inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: Padding = "zeros") -> nn.Conv2d:
    """A convolution with one pixel of "zeros" or "reflect" around the picture."""
    if padding == "zeros":
        return Conv(inputs, outputs, kernel, stride=stride, padding=1)
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=1, padding_mode=padding)


def doubling(
    inputs: int, outputs: int, upsampling: str, padding: Padding = "zeros"
) -> tuple[list[nn.Module], nn.Conv2d | nn.ConvTranspose2d]:
    """What doubles a picture: modules to go first, and the convolution.

    "transposed" is one 4 x 4 convolution of stride 2. "bilinear" is interpolation and a 3 x 3 convolution: it cannot
    make a checkerboard (Odena et al. 2016, https://distill.pub/2016/deconv-checkerboard).
    """
    if upsampling == "transposed":
        return [], ConvTranspose(inputs, outputs, 4, stride=2, padding=1)
    return [nn.Upsample(scale_factor=2, mode="bilinear")], convolution(inputs, outputs, 3, padding=padding)


class Residual(nn.Module):
    """`x + f(x)`, f two 3 x 3 convolutions with a norm (He et al. 2015), reflected at the border."""

    def __init__(self, channels: int, norm: str = "instance") -> None:
        super().__init__()
        self.body = nn.Sequential(
            normed(nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"), norm, nn.ReLU(inplace=True)),
            normed(nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"), norm, nn.Identity()),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        out: Tensor = x + self.body(x)
        return out


def initialize(network: nn.Module, std: float = 0.02) -> None:
    """Draw weights as pix2pix and CycleGAN do: convolutions N(0, std), norms N(1, std), biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, std)
        elif isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d) and module.weight is not None:
            nn.init.normal_(module.weight, 1.0, std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def check_size(x: Tensor, multiple: int, least: int) -> None:
    """Raise UsageError unless height and width of `x` (N, C, H, W) are multiples of `multiple` and at least `least`."""
    height, width = x.shape[-2:]
    if height % multiple or width % multiple or min(height, width) < least:
        multiples = f"multiples of {multiple}, " if multiple > 1 else ""
        raise UsageError(f"a picture of {width} x {height} pixels: the network takes {multiples}at least {least}")


def choose(what: str, value: str, known: Iterable[str]) -> None:
    """Raise UsageError unless `value` is one of `known`."""
    if value not in (options := tuple(known)):
        raise UsageError(f"{what} is {value!r}{nearest(str(value), options)}")


def check(norm: str, upsampling: str, **numbers: tuple[int, int]) -> None:
    """Raise UsageError for an unknown norm or way of upsampling, or a number, (value, least), that is too small."""
    for what, (value, least) in numbers.items():
        at_least(what, value, least)
    choose("norm", norm, NORMS)
    choose("upsampling", upsampling, ("transposed", "bilinear"))


def at_least(what: str, value: int, least: int) -> None:
    """Raise UsageError unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{what} is {value!r}: expected a whole number of at least {least}")
