"""PatchGAN: a discriminator that judges overlapping patches (Isola et al. 2017)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from treadle.errors import UsageError
from treadle.gans.blocks import NORMS, PADDINGS, Padding, at_least, check_size, choose, halving, initialize, normed

HALVINGS = {1: 0, 16: 1, 34: 2, 70: 3, 142: 4}
"""Receptive field in pixels, and the convolutions of stride 2 that give it; 1 is the paper's PixelGAN."""


def least_size(field: int) -> int:
    """The smallest height and width that a discriminator of this receptive field can judge: it gives one logit."""
    return 3 * 2 ** HALVINGS[field] if field > 1 else 1


class PatchGAN(nn.Module):
    """Convolutions whose every output has seen one patch of `field` x `field` pixels.

    4 x 4 convolutions: as many of stride 2 as the field needs, one of stride 1, one of stride 1 to the logits; no norm
    in the first and the last. With the defaults it is the paper's 70 x 70 discriminator (2.77 million parameters;
    30 x 30 logits for a 256 x 256 picture). A `field` of 1 is its PixelGAN: three 1 x 1 convolutions, which judge
    every pixel by its colour alone.

    Args:
        in_channels: of what it sees; for a conditional one those of the input and the output picture together.
        features: channels after the first convolution; they double up to 8 times this.
        field: receptive field in pixels: 1, 16, 34, 70 or 142.
        norm: "batch" as in the paper, "instance" or "none".
        padding: around pictures: "zeros" as in the paper, or "reflect".
        spectral: spectral normalization of every convolution (Miyato et al. 2018).

    Attributes:
        least: the smallest height and width it can judge, which gives one logit.

    Raises:
        UsageError: an argument is out of its range.
    """

    def __init__(
        self,
        in_channels: int = 6,
        *,
        features: int = 64,
        field: int = 70,
        norm: str = "batch",
        padding: Padding = "zeros",
        spectral: bool = False,
    ) -> None:
        super().__init__()
        at_least("in_channels", in_channels, 1)
        at_least("features", features, 1)
        choose("norm", norm, NORMS)
        choose("padding", padding, PADDINGS)
        if field not in tuple(HALVINGS):
            raise UsageError(f"field is {field!r}: a PatchGAN's receptive field is one of {sorted(HALVINGS)} pixels")
        if field == 1:
            convolutions = [nn.Conv2d(in_channels, features, 1), nn.Conv2d(features, 2 * features, 1)]
            last = nn.Conv2d(2 * features, 1, 1)
        else:
            halvings = HALVINGS[field]
            widths = [features * min(2**stage, 8) for stage in range(halvings + 1)]
            convolutions = [halving(in_channels, widths[0], padding)]
            for stage in range(1, halvings + 1):
                stride = 2 if stage < halvings else 1
                inputs, outputs = widths[stage - 1], widths[stage]
                convolutions.append(nn.Conv2d(inputs, outputs, 4, stride=stride, padding=1, padding_mode=padding))
            last = nn.Conv2d(widths[-1], 1, 4, padding=1, padding_mode=padding)
        layers = []
        for index, conv in enumerate(convolutions):
            layers.append(normed(conv, norm if index else "none", nn.LeakyReLU(0.2, inplace=True)))
        self.layers = nn.Sequential(*layers, last)
        self.least = least_size(field)
        initialize(self)
        if spectral:
            for module in list(self.modules()):
                if isinstance(module, nn.Conv2d):
                    spectral_norm(module)

    def forward(self, x: Tensor) -> Tensor:
        """Judge pictures: (N, in_channels, H, W) to logits (N, 1, h, w).

        Raises UsageError for pictures smaller than `least`.
        """
        check_size(x, 1, self.least)
        out: Tensor = self.layers(x)
        return out
