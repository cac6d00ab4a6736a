"""L1 and SSIM of a picture against another, with the gradient of both, in one fused pass.

On a CPU, in float32 and float64, compiled loops run (`ssim_loops`); everywhere else the torch reference does.
"""

from __future__ import annotations

from torch import Tensor

from treadle.errors import UsageError
from treadle.kernels.ssim_reference import ssim_l1_reference


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
    return ssim_l1_reference(image, target.detach(), mask)


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
