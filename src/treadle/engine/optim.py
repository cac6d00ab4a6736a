"""Optimizers: parameter groups chosen by name, torch's fused update kernels where they exist, and its two calls."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from treadle.checkpoint.packing import is_dense
from treadle.errors import UsageError

# Only these very classes: a subclass may have its own `step`, which knows nothing of fused kernels.
_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad)

_ENGINE = torch.autograd.Variable._execution_engine
_AUTOGRAD_LOG = logging.getLogger("torch.autograd.graph")


def parameter_groups(
    named: nn.Module | Mapping[str, nn.Parameter], patterns: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Sort parameters into optimizer groups by patterns over their full dotted names.

    Args:
        named: a module, or parameters by name. Frozen parameters are sorted too, so they may be freed later.
        patterns: shell-style patterns ("encoder.*", "*.bias") to options of the group, such as lr, weight_decay or
            lr_scale (see `LearningRate`). The first pattern that matches a name takes it.

    Returns:
        A group for each pattern, in order, with "name" (the pattern, unless the options have their own "name"), and a
        group "rest" for what no pattern took, if anything is left.

    Raises:
        UsageError: there are no parameters, a pattern takes none, or two groups would have one name.

    Example:
        torch.optim.AdamW(parameter_groups(model, {"*.bias": {"weight_decay": 0.0}, "grid.*": {"lr_scale": 10}}))
    """
    parameters = dict(named.named_parameters()) if isinstance(named, nn.Module) else dict(named)
    if not parameters:
        raise UsageError("parameter_groups: the model has no parameters; build its layers before its optimizer")
    left = dict(parameters)
    groups: list[dict[str, Any]] = []
    for pattern, options in patterns.items():
        if "params" in options:
            raise UsageError(f"parameter_groups: leave 'params' out of the options of {pattern!r}; the pattern chooses")
        taken = [name for name in left if fnmatchcase(name, pattern)]
        if not taken:
            raise UsageError(_nothing_taken(pattern, list(parameters)))
        groups.append({"name": pattern, **options, "params": [left.pop(name) for name in taken]})
    if left:
        groups.append({"name": "rest", "params": list(left.values())})
    names = [group["name"] for group in groups]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"parameter_groups: two groups are named {name!r}; give one another 'name'")
    return groups


def _nothing_taken(pattern: str, names: list[str]) -> str:
    if any(fnmatchcase(name, pattern) for name in names):
        return f"parameter_groups: all that {pattern!r} matches is taken by earlier patterns; put it before them"
    close = difflib.get_close_matches(pattern, names, n=1, cutoff=0.0)[0]
    return f"parameter_groups: {pattern!r} matches no parameter; the nearest name is {close!r}"


def prefer_fused(optimizer: torch.optim.Optimizer) -> bool:
    """Switch a torch optimizer to its fused kernels, as if it had been built with `fused=True`.

    Left alone are optimizers whose author chose (`foreach`, `fused`, `capturable` or `differentiable` given), classes
    and subclasses without a fused form, and parameters or settings that torch's fused kernels do not take. State that
    exists already is kept. Gradients that are sparse are only seen once they exist: call this when they do, or let the
    author of such an optimizer say `fused=False`.

    Returns:
        Whether it was switched now.
    """
    if type(optimizer) not in _FUSED or not all(_left_open(group) for group in optimizer.param_groups):
        return False
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if not all(_fits(type(optimizer), p) for p in parameters):
        return False
    for group in optimizer.param_groups:
        group["fused"] = True
        if group.get("momentum"):
            _fill_momentum(optimizer, group)
    for parameter in parameters:
        state = optimizer.state.get(parameter)
        if state and "step" in state:
            # Fused kernels count in float32, on the parameter's device.
            step = torch.as_tensor(state["step"])
            state["step"] = step.to(parameter.device, torch.float32)
    _mark_fused(optimizer, True)
    return True


def _mark_fused(optimizer: torch.optim.Optimizer, fused: bool | None) -> None:
    """Set what the constructors set beside the groups' flag: groups that join inherit it."""
    optimizer.defaults["fused"] = fused
    # A gradient scaler asks for the first, `step` for the second.
    optimizer._step_supports_amp_scaling = bool(fused)  # type: ignore[attr-defined]
    optimizer._need_device_dtype_check_for_fused = True  # type: ignore[attr-defined]


