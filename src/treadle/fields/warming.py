"""Compiling what a training needs before its first step, so that the wait can be shown for what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from treadle.terminal import tell_when_slow


def compile_now(stages: Mapping[str, Callable[[], object]]) -> None:
    """Do one thing after the other, each of which makes some loops be compiled or loaded; says so where it takes long.

    Args:
        stages: what is compiled, and what to call for it.
    """
    tell = tell_when_slow("compiling the kernels, once for this machine")
    for done, (what, work) in enumerate(stages.items()):
        tell(done, len(stages), what)
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
