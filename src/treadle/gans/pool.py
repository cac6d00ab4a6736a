"""A history of generated pictures, so that a discriminator does not forget what it has learnt to tell."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from treadle.errors import UsageError


class ImagePool:
    """Up to `size` earlier pictures; each new one is, with probability 1/2, exchanged for one of them.

    Shrivastava 2017 (https://arxiv.org/abs/1612.07828), in the form of CycleGAN: until the pool is full, pictures are
    kept and handed on. As an attribute of a trainer it is saved with the run. Only pictures of one shape and dtype are
    exchanged; one that meets another takes its place and is handed on. Where a discriminator sees what a picture was
    made from, keep both together, as channels: `pool(torch.cat([x, fake], 1))`.

    Where several processes train, or the `parts` of a batch, all have the same pool, which is given the pictures of the
    whole batch: in `Trainer.once`.

    Args:
        size: how many pictures are kept; 0 keeps none and hands all on.

    Raises:
        UsageError: a negative size.

    Example:
        self.pool = ImagePool(50)
        ...
        loss = self.adversarial.fake(self.discriminator(self.pool(fake)))
    """

    def __init__(self, size: int = 50) -> None:
        if size < 0:
            raise UsageError(f"an image pool of {size} pictures is not possible: give 0 (no history) or more")
        self.size = size
        self._pictures: list[Tensor] = []

    @property
    def count(self) -> int:
        """How many pictures are kept."""
        return len(self._pictures)

    def __call__(self, images: Tensor) -> Tensor:
        """Return as many pictures as came in, detached. Chance comes from torch's global CPU generator.

        Args:
            images: (N, ...), any dtype and device.
        """
        images = images.detach()
        if not self.size:
            return images
        chosen = []
        # One at a time, since a picture may be exchanged for one that came in the same batch.
        for image, chance, slot in zip(images, *self._draw(len(images)), strict=True):
            if self.count < self.size:
                self._pictures.append(image.clone())
            elif chance < 0.5:
                earlier, self._pictures[slot] = self._pictures[slot], image.clone()
                if (earlier.shape, earlier.dtype) == (image.shape, image.dtype):
                    image = earlier.to(image.device)
            chosen.append(image)
        return torch.stack(chosen) if chosen else images

    def _draw(self, n: int) -> tuple[list[float], list[int]]:
        return torch.rand(n, device="cpu").tolist(), torch.randint(self.size, (n,), device="cpu").tolist()

    def state_dict(self) -> dict[str, Any]:
        """The kept pictures: (count, ...), or a list where they differ in shape or dtype, or None before the first."""
        kept: Tensor | list[Tensor] | None = None
        if self._pictures:
            alike = len({(picture.shape, picture.dtype, picture.device) for picture in self._pictures}) == 1
            kept = torch.stack(self._pictures) if alike else list(self._pictures)
        return {"pictures": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep what `state_dict` gave.

        Raises:
            ValueError: there are more pictures than this pool keeps.
        """
        kept = [] if state["pictures"] is None else list(state["pictures"])
        if len(kept) > self.size:
            raise ValueError(f"{len(kept)} pictures do not go into a pool of {self.size}")
        self._pictures = [picture.clone() for picture in kept]
