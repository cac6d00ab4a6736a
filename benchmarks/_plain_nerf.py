"""The radiance field of the first paper in plain torch, to measure against: what one writes who follows it.

Positions in 10 octaves of sines and cosines, eight layers of 256 with the input again at the fifth, directions in 4
octaves, a coarse network with 64 stratified samples and a fine one with 128 more where the coarse one saw something
(Mildenhall et al. 2020, https://arxiv.org/abs/2003.08934). Adam from 5e-4 down to 5e-5, over the time that there is.
It gets the same rays and the same box: samples lie where a ray is within the box alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

COARSE, FINE, WIDTH = 64, 128, 256


def encoded(values: Tensor, octaves: int) -> Tensor:
    parts = [values]
    for octave in range(octaves):
        parts += [(values * 2.0**octave).sin(), (values * 2.0**octave).cos()]
    return torch.cat(parts, -1)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        inputs = 3 * 21
        widths = [inputs, WIDTH, WIDTH, WIDTH, WIDTH, WIDTH + inputs, WIDTH, WIDTH]
        self.layers = nn.ModuleList(nn.Linear(width, WIDTH) for width in widths)
        self.density, self.features = nn.Linear(WIDTH, 1), nn.Linear(WIDTH, WIDTH)
        self.view, self.color = nn.Linear(WIDTH + 3 * 9, WIDTH // 2), nn.Linear(WIDTH // 2, 3)

    def forward(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        place = encoded(points, 10)
        hidden = place
        for number, layer in enumerate(self.layers):
            hidden = layer(torch.cat([place, hidden], -1) if number == 5 else hidden).relu()
        seen = self.view(torch.cat([self.features(hidden), encoded(directions, 4)], -1)).relu()
        return self.density(hidden)[..., 0].relu(), self.color(seen).sigmoid()


class PlainNeRF(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.coarse, self.fine = Network(), Network()

    def forward(
        self, origins: Tensor, directions: Tensor, background: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Colours (n, 3) by the coarse network and by the fine one."""
        near, far = through_box(origins, directions)
        steps = torch.linspace(0, 1, COARSE + 1)
        low, high = steps[:-1], steps[1:]
        place = (
            torch.rand(len(origins), COARSE, generator=generator)
            if generator
            else torch.full((len(origins), COARSE), 0.5)
        )
        distances = near[:, None] + (far - near)[:, None] * (low + (high - low) * place)
        first, weights = self.blend(self.coarse, origins, directions, distances, far, background)
        with torch.no_grad():
            finer = resampled(distances, weights, generator)
            distances = torch.cat([distances, finer], 1).sort(1).values
        return first, self.blend(self.fine, origins, directions, distances, far, background)[0]

    @staticmethod
    def blend(
        network: Network, origins: Tensor, directions: Tensor, distances: Tensor, far: Tensor, background: Tensor
    ) -> tuple[Tensor, Tensor]:
        points = origins[:, None] + distances[..., None] * directions[:, None]
        density, color = network(points, directions[:, None].expand_as(points))
        deltas = torch.cat([distances[:, 1:], far[:, None]], 1) - distances
        hidden = 1 - torch.exp(-density * deltas.clamp(min=0))
        light = torch.cumprod(torch.cat([torch.ones_like(hidden[:, :1]), 1 - hidden + 1e-10], 1), 1)
        weights = hidden * light[:, :-1]
        return (weights[..., None] * color).sum(1) + (1 - weights.sum(1, keepdim=True)) * background, weights


def resampled(distances: Tensor, weights: Tensor, generator: torch.Generator | None) -> Tensor:
    """Distances (n, FINE) drawn where the weights (n, COARSE) are."""
    middles = (distances[:, 1:] + distances[:, :-1]) / 2
    inner = weights[:, 1:-1] + 1e-5
    sums = torch.cat([torch.zeros_like(inner[:, :1]), (inner / inner.sum(1, keepdim=True)).cumsum(1)], 1)
    if generator is None:
        wanted = torch.linspace(0, 1, FINE).expand(len(distances), FINE).contiguous()
    else:
        wanted = torch.rand(len(distances), FINE, generator=generator)
    above = torch.searchsorted(sums, wanted, right=True).clamp(max=sums.shape[1] - 1)
    below = (above - 1).clamp(min=0)
    low, high = sums.gather(1, below), sums.gather(1, above)
    share = (wanted - low) / torch.where(high - low < 1e-5, 1.0, high - low)
    start, end = middles.gather(1, below), middles.gather(1, above)
    return start + share * (end - start)


def through_box(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays (n, 3) enter and leave [-1, 1]^3; a short stretch where they go past it."""
    sides = torch.stack([(-1 - origins) / directions, (1 - origins) / directions])
    near = sides.amin(0).amax(1).clamp(min=0)
    return near, torch.maximum(sides.amax(0).amin(1), near + 1e-3)
