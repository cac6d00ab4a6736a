"""What observers do stays with them: random streams, settings and arguments of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import is_dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from treadle.data.batch import rebuild
from treadle.data.random import scoped_generators
from treadle.engine.events import Record

_UNCHANGING = (type(None), bool, int, float, complex, str, bytes, type, PurePath, BaseException, torch.optim.Optimizer)
"""What is handed on as it is: it cannot be changed, or has to be the thing itself."""
_PLAIN = frozenset((float, int, str, bool, type(None)))
"""Nearly all of it, in what is logged."""


class Gift(dict[str, Any]):
    """A mapping that an observer is given to fill, and not a copy of."""


class Apart:
    """Random streams apart from the run's, for one observer after the other: to lend them is dear, so it is done once.

    `enter` comes before each observer. After `settle` the global settings that training depends on are back (torch's
    default dtype and device, gradients, threads, determinism and precision of products, and what NumPy does about
    floating-point errors), and torch's streams are where they were. `leave` settles and gives all streams back.
    """

    def __init__(self) -> None:
        self._lent: AbstractContextManager[Tensor] | None = None

    def enter(self) -> None:
        """Borrow streams, unless some are."""
        if self._lent is None:
            self._before, self._errors = _settings(), np.geterr()
            self._streams = [(each, each.initial_seed(), each.get_offset()) for each in _cuda_generators()]
            lent = scoped_generators()
            self._cpu = lent.__enter__()
            self._lent = lent

    def settle(self) -> None:
        """Undo what was set, and what was drawn from torch's streams."""
        self._undo()
        torch.set_rng_state(self._cpu)

    def leave(self) -> None:
        """Settle and give the streams back, where some are borrowed."""
        lent, self._lent = self._lent, None
        if lent is not None:
            try:
                self._undo()
            finally:
                lent.__exit__(None, None, None)

    def _undo(self) -> None:
        if _settings() != self._before:
            _restore(self._before)
        if np.geterr() != self._errors:
            np.seterr(**self._errors)
        for generator, seed, offset in self._streams:
            if (generator.initial_seed(), generator.get_offset()) != (seed, offset):
                generator.manual_seed(seed)
                generator.set_offset(offset)


@contextmanager
def apart() -> Iterator[None]:
    """Within the block, random streams and global settings apart, as an `Apart` has them; afterwards all are back."""
    streams = Apart()
    streams.enter()
    try:
        yield
    finally:
        streams.leave()


def own(thing: Any) -> Any:
    """A copy of `thing` through and through, for an observer to do with as it likes; gradients do not lead out of it.

    What cannot be copied is handed on as it is.
    """
    if type(thing) in _PLAIN:
        return thing
    if type(thing) is dict and _PLAIN.issuperset(map(type, thing.values())):
        return dict(thing)
    if isinstance(thing, Tensor):
        return thing.detach().clone()
    if isinstance(thing, Record):
        return Record(thing.kind, thing.name, own(thing.value), thing.step, thing.epoch)
    if isinstance(thing, (*_UNCHANGING, Gift)):
        return thing
    if isinstance(thing, np.ndarray):
        return thing.copy()
    try:
        if isinstance(thing, Mapping | list | tuple) or is_dataclass(thing):
            return rebuild(thing, own)
        return deepcopy(thing)
    except Exception:
        return thing


def _settings() -> tuple[Any, ...]:
    return (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.allow_tf32,
        torch.is_anomaly_enabled(),
        torch.empty(0).device,  # the default one; `torch.get_default_device` takes twenty times as long
    )


def _restore(settings: tuple[Any, ...]) -> None:
    gradients, dtype, threads, deterministic, warn, precision, benchmark, tf32, anomaly, device = settings
    torch.set_grad_enabled(gradients)
    torch.set_default_dtype(dtype)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn)
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = benchmark, tf32
    torch.autograd.set_detect_anomaly(anomaly)
    if torch.empty(0).device != device:
        torch.set_default_device(device)


def _cuda_generators() -> tuple[torch.Generator, ...]:
    return torch.cuda.default_generators if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
