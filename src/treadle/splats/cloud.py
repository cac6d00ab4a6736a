"""A cloud of Gaussians as plain tensors: what files hold, what is rendered, and what a trainer's parameters come to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(eq=False)
class Cloud:
    """Gaussians, one row each, all tensors float32 and in the form in which they are trained and stored.

    Attributes:
        means: (n, 3) centres.
        quaternions: (n, 4) rotations (w, x, y, z), of any length above 0.
        log_scales: (n, 3) natural logarithms of the standard deviations along the three axes.
        logits: (n,) opacity before the sigmoid.
        dc: (n, 3) spherical harmonics of degree 0; the colour is .5 + .28209 dc where there are no others.
        rest: (n, k, 3) the harmonics above, k = 0, 3, 8 or 15 for degrees 0 to 3.
        extra: further per-splat attributes (n, ...), by name.
        antialiased: whether opacities are meant to be rendered with compensation for the filter of .3 pixels.
    """

    means: Tensor
    quaternions: Tensor
    log_scales: Tensor
    logits: Tensor
    dc: Tensor
    rest: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)
    antialiased: bool = False

    def __len__(self) -> int:
        return len(self.means)

    @property
    def degree(self) -> int:
        """The degree of the spherical harmonics, 0 to 3."""
        return {0: 0, 3: 1, 8: 2, 15: 3}[self.rest.shape[1]]

    def detached(self, device: torch.device | str = "cpu") -> Cloud:
        """The same cloud without gradients, on `device`; what is there already is not copied."""
        own = {name: getattr(self, name) for name in ("means", "quaternions", "log_scales", "logits", "dc", "rest")}
        moved = {name: rows.detach().to(device) for name, rows in own.items()}
        extra = {name: rows.detach().to(device) for name, rows in self.extra.items()}
        return replace(self, **moved, extra=extra)
