"""Volume rendering of packed samples: what a ray sees of a density and of any values along it, and the way back.

On a CPU, in float32 and float64, compiled loops run (`volume_loops`); everywhere else the torch reference does.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from treadle.errors import UsageError
from treadle.kernels import threads
from treadle.kernels.volume_reference import composite_reference, reached_reference

COMPILED_DTYPES = (torch.float32, torch.float64)


class Composite(NamedTuple):
    """What r rays see of m samples, of the samples' dtype.

    Attributes:
        values: (r, C) sums of the samples' values by weight; no background is in them.
        opacity: (r,) sums of the weights, from 0 to 1.
        distance: (r,) means of the distances by weight; 0 where nothing is seen.
        weights: (m,) how much each sample is seen; 0 where too little light is left.
        distortion: (r,) how far the weights of a ray are spread, in units of distance: the loss of mip-NeRF 360 (Barron
            et al. 2022, https://arxiv.org/abs/2111.12077, equation 15), in one pass over the samples.
    """

    values: Tensor
    opacity: Tensor
    distance: Tensor
    weights: Tensor
    distortion: Tensor


def composite(
    density: Tensor, values: Tensor, distances: Tensor, deltas: Tensor, starts: Tensor, *, stop: float = 1e-4
) -> Composite:
    """Blend the samples of each ray, front to back, as emission and absorption do (Max 1995; Mildenhall et al. 2020).

    A sample of density sigma over a length delta hides 1 - exp(-sigma delta) of what is behind it; its weight is that
    times the light that the samples before it let through. Sums run within each ray, in double precision, whatever the
    number of threads. Differentiable once with respect to `density` and `values`, through all results.

    Args:
        density: (m,) per unit length, not negative.
        values: (m, C) anything that is to be seen; C may be 0.
        distances: (m,) along the ray, not falling within a ray; without gradient.
        deltas: (m,) the length that each sample stands for; without gradient.
        starts: (r + 1,) int64: the samples of ray k are `starts[k]:starts[k + 1]`.
        stop: samples before which less light than this is left count nothing, and get no gradient.

    Raises:
        UsageError: shapes, dtypes or devices that do not fit each other.
    """
    _check(density, values, distances, deltas, starts)
    distances, deltas = distances.detach(), deltas.detach()
    if density.device.type == "cpu" and density.dtype in COMPILED_DTYPES:
        sums, totals, weights = _Composite.apply(density, values, distances, deltas, starts, stop)
        opacity, distance, distortion = totals.unbind(1)
        return Composite(sums, opacity, distance, weights, distortion)
    return Composite(*composite_reference(density, values, distances, deltas, starts, stop))


@torch.no_grad()
def reached(density: Tensor, deltas: Tensor, starts: Tensor, *, stop: float = 1e-4) -> Tensor:
    """(m,) bool: before which samples at least `stop` of the light is left, those that count in `composite`."""
    _check(density, density[:, None], deltas, deltas, starts)
    if density.device.type == "cpu" and density.dtype in COMPILED_DTYPES:
        found = torch.empty(len(density), dtype=torch.bool)
        inputs = [_array(tensor) for tensor in (density, deltas, starts)]
        threads.spread(_loops().reach, _parts(len(density), len(starts) - 1), *inputs, float(stop), found.numpy())
        return found
    return reached_reference(density, deltas, starts, stop)


def _check(density: Tensor, values: Tensor, distances: Tensor, deltas: Tensor, starts: Tensor) -> None:
    count = len(density)
    if density.dim() != 1 or values.dim() != 2 or len(values) != count:
        raise UsageError(f"composite: expected density (m,) and values (m, C), got {tuple(density.shape)} and "
                         f"{tuple(values.shape)}")  # fmt: skip
    for name, other in (("values", values), ("distances", distances), ("deltas", deltas)):
        if other.dtype != density.dtype or other.device != density.device:
            raise UsageError(f"composite: {name} are {other.dtype} on {other.device}, the density {density.dtype} on "
                             f"{density.device}: they must be alike")  # fmt: skip
        if name != "values" and other.shape != density.shape:
            raise UsageError(f"composite: expected {name} ({count},), got {tuple(other.shape)}")
    if starts.dim() != 1 or starts.dtype != torch.int64 or len(starts) == 0 or starts.device != density.device:
        raise UsageError(f"composite: expected starts (r + 1,) int64 on {density.device}, got {tuple(starts.shape)} "
                         f"{starts.dtype} on {starts.device}")  # fmt: skip
    if int(starts[0]) != 0 or int(starts[-1]) != count or bool((starts.diff() < 0).any()):
        raise UsageError(f"composite: starts must rise from 0 to the number of samples, {count}")


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, density: Tensor, values: Tensor, distances: Tensor, deltas: Tensor, starts: Tensor, stop: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        count, rays, channels = len(density), len(starts) - 1, values.shape[1]
        weights, left = torch.empty_like(density), torch.empty_like(density)
        sums, totals = density.new_empty(rays, channels), density.new_empty(rays, 3)
        inputs = [_array(tensor) for tensor in (density, values, distances, deltas, starts)]
        outputs = [tensor.numpy() for tensor in (weights, left, sums, totals)]
        threads.spread(_loops().forward, _parts(count, rays), *inputs, float(stop), *outputs)
        ctx.save_for_backward(values, distances, deltas, starts, weights, left)
        return sums, totals, weights

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, by_sums: Tensor, by_totals: Tensor, by_weights: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        values, distances, deltas, starts, weights, left = ctx.saved_tensors
        by_density = torch.empty_like(weights)
        by_values = torch.empty_like(values) if ctx.needs_input_grad[1] else values.new_empty(0, values.shape[1])
        inputs = [_array(tensor) for tensor in (values, distances, deltas, starts, weights, left)]
        slopes = [_array(tensor) for tensor in (by_sums, by_totals, by_weights)]
        threads.spread(_loops().backward, _parts(len(weights), len(starts) - 1), *inputs, *slopes, by_density.numpy(),
                       by_values.numpy())  # fmt: skip
        wanted = by_values if ctx.needs_input_grad[1] else None
        return by_density, wanted, None, None, None, None


def _parts(samples: int, rays: int) -> int:
    """Handing a part over costs as much as some thousand samples, more where others want the cores too."""
    return max(1, min(threads.parts_for(-(-samples // 16_384)), rays))


def _array(tensor: Tensor) -> Any:
    return tensor.detach().contiguous().numpy()


@lru_cache
def _loops() -> Any:
    """Compiled at the first call, and kept on disk: importing this module costs nothing."""
    from treadle.kernels import volume_loops

    return volume_loops
