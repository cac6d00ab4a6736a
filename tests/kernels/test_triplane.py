from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.errors import UsageError
from treadle.kernels import triplane
from treadle.kernels.triplane import encode
from treadle.kernels.triplane_reference import encode_reference, first_rows

BASE, LEVELS = 1, 3
BOTH = pytest.mark.parametrize("function", [encode, encode_reference])


def make(count, dtype=torch.float32, base=BASE, levels=LEVELS, features=2):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(count, 3, generator=generator, dtype=dtype) * 2.1 - 1.05
    table = torch.randn(first_rows(base, levels)[-1], features, generator=generator, dtype=dtype)
    return points.requires_grad_(), table.requires_grad_()


def gradients(function, points, table, base=BASE, levels=LEVELS):
    out = function(points, table, base, levels)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5), dtype=out.dtype)
    return (out.detach(), *torch.autograd.grad(out, (points, table), weights))


def by_hand(point, table):
    """One point in plain Python, from the definition."""
    values, first = [], 0
    for level in range(BASE, BASE + LEVELS):
        n = 2**level + 1
        u = [min(max((n - 1) * (x + 1) / 2, 0.0), n - 1.0) for x in point]
        c = [min(math.floor(v), n - 2) for v in u]
        for a, b in ((0, 1), (1, 2), (2, 0)):
            sums = [0.0, 0.0]
            for i, j in ((0, 0), (1, 0), (0, 1), (1, 1)):
                share = (u[a] - c[a] if i else 1 - u[a] + c[a]) * (u[b] - c[b] if j else 1 - u[b] + c[b])
                row = table[first + c[a] + i + n * (c[b] + j)]
                sums = [total + share * value for total, value in zip(sums, row, strict=True)]
            values += sums
            first += n * n
    return values


@BOTH
def test_both_paths_follow_the_definition(function):
    points, table = make(40, torch.float64)
    special = torch.tensor([[1.0, 1, 1], [-1, -1, -1], [0.25, 0.5, -0.5], [1.5, 0, -7]], dtype=torch.float64)
    points = torch.cat((points.detach(), special))
    expected = torch.tensor([by_hand(point, table.tolist()) for point in points.tolist()], dtype=torch.float64)
    torch.testing.assert_close(function(points, table, BASE, LEVELS), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_equal_the_reference(dtype):
    points, table = make(2000, dtype)
    ours, theirs = (gradients(function, points, table) for function in (encode, encode_reference))
    for a, b in zip(ours, theirs, strict=True):
        scale = b.abs().max().item()
        torch.testing.assert_close(a, b, rtol=0, atol=(1e-5 if dtype == torch.float32 else 1e-13) * scale)


def test_gradients_equal_finite_differences_in_float64():
    points, table = make(10, torch.float64, base=0, levels=2)
    for function in (encode, encode_reference):
        assert torch.autograd.gradcheck(lambda p, t, f=function: f(p, t, 0, 2), (points, table), eps=1e-7, atol=1e-6)


@pytest.mark.parametrize("threads", [2, 4])
def test_bitwise_equal_on_any_number_of_threads(threads, monkeypatch):
    points, table = make(3000)
    monkeypatch.setattr(triplane.threads, "parts_for", lambda work: 1)
    expected = gradients(encode, points, table)
    monkeypatch.setattr(triplane.threads, "parts_for", lambda work: threads)
    assert all(torch.equal(a, b) for a, b in zip(expected, gradients(encode, points, table), strict=True))


@BOTH
def test_points_beyond_the_border_read_the_border_and_pull_at_nothing(function):
    _, table = make(1)
    beyond = torch.tensor([[1.5, 0.3, -0.2], [-math.inf, 0.3, -0.2], [3e38, -9.0, 0.1]], requires_grad=True)
    found = function(beyond, table, BASE, LEVELS)
    torch.testing.assert_close(found, function(beyond.detach().clamp(-1, 1), table, BASE, LEVELS))
    (grad,) = torch.autograd.grad(found.sum(), beyond)
    assert ((grad == 0) == (beyond.abs() > 1)).all()


@BOTH
def test_a_nan_coordinate_reaches_the_planes_that_have_it_and_no_other_point(function):
    points, table = make(3)
    points = points.detach()
    points[1, 2] = math.nan
    found = function(points, table, BASE, LEVELS)
    planes = found[1].reshape(LEVELS, 3, 2)
    assert planes[:, 0].isfinite().all() and planes[:, 1:].isnan().all() and found[[0, 2]].isfinite().all()


def test_no_points_and_strides():
    points, table = make(0)
    out, grad_points, grad_table = gradients(encode, points, table)
    assert out.shape == (0, 18) and grad_points.shape == (0, 3) and (grad_table == 0).all()
    points, table = make(64)
    strided = points.detach().t().contiguous().t().requires_grad_()
    weights = torch.randn(18, 64).t()
    expected = torch.autograd.grad(encode(points, table, BASE, LEVELS), (points, table), weights.contiguous())
    found = torch.autograd.grad(encode(strided, table, BASE, LEVELS), (strided, table), weights)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize(
    ("points", "table", "message"),
    [
        (torch.zeros(4, 2), None, r"points must have shape \(n, 3\)"),
        (torch.zeros(4, 3), torch.zeros(7, 2), "345 rows belong to its planes"),
        (torch.zeros(4, 3, dtype=torch.float64), None, "same floating dtype"),
        (torch.zeros(4, 3, dtype=torch.int64), None, "same floating dtype"),
        (torch.zeros(4, 3, device="meta"), None, "move one of them"),
    ],
)
def test_what_does_not_fit_is_named(points, table, message):
    with pytest.raises(UsageError, match=message):
        encode(points, make(0)[1] if table is None else table, BASE, LEVELS)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from([(0, 1), (0, 4), (2, 2), (5, 1)]),
    points=st.lists(st.tuples(*[st.floats(-1.25, 1.25, width=32)] * 3), min_size=1, max_size=12),
    borders=st.lists(st.tuples(*[st.integers(-4, 4)] * 3), max_size=12),
)
def test_any_planes_and_any_points_agree_with_the_reference(shape, points, borders):
    base, levels = shape
    _, table = make(1, base=base, levels=levels)
    at = torch.tensor(points + [tuple(c / 4 for c in place) for place in borders], dtype=torch.float32)
    found, expected = encode(at, table, base, levels), encode_reference(at, table, base, levels)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
