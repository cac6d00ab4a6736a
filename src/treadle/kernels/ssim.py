"""L1 and SSIM of a picture against another, with the gradient of both, in one fused pass.

On a CPU, in float32 and float64, compiled loops run (`ssim_loops`); everywhere else the torch reference does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from treadle.errors import UsageError
from treadle.kernels import threads
from treadle.kernels.ssim_reference import TAPS, ssim_l1_reference, window

COMPILED_DTYPES = (torch.float32, torch.float64)
_STRIP = 24
"""Rows that a thread takes at once; ten more have to be blurred for them."""


def ssim_l1(image: Tensor, target: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The mean absolute difference of two pictures, and their mean structural similarity.

    SSIM is that of Wang et al. (2004) for values in [0, 1]: 11 x 11 Gaussian windows of sigma 1.5, zero beyond the
    picture.

    Args:
        image: (H, W, C) values, any size from 1 pixel; the gradient goes here.
        target: (H, W, C) of the same dtype, on the same device; gets no gradient.
        mask: (H, W) how much each pixel counts, from 0 to 1; both pictures are multiplied by it first, so that what is
            masked out has no part in any window. All of it counts if None.

    Returns:
        l1 and ssim, two scalars: means over the pixels that count and the channels. Where none counts, 0 and 1.

    Raises:
        UsageError: shapes, dtypes or devices that do not fit each other.
    """
    _check(image, target, mask)
    target = target.detach()
    if image.device.type == "cpu" and image.dtype in COMPILED_DTYPES:
        l1, ssim = _Compare.apply(image, target, mask)
        return l1, ssim
    return ssim_l1_reference(image, target, mask)


def _check(image: Tensor, target: Tensor, mask: Tensor | None) -> None:
    if image.dim() != 3 or 0 in image.shape or image.shape != target.shape:
        raise UsageError(f"ssim: expected two pictures of one shape (height, width, channels), "
                         f"got {tuple(image.shape)} and {tuple(target.shape)}")  # fmt: skip
    if mask is not None and mask.shape != image.shape[:2]:
        raise UsageError(f"ssim: a mask for pictures of {tuple(image.shape)} must have shape {tuple(image.shape[:2])}, "
                         f"got {tuple(mask.shape)}")  # fmt: skip
    for name, other in (("target", target), ("mask", mask)):
        if other is not None and (other.dtype != image.dtype or other.device != image.device):
            raise UsageError(f"ssim: the {name} is {other.dtype} on {other.device}, the image {image.dtype} on "
                             f"{image.device}: they must be alike")  # fmt: skip


class _Compare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        from treadle.kernels import lanes, ssim_loops

        height, width, channels = image.shape
        pictures = _rows(image), _rows(target), _mask(image, mask)
        wide = -(-width * channels // lanes.COUNT) * lanes.COUNT
        sums, slopes = np.empty((height, 2)), np.empty((0, ssim_loops.SLOPES, wide), pictures[0].dtype)
        if ctx.needs_input_grad[0]:
            slopes = np.empty((height + TAPS - 1, ssim_loops.SLOPES, wide), pictures[0].dtype)
            slopes[: TAPS // 2] = slopes[-(TAPS // 2) :] = 0
        taps = window(image.dtype).numpy()
        threads.spread(
            ssim_loops.compare, threads.parts_for(-(-height // _STRIP)), False, np.zeros(1, np.int64), _STRIP,
            *pictures, channels, taps, sums, slopes, 0.0, 0.0, pictures[0][:0],
        )  # fmt: skip
        counted = width * height if mask is None else float(pictures[2].sum(dtype=np.float64))
        share = 1 / (counted * channels) if counted > 0 else 0.0
        ctx.save_for_backward(image, target, mask)
        ctx.made = share, taps, slopes
        apart, alike = sums.sum(axis=0) * share
        return image.new_tensor(apart), image.new_tensor(alike if share else 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_l1: Tensor, by_ssim: Tensor) -> tuple[Tensor, None, None]:
        from treadle.kernels import ssim_loops

        image, target, mask = ctx.saved_tensors
        share, taps, slopes = ctx.made
        grad = torch.empty(image.shape, dtype=image.dtype)
        threads.spread(
            ssim_loops.compare, threads.parts_for(len(image)), True, np.zeros(1, np.int64), 1,
            _rows(image), _rows(target), _mask(image, mask), image.shape[2], taps, np.empty((0, 2)), slopes,
            float(by_l1) * share, float(by_ssim) * share, _rows(grad),
        )  # fmt: skip
        return grad, None, None


def _rows(picture: Tensor) -> NDArray[Any]:
    """(H, W C), the same memory where it can be."""
    return picture.detach().contiguous().numpy().reshape(len(picture), -1)


def _mask(image: Tensor, mask: Tensor | None) -> NDArray[Any]:
    """(H, W), or no rows where all pixels count."""
    return np.empty((0, 0), _rows(image[:1]).dtype) if mask is None else _rows(mask)
