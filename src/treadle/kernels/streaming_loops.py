"""The compiled loop of `streaming`: whole cache lines, loaded and stored without passing through the caches."""

# mypy: disable-error-code="call-arg"
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from treadle.kernels.compiling import compiled

LINE = 64
PAGE = 4096 // LINE
"""Lines of a page: a processor reads ahead within one, so that of several at a time more is under way."""


@intrinsic
def move_line(typing_context: Any, target: Any, source: Any) -> tuple[Any, Any]:
    """Copy 64 bytes between two addresses, `target` a multiple of 64, by a non-temporal store."""

    def generate(context: Any, builder: Any, signature: Any, addresses: Any) -> Any:
        line = ir.VectorType(ir.IntType(64), LINE // 8)
        value = builder.load(builder.inttoptr(addresses[1], line.as_pointer()), align=1)
        store = builder.store(value, builder.inttoptr(addresses[0], line.as_pointer()), align=LINE)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


@intrinsic
def move_byte(typing_context: Any, target: Any, source: Any) -> tuple[Any, Any]:
    """Copy one byte between two addresses."""

    def generate(context: Any, builder: Any, signature: Any, addresses: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        builder.store(builder.load(builder.inttoptr(addresses[1], byte)), builder.inttoptr(addresses[0], byte))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


@intrinsic
def fence(typing_context: Any) -> tuple[Any, Any]:
    """Wait until other threads see what was stored: non-temporal stores are not ordered by anything else."""

    def generate(context: Any, builder: Any, signature: Any, nothing: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@compiled(parallel=True)
def stream(target: int, source: int, size: int, parts: int) -> None:
    """Copy `size` bytes from address `source` to `target` (a multiple of 64), in `parts` shares of whole lines."""
    lines = size // LINE
    for part in prange(parts):
        first, last = lines * part // parts, lines * (part + 1) // parts
        paged = first + (last - first) // (4 * PAGE) * (4 * PAGE)
        for start in range(first, paged, 4 * PAGE):  # four pages side by side: a sixth quicker than one after another
            for line in range(start, start + PAGE):
                move_line(target + line * LINE, source + line * LINE)
                move_line(target + (line + PAGE) * LINE, source + (line + PAGE) * LINE)
                move_line(target + (line + 2 * PAGE) * LINE, source + (line + 2 * PAGE) * LINE)
                move_line(target + (line + 3 * PAGE) * LINE, source + (line + 3 * PAGE) * LINE)
        for line in range(paged, last):
            move_line(target + line * LINE, source + line * LINE)
        fence()
    for byte in range(lines * LINE, size):
        move_byte(target + byte, source + byte)
