"""How near a rendered view is to its photograph."""

from __future__ import annotations

import torch
from torch import Tensor

from treadle.images.metrics import psnr_of
from treadle.kernels.ssim import ssim_l1

HIGHER = ("psnr", "psnr_object", "psnr_corrected", "ssim")
"""Figures of which more is better."""


def measure(
    image: Tensor, target: Tensor, *, mask: Tensor | None = None, object: Tensor | None = None, corrected: bool = False
) -> dict[str, float]:
    """The figures of a picture (H, W, 3) against its target, both from 0 to 1, as they are when saved in 8 bits.

    NaN where a value is not finite.

    Args:
        mask: (H, W) bool; where it is False nothing counts.
        object: (H, W) bool, where the object is: its PSNR alone is "psnr_object", which an empty background around it
            does not flatter.
        corrected: report "psnr_corrected" too, after the affine map of colours that suits the picture best.

    Returns:
        "psnr" in dB, "ssim" (11 x 11 Gaussian windows of sigma 1.5, as papers on splats report it), "l1".
    """
    image, target = image.detach(), target.detach()
    seen, wanted = rounded(image), rounded(target)
    weights = None if mask is None else mask.to(image.dtype)
    l1, ssim = ssim_l1(seen, wanted, weights)
    figures = {"psnr": psnr(seen, wanted, mask), "ssim": float(ssim), "l1": float(l1)}
    if object is not None:
        figures["psnr_object"] = psnr(seen, wanted, object if mask is None else object & mask)
    if corrected:
        figures["psnr_corrected"] = psnr(rounded(color_corrected(image, target, mask)), wanted, mask)
    return figures


def psnr(image: Tensor, target: Tensor, where: Tensor | None = None) -> float:
    """The peak signal-to-noise ratio in dB of values from 0 to 1, over all channels, of the pixels `where` (H, W).

    NaN where there are none.
    """
    squares = (image - target).double().square().cpu()
    if where is not None:
        squares = squares[where.cpu()]
    return psnr_of(float(squares.numpy().mean())) if squares.numel() else float("nan")


def rounded(image: Tensor) -> Tensor:
    """Values from 0 to 1 as 8 bits hold them."""
    return image.clamp(0, 1).mul(255).round().div(255)


def as_pixels(image: Tensor) -> Tensor:
    """Values from 0 to 1 as uint8, on the CPU."""
    return image.detach().nan_to_num(0).clamp(0, 1).mul(255).round().to(torch.uint8).cpu()


def color_corrected(image: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """`image` (H, W, 3) under the affine map of colours that brings it closest to `target`, in least squares.

    What is left is shape, not exposure: the figure for held-out views of a run that learns exposures.
    """
    weights = torch.ones(image.shape[:2], dtype=torch.float64) if mask is None else mask.cpu().double()
    ones = image.new_ones(*image.shape[:2], 1)
    values = torch.cat([image, ones], 2).detach().cpu().double().reshape(-1, 4)
    weighted = values * weights.reshape(-1, 1)
    # A touch of the identity: colours that do not occur in the picture are left as they are.
    normal = weighted.T @ values + 1e-6 * len(values) * torch.eye(4, dtype=torch.float64)
    wanted = weighted.T @ target.detach().cpu().double().reshape(-1, 3)
    wanted = wanted + 1e-6 * len(values) * torch.eye(4, 3, dtype=torch.float64)
    corrected = values @ torch.linalg.solve(normal, wanted)
    return corrected.reshape(image.shape).to(image)
