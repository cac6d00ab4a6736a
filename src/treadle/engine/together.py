"""Gradients of several processes, added up: few messages for each update of an optimizer, whatever it was made of.

Each process weighs its loss by its elements; here gradients and elements are added up, so that their quotient is the
mean over the global batch, however unequal the parts. What the processes have to agree on rides along in front of the
last message: the elements, the loss, whether it was bad, and which gradients exist, since a parameter may be used by
some of them only. Small networks have one message; those of large ones leave while the backward pass goes on.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from treadle.engine.bad_steps import NonFiniteError
from treadle.engine.buckets import Buckets, Start
from treadle.parallel import World

HEAD = 7
"""Numbers before those that say which gradients exist: elements and loss, each in two parts, whether it was bad,
whether somebody has a command for the run, and whether a gradient grew after it had left."""
_FLOAT = struct.Struct("f")


@dataclass
class Window:
    """What the processes of a run make of one update: its elements and its loss, over the global batch."""

    elements: float
    loss: float


class GradientSum:
    """Adds up the gradients of one optimizer over the processes of a world.

    Args:
        world: the processes; all of them call `add_up` for the same updates in the same order.
        asks: whether a command waits in this process.
    """

    cuts = True
    """Whether what is large is cut into messages."""

    def __init__(self, world: World, asks: Callable[[], bool]) -> None:
        self.world, self._asks = world, asks
        self.asked = False
        """Whether any process had a command when gradients were added up last: known to all at the same step."""
        self._buckets: Buckets | None = None
        self._beside: Start | None = None
        self.loss = 0.0
        self.bad = ""
        """What is bad about a loss of this window, in this process; empty where nothing is."""

    def note(self, loss: float, elements: float, bad: str) -> None:
        """A loss joins the window: a mean over `elements`, and what is bad about it."""
        self.loss += loss * elements if elements else 0.0
        self.bad = self.bad or bad

    def forget(self) -> None:
        """The window does not count, or is over."""
        self.loss, self.bad = 0.0, ""

    def listen(self, parameters: Sequence[Tensor]) -> None:
        """The backward pass that follows completes the window: where there are several messages, let them leave early.

        Nothing else may be sent by `World.beside` before `add_up`.
        """
        buckets = self._buckets_of(parameters)
        if self._beside is not None:
            buckets.listen(self._beside)

    def add_up(self, parameters: Sequence[Tensor], elements: float) -> Window:
        """Give the parameters the sum of all processes' gradients; one that no process has stays None.

        Raises NonFiniteError in every process where the loss was bad in one, UsageError for sparse gradients.
        """
        buckets = self._buckets_of(parameters)
        start = self._beside or self._at_once
        buckets.add_up(lambda: self._numbers(parameters, elements), start)
        head = buckets.head.tolist()
        if head[6]:  # what a gradient was when it left is no part of any sum then: all are sent once more
            buckets.add_up(lambda: self._numbers(parameters, elements), start)
            head = buckets.head.tolist()
        self.asked = self.asked or bool(head[5])
        if head[4]:
            worst = next((rank, text) for rank, text in enumerate(self.world.gather(self.bad)) if text)
            raise NonFiniteError(f"{worst[1]} in process {worst[0]}")
        for p, exists in zip(parameters, head[HEAD:], strict=True):
            if exists and p.grad is None:
                p.grad = torch.empty_like(p)
        there = [(p.grad, view) for p, view in zip(parameters, buckets.views, strict=True) if p.grad is not None]
        if there:
            torch._foreach_copy_([gradient for gradient, _ in there], [view for _, view in there])
        self.forget()
        return self._window(head)

    def _at_once(self, tensor: Tensor) -> Callable[[], None]:
        self.world.sum([tensor])
        return _nothing

    @staticmethod
    def _window(head: Sequence[float]) -> Window:
        total, loss = head[0] + head[1], head[2] + head[3]
        return Window(total, loss / total if total else math.nan)

    def _numbers(self, parameters: Sequence[Tensor], elements: float) -> list[float]:
        """The head. A float32 counts to 16 million: what counts further goes in two parts."""
        numbers: list[float] = []
        for value in (elements, self.loss if math.isfinite(self.loss) else 0.0):
            high = _FLOAT.unpack(_FLOAT.pack(value))[0]
            numbers += [high, value - high]
        assert self._buckets is not None
        numbers += [float(bool(self.bad)), float(self._asks()), float(self._buckets.again)]
        return [*numbers, *(float(p.grad is not None) for p in parameters)]

    def _buckets_of(self, parameters: Sequence[Tensor]) -> Buckets:
        """The memory for these parameters' gradients, which is kept: to make it anew costs twice the message."""
        buckets = self._buckets
        if buckets is None or not buckets.fits(parameters):
            if buckets is not None:
                buckets.forget()
            buckets = self._buckets = Buckets(parameters, HEAD + len(parameters), cut=self.cuts)
            if len(buckets.buffers) > 1 and self._beside is None and self.cuts:
                self._beside = self.world.beside()
        return buckets


def _nothing() -> None:
    pass
