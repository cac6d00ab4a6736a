"""Corners of grid cells, sixteen points at a time: the steps that the hash grid's loops are made of.

A *block* of points is worked on together. Its coordinates lie axis by axis (`coordinates[axis * apart + point]`), its
corners corner by corner: `rows[corner * BLOCK + point]` is a row within its level, `shares[...]` its weight. Corner k
has bit a set where it is the farther one along axis a. A *row* of a table is as wide as the tuple `unit` is long, and
is read and written as one vector. How many axes there are tells the tuple `axes`. Lengths of tuples are known when
loops are compiled: what is here is unrolled over corners, axes and features.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, index"
from __future__ import annotations

from functools import reduce

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from treadle.kernels.lanes import COUNT, element, repeated
from treadle.kernels.layout import BLOCK

PRIMES = (1, 2654435761, 805459861)

_INT, _INDEX = ir.IntType(32), ir.IntType(64)


class _Emitter:
    """The arguments of an intrinsic by name, while it writes instructions."""

    def __init__(self, context, builder, sig, values, names):
        self.context, self.builder = context, builder
        self.kinds = dict(zip(names, sig.args, strict=True))
        self.values = dict(zip(names, values, strict=True))

    def __getitem__(self, name):
        return self.values[name]

    def address(self, name, at, kind=None):
        """Where number `at` of an array lies, as the place of a vector type where one is told."""
        array = self.context.make_array(self.kinds[name])(self.context, self.builder, self.values[name])
        place = self.builder.gep(array.data, [at])
        return place if kind is None else self.builder.bitcast(place, kind.as_pointer())

    def load(self, name, at, kind=None):
        return self.builder.load(self.address(name, at, kind), align=self.kinds[name].dtype.bitwidth // 8)

    def store(self, value, name, at):
        kind = value.type if isinstance(value.type, ir.VectorType) else None
        self.builder.store(value, self.address(name, at, kind), align=self.kinds[name].dtype.bitwidth // 8)


def _whole(number):
    return ir.Constant(ir.VectorType(_INT, COUNT), [number] * COUNT)


def _within(emit, real, axis):
    """Of 16 points along one axis: the cell, where in it they are from 0 to 1, and whether they are inside the grid."""
    builder = emit.builder
    kind = ir.VectorType(element(real), COUNT)
    zero, one = (ir.Constant(kind, [number] * COUNT) for number in (0.0, 1.0))
    scale, last, far = (repeated(builder, emit[name]) for name in ("scale", "last", "far"))
    at = builder.add(emit["at"], builder.mul(_INDEX(axis), emit["apart"]))
    free = builder.fmul(builder.fadd(emit.load("coordinates", at, kind), one), scale)
    # Ordered comparisons are false for NaN: it passes through the clipping, to be seen in the result, and reads cell 0.
    clipped = builder.select(builder.fcmp_ordered("<", free, zero), zero, free)
    clipped = builder.select(builder.fcmp_ordered(">", clipped, last), last, clipped)
    safe = builder.select(builder.fcmp_ordered(">", clipped, zero), clipped, zero)
    safe = builder.select(builder.fcmp_ordered("<", safe, far), safe, far)
    cell = builder.fptosi(safe, ir.VectorType(_INT, COUNT))
    return cell, builder.fsub(clipped, builder.sitofp(cell, kind)), builder.fcmp_ordered("==", clipped, free)


def _share(emit, real, weights, corner, leave_out=None):
    """The product over the axes of how near each of 16 points is to a corner."""
    builder = emit.builder
    one = ir.Constant(ir.VectorType(element(real), COUNT), [1.0] * COUNT)
    factors = [
        weight if corner >> axis & 1 else builder.fsub(one, weight)
        for axis, weight in enumerate(weights)
        if axis != leave_out
    ]
    return reduce(builder.fmul, factors)


@intrinsic(prefer_literal=True)
def corners(
    typing_context, rows, shares, slot, coordinates, at, apart, scale, last, far, resolution, mask, hashed, axes
):
    """The corners around 16 points: rows and shares, from `slot` on.

    Args:
        coordinates, at, apart: in [-1, 1]; of axis a, the 16 from `at + a * apart` on.
        scale, last, far: u = (x + 1) * scale is clipped to 0 ... last; the last cell is `far`.
        resolution: vertices per axis, int32, and `mask`: rows - 1, for where they are hashed; `hashed`, a constant.
    """
    dimensions, real = len(axes), shares.dtype
    names = ("rows", "shares", "slot", "coordinates", "at", "apart", "scale", "last", "far", "resolution", "mask")

    def generate(context, builder, sig, values):
        emit = _Emitter(context, builder, sig, values, (*names, "hashed", "axes"))
        found = [_within(emit, real, axis) for axis in range(dimensions)]
        weights = [weight for _, weight, _ in found]
        near, step = [], []
        stride = _INT(1)
        for axis, (cell, _, _) in enumerate(found):
            factor = _INT(PRIMES[axis]) if hashed.literal_value else stride
            near.append(builder.mul(cell, repeated(builder, factor)))
            step.append(builder.add(near[-1], repeated(builder, factor)))
            stride = builder.mul(stride, emit["resolution"])
        for corner in range(2**dimensions):
            terms = [step[axis] if corner >> axis & 1 else near[axis] for axis in range(dimensions)]
            row = reduce(builder.xor if hashed.literal_value else builder.add, terms)
            if hashed.literal_value:
                row = builder.and_(row, repeated(builder, emit["mask"]))
            place = builder.add(emit["slot"], _INDEX(corner * BLOCK))
            emit.store(row, "rows", place)
            emit.store(_share(emit, real, weights, corner), "shares", place)
        return context.get_dummy_value()

    at_, real_ = types.intp, shares.dtype
    return types.void(
        rows, shares, at_, coordinates, at_, at_, real_, real_, real_, types.int32, types.int32, hashed, axes
    ), generate


def _row_place(emit, name, features, point, corner):
    """Where the row of a point's corner begins in a table, whose level begins at row `first`."""
    builder = emit.builder
    row = emit.load("rows", builder.add(point, _INDEX(corner * BLOCK)))
    row = builder.add(builder.zext(row, _INDEX), emit["first"])
    kind = ir.VectorType(element(emit.kinds[name].dtype), features)
    return emit.address(name, builder.mul(row, _INDEX(features)), kind)


