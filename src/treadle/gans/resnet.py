"""The ResNet generator of CycleGAN (Zhu et al. 2017, after Johnson et al. 2016)."""

from __future__ import annotations

from torch import Tensor, nn

from treadle.gans.blocks import Residual, check, check_size, doubling, initialize, normed


class ResNetGenerator(nn.Module):
    """A 7 x 7 convolution, halvings, residual blocks, doublings, a 7 x 7 convolution; all reflected at the border.

    With the defaults it is CycleGAN's generator for 256 x 256 pictures (11.7 million parameters), but for its
    doublings: theirs are 3 x 3, which overlap unevenly, the cause of checkerboards; ours are 4 x 4.

    Args:
        in_channels, out_channels: of the input and the output picture.
        features: channels at full size; they double with each halving.
        blocks: residual blocks; the paper has 9 at 256 pixels and 6 at 128.
        downs: halvings. Heights and widths must be multiples of `2 ** downs`.
        upsampling: "transposed" convolutions as in the paper, or "bilinear" interpolation and a convolution.
        norm: "instance" as in the paper, "batch" or "none".

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
        blocks: int = 9,
        downs: int = 2,
        upsampling: str = "transposed",
        norm: str = "instance",
    ) -> None:
        super().__init__()
        numbers = {"in_channels": (in_channels, 1), "out_channels": (out_channels, 1), "features": (features, 1)}
        check(norm, upsampling, **numbers, blocks=(blocks, 0), downs=(downs, 0))
        self.in_channels, self.out_channels = in_channels, out_channels
        self.multiple = 2**downs
        self.least = max(4, 2 * self.multiple)  # what can be reflected, by 3 pixels at first, by one in the blocks
        wide = nn.Conv2d(in_channels, features, 7, padding=3, padding_mode="reflect")
        layers: list[nn.Module] = [normed(wide, norm, nn.ReLU(inplace=True))]
        width = features
        for _ in range(downs):
            conv = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
            layers.append(normed(conv, norm, nn.ReLU(inplace=True)))
            width *= 2
        layers += [Residual(width, norm) for _ in range(blocks)]
        for _ in range(downs):
            first, up = doubling(width, width // 2, upsampling)
            layers += [*first, normed(up, norm, nn.ReLU(inplace=True))]
            width //= 2
        layers += [nn.Conv2d(width, out_channels, 7, padding=3, padding_mode="reflect"), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Translate pictures: (N, in_channels, H, W) in [-1, 1] to (N, out_channels, H, W) in [-1, 1].

        Raises UsageError for a size that does not fit `multiple` and `least`.
        """
        check_size(x, self.multiple, self.least)
        out: Tensor = self.layers(x)
        return out
