"""A cloud of Gaussians as a module: each field of a `Cloud` a parameter whose rows come and go."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from treadle.errors import UsageError
from treadle.splats.cloud import Cloud
from treadle.splats.sigmoid import sigmoid

FIELDS = ("means", "quaternions", "log_scales", "logits", "dc", "rest")
"""The parameters that every cloud has; see `Cloud` for what they are."""


class Splats(nn.Module):
    """The Gaussians that are trained.

    Parameters: those of a `Cloud`, under the same names; further attributes of the splats as "extra.NAME". Buffer:
    `to_input` (4, 4) float64, the similarity from these coordinates to those of the file that the scene came from.

    Args:
        cloud: what to start from; its tensors are copied.
        to_input: see above; the identity by default.
    """

    means: nn.Parameter
    quaternions: nn.Parameter
    log_scales: nn.Parameter
    logits: nn.Parameter
    dc: nn.Parameter
    rest: nn.Parameter
    to_input: Tensor

    def __init__(self, cloud: Cloud, to_input: NDArray[np.float64] | None = None) -> None:
        super().__init__()
        for name in FIELDS:
            self.register_parameter(name, nn.Parameter(getattr(cloud, name).detach().clone()))
        self.extra = nn.ParameterDict({name: rows.detach().clone() for name, rows in cloud.extra.items()})
        self.antialiased = cloud.antialiased
        self.register_buffer("to_input", torch.from_numpy(np.eye(4) if to_input is None else to_input.copy()))

    def __len__(self) -> int:
        return len(self.means)

    @property
    def rows(self) -> dict[str, nn.Parameter]:
        """The parameters by name: what a row edit is begun with, so that all of them keep the same rows."""
        own = {name: getattr(self, name) for name in FIELDS}
        return own | {f"extra.{name}": rows for name, rows in self.extra.items()}

    def cloud(self) -> Cloud:
        """The parameters as a cloud: the tensors themselves, so that gradients flow into them."""
        own = {name: getattr(self, name) for name in FIELDS}
        return Cloud(**own, extra=dict(self.extra.items()), antialiased=self.antialiased)

    def opacities(self) -> Tensor:
        """(n,) from 0 to 1."""
        return sigmoid(self.logits)

    def scales(self) -> Tensor:
        """(n, 3) standard deviations along the three axes, in units of the scene."""
        return self.log_scales.exp()

    @classmethod
    def from_weights(cls, weights: dict[str, Tensor], *, antialiased: bool = False) -> Splats:
        """The module whose `state_dict` is `weights`. Raises UsageError where they are not those of splats."""
        missing = [name for name in (*FIELDS, "to_input") if name not in weights]
        if missing:
            raise UsageError(f"these are not the weights of splats: {missing[0]!r} is not among them")
        extra = {name.removeprefix("extra."): rows for name, rows in weights.items() if name.startswith("extra.")}
        cloud = Cloud(**{name: weights[name] for name in FIELDS}, extra=extra, antialiased=antialiased)
        return cls(cloud, weights["to_input"].numpy())
