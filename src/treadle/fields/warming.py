"""Compiling what a training needs before its first step, so that the wait can be shown for what it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import nn

from treadle.terminal import say

PATIENCE = 1.5
"""Seconds after which it is said that something is compiled; loading what was compiled before takes less."""


def compile_now(stages: Mapping[str, Callable[[], object]]) -> None:
    """Do one thing after the other, each of which makes some loops be compiled or loaded; says so where it takes long.

    Args:
        stages: what is compiled, and what to call for it.
    """
    began = time.perf_counter()
    for done, (what, work) in enumerate(stages.items(), 1):
        if time.perf_counter() - began > PATIENCE:
            say(f"treadle: compiling the kernels, once for this machine: {what} ({done} of {len(stages)})")
        work()


def ask_once(field: nn.Module, *points: torch.Tensor) -> None:
    """Evaluate a field and differentiate it, and change nothing: neither weights nor their gradients.

    Args:
        field: gives a tensor, or a mapping of some.
        points: what it is called with.
    """
    parameters = [parameter for parameter in field.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        found = field(*points)
        values = list(found.values()) if isinstance(found, Mapping) else [found]
        total = torch.stack([value.float().sum() for value in values]).sum()
        if total.requires_grad and parameters:
            torch.autograd.grad(total, parameters, allow_unused=True)
