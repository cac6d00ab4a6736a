"""Sixteen numbers at once: a vector type for compiled loops, which then do not depend on what a compiler vectorizes.

`Lanes` are 16 float32 or float64, `Mask` 16 truth values; both live in registers, inside compiled loops alone. `+`,
`-`, `*`, `/` and comparisons work lane by lane, between lanes or with a number of the same type; `&` combines masks.
LLVM cuts float32 lanes into whatever registers the machine has: two with AVX2, one with AVX-512, four with NEON.

Numba keeps compiled loops on disk until *their* file changes: who changes this one empties `__pycache__`.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, index"
from __future__ import annotations

import math
import operator

from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

COUNT = 16
_INDEX = ir.IntType(32)


class Lanes(types.Type):
    """16 numbers of one floating type."""

    def __init__(self, real):
        self.real = real
        super().__init__(name=f"Lanes({real})")


class Mask(types.Type):
    """16 truth values."""

    def __init__(self):
        super().__init__(name="Mask")


MASK = Mask()


def element(real):
    """The LLVM type of a floating type of Numba: float, else double."""
    return ir.FloatType() if real == types.float32 else ir.DoubleType()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(element(kind.real), COUNT))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(ir.IntType(1), COUNT))


def repeated(builder, scalar):
    """A vector with `scalar` in all lanes."""
    kind = ir.VectorType(scalar.type, COUNT)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, _INDEX(0))
    return builder.shuffle_vector(
        first, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(_INDEX, COUNT), None)
    )


def _constant(real, value):
    return ir.Constant(ir.VectorType(element(real), COUNT), [value] * COUNT)


def _operands(builder, kinds, values):
    return [
        value if isinstance(kind, Lanes) else repeated(builder, value)
        for kind, value in zip(kinds, values, strict=True)
    ]


def _define(function, emit, result):
    """Let `function` take lanes, or lanes and a number; `emit` writes the instruction, `result` gives its type."""

    @infer_global(function)
    class Rule(AbstractTemplate):
        def generic(self, arguments, options):
            lanes = [kind for kind in arguments if isinstance(kind, Lanes)]
            if len(arguments) == 2 and lanes and all(kind in (lanes[0], lanes[0].real) for kind in arguments):
                return signature(result(lanes[0]), *arguments)
            return None

    def lower(context, builder, sig, values):
        return emit(builder, *_operands(builder, sig.args, values))

    for kinds in ((Lanes, Lanes), (Lanes, types.Float), (types.Float, Lanes)):
        lower_builtin(function, *kinds)(lower)


def _define_all():
    for function, name in (
        (operator.add, "fadd"),
        (operator.sub, "fsub"),
        (operator.mul, "fmul"),
        (operator.truediv, "fdiv"),
    ):
        _define(function, lambda builder, a, b, name=name: getattr(builder, name)(a, b), lambda lanes: lanes)
    for function, sign in ((operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">=")):
        _define(function, lambda builder, a, b, sign=sign: builder.fcmp_ordered(sign, a, b), lambda lanes: MASK)


_define_all()


@infer_global(operator.and_)
class _And(AbstractTemplate):
    def generic(self, arguments, options):
        return signature(MASK, MASK, MASK) if arguments == (MASK, MASK) else None


@lower_builtin(operator.and_, Mask, Mask)
def _and(context, builder, sig, values):
    return builder.and_(*values)


@intrinsic
def load(typing_context, array, index):
    """16 numbers of a contiguous array from `index` on; whether they exist is the caller's to know."""

    def generate(context, builder, sig, values):
        return builder.load(_address(context, builder, sig, values), align=_element_bytes(array.dtype))

    return Lanes(array.dtype)(array, types.intp), generate


@intrinsic
def store(typing_context, array, index, lanes):
    """Write 16 numbers to a contiguous array from `index` on."""

    def generate(context, builder, sig, values):
        builder.store(values[2], _address(context, builder, sig, values), align=_element_bytes(array.dtype))
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


def _element_bytes(real):
    return real.bitwidth // 8


def _address(context, builder, sig, values):
    data = context.make_array(sig.args[0])(context, builder, values[0]).data
    return builder.bitcast(
        builder.gep(data, [values[1]]), ir.VectorType(element(sig.args[0].dtype), COUNT).as_pointer()
    )


