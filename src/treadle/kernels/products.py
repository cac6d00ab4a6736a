"""Products of small matrices, in registers: what a perceptron over blocks of points that stay in the cache is made of.

Arrays are flat; a matrix in one is the place where it begins, and how far its rows (and columns) are apart. A tile of
the result, four rows of 64 columns, is summed in 16 registers of AVX-512: each number of the left matrix is spread over
a register and meets a row of the right one. That reaches three quarters of what the processor can do at most, where
whole layers by MKL reach 45 %. Every number is one sum in the order of the inner dimension: how a matrix is cut into
tiles changes nothing.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc, index"
from __future__ import annotations

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from treadle.kernels.lanes import COUNT, element, repeated


@intrinsic(prefer_literal=True)
def tile(
    typing_context, out, out_at, out_row, start, start_at, start_row, left, left_at, left_row, left_column,
    right, right_at, right_row, inner, floor, rows, vectors,
):  # fmt: skip
    """out = max(floor, start + left @ right) for `rows` rows and 16 * `vectors` columns, both constants.

    Where a number is NaN, it stays NaN. `out` and `start` may be the same.
    """
    real, height, width = out.dtype, rows.literal_value, vectors.literal_value

    def generate(context, builder, sig, values):
        names = [
            "out", "out_at", "out_row", "start", "start_at", "start_row", "left", "left_at", "left_row", "left_column",
            "right", "right_at", "right_row", "inner", "floor",
        ]  # fmt: skip
        given = dict(zip(names, values, strict=False))
        kinds = dict(zip(names, sig.args, strict=False))
        lanes, index = ir.VectorType(element(real), COUNT), ir.IntType(64)

        def place(name, row, column):
            data = context.make_array(kinds[name])(context, builder, given[name]).data
            step = builder.mul(row, given[f"{name}_row"])
            return builder.gep(data, [builder.add(builder.add(given[f"{name}_at"], step), column)])

        def wide(name, row, vector):
            return builder.bitcast(place(name, row, index(COUNT * vector)), lanes.as_pointer())

        size = real.bitwidth // 8
        sums = {}
        for row in range(height):
            for vector in range(width):
                sums[row, vector] = cgutils.alloca_once(builder, lanes)
                builder.store(builder.load(wide("start", index(row), vector), align=size), sums[row, vector])
        with cgutils.for_range(builder, given["inner"], intp=index) as loop:
            across = [builder.load(wide("right", loop.index, vector), align=size) for vector in range(width)]
            column = builder.mul(loop.index, given["left_column"])
            for row in range(height):
                factor = repeated(builder, builder.load(place("left", index(row), column), align=size))
                for vector in range(width):
                    product = builder.fmul(factor, across[vector])
                    builder.store(builder.fadd(builder.load(sums[row, vector]), product), sums[row, vector])
        least = repeated(builder, given["floor"])
        for (row, vector), held in sums.items():
            value = builder.load(held)
            value = builder.select(builder.fcmp_ordered("<", value, least), least, value)
            builder.store(value, wide("out", index(row), vector), align=size)
        return context.get_dummy_value()

    at = types.intp
    arguments = (out, at, at, start, at, at, left, at, at, at, right, at, at, at, real, rows, vectors)
    return types.void(*arguments), generate


@numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def product(
    out, out_at, out_row, start, start_at, start_row, left, left_at, left_row, left_column,
    right, right_at, right_row, rows, inner, columns, floor,
):  # fmt: skip
    """out = max(floor, start + left @ right): `rows` x `columns`, the columns a multiple of 16; all are flat arrays.

    Args:
        out, out_at, out_row: the result begins at `out_at`, its rows lie `out_row` apart.
        start, start_at, start_row: what is added to, likewise; a bias, if its rows lie 0 apart.
        left, left_at, left_row, left_column: likewise, and its columns lie `left_column` apart.
        right, right_at, right_row: likewise.
        inner: columns of `left`, rows of `right`.
        floor: 0 for what a ReLU follows, else -inf.
    """
    column = 0
    while column < columns:
        vectors = (columns - column) // COUNT
        vectors = 4 if vectors >= 4 else 2 if vectors >= 2 else 1
        o, s, r = out_at + column, start_at + column, right_at + column
        high = 4 if vectors == 4 else 8
        row = 0
        while row < rows:
            o_row, s_row, l_row = o + row * out_row, s + row * start_row, left_at + row * left_row
            if rows - row < high:
                if vectors == 4:
                    tile(out, o_row, out_row, start, s_row, start_row, left, l_row, left_row, left_column,
                         right, r, right_row, inner, floor, 1, 4)  # fmt: skip
                elif vectors == 2:
                    tile(out, o_row, out_row, start, s_row, start_row, left, l_row, left_row, left_column,
                         right, r, right_row, inner, floor, 1, 2)  # fmt: skip
                else:
                    tile(out, o_row, out_row, start, s_row, start_row, left, l_row, left_row, left_column,
                         right, r, right_row, inner, floor, 1, 1)  # fmt: skip
                row += 1
            else:
                if vectors == 4:
                    tile(out, o_row, out_row, start, s_row, start_row, left, l_row, left_row, left_column,
                         right, r, right_row, inner, floor, 4, 4)  # fmt: skip
                elif vectors == 2:
                    tile(out, o_row, out_row, start, s_row, start_row, left, l_row, left_row, left_column,
                         right, r, right_row, inner, floor, 8, 2)  # fmt: skip
                else:
                    tile(out, o_row, out_row, start, s_row, start_row, left, l_row, left_row, left_column,
                         right, r, right_row, inner, floor, 8, 1)  # fmt: skip
                row += high
        column += vectors * COUNT
