from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from treadle.kernels import mlp as module
from treadle.kernels.mlp import mlp, mlp_reference


def make(count, widths=(5, 8, 8, 3), dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()

    weights = [draw(b, a) for a, b in pairwise(widths)]
    return draw(count, widths[0]), weights, [draw(b) for b in widths[1:]]


def gradients(function, points, weights, biases):
    out = function(points, weights, biases)
    slope = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    return (out.detach(), *torch.autograd.grad(out, (points, *weights, *biases), slope))


@pytest.mark.parametrize("count", [0, 1, 7, 8, 21])
@pytest.mark.parametrize("widths", [(5, 8, 8, 3), (5, 3), (5, 6, 1)])
def test_chunks_give_what_layer_by_layer_gives(monkeypatch, count, widths):
    monkeypatch.setattr(module, "CHUNK", 8)
    case = make(count, widths)
    for ours, theirs in zip(gradients(mlp, *case), gradients(mlp_reference, *case), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_gradients_equal_finite_differences(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4)
    points, weights, biases = make(6)
    layers = len(weights)
    assert torch.autograd.gradcheck(
        lambda p, *parameters: mlp(p, parameters[:layers], parameters[layers:]), (points, *weights, *biases)
    )


def test_frozen_weights_and_points_without_gradient(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4)
    points, weights, biases = make(9)
    expected = torch.autograd.grad(mlp_reference(points, weights, biases).sum(), weights[1])
    fixed = [weight.detach() for weight in weights]
    fixed[1] = weights[1]
    found = torch.autograd.grad(mlp(points.detach(), fixed, [bias.detach() for bias in biases]).sum(), weights[1])
    torch.testing.assert_close(found, expected)


def test_autocast_is_obeyed():
    points, weights, biases = make(9, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert mlp(points, weights, biases).dtype == torch.bfloat16


def test_the_input_is_not_changed():
    points, weights, biases = make(9)
    before = points.detach().clone()
    mlp(points, weights[:1], biases[:1]).sum().backward()
    assert torch.equal(points, before)
