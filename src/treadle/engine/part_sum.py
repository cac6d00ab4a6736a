"""The gradients of a batch's fixed parts, added up in one tree, whichever process has which of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from treadle.engine.bad_steps import NonFiniteError
from treadle.engine.together import GradientSum, Window
from treadle.errors import UsageError
from treadle.parallel import World
from treadle.parallel.tree import TreeSum, add_up


class PartSum(GradientSum):
    """Adds up the gradients that one optimizer gets from the parts of a batch, in their tree."""

    def __init__(self, world: World, asks: Callable[[], bool], count: int) -> None:
        super().__init__(world, asks)
        self._count = count
        self._tree = TreeSum(count)
        self._bad: dict[int, str] = {}

    def put(self, part: int, parameters: Sequence[Tensor], elements: float, loss: float, bad: str) -> None:
        """Take the gradients of `part`, whose loss is a mean over `elements`: 0 where it has nothing of its own.

        Raises UsageError for a sparse gradient.
        """
        self._lay_out(parameters)
        gradients = [p.grad if elements else None for p in parameters]
        if any(g is not None and g.is_sparse for g in gradients):
            raise UsageError(
                "the parts of a batch cannot add up sparse gradients: make the embedding with sparse=False, or set "
                "parts=null, with which several processes add them up"
            )
        self.forget()
        self.note(loss, elements, bad)
        if bad:
            self._bad[part] = bad
        self._fill(gradients, elements)
        self._tree.put((part, part + 1), [buffer.clone() for buffer in self._buffers])

    def take(self) -> Window:
        """What all parts together are, in all processes; `gradient` then tells each parameter's.

        Raises NonFiniteError where the loss of one was bad.
        """
        tree, self._tree = self._tree, TreeSum(self._count)
        bad, self._bad = self._bad, {}
        self.forget()
        add_up(self.world, tree, self._count, into=self._buffers)
        head = self._head.tolist()
        self.met, self.asked = True, self.asked or bool(head[5])
        if head[4]:
            everybodys = self.world.gather({str(part): text for part, text in bad.items()})
            texts = {part: text for one in everybodys for part, text in one.items()}
            first = min(texts, key=int)
            raise NonFiniteError(f"{texts[first]} in part {first}")
        return self._window(head)

    def give(self, parameters: Sequence[Tensor]) -> None:
        """Add the sums to the parameters' gradients; those that no part has one for are left alone."""
        for p, view, exists in zip(parameters, self._views, self.existing(), strict=True):
            if exists:
                p.grad = torch.empty_like(p).copy_(view) if p.grad is None else p.grad.add_(view)

    def drop(self) -> None:
        """Forget what was put in."""
        self._tree, self._bad = TreeSum(self._count), {}
        self.forget()
