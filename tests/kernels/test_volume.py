"""Packed volume rendering: closed forms, its float64 reference, and every gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from treadle.errors import UsageError
from treadle.kernels.volume import composite, reached
from treadle.kernels.volume_reference import composite_reference, reached_reference

F64 = torch.float64


def some_samples(
    counts: list[int], channels: int = 4, thick: float = 6.0, dtype: torch.dtype = F64
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Density, values, distances, deltas and starts: of rays without samples, with one, and with light left or not."""
    generator = torch.Generator().manual_seed(0)
    starts = torch.tensor([0, *counts]).cumsum(0)
    m = int(starts[-1])
    deltas = 0.5 * torch.rand(m, generator=generator, dtype=F64) + 0.01
    distances = torch.cat([part.cumsum(0) for part in deltas.split(counts)])
    density, values = thick * torch.rand(m, generator=generator, dtype=F64), torch.randn(m, channels, dtype=F64)
    return density.to(dtype), values.to(dtype), distances.to(dtype), deltas.to(dtype), starts


NAMES = ("values", "opacity", "distance", "weights", "distortion")
COUNTS = [0, 5, 0, 1, 60, 7, 0]


@pytest.mark.parametrize("channels", [0, 1, 4, 17])
def test_all_results_and_their_gradients_are_the_references(channels: int) -> None:
    density, values, *rest, starts = some_samples(COUNTS, channels)
    leaves = density.requires_grad_(), values.requires_grad_()
    found = composite(*leaves, *rest, starts)
    wanted = composite_reference(*leaves, *rest, starts, 1e-4)
    generator = torch.Generator().manual_seed(1)
    for name, ours, theirs in zip(NAMES, found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-13, rtol=0, msg=lambda m, name=name: f"{name}: {m}")
        slope = torch.randn(ours.shape, generator=generator, dtype=F64)
        pairs = [
            torch.autograd.grad(x, leaves, slope, retain_graph=True, allow_unused=True, materialize_grads=True)
            for x in (ours, theirs)
        ]
        for a, b in zip(*pairs, strict=True):
            torch.testing.assert_close(a, b, atol=1e-13, rtol=0, msg=lambda m, name=name: f"gradient of {name}: {m}")


