"""How every loop is compiled: without Python's lock, without reordered sums, and once for a machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(**options: bool) -> Callable[[Callable[..., None]], Any]:
    """A decorator like `numba.njit(**options)`. Of fast math only contraction to fused multiply-add is allowed."""
    fixed: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy", **options}

    def compile_it(function: Callable[..., None]) -> Any:
        try:
            return numba.njit(cache=True, **fixed)(function)
        except RuntimeError:  # neither the package's nor the user's cache directory can be written: compile every time
            return numba.njit(**fixed)(function)

    return compile_it
