from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.errors import UsageError
from treadle.kernels import hashgrid
from treadle.kernels.hashgrid import decode, decode_reference, encode
from treadle.kernels.hashgrid_reference import encode_reference
from treadle.kernels.layout import BLOCK, GridLayout

# Dense and hashed levels in both; few signatures keep the compile time of the suite down.
SMALL = {
    2: GridLayout(2, levels=4, features=2, log2_size=8, n_min=4, n_max=40),
    3: GridLayout(3, levels=4, features=2, log2_size=8, n_min=3, n_max=20),
}
BOTH = pytest.mark.parametrize("dimensions", [2, 3])


def make(layout, count, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, layout.dimensions, generator=generator, dtype=dtype) * 2 - 1
    table = torch.randn(layout.rows, layout.features, generator=generator, dtype=dtype)
    return points.requires_grad_(), table.requires_grad_()


def gradients(function, points, table, layout):
    out = function(points, table, layout)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5), dtype=out.dtype)
    return (out.detach(), *torch.autograd.grad(out, (points, table), weights))


def by_hand(point, table, layout):
    """One point in plain Python, written from the definition and independent of both implementations."""
    values = []
    for level, n in enumerate(layout.resolutions):
        u = [min(max((n - 1) * (x + 1) / 2, 0.0), n - 1.0) for x in point]
        c = [min(math.floor(v), n - 2) for v in u]
        sums = [0.0] * layout.features
        for corner in range(2**layout.dimensions):
            bits = [(corner >> axis) & 1 for axis in range(layout.dimensions)]
            vertex = [a + b for a, b in zip(c, bits, strict=True)]
            if n**layout.dimensions <= 2**layout.log2_size:
                row = sum(v * n**axis for axis, v in enumerate(vertex))
            else:
                row = 0
                for v, prime in zip(vertex, (1, 2654435761, 805459861), strict=False):
                    row ^= v * prime
                row %= 2**layout.log2_size
            share = math.prod(v - a if b else 1 - (v - a) for v, a, b in zip(u, c, bits, strict=True))
            for f in range(layout.features):
                sums[f] += share * table[layout.offsets[level] + row, f].item()
        values += sums
    return values


@BOTH
@pytest.mark.parametrize("function", [encode, encode_reference])
def test_both_paths_follow_the_definition(dimensions, function):
    layout = SMALL[dimensions]
    points, table = make(layout, 20, torch.float64)
    expected = torch.tensor([by_hand(point.tolist(), table, layout) for point in points], dtype=torch.float64)
    torch.testing.assert_close(function(points, table, layout), expected, rtol=0, atol=1e-12)


@BOTH
def test_values_and_gradients_equal_the_reference_in_float32(dimensions):
    layout = GridLayout(dimensions, levels=16, features=2, log2_size=12, n_min=16, n_max=512)
    points, table = make(layout, 1500)
    ours, theirs = (gradients(function, points, table, layout) for function in (encode, encode_reference))
    for name, a, b in zip(("values", "points", "table"), ours, theirs, strict=True):
        scale = b.abs().max().item()
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * scale, msg=lambda m, name=name: f"{name}: {m}")


@BOTH
def test_values_and_gradients_equal_the_reference_in_float64(dimensions):
    layout = SMALL[dimensions]
    points, table = make(layout, 300, torch.float64)
    ours, theirs = (gradients(function, points, table, layout) for function in (encode, encode_reference))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@BOTH
def test_gradients_equal_finite_differences_in_float64(dimensions):
    layout = GridLayout(dimensions, levels=2, features=2, log2_size=4, n_min=3, n_max=7)
    points, table = make(layout, 6, torch.float64)
    assert torch.autograd.gradcheck(lambda p, t: encode(p, t, layout), (points, table), eps=1e-6, atol=1e-7)
    assert torch.autograd.gradcheck(lambda p, t: encode_reference(p, t, layout), (points, table), eps=1e-6, atol=1e-7)


@BOTH
def test_bitwise_equal_in_any_number_of_parts(dimensions, monkeypatch):
    layout = GridLayout(dimensions, levels=5, features=2, log2_size=10, n_min=8, n_max=64)
    points, table = make(layout, 5000)
    expected = gradients(encode, points, table, layout)
    for parts in (1, 2, 3, 5):
        monkeypatch.setattr(hashgrid.threads, "parts_for", lambda work, parts=parts: parts)
        found = gradients(encode, points, table, layout)
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True)), parts


