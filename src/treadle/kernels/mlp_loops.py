"""The compiled loops of a small perceptron, alone or over a hash grid: block after block of points, all layers in turn.

A block's activations stay in the cache. The backward pass computes them again from the inputs: that is faster than
writing those of all points to memory and reading them back, and needs a fifth of the memory.

A row of `shape` is a layer: (inputs, inputs padded to 16, outputs, outputs padded, where its inputs begin among a
block's activations, each of which has BLOCK rows; where its weights (outputs, padded inputs), its bias (padded outputs)
and its weights transposed (inputs, padded outputs) begin in `parameters`). Gradients lie as weights and biases do.

Where inputs are features of a grid, they lie level by level, and so do their gradients: see `hashgrid_loops`. The tuple
`unit` is then as long as a row of the grid, and else empty.

Gradients of parameters are summed in `SHARES` shares of the blocks, then over these: which depend on how many points
there are, never on how many threads, so that results are bitwise equal on any number of them.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated, assignment"
from __future__ import annotations

import numba
import numpy as np

from treadle.kernels.compiling import compiled
from treadle.kernels.corners import carry
from treadle.kernels.hashgrid_loops import encode_some
from treadle.kernels.lanes import COUNT, choose, fill, load, store
from treadle.kernels.layout import BLOCK
from treadle.kernels.products import product

SHARES = 16
"""Shares that blocks are cut into for the sums over points: at most as many threads work backward."""
CHUNK = 512 * BLOCK
"""Points at most that are encoded, level by level, before they go through the layers, where no gradient will be asked
for: their features take 4 MB. Far fewer of them would read the rows of each level anew into the nearest caches."""


@numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _enter(inputs, first, apart, unit, count, shape, acts):
    # The inputs of `count` points become a block's first activations: row `first` and those after it, of inputs whose
    # levels lie `apart` rows from one another.
    width, row = shape[0, 0], shape[0, 1]
    if count < BLOCK or row > width:
        acts[: BLOCK * row] = 0
    if len(unit):
        for level in range(width // len(unit)):
            carry(acts, level * len(unit), row, inputs, (level * apart + first) * len(unit), len(unit), count, unit)
    else:
        for i in range(count):
            for column in range(width):
                acts[i * row + column] = inputs[(first + i) * width + column]


@numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _ahead(shape, parameters, layers, acts):
    # A block through the first `layers` layers: from its first activations to the others and the result.
    real = acts.dtype.type
    for layer in range(layers):
        inner, row, columns, before = shape[layer, 0], shape[layer, 1], shape[layer, 3], BLOCK * shape[layer, 4]
        product(
            acts, before + BLOCK * row, columns, parameters, shape[layer, 6], 0, acts, before, row, 1,
            parameters, shape[layer, 7], columns, BLOCK, inner, columns,
            real(0) if layer < shape.shape[0] - 1 else real(-np.inf),
        )  # fmt: skip


@numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _leave(acts, shape, out, low, count):
    # The result of a block to rows of `out`.
    last = shape.shape[0] - 1
    result, columns = BLOCK * (shape[last, 4] + shape[last, 1]), shape[last, 3]
    for i in range(count):
        for column in range(out.shape[1]):
            out[low + i, column] = acts[result + i * columns + column]


@numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _block(shape, kind):
    # Room for the activations of a block.
    return np.empty(BLOCK * (shape[:, 1].sum() + shape[-1, 3]), kind)


@compiled()
def forward(inputs, shape, parameters, out, part, parts):
    """Map inputs (n, width), flat, to out (n, outputs)."""
    n = out.shape[0]
    blocks = (n + BLOCK - 1) // BLOCK
    acts = _block(shape, parameters.dtype)
    for low in range(blocks * part // parts * BLOCK, min(blocks * (part + 1) // parts * BLOCK, n), BLOCK):
        count = min(BLOCK, n - low)
        _enter(inputs, low, 0, (), count, shape, acts)
        _ahead(shape, parameters, shape.shape[0], acts)
        _leave(acts, shape, out, low, count)


@compiled()
def forward_encoded(
    coordinates, table, levels, scales, axes, unit, shape, parameters, features, keep, out, part, parts
):
    """Encode points (see `hashgrid_loops`) and map their features to out (n, outputs).

    `features`, flat, takes those of all points, (levels, padded, features); without `keep` it has room for some points
    in every part, whole blocks, which are used again and again.
    """
    n = out.shape[0]
    padded = coordinates.size // len(axes)
    blocks = (n + BLOCK - 1) // BLOCK
    begin, end = blocks * part // parts * BLOCK, min(blocks * (part + 1) // parts * BLOCK, n)
    room = padded if keep else features.size // (parts * levels.shape[0] * len(unit))
    acts = _block(shape, parameters.dtype)
    scratch = np.empty(BLOCK << len(axes), np.int32), np.empty(BLOCK << len(axes), table.dtype)
    for chunk in range(begin, end, max(room, BLOCK)):
        stop = min(chunk + room, end)
        shift = 0 if keep else chunk - part * levels.shape[0] * room
        encode_some(coordinates, padded, chunk, stop, table, levels, scales, axes, unit, features, room, shift, scratch)
        for low in range(chunk, stop, BLOCK):
            count = min(BLOCK, stop - low)
            _enter(features, low - shift, room, unit, count, shape, acts)
            _ahead(shape, parameters, shape.shape[0], acts)
            _leave(acts, shape, out, low, count)


@numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _back(shape, parameters, acts, here, there, nothing, ones, grads, own, inputs_too):
    # `here`, the gradient (BLOCK, padded outputs) of the result, back through all layers, with `there` to write to in
    # turn; what parameters get is added to `grads` from `own` on. Returns where the gradient of the inputs is.
    real = acts.dtype.type
    nought, lowest = fill(real(0)), real(-np.inf)
    for layer in range(shape.shape[0] - 1, -1, -1):
        row, outputs, padded, before = shape[layer, 1], shape[layer, 2], shape[layer, 3], BLOCK * shape[layer, 4]
        weights, bias = own + shape[layer, 5], own + shape[layer, 6]
        product(
            grads, weights, row, grads, weights, row, here, 0, 1, padded, acts, before, row,
            outputs, BLOCK, row, lowest,
        )  # fmt: skip
        product(grads, bias, 0, grads, bias, 0, ones, 0, 0, 1, here, 0, padded, 1, BLOCK, padded, lowest)
        if layer or inputs_too:
            product(
                there, 0, row, nothing, 0, 0, here, 0, padded, 1, parameters, shape[layer, 5], row,
                BLOCK, outputs, row, lowest,
            )  # fmt: skip
            if layer:
                for i in range(0, BLOCK * row, COUNT):
                    store(there, i, choose(load(acts, before + i) <= nought, nought, load(there, i)))
            here, there = there, here
    return here


@compiled()
def backward(inputs, grad, shape, parameters, unit, grads, inputs_too, grad_inputs, part, parts):
    """From grad (n, outputs) the gradients of the parameters, SHARES of them in `grads`, and of the inputs.

    `inputs` and `grad_inputs` are flat: (n, width), or with `unit` (levels, padded, features).
    """
    n, outputs = grad.shape
    blocks = (n + BLOCK - 1) // BLOCK
    last, width, row = shape.shape[0] - 1, shape[0, 0], shape[0, 1]
    columns, apart = shape[last, 3], blocks * BLOCK
    widest = max(shape[:, 1].max(), columns)
    acts = _block(shape, parameters.dtype)
    here, there = np.empty(BLOCK * widest, grad.dtype), np.empty(BLOCK * widest, grad.dtype)
    nothing, ones = np.zeros(widest, grad.dtype), np.ones(BLOCK, grad.dtype)
    size = grads.size // SHARES
    for share in range(part, SHARES, parts):
        own = share * size
        grads[own : own + size] = 0
        for block in range(blocks * share // SHARES, blocks * (share + 1) // SHARES):
            low = block * BLOCK
            count = min(BLOCK, n - low)
            _enter(inputs, low, apart, unit, count, shape, acts)
            _ahead(shape, parameters, last, acts)
            here[: BLOCK * columns] = 0
            for i in range(count):
                for column in range(outputs):
                    here[i * columns + column] = grad[low + i, column]
            found = _back(shape, parameters, acts, here, there, nothing, ones, grads, own, inputs_too)
            if inputs_too and len(unit):
                for level in range(width // len(unit)):
                    first = (level * apart + low) * len(unit)
                    carry(grad_inputs, first, len(unit), found, level * len(unit), row, count, unit)
            elif inputs_too:
                for i in range(count):
                    for column in range(width):
                        grad_inputs[(low + i) * width + column] = found[i * row + column]
