"""Photographs as training data: views, read ahead, in an order that is a function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from treadle.cameras.camera import Camera
from treadle.cameras.capture import Photograph, Photographs
from treadle.data.feed import Feed, Gathered
from treadle.data.sampler import epoch_order
from treadle.errors import UsageError


class View(NamedTuple):
    """A photograph as tensors; see `Photograph` for what its parts mean."""

    pixels: Tensor
    """(H, W, 3 or 4) uint8."""
    mask: Tensor | None
    """(H, W) bool."""
    depth: Tensor | None
    """(H, W) float32."""
    normals: Tensor | None
    """(H, W, 3) float32."""
    points: Tensor
    """(n, 3) float32: column, row, depth."""
    camera: Camera
    number: int
    """Its number among the photographs."""

    @property
    def has_alpha(self) -> bool:
        """Whether it is transparent in places."""
        return self.pixels.shape[2] == 4

    def colors(self, background: Tensor) -> Tensor:
        """(H, W, 3) float32 from 0 to 1, over `background` (3,) where it is transparent."""
        values = self.pixels.float().div_(255)
        if not self.has_alpha:
            return values
        alpha = values[..., 3:]
        return background + alpha * (values[..., :3] - background)

    def object(self) -> Tensor | None:
        """(H, W) bool: where anything of the object is seen; None without alpha."""
        return self.pixels[..., 3] > 0 if self.has_alpha else None

    def target(self, background: Tensor, factor: int = 1) -> Target:
        """What a picture of this view over `background` (3,) should be, with about 1/`factor` of width and height."""
        colors = self.colors(background)
        if factor == 1:
            return Target(colors, self.mask, self.depth, self.normals, self.points, self.camera)
        camera = smaller_camera(self.camera, factor)
        x, y = camera.width / self.camera.width, camera.height / self.camera.height
        column = ((torch.arange(camera.width) + 0.5) / x).long().to(colors.device)
        row = ((torch.arange(camera.height) + 0.5) / y).long().to(colors.device)

        def picked(values: Tensor | None) -> Tensor | None:
            # Depths on two sides of an edge have no mean: one of the pixels stands for all.
            return None if values is None else values[row][:, column]

        points = self.points * self.points.new_tensor([x, y, 1.0])
        shrunk = shrink(colors, camera.width, camera.height)
        return Target(shrunk, picked(self.mask), picked(self.depth), picked(self.normals), points, camera)


class Target(NamedTuple):
    """What a rendered picture is compared with; all of one size."""

    colors: Tensor
    """(H, W, 3) float32 from 0 to 1."""
    mask: Tensor | None
    """(H, W) bool; False where a pixel is ignored."""
    depth: Tensor | None
    """(H, W) float32, 0 where it is not known."""
    normals: Tensor | None
    """(H, W, 3) float32, 0 where not known."""
    points: Tensor
    """(n, 3) float32: column, row, depth."""
    camera: Camera
    """What sees a picture of this size."""


def smaller_camera(camera: Camera, factor: int) -> Camera:
    """The camera with a picture of about 1/`factor` of the size, at least one pixel."""
    return camera.resized(max(1, camera.width // factor), max(1, camera.height // factor))


def shrink(colors: Tensor, width: int, height: int) -> Tensor:
    """Colours (H, W, C) at a smaller size: each pixel the mean of what it covers."""
    if colors.shape[:2] == (height, width):
        return colors
    small = functional.interpolate(colors.movedim(2, 0)[None], size=(height, width), mode="area")
    return small[0].movedim(0, 2).contiguous()


def as_view(photograph: Photograph, index: int) -> View:
    """A photograph as tensors, sharing its memory where that may be."""
    return View(
        pixels=_tensor(photograph.pixels),
        mask=None if photograph.mask is None else _tensor(photograph.mask),
        depth=None if photograph.depth is None else _tensor(photograph.depth),
        normals=None if photograph.normals is None else _tensor(photograph.normals),
        points=_tensor(photograph.points),
        camera=photograph.camera,
        number=index,
    )


def _tensor(array: Any) -> Tensor:
    if not (array.flags.writeable and array.flags.c_contiguous):
        array = np.array(array, order="C")  # torch takes no array that must not be written to
    return torch.from_numpy(array)


class ViewFeed(Feed):
    """Batches of views: each of the photographs once an epoch.

    The next ones are read by threads while one is trained on; what they give does not depend on that.

    A step gets one view at a time: a batch of several is for so many processes, or parts, that each has one.

    Args:
        photographs: the views.
        shuffle: take them in an order drawn from (seed, epoch), else in their own.
        threads: how many are read at the same time, ahead of their turn.
        batch_size: views in a batch; an epoch's last may have fewer.

    Raises:
        UsageError: there are none.
    """

    def __init__(
        self, photographs: Photographs, *, shuffle: bool = True, threads: int = 1, batch_size: int = 1
    ) -> None:
        super().__init__()
        if len(photographs) == 0:
            raise UsageError("there are no photographs to train on: look at the split (every, lists)")
        self.photographs, self.shuffle, self.threads = photographs, shuffle, max(1, threads)
        self.batch_size = batch_size
        self._pool: ThreadPoolExecutor | None = None

    @property
    def batches(self) -> int:
        """Batches per epoch."""
        return -(-len(self.photographs) // self.batch_size)

    @property
    def samples(self) -> int:
        """As many as there are photographs."""
        return len(self.photographs)

    def plan(self, epoch: int) -> Any:
        """The photographs of each batch."""
        count = len(self.photographs)
        order = epoch_order(count, self.seed, epoch) if self.shuffle else np.arange(count)
        return np.split(order, range(self.batch_size, count, self.batch_size))

    def gather(self, epoch: int, indices: Any) -> View:
        """The view of a batch, or of a part of it."""
        if len(indices) > 1:
            raise UsageError(
                f"a step gets one view at a time, not {len(indices)}: give each of them a process or a part of its own"
            )
        index = int(indices[0])
        return as_view(self.photographs[index], index)

    def fingerprint(self) -> str:
        """That of the photographs."""
        return self.photographs.fingerprint()

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _open(self, epoch: int, start: int) -> Gathered:
        return _Ahead(self, epoch)

    def read(self, epoch: int, indices: Any) -> Future[View]:
        """A batch that a thread reads."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="treadle-views")
        return self._pool.submit(self.gather, epoch, indices)


class _Ahead(Gathered):
    """Reads the next views while one is trained on."""

    def __init__(self, feed: ViewFeed, epoch: int) -> None:
        super().__init__(feed, epoch)
        self._feed, self._at = feed, epoch
        self._waiting: dict[int, Future[View]] = {}

    def take(self, position: int) -> View:
        """Batch `position`."""
        waiting = self._waiting.pop(position, None)
        for ahead in range(position + 1, min(position + 1 + self._feed.threads, self.count or 0)):
            if ahead not in self._waiting:
                self._waiting[ahead] = self._feed.read(self._at, self.plan[ahead])
        found: View = waiting.result() if waiting is not None else super().take(position)
        return found


def spread(feed: Feed, count: int = 4) -> Iterator[View]:
    """Some of the views, from the first to the last."""
    last = (feed.samples or 1) - 1
    for number in dict.fromkeys(np.linspace(0, last, count).astype(int).tolist()):
        yield feed.gather(0, [number])