def test_gradcheck() -> None:
    density, values, *rest, starts = some_samples([3, 0, 6], 2, 2.0)

    def all_of_it(density: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        return tuple(composite(density, values, *rest, starts))

    assert torch.autograd.gradcheck(all_of_it, (density.requires_grad_(), values.requires_grad_()))


def test_constant_density_has_a_closed_form() -> None:
    """Through length L of density s: opacity 1 - exp(-s L), and what is seen lies 1/s - L / (exp(s L) - 1) within."""
    n, length, sigma = 4000, 1.5, 2.0
    deltas = torch.full((n,), length / n, dtype=F64)
    distances = 3 + (torch.arange(n) + 0.5) * length / n
    found = composite(torch.full((n,), sigma, dtype=F64), torch.ones(n, 2, dtype=F64) * torch.tensor([0.25, 1.0]),
                      distances.to(F64), deltas, torch.tensor([0, n]), stop=0)  # fmt: skip
    opacity = 1 - math.exp(-sigma * length)
    assert found.opacity.item() == pytest.approx(opacity, abs=1e-12)
    assert found.values[0].tolist() == pytest.approx([0.25 * opacity, opacity], abs=1e-12)
    depth = 3 + 1 / sigma - length / (math.exp(sigma * length) - 1)
    assert found.distance.item() == pytest.approx(depth, abs=1e-6)


def test_the_distortion_is_that_of_its_definition() -> None:
    """All pairs of intervals, as integrals (Barron et al. 2022): twice the weights over their mean distance."""
    density, values, distances, deltas, starts = some_samples([9], 1, 3.0)
    found = composite(density, values, distances, deltas, starts, stop=0)
    w = found.weights
    wanted = sum(w[i] * w[j] * abs(distances[i] - distances[j]) for i in range(9) for j in range(9))
    wanted += (w * w * deltas).sum() / 3
    assert found.distortion.item() == pytest.approx(float(wanted), abs=1e-13)


def test_what_no_light_reaches_counts_nothing_and_gets_no_gradient() -> None:
    density = torch.full((10,), 5.0, dtype=F64, requires_grad=True)
    values = torch.ones(10, 1, dtype=F64, requires_grad=True)
    ones, starts = torch.ones(10, dtype=F64), torch.tensor([0, 10])
    found = composite(density, values, ones.cumsum(0), ones, starts, stop=1e-4)
    by_density, by_values = torch.autograd.grad(found.values.sum() + found.distance.sum(), (density, values))
    seen = torch.tensor([math.exp(-5.0 * i) >= 1e-4 for i in range(10)])
    assert seen.sum() == 2 and torch.equal(found.weights > 0, seen)
    assert torch.equal(by_density != 0, seen) and torch.equal(by_values[:, 0] != 0, seen)
    assert torch.equal(reached(density.detach(), ones, starts), seen)


def test_what_is_reached_is_what_counts() -> None:
    density, values, distances, deltas, starts = some_samples(COUNTS)
    found = reached(density, deltas, starts, stop=1e-2)
    assert torch.equal(found, reached_reference(density, deltas, starts, 1e-2))
    assert torch.equal(found, composite(density, values, distances, deltas, starts, stop=1e-2).weights > 0)
    assert 0.1 < found.double().mean() < 0.9


def test_single_precision_sums_in_double() -> None:
    """Ten thousand thin samples: one running sum in float32 over all rays would be off by a hundred times this."""
    counts = [10_000] * 20
    exact = some_samples(counts, 3, 1e-3)
    rough = [x.float() if x.is_floating_point() else x for x in exact]
    for a, b in zip(composite(*rough), composite(*[x.double() for x in rough[:4]], exact[4]), strict=True):  # type: ignore[arg-type]
        torch.testing.assert_close(a.double(), b, atol=1e-7, rtol=3e-7)


def test_threads_change_nothing() -> None:
    *inputs, starts = some_samples([40, 0, 3000, 1, 900, 77] * 30, dtype=torch.float32)
    leaves = [x.requires_grad_() for x in inputs[:2]]
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found = composite(*leaves, *inputs[2:], starts)  # type: ignore[call-arg]
            slopes = torch.autograd.grad(found.values.sum() + found.distortion.sum() + found.distance.sum(), leaves)
            results.append([*found, *slopes, reached(inputs[0].detach(), inputs[3], starts)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_rays_without_samples_see_nothing() -> None:
    nothing = torch.zeros(0)
    for rays in (0, 3):
        found = composite(nothing, torch.zeros(0, 3), nothing, nothing, torch.zeros(rays + 1, dtype=torch.int64))
        assert found.values.shape == (rays, 3) and not found.values.any()
        assert not found.opacity.any() and not found.distance.any() and len(found.weights) == 0


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        (0, torch.ones(6, 1), r"density \(m,\)"),
        (1, torch.ones(6), r"values \(m, C\)"),
        (1, torch.ones(5, 3), r"values \(m, C\)"),
        (1, torch.ones(6, 3, dtype=F64), "values are torch.float64"),
        (2, torch.ones(5), r"distances \(6,\)"),
        (3, torch.ones(6, dtype=F64), "deltas are torch.float64"),
        (4, torch.tensor([0, 6], dtype=torch.int32), "int32"),
        (4, torch.tensor([0, 5]), "rise from 0 to the number of samples, 6"),
        (4, torch.tensor([0, 7, 6]), "rise from 0"),
        (4, torch.tensor([1, 6]), "rise from 0"),
        (4, torch.zeros(0, dtype=torch.int64), r"starts \(r \+ 1,\)"),
    ],
)
def test_what_does_not_fit_is_refused(place: int, value: Tensor, complaint: str) -> None:
    given = [torch.ones(6), torch.ones(6, 3), torch.ones(6), torch.ones(6), torch.tensor([0, 2, 6])]
    composite(*given)
    given[place] = value
    with pytest.raises(UsageError, match=complaint):
        composite(*given)