@BOTH
def test_bitwise_equal_on_one_and_two_threads(dimensions):
    layout = GridLayout(dimensions, levels=5, features=2, log2_size=10, n_min=8, n_max=64)
    points, table = make(layout, 5000)
    before = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(gradients(encode, points, table, layout))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("features", [4])
def test_other_row_widths(features):
    layout = GridLayout(2, levels=3, features=features, log2_size=6, n_min=4, n_max=20)
    points, table = make(layout, 100)
    ours, theirs = (gradients(function, points, table, layout) for function in (encode, encode_reference))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@BOTH
def test_every_level_receives_gradient(dimensions):
    layout = GridLayout(dimensions, levels=16, features=2, log2_size=10, n_min=4, n_max=256)
    points, table = make(layout, 200)
    (gradient,) = torch.autograd.grad(encode(points, table, layout).sum(), table)
    for level, (offset, size) in enumerate(zip(layout.offsets, layout.sizes, strict=True)):
        # The shares of a point add up to one, so a level receives exactly one unit per point and feature.
        torch.testing.assert_close(gradient[offset : offset + size].sum().item(), 400.0, rtol=1e-4, atol=0)
        assert gradient[offset : offset + size].abs().max() > 0, level


@BOTH
@pytest.mark.parametrize("n_max", [40, 2048])
def test_the_border_and_points_beyond_it_read_the_outermost_vertices(dimensions, n_max):
    layout = GridLayout(dimensions, levels=4, features=2, log2_size=8, n_min=4, n_max=n_max)
    _, table = make(layout, 1)
    values = [-1.0, 1.0, -1.0 - 1e-6, 1.0 + 1e-6, -7.0, 7.0, 3e38, math.inf, -math.inf]
    points = torch.tensor([[value] * dimensions for value in values])
    out = encode(points, table, layout)
    assert out.isfinite().all()
    for below, index in ((-1.0, 0), (1.0, 1)):
        for other, value in enumerate(values):
            if math.copysign(1, value) == below:
                torch.testing.assert_close(out[other], out[index], rtol=0, atol=1e-5)
    finite = points[:6].clone().requires_grad_()
    torch.testing.assert_close(out[:6], encode_reference(finite, table, layout), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(encode(finite, table, layout).sum(), finite)
    assert (gradient[4:] == 0).all()


@BOTH
def test_no_level_reads_the_rows_of_another(dimensions):
    layout = GridLayout(dimensions, levels=2, features=2, log2_size=16, n_min=4, n_max=6)
    _, table = make(layout, 1)
    table = table.detach()
    table[layout.offsets[1] :] = math.nan
    points = torch.tensor([[1.0] * dimensions, [-1.0] * dimensions, [0.3] * dimensions])
    assert encode(points, table, layout)[:, :2].isfinite().all()
    assert encode(points, table, layout)[:, 2:].isnan().all()


def test_the_upper_border_is_the_last_vertex():
    layout = GridLayout(2, levels=1, features=1, log2_size=8, n_min=5, n_max=5)
    table = torch.arange(25.0)[:, None]
    assert encode(torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]]), table, layout).flatten().tolist() == [24, 0, 4]


@BOTH
def test_a_nan_coordinate_gives_nan_and_nothing_else(dimensions):
    layout = SMALL[dimensions]
    points, table = make(layout, 3)
    points = points.detach()
    points[1, 0] = math.nan
    for function in (encode, encode_reference):
        out = function(points, table, layout)
        assert out[1].isnan().all()
        assert out[[0, 2]].isfinite().all()


@BOTH
def test_no_points(dimensions):
    layout = SMALL[dimensions]
    points, table = make(layout, 0)
    out, grad_points, grad_table = gradients(encode, points, table, layout)
    assert out.shape == (0, layout.width)
    assert grad_points.shape == (0, dimensions)
    assert (grad_table == 0).all()


def test_strided_points_table_and_gradient():
    layout = SMALL[2]
    points, table = make(layout, 64)
    wide = torch.zeros(64, 4)
    wide[:, ::2] = points.detach()
    strided = wide[:, ::2].requires_grad_()
    columns = torch.empty(layout.features, layout.rows).copy_(table.detach().T).T.requires_grad_()
    assert not strided.is_contiguous() and not columns.is_contiguous()
    weights = torch.randn(layout.width, 64).T
    expected = torch.autograd.grad(encode(points, table, layout), (points, table), weights.contiguous())
    found = torch.autograd.grad(encode(strided, columns, layout), (strided, columns), weights)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_only_the_gradients_asked_for_are_computed():
    points, table = make(SMALL[2], 10)
    (grad,) = torch.autograd.grad(encode(points.detach(), table, SMALL[2]).sum(), table)
    assert grad.shape == table.shape
    (grad,) = torch.autograd.grad(encode(points, table.detach(), SMALL[2]).sum(), points)
    assert grad.shape == points.shape
    assert not encode(points.detach(), table.detach(), SMALL[2]).requires_grad


