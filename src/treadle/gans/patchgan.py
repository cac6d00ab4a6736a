"""PatchGAN: a discriminator that judges overlapping patches (Isola et al. 2017)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from treadle.errors import UsageError
from treadle.gans.blocks import NORMS, at_least, check_size, choose, halving, initialize, normed

HALVINGS = {16: 1, 34: 2, 70: 3, 142: 4}
"""Receptive field in pixels, and the convolutions of stride 2 that give it."""


class PatchGAN(nn.Module):
    """Convolutions whose every output has seen one patch of `field` x `field` pixels.

    4 x 4 convolutions: as many of stride 2 as the field needs, one of stride 1, one of stride 1 to the logits; no norm
    in the first and the last. With the defaults it is the paper's 70 x 70 discriminator (2.77 million parameters;
    30 x 30 logits for a 256 x 256 picture).

    Args:
        in_channels: of what it sees; for a conditional one those of the input and the output picture together.
        features: channels after the first convolution; they double up to 8 times this.
        field: receptive field in pixels: 16, 34, 70 or 142.
        norm: "batch" as in the paper, "instance" or "none".
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
        spectral: bool = False,
    ) -> None:
        super().__init__()
        at_least("in_channels", in_channels, 1)
        at_least("features", features, 1)
        choose("norm", norm, NORMS)
        if field not in tuple(HALVINGS):
            raise UsageError(f"field is {field!r}: a PatchGAN's receptive field is one of {sorted(HALVINGS)} pixels")
        halvings = HALVINGS[field]
        widths = [features * min(2**stage, 8) for stage in range(halvings + 1)]
        layers = [normed(halving(in_channels, widths[0]), "none", nn.LeakyReLU(0.2, inplace=True))]
        for stage in range(1, halvings + 1):
            conv = nn.Conv2d(widths[stage - 1], widths[stage], 4, stride=2 if stage < halvings else 1, padding=1)
            layers.append(normed(conv, norm, nn.LeakyReLU(0.2, inplace=True)))
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.least = 3 * 2**halvings
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
