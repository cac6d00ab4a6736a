"""A history of generated pictures, so that a discriminator does not forget what it has learnt to tell."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from treadle.errors import UsageError


class ImagePool:
    """Up to `size` earlier pictures; each new one is, with probability 1/2, exchanged for one of them.

    Shrivastava 2017 (https://arxiv.org/abs/1612.07828), in the form of CycleGAN: until the pool is full, pictures are
    kept and handed on. As an attribute of a trainer it is saved with the run. Pictures of another shape or dtype begin
    the history anew. Where a discriminator sees what a picture was made from, keep both together, as channels:
    `pool(torch.cat([x, fake], 1))`.

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
        self.count = 0
        self._pictures: Tensor | None = None  # (size, ...), of which the first `count` are kept ones

    def __call__(self, images: Tensor) -> Tensor:
        """Return as many pictures as came in, detached. Chance comes from torch's global CPU generator.

        Args:
            images: (N, ...), any dtype and device.
        """
        images = images.detach()
        if not self.size:
            return images
        pictures = self._room_for(images)
        chosen = []
        # One at a time, since a picture may be exchanged for one that came in the same batch.
        for image, chance, slot in zip(images, *self._draw(len(images)), strict=True):
            if self.count < self.size:
                pictures[self.count] = image
                self.count += 1
            elif chance < 0.5:
                earlier = pictures[slot].clone()
                pictures[slot] = image
                image = earlier
            chosen.append(image)
        return torch.stack(chosen) if chosen else images

    def _draw(self, n: int) -> tuple[list[float], list[int]]:
        return torch.rand(n, device="cpu").tolist(), torch.randint(self.size, (n,), device="cpu").tolist()

    def _room_for(self, images: Tensor) -> Tensor:
        """The memory of the pool, made when the first picture comes, and on its device."""
        pictures = self._pictures
        if pictures is None or pictures.shape[1:] != images.shape[1:] or pictures.dtype != images.dtype:
            pictures, self.count = images.new_empty((self.size, *images.shape[1:])), 0
        self._pictures = pictures = pictures.to(images.device)
        return pictures

    def state_dict(self) -> dict[str, Any]:
        """The kept pictures, (count, ...), or None before the first."""
        return {"pictures": None if self._pictures is None else self._pictures[: self.count]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep what `state_dict` gave.

        Raises:
            ValueError: there are more pictures than this pool keeps.
        """
        kept = state["pictures"]
        self.count, self._pictures = 0, None
        if kept is None:
            return
        if len(kept) > self.size:
            raise ValueError(f"{len(kept)} pictures do not go into a pool of {self.size}")
        self.count, self._pictures = len(kept), kept.new_empty((self.size, *kept.shape[1:]))
        self._pictures[: self.count] = kept