def test_a_second_derivative_is_refused_by_the_compiled_path_and_given_by_the_reference():
    points, table = make(SMALL[2], 10)
    (grad,) = torch.autograd.grad(encode(points, table, SMALL[2]).square().sum(), points, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
    (grad,) = torch.autograd.grad(encode_reference(points, table, SMALL[2]).square().sum(), points, create_graph=True)
    grad.sum().backward()
    assert table.grad is not None


def test_other_dtypes_take_the_reference(monkeypatch):
    points, table = make(SMALL[2], 10)
    points, table = points.detach().bfloat16(), table.detach().bfloat16()
    called = []
    monkeypatch.setattr(hashgrid, "encode_reference", lambda *a: called.append(a) or encode_reference(*a))
    assert encode(points, table, SMALL[2]).dtype == torch.bfloat16
    assert called


@pytest.mark.parametrize(
    ("points", "table", "message"),
    [
        (torch.zeros(4, 3), None, r"points must have shape \(n, 2\)"),
        (torch.zeros(4), None, r"points must have shape \(n, 2\)"),
        (torch.zeros(4, 2), torch.zeros(7, 2), "needs a table of shape"),
        (torch.zeros(4, 2, dtype=torch.int64), None, "same floating dtype"),
        (torch.zeros(4, 2, dtype=torch.float64), None, "same floating dtype"),
        (torch.zeros(4, 2, device="meta"), None, "move one of them"),
    ],
)
def test_what_does_not_fit_is_named(points, table, message):
    layout = SMALL[2]
    with pytest.raises(UsageError, match=message):
        encode(points, torch.zeros(layout.rows, 2) if table is None else table, layout)


@settings(max_examples=30, deadline=None)
@given(
    points=st.lists(st.tuples(*[st.floats(-1.5, 1.5, width=32)] * 2), min_size=1, max_size=40),
    levels=st.integers(1, 6),
    log2_size=st.integers(2, 12),
    n_min=st.integers(2, 20),
    extra=st.integers(0, 3000),
)
def test_any_grid_and_any_points_agree_with_the_reference(points, levels, log2_size, n_min, extra):
    layout = GridLayout(2, levels, 2, log2_size, n_min, n_min + extra)
    generator = torch.Generator().manual_seed(levels)
    table = torch.randn(layout.rows, 2, generator=generator)
    at = torch.tensor(points, dtype=torch.float32)
    torch.testing.assert_close(encode(at, table, layout), encode_reference(at, table, layout), rtol=1e-4, atol=1e-4)


def field(layout, count, widths=(8, 6, 3), dtype=torch.float64, levels=None):
    """Points, table, weights and biases of a perceptron over the grid."""
    points, table = make(layout, count, dtype)
    generator = torch.Generator().manual_seed(7)
    used = (layout.levels if levels is None else levels) * layout.features
    widths = (used, *widths[1:])
    weights = [torch.randn(b, a, generator=generator, dtype=dtype).requires_grad_() for a, b in pairwise(widths)]
    biases = [torch.randn(b, generator=generator, dtype=dtype).requires_grad_() for b in widths[1:]]
    return points, table, weights, biases


def field_gradients(function, layout, points, table, weights, biases):
    out = function(points, table, layout, weights, biases)
    slope = torch.randn(out.shape, generator=torch.Generator().manual_seed(5), dtype=out.dtype)
    return (out.detach(), *torch.autograd.grad(out, (points, table, *weights, *biases), slope, allow_unused=True))


@BOTH
@pytest.mark.parametrize("count", [0, 1, BLOCK + 1, 1200])
def test_a_field_and_all_its_gradients_equal_the_reference(dimensions, count):
    case = field(SMALL[dimensions], count)
    ours, theirs = (field_gradients(function, SMALL[dimensions], *case) for function in (decode, decode_reference))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@BOTH
def test_a_field_in_float32(dimensions):
    layout = GridLayout(dimensions, levels=16, features=2, log2_size=12, n_min=16, n_max=256)
    case = field(layout, 9000, (32, 64, 64, 3), torch.float32)
    ours, theirs = (field_gradients(function, layout, *case) for function in (decode, decode_reference))
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm()


@BOTH
def test_gradients_of_a_field_equal_finite_differences(dimensions):
    layout = GridLayout(dimensions, levels=2, features=2, log2_size=4, n_min=3, n_max=7)
    points, table, weights, biases = field(layout, 5, (4, 6, 2))
    layers = len(weights)
    assert torch.autograd.gradcheck(
        lambda p, t, *rest: decode(p, t, layout, rest[:layers], rest[layers:]), (points, table, *weights, *biases),
        eps=1e-6, atol=1e-6,
    )  # fmt: skip


@BOTH
def test_a_field_is_bitwise_equal_in_any_number_of_parts(dimensions, monkeypatch):
    layout = SMALL[dimensions]
    case = field(layout, 130 * BLOCK + 9, (8, 20, 3), torch.float32)
    expected = field_gradients(decode, layout, *case)
    with torch.no_grad():
        assert torch.equal(decode(case[0], case[1], layout, *case[2:]), expected[0])
    for parts in (1, 2, 3, 4):
        monkeypatch.setattr(hashgrid.threads, "parts_for", lambda work, parts=parts: min(parts, work))
        found = field_gradients(decode, layout, *case)
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True)), parts
        with torch.no_grad():
            assert torch.equal(decode(case[0], case[1], layout, *case[2:]), expected[0])


