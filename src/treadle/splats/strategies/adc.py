"""Adaptive density control, as of 3D Gaussian splatting (Kerbl et al. 2023, https://arxiv.org/abs/2308.04079)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from treadle.kernels.splatting_reference import rotations
from treadle.splats.model import Splats
from treadle.splats.rendering import Rendered
from treadle.splats.strategies.base import Pull, Scene, Strategy, Window, row_values


@dataclass
class ADC(Strategy):
    """Splats that the loss pulls about are cloned where they are small and split where they are large.

    What has faded, or grown larger than it should, is removed. Every so often all opacities are lowered, so that what
    is needed has to prove it.

    Args:
        grow: when to look.
        reset: when to lower opacities.
        pull: the mean pull (see `Pull`) from which a splat multiplies.
        small: the largest standard deviation, relative to the scene's extent, that is cloned and not split.
        large: the one that is removed, once opacities have been lowered for the first time.
        faint: the opacity below which a splat is removed.
        cap: the most splats there may be; those that are pulled hardest multiply first.
        over_white: lower opacities when growth begins, too: over white, many splats fit the background first.
    """

    grow: Window
    reset: Window
    pull: float = 2e-4
    small: float = 0.01
    large: float = 0.1
    faint: float = 0.005
    cap: int = 1_000_000
    over_white: bool = False
    pulled: Pull = field(default_factory=Pull, init=False)

    def after_update(self, scene: Scene, rendered: Rendered) -> None:
        """Take note of the pull; grow, prune and reset when that is due."""
        progress = scene.finished
        if self.grow.end is None or progress.step < self.grow.end.steps(progress):
            self.pulled.add(rendered)
        if self.grow.due(progress):
            self.change(scene)
        if self.reset.due(progress) or (self.over_white and self._begins(scene)):
            lower_opacities(scene, 2 * self.faint)

    def change(self, scene: Scene) -> None:
        """Clone, split and prune, as one edit."""
        model = scene.model
        split_by, clone = self.chosen(scene)
        grown = torch.cat([clone, split_by, split_by])
        rows = row_values(model, grown)
        if len(split_by):
            shift, smaller = halves(model, split_by, scene.generator("split"))
            rows["means"][len(clone) :] += shift
            rows["log_scales"][len(clone) :] = smaller
        kept = torch.ones(len(model), dtype=torch.bool, device=model.means.device)
        kept[split_by] = False
        kept &= ~self.superfluous(scene, model.logits.detach(), model.log_scales.detach())
        new = ~self.superfluous(scene, rows["logits"], rows["log_scales"])
        with scene.edit() as edit:
            edit.append(rows)
            edit.keep(torch.cat([kept, new]))
        self.pulled.clear(model.means)

    def chosen(self, scene: Scene) -> tuple[Tensor, Tensor]:
        """The rows to split and those to clone; as many as the cap leaves room for."""
        model, pull = scene.model, self.pulled.mean()
        order = pull.argsort(descending=True, stable=True)
        order = order[pull[order] >= self.pull][: max(0, self.cap - len(model))]
        large = model.log_scales.detach()[order].amax(1) > math.log(self.small * scene.extent)
        return order[large], order[~large]

    def superfluous(self, scene: Scene, logits: Tensor, log_scales: Tensor) -> Tensor:
        """Which of these splats are removed."""
        gone = logits < math.log(self.faint / (1 - self.faint))
        period = self.reset.every.span.steps(scene.finished)
        if scene.finished.step > period:
            gone |= log_scales.amax(1) > math.log(self.large * scene.extent)
        return gone

    def _begins(self, scene: Scene) -> bool:
        start = self.grow.start
        return start is not None and scene.finished.step == math.ceil(start.steps(scene.finished))


def halves(model: Splats, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Where the two halves of each splat of `index` go, drawn from the splat itself, and how large they are.

    Returns shifts (2n, 3), the first halves before the second ones, and logarithms of scales (2n, 3).
    """
    twice = index.repeat(2)
    noise = torch.randn(len(twice), 3, generator=generator).to(model.means)
    local = noise * model.log_scales.detach()[twice].exp()
    turned = rotations(model.quaternions.detach()[twice])
    shift = (turned * local[:, None, :]).sum(2)
    return shift, model.log_scales.detach()[twice] - math.log(1.6)


def lower_opacities(scene: Scene, most: float) -> None:
    """Bring every opacity down to `most`; their moments start anew."""
    logits = scene.model.logits.detach().clamp(max=math.log(most / (1 - most)))
    with scene.edit() as edit:
        edit.replace(torch.arange(len(logits), device=logits.device), {"logits": logits})