def _spread_row(builder, scalar, features):
    kind = ir.VectorType(scalar.type, features)
    value = ir.Constant(kind, ir.Undefined)
    for feature in range(features):
        value = builder.insert_element(value, scalar, _INT(feature))
    return value


@intrinsic(prefer_literal=True)
def blend(typing_context, out, at, table, first, rows, shares, count, axes, unit):
    """out[at + p] = the sum over the corners of share * row of `table`, for the first `count` points of the block."""
    features, real = len(unit), out.dtype

    def generate(context, builder, sig, values):
        names = ("out", "at", "table", "first", "rows", "shares", "count", "axes", "unit")
        emit = _Emitter(context, builder, sig, values, names)
        with cgutils.for_range(builder, emit["count"], intp=_INDEX) as loop:
            total = None
            for corner in range(2 ** len(axes)):
                place = builder.add(loop.index, _INDEX(corner * BLOCK))
                share = _spread_row(builder, emit.load("shares", place), features)
                row = builder.load(_row_place(emit, "table", features, loop.index, corner), align=real.bitwidth // 8)
                term = builder.fmul(share, row)
                total = term if total is None else builder.fadd(total, term)
            emit.store(total, "out", builder.mul(builder.add(emit["at"], loop.index), _INDEX(features)))
        return context.get_dummy_value()

    at_ = types.intp
    return types.void(out, at_, table, at_, rows, shares, at_, axes, unit), generate


@intrinsic(prefer_literal=True)
def scatter(typing_context, table, first, grads, at, rows, shares, count, axes, unit):
    """Add share * grads[at + p] to the rows of all corners, one after another, for the first `count` points."""
    features, real = len(unit), table.dtype

    def generate(context, builder, sig, values):
        names = ("table", "first", "grads", "at", "rows", "shares", "count", "axes", "unit")
        emit = _Emitter(context, builder, sig, values, names)
        size = real.bitwidth // 8
        kind = ir.VectorType(element(real), features)
        with cgutils.for_range(builder, emit["count"], intp=_INDEX) as loop:
            grad = emit.load("grads", builder.mul(builder.add(emit["at"], loop.index), _INDEX(features)), kind)
            for corner in range(2 ** len(axes)):
                place = builder.add(loop.index, _INDEX(corner * BLOCK))
                share = _spread_row(builder, emit.load("shares", place), features)
                row = _row_place(emit, "table", features, loop.index, corner)
                builder.store(builder.fadd(builder.load(row, align=size), builder.fmul(share, grad)), row, align=size)
        return context.get_dummy_value()

    at_ = types.intp
    return types.void(table, at_, grads, at_, rows, shares, at_, axes, unit), generate


@intrinsic(prefer_literal=True)
def carry(typing_context, out, at, step, source, begin, stride, count, unit):
    """Copy `count` rows: those of `source` from `begin` on, `stride` apart, to `out` from `at` on, `step` apart."""
    kind = ir.VectorType(element(out.dtype), len(unit))

    def generate(context, builder, sig, values):
        names = ("out", "at", "step", "source", "begin", "stride", "count", "unit")
        emit = _Emitter(context, builder, sig, values, names)
        with cgutils.for_range(builder, emit["count"], intp=_INDEX) as loop:
            row = emit.load("source", builder.add(emit["begin"], builder.mul(loop.index, emit["stride"])), kind)
            emit.store(row, "out", builder.add(emit["at"], builder.mul(loop.index, emit["step"])))
        return context.get_dummy_value()

    at_ = types.intp
    return types.void(out, at_, at_, source, at_, at_, at_, unit), generate


@intrinsic(prefer_literal=True)
def meet(typing_context, dots, grads, at, table, first, rows, count, axes, unit):
    """dots[corner * BLOCK + p] = the sum over the features of grads[at + p] * row, for the first `count` points."""
    features, real = len(unit), dots.dtype

    def generate(context, builder, sig, values):
        names = ("dots", "grads", "at", "table", "first", "rows", "count", "axes", "unit")
        emit = _Emitter(context, builder, sig, values, names)
        kind = ir.VectorType(element(real), features)
        with cgutils.for_range(builder, emit["count"], intp=_INDEX) as loop:
            grad = emit.load("grads", builder.mul(builder.add(emit["at"], loop.index), _INDEX(features)), kind)
            for corner in range(2 ** len(axes)):
                place = _row_place(emit, "table", features, loop.index, corner)
                terms = builder.fmul(grad, builder.load(place, align=real.bitwidth // 8))
                each = [builder.extract_element(terms, _INT(feature)) for feature in range(features)]
                emit.store(reduce(builder.fadd, each), "dots", builder.add(loop.index, _INDEX(corner * BLOCK)))
        return context.get_dummy_value()

    at_ = types.intp
    return types.void(dots, grads, at_, table, at_, rows, at_, axes, unit), generate


@intrinsic(prefer_literal=True)
def slopes(typing_context, grads, dots, slot, coordinates, at, apart, scale, last, far, axes):
    """Add to `grads`, laid out as `coordinates`, how `dots` change with 16 points; nothing where one was clipped."""
    dimensions, real = len(axes), grads.dtype

    def generate(context, builder, sig, values):
        names = ("grads", "dots", "slot", "coordinates", "at", "apart", "scale", "last", "far", "axes")
        emit = _Emitter(context, builder, sig, values, names)
        kind = ir.VectorType(element(real), COUNT)
        found = [_within(emit, real, axis) for axis in range(dimensions)]
        weights = [weight for _, weight, _ in found]
        held = [
            emit.load("dots", builder.add(emit["slot"], _INDEX(corner * BLOCK)), kind)
            for corner in range(2**dimensions)
        ]
        scale = repeated(builder, emit["scale"])
        zero = ir.Constant(kind, [0.0] * COUNT)
        for axis in range(dimensions):
            terms = [
                builder.fmul(
                    builder.fsub(held[corner | 1 << axis], held[corner]), _share(emit, real, weights, corner, axis)
                )
                for corner in range(2**dimensions)
                if not corner >> axis & 1
            ]
            slope = builder.fmul(reduce(builder.fadd, terms), scale)
            slope = builder.select(found[axis][2], slope, zero)
            place = builder.add(emit["at"], builder.mul(_INDEX(axis), emit["apart"]))
            emit.store(builder.fadd(emit.load("grads", place, kind), slope), "grads", place)
        return context.get_dummy_value()

    at_ = types.intp
    return types.void(grads, dots, at_, coordinates, at_, at_, real, real, real, axes), generate
