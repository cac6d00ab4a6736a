"""Histograms of a run's parameters, and of their gradients in one more step."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, ClassVar

import torch
from torch import Tensor

from treadle.engine.events import Hook
from treadle.engine.loop import Loop
from treadle.errors import RunError

MOST = 500
"""Parameters that are shown, in their order."""
PATIENCE = 1000
"""Steps after which gradients are no longer waited for: none of them was an update."""


def histogram(name: str, values: Tensor, bins: int) -> dict[str, Any]:
    """How the entries of a tensor are distributed, as plain data.

    `counts` are those of `bins` bins of equal width from `low` to `high`, the least and greatest finite entry, which
    are None where there is none; `nan` and `infinite` are the entries in none of them. Of complex numbers the real and
    imaginary parts are counted, of sparse tensors the entries that are there.
    """
    shape = list(values.shape)
    values = values.detach()
    if values.is_sparse:
        values = values.coalesce().values()
    if values.is_complex():
        values = torch.view_as_real(values.resolve_conj())
    flat = values.reshape(-1)
    flat = flat if flat.dtype in (torch.float32, torch.float64) else flat.to(torch.float32)
    finite = torch.isfinite(flat)
    nan = int(torch.isnan(flat).sum())
    found: dict[str, Any] = {
        "name": name,
        "shape": shape,
        "entries": flat.numel(),
        "nan": nan,
        "infinite": flat.numel() - int(finite.sum()) - nan,
        "low": None,
        "high": None,
        "mean": None,
        "std": None,
        "counts": [0] * bins,
    }
    flat = flat if found["entries"] == int(finite.sum()) else flat[finite]
    if flat.numel() == 0:
        return found
    low, high = (float(end) for end in torch.aminmax(flat))
    found |= {"low": low, "high": high, "mean": float(flat.mean()), "std": float(flat.std(correction=0))}
    if low == high:
        found["counts"][bins // 2] = flat.numel()
    else:
        # Scaled first: the width of the range itself may be more than the largest number.
        place = (flat.double() / 2 - low / 2) / (high / 2 - low / 2) * bins
        found["counts"] = torch.bincount(place.long().clamp_(0, bins - 1), minlength=bins).tolist()
    return found


def of_parameters(loop: Loop, bins: int) -> dict[str, Any]:
    """Histograms of the trained parameters as they are; to be called between two steps.

    Where the trainer keeps averages of weights that it is judged by (EMA), those are what a `Call` sees.
    """
    parameters = [(name, p) for name, p in loop.parts.all_parameters().items() if p.requires_grad]
    averaged = any(average.evaluate for average in loop.parts.emas.values())
    return _answer("parameters", loop, parameters, bins) | {"averaged": averaged}


def _answer(of: str, loop: Loop, tensors: Iterable[tuple[str, Tensor]], bins: int) -> dict[str, Any]:
    every = list(tensors)
    shown = [histogram(name, values, bins) for name, values in every[:MOST]]
    return {"of": of, "step": loop.progress.step, "histograms": shown, "left_out": len(every) - len(shown)}


class Gradients(Hook):
    """Listens for one step, and then no more: the gradients of its updates, unscaled and not yet clipped.

    An observer, which is there from `attach` to the end of the step; the run is the same with it or without.

    Attributes:
        found: comes to what the step's gradients are; to a RunError where the run ends before.
    """

    observer: ClassVar[bool] = True
    wants_batches: ClassVar[bool] = False
    order: ClassVar[int] = 1000

    def __init__(self, loop: Loop, bins: int) -> None:
        self._loop, self.bins = loop, bins
        self.found: Future[dict[str, Any]] = Future()
        self.found.set_running_or_notify_cancel()
        self._histograms: dict[str, dict[str, Any]] = {}
        self._left_out = self._steps = 0

    def attach(self) -> None:
        """Listen from now on; to be called between two steps."""
        self._loop.hooks.append(self)
        self._loop.listen()

    def pre_update(self, trainer: Any, optimizer: torch.optim.Optimizer) -> None:
        """Look at the gradients of an optimizer that is about to update."""
        names = {id(p): name for name, p in self._loop.parts.all_parameters().items()}
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                name = names.get(id(p), "?")
                if len(self._histograms) < MOST or name in self._histograms:
                    self._histograms[name] = histogram(name, p.grad, self.bins)
                else:
                    self._left_out += 1

    def post_step(self, trainer: Any, batch: Any, outputs: Any) -> None:
        """Go, where there were gradients."""
        self._steps += 1
        if self._histograms or self._steps == PATIENCE:
            self._go()
            if not self._histograms:
                self.found.set_exception(RunError(f"none of {PATIENCE} steps was an update: there are no gradients"))
                return
            shown = list(self._histograms.values())
            step = self._loop.progress.step
            self.found.set_result(
                {"of": "gradients", "step": step, "histograms": shown, "left_out": self._left_out, "averaged": False}
            )

    def teardown(self, trainer: Any) -> None:
        """The run has ended."""
        self._go()
        if not self.found.done():
            self.found.set_exception(RunError("the run has ended: it takes no step whose gradients could be shown"))

    def _go(self) -> None:
        self._loop.hooks[:] = [hook for hook in self._loop.hooks if hook is not self]
        self._loop.listen()
