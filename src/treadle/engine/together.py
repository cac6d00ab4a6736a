"""Gradients of several processes, added up: one message for each update of an optimizer, whatever it was made of.

Each process weighs its loss by its elements; here gradients and elements are added up, so that their quotient is the
mean over the global batch, however unequal the parts. What the processes have to agree on rides along in front: the
elements, the loss, whether it was bad, and which gradients exist, since a parameter may be used by some of them only.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from treadle.engine.bad_steps import NonFiniteError
from treadle.engine.sparse_sum import add_mixed, add_sparse
from treadle.parallel import World

HEAD = 6
"""Numbers before those that say which gradients exist: elements and loss, each in two parts, whether it was bad, and
whether somebody has a command for the run."""
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

    def __init__(self, world: World, asks: Callable[[], bool]) -> None:
        self.world, self._asks = world, asks
        self.met = self.asked = False
        """Whether gradients were added up, and whether any process had a command then: known to all at the same step.
        Whoever has taken note of them sets them back."""
        self._layout: list[tuple[torch.Size, torch.dtype, torch.device]] = []
        self._sparse: frozenset[int] = frozenset()
        """The parameters whose gradients have been sparse, by number: all processes know, and lay out nothing."""
        self._buffers: list[Tensor] = []
        self._views: list[Tensor] = []
        self._head = torch.zeros(0)
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

    def add_up(self, parameters: Sequence[Tensor], elements: float) -> Window:
        """Give the parameters the sum of all processes' gradients; one that no process has stays None.

        Raises NonFiniteError in every process where the loss was bad in one.
        """
        if self._sparse and len(parameters) != len(self._layout):
            self._sparse = frozenset()  # they are numbered otherwise now
        self._lay_out(parameters)
        gradients = [p.grad for p in parameters]
        self._fill(gradients, elements)
        self.world.sum(self._buffers)
        head = self._head.tolist()
        self.met, self.asked = True, self.asked or bool(head[5])
        if head[4]:
            worst = next((rank, text) for rank, text in enumerate(self.world.gather(self.bad)) if text)
            raise NonFiniteError(f"{worst[1]} in process {worst[0]}")
        there = head[HEAD:]
        if self._sparse or max(there, default=0) > self.world.size:
            there = self._add_sparse(parameters, gradients, there)
        for p, exists in zip(parameters, there, strict=True):
            if exists and p.grad is None:
                p.grad = torch.empty_like(p)
        sums = zip(parameters, self._views, there, strict=True)
        into = [(p.grad, view) for p, view, exists in sums if exists and p.grad is not None]
        if into:
            torch._foreach_copy_([gradient for gradient, _ in into], [view for _, view in into])
        self.forget()
        return self._window(head)

    def _add_sparse(
        self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None], there: Sequence[float]
    ) -> list[float]:
        """Add up the gradients that are sparse somewhere; returns which of the others there are."""
        kinds = [divmod(int(number), self.world.size + 1) for number in there]  # sparse in so many, dense in so many
        sparse = [k for k, (some, dense) in enumerate(kinds) if some and not dense]
        mixed = [k for k, (some, dense) in enumerate(kinds) if dense and (some or k in self._sparse)]
        for chosen, add in ((sparse, add_sparse), (mixed, add_mixed)):
            if chosen:
                sums = add(self.world, [gradients[k] for k in chosen], [parameters[k] for k in chosen])
                for k, total in zip(chosen, sums, strict=True):
                    parameters[k].grad = total
        self._sparse |= {*sparse, *mixed}
        return [float(dense > 0 and k not in self._sparse) for k, (_, dense) in enumerate(kinds)]

    def existing(self) -> list[bool]:
        """Which gradients somebody had, after they were added up."""
        return [bool(number) for number in self._head[HEAD:].tolist()]

    @staticmethod
    def _window(head: Sequence[float]) -> Window:
        total, loss = head[0] + head[1], head[2] + head[3]
        return Window(total, loss / total if total else math.nan)

    def _fill(self, gradients: Sequence[Tensor | None], elements: float) -> None:
        """Lay head and gradients out in the buffers; what is not there as zeros."""
        self._head.copy_(torch.tensor(self._numbers(gradients, elements), dtype=torch.float32))
        dense = [None if g is None or g.is_sparse else g for g in gradients]
        for k in self._sparse:
            dense[k] = None
        there = [(view, g) for view, g in zip(self._views, dense, strict=True) if g is not None]
        if there:
            torch._foreach_copy_([view for view, _ in there], [g for _, g in there])
        for view, gradient in zip(self._views, dense, strict=True):
            if gradient is None:
                view.zero_()

    def _numbers(self, gradients: Sequence[Tensor | None], elements: float) -> list[float]:
        """The head. A float32 counts to 16 million: what counts further goes in two parts."""
        numbers: list[float] = []
        for value in (elements, self.loss if math.isfinite(self.loss) else 0.0):
            high = _FLOAT.unpack(_FLOAT.pack(value))[0]
            numbers += [high, value - high]
        # The sum of the last ones tells in how many processes each is dense, and in how many it is sparse.
        kinds = [0.0 if g is None else self.world.size + 1.0 if g.is_sparse else 1.0 for g in gradients]
        return [*numbers, float(bool(self.bad)), float(self._asks()), *kinds]

    def _lay_out(self, parameters: Sequence[Tensor]) -> None:
        """Keep one buffer for each device and dtype: to make them anew costs twice the message."""
        layout = [(p.shape, p.dtype, p.device) for p in parameters]
        for k in self._sparse:
            layout[k] = torch.Size([0]), *layout[k][1:]
        if layout == self._layout:
            return
        sizes: dict[tuple[torch.dtype, torch.device], int] = {}
        head = (torch.float32, parameters[0].device)
        sizes[head] = HEAD + len(parameters)
        places = []
        for shape, dtype, device in layout:
            start = sizes.get((dtype, device), 0)
            places.append(((dtype, device), start, shape))
            sizes[dtype, device] = start + shape.numel()
        buffers = {kind: torch.zeros(size, dtype=kind[0], device=kind[1]) for kind, size in sizes.items()}
        self._head = buffers[head][: HEAD + len(parameters)]
        self._views = [buffers[kind][start : start + shape.numel()].view(shape) for kind, start, shape in places]
        self._buffers, self._layout = [each for each in buffers.values() if each.numel()], layout
