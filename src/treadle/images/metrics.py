"""How near a picture is to its target: L1, PSNR and SSIM, on pictures as they are saved, in 8 bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from treadle.errors import UsageError
from treadle.images.pixels import to_pixels

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


def l1(output: Tensor, target: Tensor) -> float:
    """The mean absolute difference of two pictures (C, H, W) in [-1, 1], rounded to 8 bits; black to white is 1."""
    return _measured(output, target, _l1)


def psnr(output: Tensor, target: Tensor) -> float:
    """The peak signal-to-noise ratio of two pictures (C, H, W) in [-1, 1], rounded to 8 bits, in dB; inf if equal."""
    return _measured(output, target, _psnr)


def ssim(output: Tensor, target: Tensor) -> float:
    """The structural similarity of two pictures (C, H, W) in [-1, 1], rounded to 8 bits: 1 where they agree.

    As scikit-image computes it by default: windows of 7 x 7, uniform, unbiased variances, the mean over channels
    (Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity",
    2004, used a Gaussian window, which gives other figures).

    Raises:
        UsageError: scikit-image is not installed, or a side is shorter than 7 pixels.
    """
    return _measured(output, target, _ssim)


METRICS = {"l1": l1, "psnr": psnr, "ssim": ssim}


def measure(outputs: Tensor, targets: Tensor) -> dict[str, list[float]]:
    """`METRICS` of two batches (N, C, H, W) in [-1, 1]: for each metric a list of N figures.

    NaN where a picture has values that are not finite. Raises UsageError as the metrics do.
    """
    if outputs.dim() != 4:
        raise UsageError(f"expected a batch of pictures (N, C, H, W), got {tuple(outputs.shape)}")
    _check_shapes(outputs, targets)
    pairs = list(zip(outputs, targets, strict=True))
    return {name: [metric(*pair) for pair in pairs] for name, metric in METRICS.items()}


def _measured(output: Tensor, target: Tensor, metric: Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]) -> float:
    if output.dim() != 3:
        raise UsageError(f"expected one picture (C, H, W), got {tuple(output.shape)}")
    _check_shapes(output, target)
    if not (output.isfinite().all() and target.isfinite().all()):
        return math.nan
    return metric(to_pixels(output), to_pixels(target))


def _check_shapes(output: Tensor, target: Tensor) -> None:
    if output.shape != target.shape or output.numel() == 0:
        raise UsageError(
            f"an output of shape {tuple(output.shape)} cannot be compared with a target of {tuple(target.shape)}: "
            "they need the same shape, not empty"
        )


def _l1(output: NDArray[np.uint8], target: NDArray[np.uint8]) -> float:
    return float(np.abs(output.astype(np.int16) - target).mean(dtype=np.float64)) / 255


def _psnr(output: NDArray[np.uint8], target: NDArray[np.uint8]) -> float:
    return psnr_of(float(np.square(output.astype(np.int32) - target).mean(dtype=np.float64)), 255)


def _ssim(output: NDArray[np.uint8], target: NDArray[np.uint8]) -> float:
    height, width = output.shape[:2]
    if min(height, width) < SSIM_WINDOW:
        raise UsageError(
            f"SSIM needs pictures of at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels, these have {width} x {height}: "
            "use larger ones"
        )
    return float(_skimage_metrics().structural_similarity(output, target, channel_axis=-1, data_range=255))


def _skimage_metrics() -> Any:
    try:
        from skimage import metrics
    except ImportError:
        raise UsageError("SSIM needs scikit-image: install it with: pip install 'treadle[gans]'") from None
    return metrics