@BOTH
@pytest.mark.parametrize("levels", [1, 3])
def test_finer_levels_that_do_not_count_are_neither_read_nor_taught(dimensions, levels):
    layout = SMALL[dimensions]
    points, table, weights, biases = field(layout, 200, levels=levels)
    whole = torch.zeros(weights[0].shape[0], layout.width, dtype=weights[0].dtype)
    whole[:, : levels * layout.features] = weights[0].detach()
    poisoned = table.detach().clone()
    poisoned[layout.offsets[levels] :] = math.nan
    poisoned.requires_grad_()
    out = decode(points, poisoned, layout, weights, biases)
    expected = decode_reference(points, table, layout, [whole, *weights[1:]], biases)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    (grad,) = torch.autograd.grad(out.sum(), poisoned)
    assert (grad[layout.offsets[levels] :] == 0).all() and (grad[: layout.offsets[levels]] != 0).any()

    features = encode(points, poisoned, layout, levels)
    torch.testing.assert_close(features, encode_reference(points, poisoned, layout, levels), rtol=0, atol=1e-12)
    assert features.shape == (200, layout.width) and (features[:, levels * layout.features :] == 0).all()
    grads = torch.autograd.grad(features.sum(), (points, poisoned))
    assert grads[0].isfinite().all() and (grads[1][layout.offsets[levels] :] == 0).all()


def test_only_the_gradients_of_a_field_that_are_asked_for():
    points, table, weights, biases = field(SMALL[2], 100)
    expected = torch.autograd.grad(decode(points, table, SMALL[2], weights, biases).sum(), weights[1])
    fixed = [weights[0].detach(), weights[1]]
    found = torch.autograd.grad(
        decode(points.detach(), table.detach(), SMALL[2], fixed, [bias.detach() for bias in biases]).sum(), weights[1]
    )
    assert torch.equal(expected[0], found[0])
    with pytest.raises(UsageError, match="first layer takes 7 values"):
        decode(points, table, SMALL[2], [torch.zeros(3, 7, dtype=torch.float64)], biases[:1])


def test_under_autocast_layers_take_its_dtype():
    points, table, weights, biases = field(SMALL[2], 10, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert decode(points, table, SMALL[2], weights, biases).dtype == torch.bfloat16


@BOTH
def test_cells_as_0_1_0_had_them(dimensions):
    """A whole cell less within the box: the outermost 1/N of each axis is flat."""
    new = GridLayout(dimensions, levels=1, features=2, log2_size=12, n_min=8, n_max=8)
    old = GridLayout(dimensions, levels=1, features=2, log2_size=12, n_min=8, n_max=8, flat_border=True)
    _, table = make(new, 1, torch.float64)
    points = torch.rand(50, dimensions, dtype=torch.float64) * 1.75 - 1  # to 1 - 2 / 8: where it is not yet flat
    scaled = (points + 1) * 8 / 7 - 1
    for function in (encode, encode_reference):
        torch.testing.assert_close(function(points, table, old), function(scaled, table, new), rtol=0, atol=1e-12)
        corner = torch.full((1, dimensions), 1.0, dtype=torch.float64)
        torch.testing.assert_close(function(corner * 0.76, table, old), function(corner, table, new))
