"""A small multilayer perceptron over very many points, a chunk of points at a time.

Layer by layer over all points, the activations of each layer travel to memory and back; a chunk's stay in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

CHUNK = 16384
"""Points that go through all layers together: their activations, 64 wide, fill four megabytes a layer."""

SHARES = 8
"""Shares that a chunk's points are cut into for the weights' gradients."""


def mlp(points: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Apply linear layers with ReLU between them, to the last one without.

    On a CPU without autocast it goes chunk by chunk, and can be differentiated once; elsewhere layer by layer.

    Args:
        points: (n, width of the first layer's input).
        weights: (out, in) of each layer.
        biases: (out,) of each layer.

    Returns:
        (n, out of the last layer).
    """
    if points.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
        return _Chunked.apply(points, *weights, *biases)
    return mlp_reference(points, weights, biases)


def mlp_reference(points: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """The same, layer by layer: differentiable any number of times, on any device."""
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        points = functional.relu(functional.linear(points, weight, bias))
    return functional.linear(points, weights[-1], biases[-1])


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, *parameters: Tensor) -> Tensor:
        layers = len(parameters) // 2
        weights, biases = parameters[:layers], parameters[layers:]
        kept: list[list[Tensor]] = []
        out = points.new_empty(points.shape[0], weights[-1].shape[0])
        keep = any(ctx.needs_input_grad)
        for low in range(0, points.shape[0], CHUNK):
            hidden = points[low : low + CHUNK]
            activations = [hidden]
            for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
                hidden = torch.addmm(bias, hidden, weight.t()).relu_()
                activations.append(hidden)
            torch.addmm(biases[-1], hidden, weights[-1].t(), out=out[low : low + CHUNK])
            if keep:
                kept.append(activations)
        ctx.kept = kept
        ctx.save_for_backward(points, *weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        points, *weights = ctx.saved_tensors
        last = len(weights) - 1
        grad_points = torch.empty_like(points) if ctx.needs_input_grad[0] else None
        grad_weights = [torch.zeros_like(weight) for weight in weights]
        grad_biases = [weight.new_zeros(weight.shape[0]) for weight in weights]
        ones = points.new_ones(min(CHUNK, points.shape[0]))
        for chunk, low in enumerate(range(0, points.shape[0], CHUNK)):
            slope = grad[low : low + CHUNK]
            for layer in range(last, -1, -1):
                inputs = ctx.kept[chunk][layer]
                transposed = slope.t()
                _add_product(grad_weights[layer], slope, inputs)
                grad_biases[layer].addmv_(transposed, ones[: slope.shape[0]])
                if layer:
                    slope = slope @ weights[layer]
                    torch.ops.aten.threshold_backward.grad_input(slope, inputs, 0, grad_input=slope)
                elif grad_points is not None:
                    torch.mm(slope, weights[0], out=grad_points[low : low + CHUNK])
        return (grad_points, *grad_weights, *grad_biases)


def _add_product(total: Tensor, slope: Tensor, inputs: Tensor) -> None:
    """Add slope^T inputs to `total`: a small product of long factors, which in eight shares uses both caches better."""
    rows = slope.shape[0]
    if rows % SHARES:
        total.addmm_(slope.t(), inputs)
        return
    shares = (SHARES, rows // SHARES, -1)
    total += torch.bmm(slope.reshape(shares).transpose(1, 2), inputs.reshape(shares)).sum(0)
