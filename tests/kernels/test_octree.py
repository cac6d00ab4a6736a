from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.errors import UsageError
from treadle.kernels import octree
from treadle.kernels.octree import encode
from treadle.kernels.octree_index import OctreeIndex, morton
from treadle.kernels.octree_reference import encode_reference

BOTH = pytest.mark.parametrize("function", [encode, encode_reference])
CELLS = torch.randint(0, 16, (150, 3), generator=torch.Generator().manual_seed(3))


def build(cells=CELLS, base=2, levels=3, graded=False):
    return OctreeIndex.of(torch.unique(morton(cells)), base, levels, graded)


def make(index, count, dtype=torch.float32, features=2):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(count, 3, generator=generator, dtype=dtype) * 2.1 - 1.05
    table = torch.randn(index.rows, features, generator=generator, dtype=dtype)
    return points.requires_grad_(), table.requires_grad_()


def gradients(function, points, table, index):
    out = function(points, table, index)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5), dtype=out.dtype)
    return (out.detach(), *torch.autograd.grad(out, (points, table), weights))


def by_hand(points, table, cells, base, levels):
    """In plain Python, from the definition."""
    found = [[] for _ in points]
    first = 0
    for level in range(base, base + levels):
        there = {tuple(c >> (base + levels - 1 - level) for c in cell) for cell in cells.tolist()}
        corners = {tuple(c + (k >> a & 1) for a, c in enumerate(cell)) for cell in there for k in range(8)}
        row = {corner: first + number for number, corner in enumerate(sorted(corners, key=interleaved))}
        first += len(corners)
        for point, values in zip(points, found, strict=True):
            u = [2**level * (x + 1) / 2 for x in point]
            cell = tuple(min(math.floor(v), 2**level - 1) for v in u)
            sums = [0.0] * len(table[0])
            if cell in there and all(-1 <= x <= 1 for x in point):
                for k in range(8):
                    sides = [v - c if k >> a & 1 else 1 - (v - c) for a, (v, c) in enumerate(zip(u, cell, strict=True))]
                    at = row[tuple(c + (k >> a & 1) for a, c in enumerate(cell))]
                    sums = [total + math.prod(sides) * value for total, value in zip(sums, table[at], strict=True)]
            values += sums
    return found


def interleaved(corner):
    return sum((c >> k & 1) << (3 * k + axis) for axis, c in enumerate(corner) for k in range(6))


@BOTH
def test_both_paths_follow_the_definition(function):
    index = build()
    points, table = make(index, 60, torch.float64)
    special = torch.tensor([[1.0, 1, 1], [-1, -1, -1], [0.25, 0.5, -0.5], [1.5, 0, 0]], dtype=torch.float64)
    points = torch.cat((points.detach(), special))
    expected = torch.tensor(by_hand(points.tolist(), table.tolist(), CELLS, 2, 3), dtype=torch.float64)
    torch.testing.assert_close(function(points, table, index), expected, rtol=0, atol=1e-12)
    assert 0.1 < (expected == 0).double().mean() < 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_equal_the_reference(dtype):
    index = build()
    points, table = make(index, 2000, dtype)
    ours, theirs = (gradients(function, points, table, index) for function in (encode, encode_reference))
    for a, b in zip(ours, theirs, strict=True):
        scale = b.abs().max().item()
        torch.testing.assert_close(a, b, rtol=0, atol=(1e-5 if dtype == torch.float32 else 1e-13) * scale)


def test_gradients_equal_finite_differences_in_float64():
    index = build(base=1, levels=2, cells=torch.tensor([[0, 0, 0], [1, 2, 3], [3, 3, 3]]))
    points, table = make(index, 12, torch.float64)
    for function in (encode, encode_reference):
        assert torch.autograd.gradcheck(lambda p, t, f=function: f(p, t, index), (points, table), eps=1e-7, atol=1e-6)


@pytest.mark.parametrize("threads", [2, 4])
def test_bitwise_equal_on_any_number_of_threads(threads, monkeypatch):
    index = build()
    points, table = make(index, 3000)
    monkeypatch.setattr(octree.threads, "parts_for", lambda work: 1)
    expected = gradients(encode, points, table, index)
    monkeypatch.setattr(octree.threads, "parts_for", lambda work: threads)
    assert all(torch.equal(a, b) for a, b in zip(expected, gradients(encode, points, table, index), strict=True))


