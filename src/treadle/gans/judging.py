"""All that is said of translated pictures in a test: L1, PSNR, SSIM, and with weights at hand LPIPS and FID."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from treadle.images.fid import FID
from treadle.images.lpips import lpips_metric
from treadle.images.metrics import measure


class Judge:
    """Measures translated pictures, and gathers them for the Fréchet distance.

    Args:
        lpips_weights, fid_weights: safetensors files (see `lpips_metric` and `FID`); None leaves that metric out.

    Raises:
        UsageError: a file that is not there, or not what it should be.
    """

    def __init__(self, lpips_weights: Path | None = None, fid_weights: Path | None = None) -> None:
        self._lpips = lpips_metric(lpips_weights) if lpips_weights is not None else None
        self._fid = FID(fid_weights) if fid_weights is not None else None

    def compare(self, outputs: Tensor, targets: Tensor) -> list[dict[str, float]]:
        """The figures of each picture of a batch (N, C, H, W) in [-1, 1] against its target, by name of the metric."""
        measured = measure(outputs, targets)
        if self._lpips is not None:
            measured["lpips"] = self._lpips(outputs, targets)
        return [dict(zip(measured, values, strict=True)) for values in zip(*measured.values(), strict=True)]

    def gather(self, outputs: Tensor, real: Tensor) -> None:
        """Add two batches (N, C, H, W) in [-1, 1] to the two sets whose Fréchet distance is taken."""
        if self._fid is not None:
            self._fid.add(outputs, real)

    def overall(self) -> dict[str, float]:
        """The figures of all pictures together."""
        return {"fid": self._fid.value()} if self._fid is not None else {}
