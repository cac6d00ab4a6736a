"""How near a picture is to its target: L1, PSNR and SSIM, on pictures as they are saved.

That is rounded to 8 bits, or with `deep`, for 16 bits and floats, not rounded; in both black to white is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from treadle.errors import UsageError
from treadle.images.pixels import to_pixels

Array = NDArray[Any]

HIGHER_IS_BETTER = frozenset({"psnr", "ssim"})
"""Metrics of which more is better; of all others (errors, distances) less is."""

SSIM_WINDOW = 7
"""Side of SSIM's uniform window in pixels, scikit-image's default."""


def psnr_of(error: float, peak: float = 1.0) -> float:
    """The peak signal-to-noise ratio in dB of a mean squared error, for values up to `peak`; inf at 0, NaN below."""
    if math.isnan(error) or error < 0:
        return math.nan
    if error == 0:
        return math.inf
    return -10 * math.log10(error) if peak == 1 else 10 * math.log10(peak**2 / error)  # 1 / error would be rounded


def l1(output: Tensor, target: Tensor, *, deep: bool = False) -> float:
    """The mean absolute difference of two pictures (C, H, W) in [-1, 1], rounded to 8 bits; black to white is 1.

    With `deep` they are not rounded, here and in all that follows.
    """
    return _measured(output, target, _l1, deep)


def psnr(output: Tensor, target: Tensor, *, deep: bool = False) -> float:
    """The peak signal-to-noise ratio of two pictures (C, H, W) in [-1, 1], rounded to 8 bits, in dB; inf if equal."""
    return _measured(output, target, _psnr, deep)


def ssim(output: Tensor, target: Tensor, *, deep: bool = False) -> float:
    """The structural similarity of two pictures (C, H, W) in [-1, 1], rounded to 8 bits: 1 where they agree.

    As scikit-image computes it by default: windows of 7 x 7, uniform, unbiased variances, the mean over channels
    (Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity",
    2004, used a Gaussian window, which gives other figures).

    Raises:
        UsageError: scikit-image is not installed, or a side is shorter than 7 pixels.
    """
    return _measured(output, target, _ssim, deep)


METRICS = {"l1": l1, "psnr": psnr, "ssim": ssim}


def measure(outputs: Tensor, targets: Tensor, *, deep: bool = False) -> dict[str, list[float]]:
    """`METRICS` of two batches (N, C, H, W) in [-1, 1]: for each metric a list of N figures.

    NaN where a picture has values that are not finite. Raises UsageError as the metrics do.
    """
    if outputs.dim() != 4:
        raise UsageError(f"expected a batch of pictures (N, C, H, W), got {tuple(outputs.shape)}")
    _check_shapes(outputs, targets)
    pairs = list(zip(outputs, targets, strict=True))
    return {name: [metric(*pair, deep=deep) for pair in pairs] for name, metric in METRICS.items()}


def _measured(output: Tensor, target: Tensor, metric: Callable[[Array, Array, int], float], deep: bool) -> float:
    if output.dim() != 3:
        raise UsageError(f"expected one picture (C, H, W), got {tuple(output.shape)}")
    _check_shapes(output, target)
    if not (output.isfinite().all() and target.isfinite().all()):
        return math.nan
    if deep:
        return metric(_shares(output), _shares(target), 1)
    return metric(to_pixels(output), to_pixels(target), 255)


def _shares(picture: Tensor) -> NDArray[np.float64]:
    """(C, H, W) in [-1, 1] as (H, W, C) in [0, 1]."""
    return ((picture.detach().cpu().double().clamp(-1, 1) + 1) / 2).movedim(0, -1).numpy()


def _check_shapes(output: Tensor, target: Tensor) -> None:
    if output.shape != target.shape or output.numel() == 0:
        raise UsageError(
            f"an output of shape {tuple(output.shape)} cannot be compared with a target of {tuple(target.shape)}: "
            "they need the same shape, not empty"
        )


def _l1(output: Array, target: Array, white: int) -> float:
    return float(np.abs(_signed(output) - target).mean(dtype=np.float64)) / white


def _psnr(output: Array, target: Array, white: int) -> float:
    return psnr_of(float(np.square(_signed(output) - target).mean(dtype=np.float64)), white)


def _signed(values: Array) -> Array:
    """What differences can be taken of."""
    return values.astype(np.int32) if values.dtype == np.uint8 else values


def _ssim(output: Array, target: Array, white: int) -> float:
    height, width = output.shape[:2]
    if min(height, width) < SSIM_WINDOW:
        raise UsageError(
            f"SSIM needs pictures of at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels, these have {width} x {height}: "
            "use larger ones"
        )
    return float(_skimage_metrics().structural_similarity(output, target, channel_axis=-1, data_range=white))


def _skimage_metrics() -> Any:
    try:
        from skimage import metrics
    except ImportError:
        raise UsageError("SSIM needs scikit-image: install it with: pip install 'treadle[gans]'") from None
    return metrics