@BOTH
def test_nothing_is_outside_of_the_cells(function):
    index = build(cells=torch.tensor([[5, 6, 7]]), base=3, levels=1)
    points, table = make(index, 4000)
    (grad,) = torch.autograd.grad(function(points, table, index).sum(), points)
    inside = ((points + 1) * 4).floor().eq(torch.tensor([5.0, 6, 7])).all(1)
    found = function(points, table, index)
    assert 0 < inside.sum() < 50
    assert (found[inside] != 0).all() and (found[~inside] == 0).all()
    assert (grad[inside] != 0).all() and (grad[~inside] == 0).all()


@BOTH
def test_features_are_continuous_across_faces_between_cells(function):
    index = build(cells=torch.tensor([[0, 0, 0], [1, 0, 0]]), base=1, levels=1)
    _, table = make(index, 1, torch.float64)
    near = torch.tensor([[-1e-12, -0.3, -0.6], [1e-12, -0.3, -0.6]], dtype=torch.float64)
    left, right = function(near, table, index)
    torch.testing.assert_close(left, right, rtol=0, atol=1e-10)


@BOTH
def test_borders_and_what_is_beyond(function):
    index = build(graded=True)
    _, table = make(index, 1)
    inside = torch.tensor([[-1.0] * 3, [1.0] * 3, [1.0, -1.0, 0.0]])
    assert (function(inside, table, index)[:, :2] != 0).all()
    beyond = torch.tensor([[1.0 + 1e-6, 0, 0], [0, -1.1, 0], [0, 0, math.inf], [-math.inf, 0, 0], [3e38, 3e38, 3e38]])
    beyond.requires_grad_()
    found = function(beyond, table, index)
    assert (found == 0).all()
    assert (torch.autograd.grad(found.sum(), beyond)[0] == 0).all()


@BOTH
def test_a_nan_coordinate_gives_nan_and_nothing_else(function):
    index = build()
    points, table = make(index, 3)
    points = points.detach()
    points[1, 2] = math.nan
    found = function(points, table, index)
    assert found[1].isnan().all() and found[[0, 2]].isfinite().all()


def test_no_points():
    index = build()
    points, table = make(index, 0)
    out, grad_points, grad_table = gradients(encode, points, table, index)
    assert out.shape == (0, 6) and grad_points.shape == (0, 3) and (grad_table == 0).all()


def test_strided_points_and_gradients():
    index = build()
    points, table = make(index, 64)
    strided = points.detach().t().contiguous().t().requires_grad_()
    weights = torch.randn(6, 64).t()
    expected = torch.autograd.grad(encode(points, table, index), (points, table), weights.contiguous())
    found = torch.autograd.grad(encode(strided, table, index), (strided, table), weights)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_a_second_derivative_is_refused_by_the_compiled_path_and_given_by_the_reference():
    index = build(graded=True)
    points, table = make(index, 10)
    (grad,) = torch.autograd.grad(encode(points, table, index).square().sum(), points, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
    (grad,) = torch.autograd.grad(encode_reference(points, table, index).square().sum(), points, create_graph=True)
    grad.sum().backward()
    assert table.grad is not None and table.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("points", "table", "message"),
    [
        (torch.zeros(4, 2), None, r"points must have shape \(n, 3\)"),
        (torch.zeros(4, 3), torch.zeros(7, 2), "rows belong to its cells"),
        (torch.zeros(4, 3, dtype=torch.float64), None, "same floating dtype"),
        (torch.zeros(4, 3, dtype=torch.int64), None, "same floating dtype"),
        (torch.zeros(4, 3, device="meta"), None, "move them together"),
    ],
)
def test_what_does_not_fit_is_named(points, table, message):
    index = build()
    with pytest.raises(UsageError, match=message):
        encode(points, torch.zeros(index.rows, 2) if table is None else table, index)


@settings(max_examples=40, deadline=None)
@given(
    cells=st.lists(st.tuples(*[st.integers(0, 7)] * 3), min_size=1, max_size=12),
    shape=st.sampled_from([(0, 4), (1, 3), (2, 2), (3, 1)]),
    graded=st.booleans(),
    points=st.lists(st.tuples(*[st.floats(-1.25, 1.25, width=32)] * 3), min_size=1, max_size=12),
    borders=st.lists(st.tuples(*[st.integers(-4, 4)] * 3), max_size=12),
)
def test_any_octree_and_any_points_agree_with_the_reference(cells, shape, graded, points, borders):
    index = build(torch.tensor(cells), *shape, graded)
    _, table = make(index, 1)
    at = torch.tensor(points + [tuple(c / 4 for c in place) for place in borders], dtype=torch.float32)
    torch.testing.assert_close(encode(at, table, index), encode_reference(at, table, index), rtol=1e-4, atol=1e-5)