def follow_groups(optimizer: torch.optim.Optimizer) -> None:
    """Make up for what `prefer_fused` could not know: parameters that joined, and groups that a checkpoint restored.

    Groups of a switched optimizer that fused kernels do not take are left out of it. One whose restored groups have
    been switched is marked as such, or no longer where they had not been yet; its author must have left the choice.
    Groups that joined between the restoring and the first update are switched as they are in a run that goes on.
    """
    if type(optimizer) not in _FUSED:
        return
    fused = any(group.get("fused") for group in optimizer.param_groups)
    for group in optimizer.param_groups:
        if group.get("fused") or (fused and _left_open(group)):
            group["fused"] = all(_fits(type(optimizer), p) for p in group["params"])
    fused = any(group.get("fused") for group in optimizer.param_groups)
    _mark_fused(optimizer, True if fused else None)
    for group in optimizer.param_groups:
        if group.get("fused") and group.get("momentum"):
            _fill_momentum(optimizer, group)


def take_step(optimizer: torch.optim.Optimizer) -> None:
    """Call `optimizer.step()`, without opening a profiler record while nobody profiles.

    torch wraps the `step` of every optimizer class: to call step hooks, and to open a record for the profiler, which
    alone takes longer than a small model's whole update. The wrapper is left out where it would do nothing else: no
    hooks, no profiler, and no `step` of the instance's own (as torch's LR schedulers put there).
    """
    step = type(optimizer).step
    if (
        getattr(step, "hooked", False)
        and "step" not in vars(optimizer)
        and not optimizer._optimizer_step_pre_hooks
        and not optimizer._optimizer_step_post_hooks
        and not _global_optimizer_pre_hooks
        and not _global_optimizer_post_hooks
        and not torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
    ):
        step.__wrapped__(optimizer)  # type: ignore[attr-defined]
    else:
        optimizer.step()


def backpropagate(loss: torch.Tensor, inputs: Sequence[torch.Tensor] | None = None, retain_graph: bool = False) -> None:
    """Call `torch.autograd.backward`, in a small model's step 10 us cheaper where it is all one.

    What torch does around its engine (a record for its debug log, contexts for the threads of other devices, subclasses
    of Tensor, refusals inside functorch) takes longer than the backward pass of a layer. On the CPU the engine runs in
    this very thread, so that a plain tensor can be handed to it as it is.

    Raises:
        RuntimeError: as torch does.
    """
    if (
        inputs is None
        and type(loss) is torch.Tensor
        and loss.is_cpu
        and loss.numel() == 1
        and loss.is_floating_point()
        and not loss.is_nested
        and not _AUTOGRAD_LOG.isEnabledFor(logging.DEBUG)
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._len_torch_function_stack()
    ):
        # A gradient of its own each time: a backward pass may write into what it is given.
        _ENGINE.run_backward(
            (loss,), (torch.ones_like(loss),), retain_graph, False, (), allow_unreachable=True, accumulate_grad=True
        )
    else:
        torch.autograd.backward(loss, retain_graph=retain_graph, inputs=inputs)


def _left_open(group: Mapping[str, Any]) -> bool:
    """Whether the group's settings leave the choice of kernel to torch, and fused kernels take them."""
    if group.get("foreach") is not None or group.get("fused") is not None:
        return False
    if group.get("capturable") or group.get("differentiable"):
        return False
    settings = (*group.get("betas", ()), group.get("momentum"), group.get("weight_decay"))
    if any(isinstance(setting, torch.Tensor) for setting in settings):
        return False
    return not group.get("momentum") or not group["dampening"]


def _fits(kind: type[torch.optim.Optimizer], parameter: torch.Tensor) -> bool:
    # Fused kernels walk raw memory: a parameter with gaps between its entries is not for them.
    dense = parameter.layout == torch.strided and is_dense(parameter)
    plain = type(parameter) in (torch.Tensor, nn.Parameter) and dense
    sparse = parameter.grad is not None and parameter.grad.layout != torch.strided
    return plain and not sparse and _has_fused(kind.__name__, parameter.device, parameter.dtype)


@cache
def _has_fused(kind: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this torch has the fused kernel for a device and a dtype: one tiny update tells, once."""
    probe = torch.zeros(1, device=device, dtype=dtype)
    probe.grad = torch.zeros_like(probe)
    try:
        getattr(torch.optim, kind)([probe], lr=1e-3, fused=True).step()
    except (RuntimeError, NotImplementedError):
        return False
    return True


def _fill_momentum(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> None:
    """Give every parameter its momentum buffer.

    torch's fused SGD fails when, in a group, some parameters have a buffer and others not yet: a layer that gets its
    first gradient later. With no dampening a buffer of zeros gives the same first update as none.
    """
    for parameter in group["params"]:
        state = optimizer.state[parameter]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
