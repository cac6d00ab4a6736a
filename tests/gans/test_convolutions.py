"""Convolutions as matrix products: torch's own operators are the reference, in double precision."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.gans import convolutions
from treadle.gans.convolutions import Conv, ConvTranspose

KINDS = {Conv: torch.nn.Conv2d, ConvTranspose: torch.nn.ConvTranspose2d}


def pair(kind, inputs, outputs, kernel, bias=True, **options):
    ours, theirs = (k(inputs, outputs, kernel, bias=bias, **options) for k in (kind, KINDS[kind]))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def results(conv, x, autocast=False):
    given = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = conv(given)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    (out * weights).sum().backward()
    return [out.detach(), given.grad, *(p.grad for p in conv.parameters())]


@pytest.fixture(autouse=True, scope="module")
def every_size_counts_as_large():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolutions, "MANY", 0)
        yield


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)),
    batch=st.integers(1, 3),
    size=st.tuples(st.integers(2, 5), st.integers(2, 5)),
    kernel=st.sampled_from([(4, 2), (3, 1), (4, 1), (2, 2)]),
    bias=st.booleans(),
)
def test_value_and_gradients_are_those_of_torch(kind, batch, size, kernel, bias):
    ours, theirs = pair(kind, 3, 5, kernel[0], bias, stride=kernel[1], padding=1 if kernel[0] > 2 else 0)
    ours, theirs = ours.double(), theirs.double()
    x = torch.randn(batch, 3, *size, dtype=torch.double)
    for mine, yours in zip(results(ours, x), results(theirs, x), strict=True):
        torch.testing.assert_close(mine, yours, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_under_autocast_it_is_as_near_to_the_truth_as_torch(kind):
    ours, theirs = pair(kind, 64, 32, 4, stride=2, padding=1)
    x = torch.randn(1, 64, 4, 4)
    truth = KINDS[kind](64, 32, 4, stride=2, padding=1)
    truth.load_state_dict(ours.state_dict())
    truth.double()
    for mine, yours, true in zip(
        results(ours, x, True), results(theirs, x, True), results(truth, x.double()), strict=True
    ):
        assert mine.dtype == yours.dtype
        assert (mine - true).abs().mean() <= 1.5 * (yours - true).abs().mean() + 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_when_it_is_a_product(kind, monkeypatch):
    calls = []
    product = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b: calls.append(b.shape[1]) or product(a, b))
    conv = kind(2, 2, 4, stride=2, padding=1)
    small, large = (2, 18) if kind is ConvTranspose else (4, 36)
    conv(torch.randn(1, 2, small, small))
    assert calls == [4]
    conv(torch.randn(1, 2, large, large))
    conv.eval()(torch.randn(1, 2, small, small))
    monkeypatch.setattr(convolutions, "MANY", 10**6)
    conv.train()(torch.randn(1, 2, small, small))
    assert calls == [4], "not large pictures, not evaluation, not small weights"
