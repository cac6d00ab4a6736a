"""Augmentation that gradients pass through, for what a discriminator sees: it cannot learn few pictures by heart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from treadle.errors import UsageError, nearest

POLICIES = ("color", "translation", "cutout")
"""What `DiffAugment` can do, in the order in which it does it."""
SHIFT = 1 / 8
"""The farthest a picture is moved, relative to its size."""
HOLE = 1 / 2
"""The side of the square that is cut out, relative to the picture's size."""


@dataclass(frozen=True)
class Draw:
    """What was drawn for the N samples of a batch.

    Attributes:
        brightness, saturation, contrast: (N, 1, 1, 1) float32: added, in [-0.5, 0.5); factors in [0, 2), [0.5, 1.5).
        shift: (N, 2) int64, pixels down and to the right.
        centre: (N, 2) int64, row and column of the square that is cut out, which may stick out of the picture.
        size: height and width.
    """

    brightness: Tensor
    saturation: Tensor
    contrast: Tensor
    shift: Tensor
    centre: Tensor
    size: tuple[int, int]


@dataclass(frozen=True)
class DiffAugment:
    """Differentiable augmentation (Zhao 2020, https://arxiv.org/abs/2006.10738) of what a discriminator sees; no state.

    "color" changes brightness, saturation and contrast, "translation" moves by up to 1/8 of the size, "cutout" empties
    a square of half the size. What is moved in and what is cut out is 0, mid-gray. With one draw for real pictures,
    fakes and the pictures that both are conditioned on, the discriminator compares like with like.

    Args:
        policy: any of "color", "translation" and "cutout", joined by commas; "" does nothing.

    Raises:
        UsageError: an unknown name, or one that comes twice.

    Example:
        augment = DiffAugment("color,translation,cutout")
        draw = augment.draw(len(y), y.shape[2:], y.device)
        condition = augment(x, draw, color=False)            # moved and cut like the pictures, its colours as they are
        real = D(torch.cat([condition, augment(y, draw)], 1))
        fake = D(torch.cat([condition, augment(G(x), draw)], 1))
    """

    policy: str = ",".join(POLICIES)

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in POLICIES:
                raise UsageError(f"DiffAugment policy {self.policy!r}: {name!r} is unknown{nearest(name, POLICIES)}")
            if self.names.count(name) > 1:
                raise UsageError(f"DiffAugment policy {self.policy!r}: {name!r} comes twice; name it once")

    @property
    def names(self) -> tuple[str, ...]:
        """The parts of the policy."""
        return tuple(name.strip() for name in self.policy.split(",")) if self.policy.strip() else ()

    def draw(self, n: int, size: tuple[int, int] | torch.Size, device: torch.device | str = "cpu") -> Draw:
        """Draw for `n` pictures of `size` (height, width) from torch's global generator of `device`.

        Everything is drawn, whatever the policy.
        """
        factors = torch.rand(3, n, 1, 1, 1, device=device)
        shift, centre = [], []
        for side in size:
            farthest, hole = int(side * SHIFT + 0.5), int(side * HOLE + 0.5)
            shift.append(torch.randint(-farthest, farthest + 1, (n,), device=device))
            centre.append(torch.randint(side + 1 - hole % 2, (n,), device=device))
        return Draw(
            brightness=factors[0] - 0.5,
            saturation=factors[1] * 2,
            contrast=factors[2] + 0.5,
            shift=torch.stack(shift, 1),
            centre=torch.stack(centre, 1),
            size=(size[0], size[1]),
        )

    def __call__(self, x: Tensor, draw: Draw | None = None, *, color: bool = True) -> Tensor:
        """Augment pictures.

        Args:
            x: (N, C, H, W), values in [-1, 1]; results may leave that range.
            draw: what `draw` gave for N pictures of this size; None draws anew.
            color: False leaves the colours as they are, whatever the policy.

        Returns:
            (N, C, H, W), differentiable by x; half precision becomes float32 where colours change.

        Raises:
            UsageError: a draw for another number or size of pictures.
        """
        n, _, height, width = x.shape
        if draw is None:
            draw = self.draw(n, (height, width), x.device)
        if (len(draw.shift), draw.size) != (n, (height, width)):
            given = f"{len(draw.shift)} pictures of {draw.size[0]} x {draw.size[1]}"
            raise UsageError(f"DiffAugment: the draw is for {given}, here are {n} of {height} x {width}: draw anew")
        names = self.names
        if color and "color" in names:
            x = _recolored(x, draw)
        if "translation" in names:
            x = _moved(x, draw)
        if "cutout" in names:
            x = x * _outside_the_hole(x, draw)
        return x


def _recolored(x: Tensor, draw: Draw) -> Tensor:
    x = x + draw.brightness
    gray = x.mean(1, keepdim=True)
    x = gray + (x - gray) * draw.saturation
    level = x.mean((1, 2, 3), keepdim=True)
    return level + (x - level) * draw.contrast


def _moved(x: Tensor, draw: Draw) -> Tensor:
    """Each picture moved by its own shift: pixels are fetched row by row, then column by column.

    Index and mask instead of `grid_sample`: exact, and with a backward pass that is deterministic on GPUs too.
    """
    n, channels, height, width = x.shape
    rows = torch.arange(height, device=x.device) - draw.shift[:, :1]
    columns = torch.arange(width, device=x.device) - draw.shift[:, 1:]
    inside = _within(rows, 0, height)[:, None, :, None] & _within(columns, 0, width)[:, None, None, :]
    x = x.gather(2, rows.clamp(0, height - 1)[:, None, :, None].expand(n, channels, height, width))
    x = x.gather(3, columns.clamp(0, width - 1)[:, None, None, :].expand(n, channels, height, width))
    return x * inside


def _outside_the_hole(x: Tensor, draw: Draw) -> Tensor:
    """(N, 1, H, W) bool: False in the square that is cut out."""
    hit = []
    for axis, side in enumerate(draw.size):
        hole = int(side * HOLE + 0.5)
        first = draw.centre[:, axis : axis + 1] - hole // 2
        hit.append(_within(torch.arange(side, device=x.device), first, first + hole))
    return ~(hit[0][:, None, :, None] & hit[1][:, None, None, :])


def _within(values: Tensor, low: Tensor | int, high: Tensor | int) -> Tensor:
    return (values >= low) & (values < high)
