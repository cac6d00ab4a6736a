"""Gradients laid end to end and cut into messages, each of which may leave while the backward pass goes on.

What travels in which message, and in which order, follows from the parameters alone: a process in which some gradient
does not come sends its message later, and no sum depends on when. Two processes so come to the same bits, whether
messages left early or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from weakref import WeakMethod

import torch
from torch import Tensor

from treadle.errors import RunError, UsageError

LEAST = 1 << 20
"""Bytes of a message, at least: of less, most of its time is the way there and back."""
MOST = 8
"""Messages for one update, about."""
Kind = tuple[torch.dtype, torch.device]
Start = Callable[[Tensor], Callable[[], None]]
"""Begins to add up a tensor over the processes, in place; gives what waits for the sum."""


class Buckets:
    """Memory for the gradients of some parameters, and a head of numbers that travels with those that come last.

    Args:
        parameters: whose gradients; of any dtypes and devices, each of which has messages of its own.
        head: how many numbers are in front of the last message.
        cut: whether what is large is cut, to leave in messages.

    Attributes:
        buffers: the memory of each message, in the order in which they leave: what backward comes to first is first.
        views: a parameter's gradient within that memory, for each.
        head: the numbers in front of the last one, float32.
        again: whether a gradient has grown after it had left.
    """

    def __init__(self, parameters: Sequence[Tensor], head: int, *, cut: bool) -> None:
        self.layout = layout_of(parameters)
        self._parameters = list(parameters)
        self.again = False
        self._start: Start | None = None
        self._waits: list[Callable[[], None]] = []
        self._members = self._share_out(cut)
        self._bucket = {index: number for number, some in enumerate(self._members) for index in some}
        self._missing: list[int] = []
        self._came: list[bool] = []
        self.buffers, self.views = [], [torch.empty(0)] * len(self._parameters)
        for number, some in enumerate(self._members):
            front = head if number == len(self._members) - 1 else 0
            self.buffers.append(self._lay_out(some, front))
        self.head = self.buffers[-1][:head]
        self._handles = []
        if len(self.buffers) > 1:
            for index, p in enumerate(self._parameters):
                if p.requires_grad:
                    hook = _telling(self._arrived, index)
                    self._handles.append(p.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]

    def _share_out(self, cut: bool) -> list[list[int]]:
        """Which parameters are in which message; the last one is of the head's kind, and may have none."""
        kinds: dict[Kind, list[int]] = {}
        for index, p in enumerate(self._parameters):
            kinds.setdefault((p.dtype, p.device), []).append(index)
        last: Kind = torch.float32, self._parameters[0].device
        kinds[last] = kinds.pop(last, [])
        found: list[list[int]] = []
        for indices in kinds.values():
            sizes = {
                index: self._parameters[index].numel() * self._parameters[index].element_size() for index in indices
            }
            most = max(LEAST, sum(sizes.values()) // MOST) if cut else sum(sizes.values()) + 1
            some: list[int] = []
            size = 0
            for index in reversed(indices):
                some, size = [index, *some], size + sizes[index]
                if size >= most and index != indices[0]:
                    found.append(some)
                    some, size = [], 0
            found.append(some)
        return found

    def _lay_out(self, some: Sequence[int], front: int) -> Tensor:
        first = self._parameters[some[0]] if some else self._parameters[0]
        dtype = first.dtype if some else torch.float32
        sizes = [self._parameters[index].numel() for index in some]
        buffer = torch.zeros(front + sum(sizes), dtype=dtype, device=first.device)
        for index, part in zip(some, torch.split(buffer[front:], sizes) if some else (), strict=True):
            self.views[index] = part.view(self._parameters[index].shape)
        return buffer

    def fits(self, parameters: Sequence[Tensor]) -> bool:
        """Whether these are the parameters it was made for, in the shapes that they had."""
        same = len(parameters) == len(self._parameters) and all(map(_is, parameters, self._parameters))
        return same and layout_of(parameters) == self.layout

    def forget(self) -> None:
        """Others take its place: it hears of no gradient any more."""
        for handle in self._handles:
            handle.remove()

    def listen(self, start: Start) -> None:
        """Of the backward pass that follows, send each message as soon as its gradients are there."""
        if self._waits:
            raise RunError(
                "a step went on after its backward pass had failed, and others have some of its gradients: let the "
                "error end the process"
            )
        self._start = start
        self._missing, self._came = [len(some) for some in self._members], [False] * len(self._parameters)

    def _arrived(self, index: int) -> None:
        """A gradient has been added to."""
        if self._start is None:
            return
        bucket = self._bucket[index]
        if self._came[index]:  # checkpoints within the graph add to a parameter's gradient several times
            self.again = self.again or bucket < len(self._waits)
            return
        self._came[index] = True
        self._missing[bucket] -= 1
        while len(self._waits) < len(self.buffers) - 1 and not self._missing[len(self._waits)]:
            self._send(self._start)

    def _send(self, start: Start) -> None:
        number = len(self._waits)
        self.fill(number)
        self._waits.append(start(self.buffers[number]))

    def fill(self, number: int) -> None:
        """Lay out the gradients of a message; what is not there as zeros."""
        some = self._members[number]
        gradients = [self._parameters[index].grad for index in some]
        if any(g is not None and g.is_sparse for g in gradients):
            raise UsageError(
                "sparse gradients cannot be added up over processes or parts: make the embedding with sparse=False, or "
                "train in one process without parts"
            )
        there = [(self.views[index], g) for index, g in zip(some, gradients, strict=True) if g is not None]
        if there:
            torch._foreach_copy_([view for view, _ in there], [g for _, g in there])
        for index, gradient in zip(some, gradients, strict=True):
            if gradient is None:
                self.views[index].zero_()

    def add_up(self, numbers: Callable[[], Sequence[float]], start: Start) -> None:
        """Send what has not left, the head with it, and wait for all sums.

        Args:
            numbers: what to write into the head, asked once all other messages have left.
            start: begins a sum.
        """
        self._start = None
        while len(self._waits) < len(self.buffers) - 1:
            self._send(start)
        self.fill(len(self.buffers) - 1)
        self.write(numbers())
        self._waits.append(start(self.buffers[-1]))
        while self._waits:
            self._waits[0]()
            self._waits.pop(0)
        self.again = False

    def write(self, numbers: Sequence[float]) -> None:
        """Write the head."""
        self.head.copy_(torch.tensor(numbers, dtype=torch.float32))


def layout_of(parameters: Sequence[Tensor]) -> list[tuple[torch.Size, torch.dtype, torch.device]]:
    """What the memory for gradients follows from."""
    return [(p.shape, p.dtype, p.device) for p in parameters]


def _is(one: object, other: object) -> bool:
    return one is other


def _telling(method: Callable[[int], None], index: int) -> Callable[[Tensor], None]:
    """A hook that calls a method without holding whose it is."""
    to = WeakMethod(method)

    def tell(_: Tensor) -> None:
        found = to()
        if found is not None:
            found(index)

    return tell
