"""Evaluating without leaving a trace: modes, weights and random streams are as before, whatever a step did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import torch
from torch import Tensor

from treadle.data.batch import to_device
from treadle.data.feed import BatchIterator, Feed
from treadle.data.limit import dealt, iterate
from treadle.data.named import sets_of
from treadle.data.random import RandomStreams, derive_seed, seed_device
from treadle.data.reading import SequentialFeed
from treadle.engine.collected import changed, collected
from treadle.engine.devices import autocast
from treadle.engine.means import Means, is_metric
from treadle.engine.parts import Parts
from treadle.engine.scores import Scores
from treadle.errors import RunError, UsageError
from treadle.parallel import ALONE, World


class Evaluator:
    """Evaluates the models among `parts` on `device`.

    Args:
        parts: the modules, which are put into eval mode, and the averages (EMA), which are applied.
        seed: of the random streams that an evaluation draws from: the same ones each time.
        device, precision: as in training.
        elements: how many elements a batch counts for in the means.
    """

    def __init__(
        self, parts: Parts, seed: int, device: torch.device, precision: str, elements: Callable[[Any], float]
    ) -> None:
        self._parts, self._seed, self._device, self._precision = parts, seed, device, precision
        self._elements = elements
        self._in_full = False
        """Whether a step remembers batches, in a metric object or an attribute, which has to see all of them."""
        self._looked = False
        """Whether it has been seen whether a step does."""
        self.evaluated_set = ""
        """The name of the set under evaluation, where it has one."""

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within the block: modules in eval mode, averaged weights applied, no gradients, random streams apart."""
        self._parts.refresh()
        training = [m for m in self._parts.submodules() if m.training]
        with ExitStack() as stack:
            for ema in self._parts.emas.values():
                if ema.evaluate:
                    stack.enter_context(ema.applied())
            stack.enter_context(RandomStreams(derive_seed(self._seed, "evaluation"), self._device))
            stack.enter_context(torch.no_grad())
            for m in training:
                m.training = False
            try:
                yield
            finally:
                for m in training:
                    m.training = True

    def evaluate(
        self,
        feed: Feed,
        step: Callable[[Any], Mapping[str, Any] | Tensor],
        limit: int | None = None,
        world: World = ALONE,
    ) -> dict[str, float]:
        """What `step` returns comes to over the first `limit` batches (None: all) of `feed`, or of each of its sets.

        Scalars are averaged by elements, metric objects computed. Of a set with a name so are its metrics:
        "hard/loss". What a step draws is a function of the batch's number. So whole batches can be dealt out over the
        processes of a `world`, and come to the same bits: unless metric objects are about, or the first batch leaves
        something in an attribute. Then all of them go through every batch. Raises UsageError where only a later batch
        does.
        """
        found: dict[str, float] = {}
        try:
            for self.evaluated_set, part in sets_of(feed).items():
                prefix = f"{self.evaluated_set}/" if self.evaluated_set else ""
                found |= {prefix + name: value for name, value in self._evaluate_set(part, step, limit, world).items()}
        finally:
            self.evaluated_set = ""
            seed_device(derive_seed(self._seed, "evaluation", "after"), self._device)
        return found

    def _evaluate_set(
        self, feed: Feed, step: Callable[[Any], Mapping[str, Any] | Tensor], limit: int | None, world: World
    ) -> dict[str, float]:
        metrics: dict[str, float] = {}
        if world.size > 1 and not self._remembers():
            metrics = (self._fold if self._looked else self._look)(feed, step, limit, world)
        if not metrics:
            with closing(Scores()) as scores:
                for index, batch in enumerate(self.batches(feed, limit)):
                    self._score(scores, step, index, batch)
                metrics = scores.result()
        if not metrics:
            raise RunError(f"{step.__name__} was given no batch, or returned no metric: is the data empty?")
        return metrics

    def _look(
        self, feed: Feed, step: Callable[[Any], Mapping[str, Any] | Tensor], limit: int | None, world: World
    ) -> dict[str, float]:
        """The first time every process takes the first batch: then all of them, where that one is remembered."""
        before = collected(self._parts)
        with closing(Scores()) as scores:
            for index, batch in enumerate(self.batches(feed, limit)):
                self._score(scores, step, index, batch)
                if not self._looked:
                    self._looked = True
                    here = scores.has_objects or bool(changed(before, collected(self._parts)))
                    self._in_full = any(world.gather(here))
                if not self._in_full:
                    break
            if self._in_full:
                return scores.result()
        return self._fold(feed, step, limit, world, scores.means)

    def _fold(
        self,
        feed: Feed,
        step: Callable[[Any], Mapping[str, Any] | Tensor],
        limit: int | None,
        world: World,
        first: Means | None = None,
    ) -> dict[str, float]:
        """The means over batches that the processes deal out, added in their order; none where that cannot be.

        `first` is what the first batch has come to, where that is known.
        """
        mine: list[tuple[int, Means]] = []
        before = collected(self._parts)
        for index, batch in dealt(self._limited(feed, limit, anew=first is not None), world):
            if first is not None and not index:
                mine.append((index, first))
                continue
            with closing(Scores()) as scores:
                self._score(scores, step, index, to_device(batch, self._device))
                mine.append((index, scores.means))
                if scores.has_objects:
                    self._in_full = True
                    break
        states = {str(index): means.state_dict() for index, means in mine}
        told = {"in full": self._in_full, "batches": states, "changed": changed(before, collected(self._parts))}
        everybodys: list[dict[str, Any]] = world.gather(told)
        self._in_full = any(one["in full"] for one in everybodys)
        for name in sorted({name for one in everybodys for name in one["changed"]}):
            raise UsageError(
                f"{step.__name__} has changed self.{name}, in each process for its batches alone: let it return that "
                "as a metric or a metric object, or name it in the trainer's `transient` if it is no part of the run"
            )
        together = Means()
        if not self._in_full:
            found = {int(index): state for one in everybodys for index, state in one["batches"].items()}
            for index in sorted(found):
                one = Means()
                one.load_state_dict(found[index])
                together.merge(one)
        return together.result()

    def _score(self, scores: Scores, step: Callable[[Any], Mapping[str, Any] | Tensor], index: int, batch: Any) -> None:
        seed_device(derive_seed(self._seed, "evaluation", self.evaluated_set, index), self._device)
        with autocast(self._device, self._precision):
            outputs = scalars(step(batch), step.__name__)
        scores.add(outputs, self._elements(batch))

    def _remembers(self) -> bool:
        """Whether the batches of a set leave something behind that has to have seen them all."""
        things = [*self._parts.attributes.values(), *self._parts.submodules()]
        return self._in_full or any(map(is_metric, things))

    def predict(self, feed: Feed, step: Callable[[Any], Any]) -> list[Any]:
        """What `step` returns for each batch of `feed`, on the CPU."""
        outputs = []
        for batch in self.batches(feed):
            with autocast(self._device, self._precision):
                outputs.append(to_device(step(batch), "cpu"))
        return outputs

    def batches(self, feed: Feed, limit: int | None = None) -> Iterator[Any]:
        """The first `limit` batches of `feed`, on the device."""
        for batch in self._limited(feed, limit):
            yield to_device(batch, self._device)

    def _limited(self, feed: Feed, limit: int | None, *, anew: bool = False) -> BatchIterator:
        if isinstance(feed, SequentialFeed) and (limit is not None or self._in_full or anew):
            feed.load_state_dict({})  # it was left where the limit was, and begins anew
        return iterate(feed, 0, limit=limit)


def scalars(outputs: Any, step: str) -> Mapping[str, Any]:
    """What a step returned, as named scalars: a lone tensor is the loss. Raises UsageError for anything else."""
    if type(outputs) is dict or isinstance(outputs, Mapping):  # the first is quick to ask, and usual
        return outputs
    if isinstance(outputs, Tensor):
        return {"loss": outputs}
    raise UsageError(f"{step} returned {type(outputs).__name__}: return the loss, or a dict of scalars to log")
