"""Where a run computes: device choice, autocast, deterministic kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch

from treadle.errors import UsageError
from treadle.parallel.world import local_gpu

Precision = Literal["fp32", "bf16", "fp16", "auto"]

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU where torch sees one. Raises UsageError for one that is not there.

    Of processes that a launcher has started, each has the GPU of its number on its machine (LOCAL_RANK), unless the
    name has a number itself.
    """
    if name == "auto":
        return choose_device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device is {name!r}: expected 'auto', 'cpu', 'cuda' or 'cuda:<number>'") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device is {name!r}, but torch sees no GPU: use device='cpu' or 'auto'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device is {name!r}, but torch sees {torch.cuda.device_count()} GPU(s), counted from 0")
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        count = torch.cuda.device_count()
        own = local_gpu(count)
        if own is None:
            raise UsageError(
                f"torch sees {count} GPU(s) here, and this is process {os.environ['LOCAL_RANK']} of this machine, "
                "counted from 0: start one for each GPU (--nproc-per-node), or set device='cpu'"
            )
        return torch.device("cuda", own)
    return device


def choose_precision(name: Precision, device: torch.device) -> Precision:
    """The precision called `name`; "auto" is bf16 where `device` multiplies in it, and fp32 elsewhere."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and _cpu_multiplies_bf16() else "fp32"


def _cpu_multiplies_bf16() -> bool:
    # The function is newer than the oldest torch that we run on.
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16"))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Autocast to `precision` ("fp32" does nothing)."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


@contextmanager
def deterministic_kernels() -> Iterator[None]:
    """Within the block torch runs deterministic kernels only, and raises where it has none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
