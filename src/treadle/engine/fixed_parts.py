"""Fixed parts: a step taken part by part of its batch, to the same bits in any number of processes.

Each global batch is cut into as many parts as the setting `parts` says, whatever process has which. For each of them
`step` is called, with random streams, batch statistics and metrics of the part's own. The calls of one process go in
turns: at `minimize` each waits until all have come there, the gradients of all parts are added up in one binary tree,
and the update that follows is everybody's. So no sum depends on how many processes there are. At `once` they wait as
well, for a function that is called with what all of them have found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import finalize

import torch
from torch import Tensor

from treadle.data.random import RandomStreams, derive_seed
from treadle.engine.means import Means, Meter
from treadle.engine.parts import Parts
from treadle.engine.progress import Progress
from treadle.engine.strands import Strand
from treadle.errors import UsageError
from treadle.parallel import World
from treadle.parallel.everybody import everybodys
from treadle.parallel.tree import TreeSum, add_up

Call = tuple[str, ...]
"""The names of the optimizers that a call of `minimize` is for; none of one of `once`."""


class _Part:
    """A part of a batch on its way through `step`."""

    def __init__(self, number: int, batch: Any, share: float, seed: int, device: torch.device) -> None:
        self.number, self.batch, self.share, self.borrowed = number, batch, share, not share
        self.streams = RandomStreams(seed, device)
        self.segment, self.terms = Means(), {}  # type: ignore[var-annotated]
        self.buffers: list[Tensor] = []
        self.call: Call | None = None
        """The call of `minimize`, or of `once`, that it waits in."""
        self.given: tuple[Callable[..., Any], Sequence[Tensor]] | None = None
        """What it has given to `once`."""
        self.outputs: Mapping[str, Any] = {}
        self.elements = 0.0


class FixedParts:
    """Takes steps part by part.

    Args:
        count: the parts of a batch.
        world: the processes, each of which has as many of them, in order.
        seed, device: of the run.
        progress, parts, meter: the run's.
        elements: how many elements a batch counts for.
        complete: makes, of what all parts have put into the sums of some optimizers, an update where one is due;
            returns whether it did.

    Raises UsageError where the processes cannot have as many parts each.
    """

    def __init__(
        self,
        count: int,
        world: World,
        seed: int,
        device: torch.device,
        progress: Progress,
        parts: Parts,
        meter: Meter,
        elements: Callable[[Any], float],
        complete: Callable[[Call], bool],
    ) -> None:
        if count % world.size:
            fit = [str(size) for size in range(1, count + 1) if count % size == 0]
            raise UsageError(
                f"parts is {count}, which {world.size} processes cannot share alike: start {', '.join(fit[:-1])} or "
                f"{fit[-1]} of them"
            )
        self.count, self.world = count, world
        self.here = count // world.size
        """How many are this process's."""
        self._seed, self._device, self._progress, self._parts, self._meter = seed, device, progress, parts, meter
        self._elements, self._complete = elements, complete
        self._strands: list[Strand] = []
        finalize(self, _end, self._strands)
        self._running: tuple[_Part, Strand] | None = None
        self._buffers_may_differ = False
        self._came: Any = None
        """What the call that all parts were in has come to."""

    @property
    def current(self) -> int | None:
        """The number of the part whose step is under way; None between them."""
        return None if self._running is None else self._running[0].number

    @property
    def batch(self) -> Any:
        """The part under way."""
        assert self._running is not None
        return self._running[0].batch

    @property
    def borrowed(self) -> bool:
        """Whether the part under way has nothing of its own."""
        return self._running is not None and self._running[0].borrowed

    def wait(self, call: Call) -> bool:
        """In `minimize`: wait until all parts have come to this call; returns whether it has made an update."""
        assert self._running is not None
        part, strand = self._running
        part.call = call
        strand.wait()
        return bool(self._came)

    def once(self, function: Callable[..., Any], tensors: Sequence[Tensor]) -> Any:
        """In `step`: wait until all parts have come here; returns what `function` gives for the tensors of all."""
        if self._running is None:
            raise UsageError("with parts, once is called in step: hooks come once for the whole batch as they are")
        part, strand = self._running
        part.call = ()
        part.given = function, [tensor[:0] for tensor in tensors] if part.borrowed else tensors
        strand.wait()
        return self._came

    def take(
        self, step: Callable[[Any], Mapping[str, Any]], batches: Sequence[Any], shares: Sequence[float]
    ) -> Mapping[str, Any]:
        """Call `step` for each of this process's parts; returns the means of what it gives for all that there are."""
        first = self.world.rank * self.here
        parts = [
            _Part(number, batch, share, derive_seed(self._seed, "part", self._progress.step, number), self._device)
            for number, (batch, share) in enumerate(zip(batches, shares, strict=True), first)
        ]
        while len(self._strands) < self.here:
            self._strands.append(Strand(f"treadle-part-{len(self._strands)}"))
        buffers = self._buffers()
        before = _copies(buffers)
        for part in parts:
            part.buffers = before
        try:
            for part, strand in zip(parts, self._strands, strict=True):
                strand.begin(lambda part=part: self._run(part, step))  # type: ignore[misc]
            while any(strand.busy for strand in self._strands):
                for part, strand in zip(parts, self._strands, strict=True):
                    self._resume(part, strand, buffers)
                _put(before, buffers)
                self._meet(parts)
                if self._buffers_may_differ:
                    buffers = self._take_in_buffers(parts, before)
        finally:
            self._unwind()
        return self._gather(parts, before, buffers)

    def _unwind(self) -> None:
        """Have all parts leave what they have entered, where one has failed; a Ctrl-C meanwhile is not lost."""
        interrupt = None
        for strand in self._strands:
            try:
                if strand.busy:
                    strand.abandon()
            except KeyboardInterrupt as error:
                interrupt = error
        self._running = None
        if interrupt is not None:
            raise interrupt

    def _run(self, part: _Part, step: Callable[[Any], Mapping[str, Any]]) -> None:
        part.outputs = step(part.batch)

    def _resume(self, part: _Part, strand: Strand, buffers: Sequence[Tensor]) -> None:
        """Let a part go on to its next call of `minimize`, or to its end, with what is its own in place."""
        if not strand.busy:
            return
        part.call = None
        objectives = list(self._parts.objectives.values())
        _put(part.buffers, buffers)
        outside = self._meter.exchange(part.segment)
        terms = [each.exchange(part.terms.setdefault(i, {})) for i, each in enumerate(objectives)]
        self._running = part, strand
        for each in objectives:
            each.call_weight = part.share
        try:
            with part.streams:
                strand.resume()
        finally:
            self._running = None
            self._meter.exchange(outside)
            for i, (each, mine) in enumerate(zip(objectives, terms, strict=True)):
                part.terms[i] = each.exchange(mine)
        part.buffers = _copies(buffers)

    def _meet(self, parts: Sequence[_Part]) -> None:
        """All parts wait, or all have ended. Raises UsageError where they have gone different ways."""
        calls = {part.call for part in parts}
        self._buffers_may_differ = False
        if len(calls) > 1:
            told = " and ".join(sorted("none" if call is None else ", ".join(call) or "once" for call in calls))
            raise UsageError(
                f"the parts of a batch call minimize for different optimizers ({told}): with parts, step calls it "
                "alike for whatever batch it gets"
            )
        (call,) = calls
        if call:
            self._came = self._complete(call)
        elif call is not None:
            given = [part.given for part in parts if part.given is not None]
            for part in parts:
                part.given = None
            with torch.no_grad():
                self._came = given[0][0](*everybodys(self.world, [tensors for _, tensors in given]))
            self._buffers_may_differ = True

    def _take_in_buffers(self, parts: Sequence[_Part], before: list[Tensor]) -> list[Tensor]:
        """What `once` has done to buffers, such as a grid of occupied cells, is so for all parts; returns them."""
        buffers = self._buffers()
        if len(buffers) != len(before):
            raise UsageError("once has added or removed buffers: with parts, do that in a hook")
        for k, buffer in enumerate(buffers):
            if buffer.shape != before[k].shape or not _same(before[k], buffer.detach()):
                before[k] = buffer.detach().clone()
                for part in parts:
                    part.buffers[k] = before[k]
        return buffers

    def _gather(self, parts: Sequence[_Part], before: Sequence[Tensor], buffers: Sequence[Tensor]) -> dict[str, float]:
        """Add what all parts have logged, in their order, and let batch statistics be the means of theirs."""
        mine = {}
        for part in parts:
            weight = 0.0 if part.borrowed else self._elements(part.batch)
            outputs = Means()
            outputs.add(part.outputs, weight)
            changed = [k for k, (old, new) in enumerate(zip(before, part.buffers, strict=True)) if not _same(old, new)]
            terms = {
                str(i): {",".join(names): sums[names].state_dict() for names in sorted(sums)}
                for i, sums in part.terms.items()
            }
            mine[str(part.number)] = {
                "weight": weight,
                "outputs": outputs.state_dict(),
                "logged": part.segment.state_dict(),
                "terms": terms,
                "changed": changed,
            }
        everybodys: dict[int, dict[str, Any]] = {
            int(number): one for some in self.world.gather(mine) for number, one in some.items()
        }
        found = [everybodys[number] for number in sorted(everybodys) if everybodys[number]["weight"]]
        together = Means()
        for one in found:
            together.merge(_means(one["outputs"]))
            self._meter.add_running({"segment": one["logged"], "interval": {}, "epoch": {}})
            for i, objective in enumerate(self._parts.objectives.values()):
                objective.add_running(one["terms"].get(str(i), {}))
        self._meter.add_running({"segment": together.state_dict(), "interval": {}, "epoch": {}})
        changed = sorted({k for one in found for k in one["changed"]})
        if changed:
            weights = {number: one["weight"] for number, one in everybodys.items()}
            self._fold(parts, weights, [(before[k], buffers[k], k) for k in changed])
        return together.result()

    def _fold(
        self, parts: Sequence[_Part], weights: Mapping[int, float], changed: Sequence[tuple[Tensor, Tensor, int]]
    ) -> None:
        """Statistics: the mean over parts by elements of what each has changed; whole numbers are the first part's."""
        total = sum(weights.values())
        first = min(number for number, weight in weights.items() if weight)
        for before, buffer, k in changed:
            if not before.is_floating_point():
                value = next((part.buffers[k] for part in parts if part.number == first), before).clone()
                self.world.spread([value], first // self.here)
                buffer.data.copy_(value)
                continue
            tree = TreeSum(self.count)
            for part in parts:
                moved = (part.buffers[k] - before) * (weights[part.number] / total)
                if not weights[part.number]:
                    moved.zero_()
                tree.put((part.number, part.number + 1), [moved.flatten()])
            moved = torch.empty_like(before).flatten()
            add_up(self.world, tree, self.count, into=[moved])
            buffer.data.copy_(before + moved.view(before.shape))

    def _buffers(self) -> list[Tensor]:
        return [buffer for module in self._parts.modules.values() for buffer in module.buffers()]


def _end(strands: list[Strand]) -> None:
    for strand in strands:
        strand.end()


def _means(state: dict[str, Any]) -> Means:
    means = Means()
    means.load_state_dict(state)
    return means


def _copies(buffers: Sequence[Tensor]) -> list[Tensor]:
    return [buffer.detach().clone() for buffer in buffers]


def _put(values: Sequence[Tensor], buffers: Sequence[Tensor]) -> None:
    for value, buffer in zip(values, buffers, strict=True):
        if value.shape != buffer.shape:
            raise UsageError(
                f"a buffer of shape {tuple(value.shape)} has another one after a part of a step, {tuple(buffer.shape)}"
                ": with parts, change shapes in a hook, or in once"
            )
        buffer.data.copy_(value)  # not seen by autograd, whose graphs of the other parts still need it


def _same(one: Tensor, other: Tensor) -> bool:
    return bool(torch.equal(one, other)) or bool(((one == other) | ((one != one) & (other != other))).all())
