"""Evaluating without leaving a trace: modes, weights and random streams are as before, whatever a step did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from treadle.data.batch import to_device
from treadle.data.feed import Feed
from treadle.data.limit import iterate
from treadle.data.random import RandomStreams, derive_seed
from treadle.engine.devices import autocast
from treadle.engine.means import Means
from treadle.engine.parts import Parts
from treadle.errors import RunError, UsageError


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
        self, feed: Feed, step: Callable[[Any], Mapping[str, Any] | Tensor], limit: int | None = None
    ) -> dict[str, float]:
        """The means of what `step` returns over the first `limit` batches of `feed` (None: all), by their elements."""
        if limit is not None:
            feed.load_state_dict({})  # a stream was left where the limit was: it begins anew
        means = Means()
        for batch in iterate(feed, 0, limit=limit):
            batch = to_device(batch, self._device)
            with autocast(self._device, self._precision):
                outputs = scalars(step(batch), step.__name__)
            means.add(outputs, self._elements(batch))
        metrics = means.result()
        if not metrics:
            raise RunError(f"{step.__name__} was given no batch, or returned no metric: is the data empty?")
        return metrics


def scalars(outputs: Any, step: str) -> Mapping[str, Any]:
    """What a step returned, as named scalars: a lone tensor is the loss. Raises UsageError for anything else."""
    if type(outputs) is dict or isinstance(outputs, Mapping):  # the first is quick to ask, and usual
        return outputs
    if isinstance(outputs, Tensor):
        return {"loss": outputs}
    raise UsageError(f"{step} returned {type(outputs).__name__}: return the loss, or a dict of scalars to log")
