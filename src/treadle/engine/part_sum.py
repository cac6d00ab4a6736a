"""The gradients of a batch's fixed parts, added up in one tree, whichever process has which of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from treadle.engine.bad_steps import NonFiniteError
from treadle.engine.together import HEAD, GradientSum, Window
from treadle.parallel import World
from treadle.parallel.tree import TreeSum, add_up


class PartSum(GradientSum):
    """Adds up the gradients that one optimizer gets from the parts of a batch, in their tree."""

    cuts = False

    def __init__(self, world: World, asks: Callable[[], bool], count: int) -> None:
        super().__init__(world, asks)
        self._count = count
        self._tree = TreeSum(count)
        self._bad: dict[int, str] = {}

    def put(self, part: int, parameters: Sequence[Tensor], elements: float, loss: float, bad: str) -> None:
        """Take the gradients of `part`, whose loss is a mean over `elements`: 0 where it has nothing of its own."""
        buckets = self._buckets_of(parameters)
        if not elements:
            for p in parameters:
                p.grad = None
        self.forget()
        self.note(loss, elements, bad)
        if bad:
            self._bad[part] = bad
        for number in range(len(buckets.buffers)):
            buckets.fill(number)
        buckets.write(self._numbers(parameters, elements))
        self._tree.put((part, part + 1), [buffer.clone() for buffer in buckets.buffers])

    def take(self) -> Window:
        """What all parts together are, in all processes; `gradient` then tells each parameter's.

        Raises NonFiniteError where the loss of one was bad.
        """
        tree, self._tree = self._tree, TreeSum(self._count)
        bad, self._bad = self._bad, {}
        self.forget()
        assert self._buckets is not None, "parts have been put in"
        add_up(self.world, tree, self._count, into=self._buckets.buffers)
        head = self._buckets.head.tolist()
        self.asked = self.asked or bool(head[5])
        if head[4]:
            everybodys = self.world.gather({str(part): text for part, text in bad.items()})
            texts = {part: text for one in everybodys for part, text in one.items()}
            first = min(texts, key=int)
            raise NonFiniteError(f"{texts[first]} in part {first}")
        return self._window(head)

    def give(self, parameters: Sequence[Tensor]) -> None:
        """Add the sums to the parameters' gradients; those that no part has one for are left alone."""
        assert self._buckets is not None, "they have been taken"
        existing = self._buckets.head[HEAD:].tolist()
        for p, view, exists in zip(parameters, self._buckets.views, existing, strict=True):
            if exists:
                p.grad = torch.empty_like(p).copy_(view) if p.grad is None else p.grad.add_(view)

    def drop(self) -> None:
        """Forget what was put in."""
        self._tree, self._bad = TreeSum(self._count), {}
        self.forget()
