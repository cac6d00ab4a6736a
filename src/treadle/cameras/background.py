"""What shows where nothing is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from treadle.cameras.capture import Photographs

Color = tuple[float, float, float]
"""Red, green and blue, from 0 to 1."""

WHITE, BLACK = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Background:
    """A colour, or another one in each step, so that nothing is gained by painting the background.

    Attributes:
        trained: over what is trained; None takes another colour in each step.
        tested: over what is measured.
    """

    trained: Color | None
    tested: Color

    @classmethod
    def of(cls, chosen: str, views: Photographs) -> Background:
        """The background that a setting means, for photographs that are transparent in places or not."""
        transparent = views[0].pixels.shape[2] == 4
        if chosen == "auto":
            chosen = "random" if transparent else "black"
        if chosen == "random":
            return cls(None, WHITE if transparent else BLACK)
        color = WHITE if chosen == "white" else BLACK if chosen == "black" else mean_color(views)
        return cls(color, color)

    def in_training(self, generator: torch.Generator, device: torch.device) -> Tensor:
        """The colour of a step, (3,) from 0 to 1; a random one is drawn from `generator`, on the CPU."""
        if self.trained is None:
            return torch.rand(3, generator=generator).to(device)
        return torch.tensor(self.trained, device=device)

    def in_tests(self, device: torch.device) -> Tensor:
        """The colour behind held-out views, (3,)."""
        return torch.tensor(self.tested, device=device)

    def __str__(self) -> str:
        names = {WHITE: "white", BLACK: "black"}
        return names.get(self.tested, f"the colour {', '.join(f'{value:.2f}' for value in self.tested)}")


def mean_color(views: Photographs) -> Color:
    """The mean colour of photographs, of what is opaque and not masked: near that of a plain backdrop."""
    totals, count = [0, 0, 0], 0
    for index in range(len(views)):
        view = views[index]
        seen = view.pixels[..., 3] == 255 if view.pixels.shape[2] == 4 else view.pixels[..., 0] >= 0
        seen = seen if view.mask is None else seen & view.mask
        colors = view.pixels[..., :3][seen]
        totals = [total + int(channel.sum(dtype="int64")) for total, channel in zip(totals, colors.T, strict=True)]
        count += len(colors)
    red, green, blue = (total / (255 * max(count, 1)) for total in totals)
    return red, green, blue
