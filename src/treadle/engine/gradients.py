"""Gradients of every kind, dense and sparse, real and complex: as plain memory, clipped, named where they are bad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def entries(gradients: Sequence[Tensor], *, complex_too: bool) -> list[Tensor]:
    """The memory of gradients as real numbers, to be changed in place: of sparse ones, their values.

    Whoever knows that none is complex saves the time to look.
    """
    values = [g._values() if g.is_sparse else g for g in gradients]
    return [torch.view_as_real(v) if v.is_complex() else v for v in values] if complex_too else values


def resolve(parameters: Sequence[Tensor]) -> None:
    """Carry out conjugations and negations of gradients that autograd has put off: their memory is read."""
    for p in parameters:
        if p.grad is not None and not p.grad.is_sparse and (p.grad.is_conj() or p.grad.is_neg()):
            p.grad = p.grad.resolve_conj().resolve_neg()


def clip(
    parameters: Sequence[Tensor], norm: float | None, value: float | None, *, complex_too: bool
) -> dict[str, Tensor]:
    """Clip the gradients by value, then by their common norm; returns the norm before and after.

    A row of a sparse gradient that comes twice counts as the sum of both; of a complex number the real and the
    imaginary part are clipped by value each, and its absolute value counts in the norm.
    """
    for p in parameters:
        if p.grad is not None and p.grad.is_sparse:
            p.grad = p.grad.coalesce()
    flat = entries([p.grad for p in parameters if p.grad is not None], complex_too=complex_too)
    if not flat:  # all are frozen
        return {}
    before = after = torch.nn.utils.get_total_norm(flat)
    if value is not None:
        torch._foreach_clamp_min_(flat, -value)
        torch._foreach_clamp_max_(flat, value)
        after = torch.nn.utils.get_total_norm(flat)
    if norm is not None:
        factor = torch.clamp(norm / (after + 1e-6), max=1.0)
        torch._foreach_mul_(flat, factor.to(flat[0].device))
        after = after * factor
    return {"grad_norm": before, "grad_norm_clipped": after}


def name_bad(optimizer: torch.optim.Optimizer, name: str) -> str:
    """What is NaN or Inf: "the gradient of parameter 1 of group 'head', shape (3, 2) ('optimizer') is NaN"."""
    for group_index, group in enumerate(optimizer.param_groups):
        for index, p in enumerate(group["params"]):
            if p.grad is None:
                continue
            gradient = p.grad._values() if p.grad.is_sparse else p.grad
            if not bool(torch.isfinite(gradient).all()):
                kind = "NaN" if bool(torch.isnan(gradient).any()) else "Inf"
                where = f"parameter {index} of group {group.get('name', group_index)!r}, shape {tuple(p.shape)}"
                return f"the gradient of {where} ({name!r}) is {kind}"
    return f"a gradient of {name!r} is NaN or Inf"


def as_data(gradient: Tensor | None) -> Any:
    """A gradient as a checkpoint takes it: a sparse one in its parts, entry for entry."""
    if gradient is None or not gradient.is_sparse:
        return gradient if gradient is None else gradient.resolve_conj().resolve_neg()
    return {
        "indices": gradient._indices(),
        "values": gradient._values(),
        "shape": list(gradient.shape),
        "coalesced": gradient.is_coalesced(),
    }


def from_data(data: Any, device: torch.device) -> Tensor | None:
    """The gradient that `as_data` gave, as memory of its own."""
    if isinstance(data, dict):
        indices, values = (data[name].to(device, copy=True) for name in ("indices", "values"))
        return torch.sparse_coo_tensor(
            indices, values, data["shape"], is_coalesced=data["coalesced"], check_invariants=False
        )
    return None if data is None else data.to(device, copy=True)