@intrinsic
def fill(typing_context, number):
    """A number in all lanes."""

    def generate(context, builder, sig, values):
        return repeated(builder, values[0])

    return Lanes(number)(number), generate


@intrinsic
def steps_from(typing_context, number):
    """number, number + 1, ... number + 15."""

    def generate(context, builder, sig, values):
        kind = ir.VectorType(element(number), COUNT)
        return builder.fadd(repeated(builder, values[0]), ir.Constant(kind, [float(i) for i in range(COUNT)]))

    return Lanes(number)(number), generate


@intrinsic
def choose(typing_context, mask, lanes, other):
    """`lanes` where the mask is true, else `other`."""

    def generate(context, builder, sig, values):
        return builder.select(values[0], *_operands(builder, sig.args[1:], values[1:]))

    return (lanes if isinstance(lanes, Lanes) else other)(mask, lanes, other), generate


@intrinsic
def lesser(typing_context, lanes, other):
    """The lesser of two, lane by lane; `other` where one is NaN."""

    def generate(context, builder, sig, values):
        a, b = _operands(builder, sig.args, values)
        return builder.select(builder.fcmp_ordered("<", a, b), a, b)

    return lanes(lanes, other), generate


@intrinsic
def some(typing_context, mask):
    """Whether any lane is true."""

    def generate(context, builder, sig, values):
        bits = builder.bitcast(values[0], ir.IntType(COUNT))
        return builder.icmp_unsigned("!=", bits, bits.type(0))

    return types.boolean(mask), generate


@intrinsic
def total(typing_context, lanes):
    """The sum over the lanes: halves are added until one number is left, always in the same order."""

    def generate(context, builder, sig, values):
        value, width = values[0], COUNT
        while width > 1:
            width //= 2
            undefined = ir.Constant(value.type, ir.Undefined)
            halves = [
                builder.shuffle_vector(value, undefined, ir.Constant(ir.VectorType(_INDEX, width), list(places)))
                for places in (range(width), range(width, 2 * width))
            ]
            value = builder.fadd(*halves)
        return builder.extract_element(value, _INDEX(0))

    return lanes.real(lanes), generate


_SERIES_64 = [math.log(2) ** k / math.factorial(k) for k in range(14)]
# The polynomial of degree 5 whose largest relative difference from 2^x, x in [-.5, .5], is the least: 7.5e-8.
_MINIMAX_32 = [1.00000007165, 0.693146967065, 0.240221197238, 0.0555071327350, 0.00967554133445, 0.00132764719925]


@intrinsic
def exp2(typing_context, lanes):
    """2 to the power of lanes up to 0, within 3 units of the last place; 2^-100 below -100 or for NaN."""

    def generate(context, builder, sig, values):
        single = lanes.real == types.float32
        digits, bits = (23, ir.IntType(32)) if single else (52, ir.IntType(64))
        whole = ir.VectorType(bits, COUNT)
        # Well above where numbers lose digits: a processor takes a hundred times as long over those.
        least = _constant(lanes.real, -100.0)
        x = builder.select(builder.fcmp_ordered(">", values[0], least), values[0], least)
        # Adding 1.5 * 2^digits rounds to a whole number, and leaves it in the lowest bits.
        magic = _constant(lanes.real, 1.5 * 2.0**digits)
        shifted = builder.fadd(x, magic)
        part = builder.fsub(x, builder.fsub(shifted, magic))
        series = _MINIMAX_32 if single else _SERIES_64
        value = _constant(lanes.real, series[-1])
        for coefficient in reversed(series[:-1]):
            value = builder.fadd(builder.fmul(value, part), _constant(lanes.real, coefficient))
        exponent = builder.shl(builder.bitcast(shifted, whole), ir.Constant(whole, [digits] * COUNT))
        return builder.bitcast(builder.add(builder.bitcast(value, whole), exponent), values[0].type)

    return lanes(lanes), generate


@intrinsic
def take(typing_context, counter):
    """The next number of a shared counter, an array of one int64: so threads share work that is unequally long."""

    def generate(context, builder, sig, values):
        data = context.make_array(sig.args[0])(context, builder, values[0]).data
        return builder.atomic_rmw("add", data, data.type.pointee(1), "monotonic")

    return types.int64(counter), generate
