from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from treadle.kernels import mlp as module
from treadle.kernels.layout import BLOCK
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


@pytest.mark.parametrize("count", [0, 1, BLOCK, 16 * BLOCK + 7])
@pytest.mark.parametrize("widths", [(5, 8, 8, 3), (5, 3), (20, 70, 1), (16, 64, 32, 17)])
def test_block_by_block_gives_what_layer_by_layer_gives(count, widths):
    case = make(count, widths)
    for ours, theirs in zip(gradients(mlp, *case), gradients(mlp_reference, *case), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("widths", [(32, 64, 64, 3), (5, 6, 1)])
def test_in_float32(widths):
    case = make(300, widths, torch.float32)
    for ours, theirs in zip(gradients(mlp, *case), gradients(mlp_reference, *case), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


def test_gradients_equal_finite_differences():
    points, weights, biases = make(6)
    layers = len(weights)
    assert torch.autograd.gradcheck(
        lambda p, *parameters: mlp(p, parameters[:layers], parameters[layers:]), (points, *weights, *biases)
    )


def test_bitwise_equal_in_any_number_of_parts(monkeypatch):
    case = make(40 * BLOCK + 5, (20, 70, 40, 3), torch.float32)
    expected = gradients(mlp, *case)
    for parts in (2, 3, 4):
        monkeypatch.setattr(module.threads, "parts_for", lambda work, parts=parts: min(parts, work))
        found = gradients(mlp, *case)
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True)), parts


def test_a_number_that_is_none_stays_none():
    points, weights, biases = make(2 * BLOCK)
    with torch.no_grad():
        points[3, 1] = torch.nan
    out, *grads = gradients(mlp, points, weights, biases)
    others = torch.arange(2 * BLOCK) != 3
    assert out[3].isnan().all() and out[others].isfinite().all()
    for ours, theirs in zip(grads, gradients(mlp_reference, points, weights, biases)[1:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-11, equal_nan=True)


def test_frozen_weights_and_points_without_gradient():
    points, weights, biases = make(9)
    expected = torch.autograd.grad(mlp_reference(points, weights, biases).sum(), weights[1])
    fixed = [weight.detach() for weight in weights]
    fixed[1] = weights[1]
    found = torch.autograd.grad(mlp(points.detach(), fixed, [bias.detach() for bias in biases]).sum(), weights[1])
    torch.testing.assert_close(found, expected)


def test_points_weights_and_gradients_of_any_strides():
    points, weights, biases = make(9)
    expected = gradients(mlp, points, weights, biases)
    turned = [torch.empty(w.shape[::-1], dtype=w.dtype).t().copy_(w.detach()).requires_grad_() for w in weights]
    wide = torch.zeros(9, 10, dtype=points.dtype)
    wide[:, ::2] = points.detach()
    strided = wide[:, ::2].requires_grad_()
    found = gradients(mlp, strided, turned, biases)
    assert not strided.is_contiguous() and not turned[1].is_contiguous()
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_autocast_is_obeyed():
    points, weights, biases = make(9, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert mlp(points, weights, biases).dtype == torch.bfloat16


def test_the_input_is_not_changed():
    points, weights, biases = make(9)
    before = points.detach().clone()
    mlp(points, weights[:1], biases[:1]).sum().backward()
    assert torch.equal(points, before)
