"""A small multilayer perceptron over very many points, a block of points at a time.

Layer by layer over all points, the activations of each layer travel to memory and back; a block's stay in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from treadle.kernels import threads
from treadle.kernels.layout import BLOCK

COMPILED_DTYPES = (torch.float32, torch.float64)
Array = NDArray[Any]


def mlp(points: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Apply linear layers with ReLU between them, to the last one without.

    On a CPU without autocast, in float32 and float64, compiled loops go block by block, and can be differentiated once;
    elsewhere it is `mlp_reference`. On any number of threads results are bitwise equal.

    Args:
        points: (n, width of the first layer's input).
        weights: (out, in) of each layer.
        biases: (out,) of each layer.

    Returns:
        (n, out of the last layer).
    """
    if compiles(points, *weights, *biases):
        return _Blocks.apply(points, *weights, *biases)
    return mlp_reference(points, weights, biases)


def mlp_reference(points: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """The same, layer by layer: differentiable any number of times, on any device."""
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        points = functional.relu(functional.linear(points, weight, bias))
    return functional.linear(points, weights[-1], biases[-1])


def compiles(*tensors: Tensor) -> bool:
    """Whether compiled loops may take these: on a CPU, of one dtype that they know, without autocast."""
    first = tensors[0]
    return (
        first.dtype in COMPILED_DTYPES
        and all(tensor.device.type == "cpu" and tensor.dtype == first.dtype for tensor in tensors)
        and not torch.is_autocast_enabled("cpu")
    )


@dataclass(frozen=True, eq=False)
class Shape:
    """How the loops find layers; made once for the widths of a perceptron.

    Attributes:
        rows: (layers, 8), as `mlp_loops` describes it.
        gradients, total: numbers that gradients of the parameters take, and packed parameters.
    """

    rows: Array
    gradients: int
    total: int


@lru_cache(maxsize=64)
def shape_of(widths: tuple[int, ...]) -> Shape:
    """The shape of a perceptron whose first input and layers' outputs have these widths."""
    padded = [-(-width // 16) * 16 for width in widths]
    rows = np.zeros((len(widths) - 1, 8), np.int64)
    place = activations = 0
    for layer, row in enumerate(rows):
        row[:5] = widths[layer], padded[layer], widths[layer + 1], padded[layer + 1], activations
        activations += padded[layer]
        row[5], row[6] = place, place + widths[layer + 1] * padded[layer]
        place = row[6] + padded[layer + 1]
    gradients = int(place)
    for row in rows:
        row[7] = place
        place += row[0] * row[3]
    return Shape(rows, gradients, int(place))


def pack(shape: Shape, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Array:
    """Weights and biases as the loops read them."""
    packed = np.zeros(shape.total, array(weights[0]).dtype)
    for row, weight, bias in zip(shape.rows, weights, biases, strict=True):
        inputs, padded, outputs, columns = row[:4]
        values = array(weight)
        packed[row[5] : row[6]].reshape(outputs, padded)[:, :inputs] = values
        packed[row[6] : row[6] + outputs] = array(bias)
        packed[row[7] : row[7] + inputs * columns].reshape(inputs, columns)[:, :outputs] = values.T
    return packed


def unpack(shape: Shape, packed: Array) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of the weights and of the biases, from the sums that the loops leave."""
    weights, biases = [], []
    for inputs, padded, outputs, _, _, at, bias, _ in shape.rows:
        weights.append(torch.from_numpy(packed[at:bias].reshape(outputs, padded)[:, :inputs].copy()))
        biases.append(torch.from_numpy(packed[bias : bias + outputs].copy()))
    return weights, biases


def array(tensor: Tensor) -> Array:
    """A tensor's numbers, where they are."""
    found: Array = tensor.detach().numpy()
    return found


def flat(tensor: Tensor) -> Array:
    """Those of a contiguous tensor, one behind the other."""
    return array(tensor).reshape(-1)


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, *parameters: Tensor) -> Tensor:
        from treadle.kernels import mlp_loops

        layers = len(parameters) // 2
        weights, biases = parameters[:layers], parameters[layers:]
        ctx.shape = shape = shape_of((points.shape[1], *(weight.shape[0] for weight in weights)))
        ctx.packed = packed = pack(shape, weights, biases)
        points = points.contiguous()
        out = points.new_empty(points.shape[0], weights[-1].shape[0])
        parts = threads.parts_for(-(-points.shape[0] // BLOCK))
        threads.spread(mlp_loops.forward, parts, flat(points), shape.rows, packed, array(out))
        ctx.save_for_backward(points)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (points,) = ctx.saved_tensors
        grad_points, weights, biases = back(ctx.shape, ctx.packed, points, (), grad, ctx.needs_input_grad[0])
        return (grad_points, *weights, *biases)


def back(
    shape: Shape, packed: Array, inputs: Tensor, unit: tuple[float, ...], grad: Tensor, inputs_too: bool
) -> tuple[Tensor | None, list[Tensor], list[Tensor]]:
    """Gradients of the inputs, as these are laid out, of the weights and of the biases: see `mlp_loops.backward`."""
    from treadle.kernels import mlp_loops

    sums = np.empty((mlp_loops.SHARES, shape.gradients), packed.dtype)
    found = torch.empty_like(inputs) if inputs_too else inputs.new_empty(0)
    threads.spread(
        mlp_loops.backward, threads.parts_for(mlp_loops.SHARES), flat(inputs), array(grad.contiguous()),
        shape.rows, packed, unit, sums.reshape(-1), inputs_too, flat(found),
    )  # fmt: skip
    return found if inputs_too else None, *unpack(shape, sums.sum(0))
