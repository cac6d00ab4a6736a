"""Evaluating without leaving a trace: modes, weights and random streams are as before, whatever a step did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from treadle.data.batch import to_device
from treadle.data.feed import Feed
from treadle.data.random import RandomStreams, derive_seed
from treadle.engine.attributes import find
from treadle.engine.devices import autocast
from treadle.engine.ema import EMA
from treadle.engine.means import Means
from treadle.errors import RunError, UsageError

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer


@contextmanager
def evaluating(trainer: Trainer) -> Iterator[None]:
    """Within the block: modules in eval mode, averaged weights (EMA) applied, no gradients, random streams apart."""
    submodules = [m for module in find(trainer, nn.Module).values() for m in module.modules()]
    training = [m for m in submodules if m.training]
    with ExitStack() as stack:
        for ema in find(trainer, EMA).values():
            if ema.evaluate:
                stack.enter_context(ema.applied())
        stack.enter_context(RandomStreams(derive_seed(trainer.config.seed, "evaluation"), trainer.device))
        stack.enter_context(torch.no_grad())
        for m in training:
            m.training = False
        try:
            yield
        finally:
            for m in training:
                m.training = True


def evaluate(trainer: Trainer, feed: Feed, step: Callable[[Any], Mapping[str, Any] | Tensor]) -> dict[str, float]:
    """The means of what `step` returns over all batches of `feed`, weighted by `trainer.elements(batch)`."""
    means = Means()
    for batch in feed.iterate(0):
        batch = to_device(batch, trainer.device)
        with autocast(trainer.device, trainer.config.precision):
            outputs = scalars(step(batch), step.__name__)
        means.add(outputs, trainer.elements(batch))
    metrics = means.result()
    if not metrics:
        raise RunError(f"{step.__name__} was given no batch, or returned no metric: is the data empty?")
    return metrics


def scalars(outputs: Any, step: str) -> Mapping[str, Any]:
    """What a step returned, as named scalars: a lone tensor is the loss. Raises UsageError for anything else."""
    if isinstance(outputs, Mapping):
        return outputs
    if isinstance(outputs, Tensor):
        return {"loss": outputs}
    raise UsageError(f"{step} returned {type(outputs).__name__}: return the loss, or a dict of scalars to log")
