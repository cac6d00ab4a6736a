"""Committing a row edit: find what follows a tensor, and exchange everything or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from treadle.checkpoint.tensors import forget_accumulator
from treadle.errors import StateError, UsageError


def moments_of(
    name: str, tensor: Tensor, optimizers: Sequence[torch.optim.Optimizer]
) -> Iterator[tuple[Tensor, float]]:
    """Yield the state that follows the rows of `tensor`, over all optimizers and groups.

    It is a tensor with a row for each row of `tensor`, and the value of a row that starts anew.

    Raises:
        UsageError: state that neither has a row for each row of the tensor nor is a scalar.
    """
    for optimizer in optimizers:
        kind = type(optimizer).__name__
        for group in optimizer.param_groups:
            if not any(parameter is tensor for parameter in group["params"]):
                continue
            if isinstance(optimizer, torch.optim.LBFGS) and optimizer.state:
                raise UsageError(f"row edit: {kind} keeps one history for all its parameters, {name!r} among them")
            for key, value in optimizer.state.get(tensor, {}).items():
                if _stays(key, value):
                    continue
                if not isinstance(value, Tensor):
                    raise UsageError(f"row edit: {kind} keeps {key!r} of {name!r} as {type(value).__name__}, not rows")
                if len(value) != len(tensor):
                    raise UsageError(
                        f"row edit: {key!r} in {kind} has shape {tuple(value.shape)}, which does not follow the rows of"
                        f" {name!r}, shape {tuple(tensor.shape)}; use an optimizer with state for each row"
                    )
                yield value, _fresh(optimizer, group, key)


def _stays(key: str, value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.dim() == 0 or (key == "step" and value.numel() == 1)
    return value is None or isinstance(value, (int, float, str))


def _fresh(optimizer: torch.optim.Optimizer, group: dict[str, Any], key: str) -> float:
    """What a fresh optimizer has in this state: nearly always zero."""
    if isinstance(optimizer, torch.optim.Adagrad) and key == "sum":
        return float(optimizer.defaults["initial_accumulator_value"])
    if isinstance(optimizer, torch.optim.Rprop) and key == "step_size":
        return float(group["lr"])
    return 0.0


def exchange(edited: Sequence[Tensor], swaps: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Give each tensor its new data and clear the gradients of `edited`; on any error or interrupt, undo all of it.

    Args:
        edited: the tensors of the edit whose rows change.
        swaps: tensors (those of the edit, state and averages) with their new data, of the same dtype and device.
    """
    gradients = [(tensor, tensor.grad) for tensor in edited]
    accumulators = [_accumulator(tensor) for tensor in edited if tensor.requires_grad]
    before = [(tensor, tensor.data) for tensor, _ in swaps]
    try:
        for tensor in edited:
            tensor.grad = None
            forget_accumulator(tensor)
        for tensor, data in swaps:
            tensor.data = data
        for tensor in edited:
            if tensor.requires_grad and list(_accumulator(tensor)._input_metadata[0].shape) != list(tensor.shape):
                raise StateError("row edit: a graph holds a parameter fast; drop the losses and outputs kept from it")
    except BaseException:
        for tensor, data in before:
            tensor.data = data
        for tensor, gradient in gradients:
            tensor.grad = gradient
        raise
    for accumulator in accumulators:
        accumulator.register_prehook(_refuse)


def _accumulator(tensor: Tensor) -> Any:
    """Return the node of autograd that adds up the tensor's gradient."""
    with torch.enable_grad():
        node = tensor.view_as(tensor).grad_fn
    assert node is not None
    return node.next_functions[0][0]


def _refuse(gradients: Any) -> NoReturn:
    raise StateError("backward through a graph from before a row edit; compute the loss again with the edited rows")
