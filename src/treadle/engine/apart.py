"""What observers do stays with them: random streams, settings and arguments of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import is_dataclass, replace
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


class Gift(dict[str, Any]):
    """A mapping that an observer is given to fill, and not a copy of."""


@contextmanager
def apart() -> Iterator[None]:
    """Within the block, random streams apart; afterwards the global settings that training depends on are back.

    These are torch's default dtype and device, gradients, threads, determinism and precision of products, and what
    NumPy does about floating-point errors.
    """
    before, errors = _settings(), np.geterr()
    streams = [(generator, generator.initial_seed(), generator.get_offset()) for generator in _cuda_generators()]
    try:
        with scoped_generators():
            yield
    finally:
        if _settings() != before:
            _restore(before)
        if np.geterr() != errors:
            np.seterr(**errors)
        for generator, seed, offset in streams:
            if (generator.initial_seed(), generator.get_offset()) != (seed, offset):
                generator.manual_seed(seed)
                generator.set_offset(offset)


def own(thing: Any) -> Any:
    """A copy of `thing` through and through, for an observer to do with as it likes; gradients do not lead out of it.

    What cannot be copied is handed on as it is.
    """
    if isinstance(thing, Tensor):
        return thing.detach().clone()
    if isinstance(thing, Record):
        return replace(thing, value=own(thing.value))
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
