"""Adam for large tables: by as many threads as compiled kernels have, which do not wait for work by spinning.

Inside `threads.left_to_kernels` torch's own operators take one thread, and its Adam of a table of a million numbers
takes a fifth of the step around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from treadle.kernels import threads
from treadle.kernels.mlp import flat

ALONE = 16384
"""Numbers of a parameter up to which one thread updates them."""


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, with its arguments and its state, and another kernel for dense float32 parameters on a CPU.

    Every number is updated by torch's formula (Kingma and Ba 2015), up to the rounding of single operations; on any
    number of threads results are bitwise equal. Parameters elsewhere or otherwise, and settings beside rate, betas and
    eps, take torch's own step.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient."""
        if closure is not None or not all(_plain(group) for group in self.param_groups):
            return super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return None

    def _update(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        from treadle.kernels import adam_loops

        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = (
                torch.zeros_like(parameter, memory_format=torch.preserve_format) for _ in range(2)
            )
        state["step"] += 1
        count = state["step"].item()
        beta1, beta2 = group["betas"]
        numbers = (group["lr"] / (1 - beta1**count), beta1, beta2, (1 - beta2**count) ** 0.5, group["eps"])
        threads.spread(
            adam_loops.update,
            threads.parts_for(-(-parameter.numel() // ALONE)),
            *(flat(tensor) for tensor in (parameter, grad, state["exp_avg"], state["exp_avg_sq"])),
            *(np.float32(number) for number in numbers),
        )


def _plain(group: dict[str, Any]) -> bool:
    """Whether the loop may take the parameters of a group."""
    options = ("weight_decay", "amsgrad", "maximize", "foreach", "capturable", "differentiable")
    if any(group[option] for option in options) or isinstance(group["lr"], Tensor):
        return False
    return all(
        tensor.layout == torch.strided
        and tensor.dtype == torch.float32
        and tensor.device.type == "cpu"
        and tensor.is_contiguous()
        for parameter in group["params"]
        if parameter.grad is not None
        for tensor in (parameter, parameter.grad)
    )
