"""An autoencoder of whole lines: FINTA, as dwi_ml has it.

Legarreta et al., Filtering in tractography using autoencoders (Medical Image Analysis 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from treadle.config.settings import Settings, require, setting
from treadle.errors import UsageError

HALVINGS = 5
"""Convolutions of the encoder that halve the number of points; one more follows that does not."""


@dataclass(kw_only=True)
class AutoencoderSettings(Settings):
    """What brings lines to a few numbers and back."""

    points: int = setting(256, least=64, common=True)
    """Points that each line is resampled to: a multiple of 32."""
    latent: int = setting(32, least=1, common=True)
    """Numbers that a line becomes."""
    channels: int = setting(32, least=1, common=True)
    """Channels of the first convolution; each of the five after it doubles them."""

    def __post_init__(self) -> None:
        """Check types and ranges; raises UsageError naming the field."""
        super().__post_init__()
        require(self, "points", self.points % 2**HALVINGS == 0, f"a multiple of {2**HALVINGS}")


class LineAutoencoder(nn.Module):
    """Convolutions along a line, kernels of 3 with reflected ends; no getter, no directions."""

    def __init__(self, points: int = 256, latent: int = 32, channels: int = 32) -> None:
        """Arguments as in `AutoencoderSettings`; raises UsageError where the points do not fit."""
        super().__init__()
        if points % 2**HALVINGS or points < 2 * 2**HALVINGS:
            raise UsageError(f"lines of {points} points: the autoencoder takes a multiple of 32, at least 64")
        self.points, self.latent, self.steps = points, latent, points >> HALVINGS
        widths = [3, *(channels << index for index in range(HALVINGS + 1))]
        self.down = nn.ModuleList(
            _convolution(before, after, 2 if index < HALVINGS else 1)
            for index, (before, after) in enumerate(pairwise(widths))
        )
        self.up = nn.ModuleList(_convolution(before, after, 1) for before, after in pairwise(reversed(widths)))
        self.to_latent = nn.Linear(widths[-1] * self.steps, latent)
        self.from_latent = nn.Linear(latent, widths[-1] * self.steps)

    def encode(self, lines: Tensor) -> Tensor:
        """Lines (n, points, 3) -> (n, latent)."""
        if lines.shape[1:] != (self.points, 3):
            raise UsageError(
                f"lines of the shape {tuple(lines.shape[1:])}: expected {self.points} points of 3 coordinates"
            )
        found = lines.transpose(1, 2)
        for index, layer in enumerate(self.down):
            found = layer(found.relu() if index else found)
        return self.to_latent(found.flatten(1))

    def decode(self, latent: Tensor) -> Tensor:
        """(n, latent) -> lines (n, points, 3)."""
        found = self.from_latent(latent).unflatten(1, (-1, self.steps))
        for index, layer in enumerate(self.up):
            if index:
                found = functional.interpolate(found.relu(), scale_factor=2.0, mode="linear", align_corners=False)
            found = layer(found)
        return found.transpose(1, 2)

    def forward(self, lines: Tensor) -> Tensor:
        """Lines (n, points, 3), there and back."""
        return self.decode(self.encode(lines))

    def loss(self, lines: Tensor) -> Tensor:
        """The mean squared error of each line's coordinates, (n,)."""
        return (self(lines) - lines).square().mean((1, 2))


def _convolution(before: int, after: int, stride: int) -> nn.Conv1d:
    return nn.Conv1d(before, after, 3, stride=stride, padding=1, padding_mode="reflect")
