"""Putting saved entries into tensors that stay the objects they are."""

from __future__ import annotations

import torch
from torch import Tensor

from treadle.checkpoint.packing import is_dense


def put(tensor: Tensor, saved: Tensor) -> None:
    """Give `tensor` the saved entries, shape and strides; its dtype and device stay what they are."""
    put_back(tensor, saved.to(dtype=tensor.dtype))


def put_back(tensor: Tensor, saved: Tensor) -> None:
    """Give `tensor` the saved entries, shape, strides and dtype; its device stays what it is.

    Where all that is the same, its memory stays the same too, so that views of it are views of it afterwards. The
    strides count because torch's fused CPU kernels walk a parameter and its moments through raw memory. A `saved` that
    is not dense is taken as it is, not copied.
    """
    if _takes(tensor, saved):
        tensor.data.copy_(saved)
    else:
        give(tensor, saved)


def give(tensor: Tensor, saved: Tensor) -> None:
    """Give `tensor` other memory: the saved entries, as they lie there."""
    if tensor.shape != saved.shape:
        forget_accumulator(tensor)
    tensor.data = saved.to(device=tensor.device, copy=saved.layout == torch.strided and is_dense(saved))


def forget_accumulator(tensor: Tensor) -> None:
    """Make autograd build a new accumulator for the tensor, whose shape is about to change.

    It lives, with the shape that it was made for, as long as any graph holds it, such as the one behind a loss that is
    still in scope; the next backward would then refuse gradients of the new shape. Autograd drops it when the tensor's
    dtype changes, so that is what happens here for a moment.
    """
    if tensor.is_floating_point() or tensor.is_complex():
        other = torch.float32 if tensor.dtype == torch.float16 else torch.float16
        tensor.data = torch.empty(0, dtype=other, device=tensor.device)


def has_gaps(tensor: Tensor) -> bool:
    """Whether it is part of a larger memory, as every second column is; not where places are there several times."""
    if tensor.layout != torch.strided or is_dense(tensor):
        return False
    return all(stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1)


def _takes(tensor: Tensor, saved: Tensor) -> bool:
    """Whether the saved entries can be written where those of `tensor` are."""
    if tensor.layout != torch.strided or saved.layout != torch.strided:
        return False
    if (tensor.shape, tensor.dtype) != (saved.shape, saved.dtype):
        return False
    # States of version 0.1.0 tell no strides of a tensor with gaps.
    return has_gaps(tensor) or (tensor.stride() == saved.stride() and is_dense(tensor))
