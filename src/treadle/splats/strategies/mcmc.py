"""A fixed budget of splats, as a Markov chain Monte Carlo (Kheradmand et al. 2024, https://arxiv.org/abs/2404.09591)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from treadle.kernels.splatting_reference import rotations
from treadle.splats.model import Splats
from treadle.splats.rendering import Rendered
from treadle.splats.sigmoid import sigmoid
from treadle.splats.strategies.base import Scene, Strategy, Window, row_values

STEEP, STILL = 100.0, 1e-4
"""How suddenly splats that are less faint stop trembling; what would move by less than this share stands still."""

MOST_PARTS = 51
"""The most splats that one may become at a time: beyond, the formula for their size loses its digits."""


@dataclass
class MCMC(Strategy):
    """Dead splats move to where living ones are, more of them are added up to a budget, and all tremble a little.

    A splat that becomes several gets opacities and sizes for which the picture stays nearly what it was.

    Args:
        grow: when dead splats move and new ones come.
        cap: the budget.
        growth: by which share of their number splats are added each time, until there are `cap`.
        dead: the opacity up to which a splat is dead.
        noise: how far splats tremble in each step, times the learning rate of their centres; 0 leaves them still.
    """

    grow: Window
    cap: int = 10_000
    growth: float = 0.05
    dead: float = 0.005
    noise: float = 5e5

    def after_update(self, scene: Scene, rendered: Rendered) -> None:
        """Move, add and shake."""
        if self.grow.due(scene.finished):
            generator = scene.generator("grow")
            self.relocate(scene, generator)
            self.add(scene, generator)
        if self.noise:
            self.shake(scene)

    def relocate(self, scene: Scene, generator: torch.Generator) -> None:
        """Let each dead splat become one of several that a living one turns into."""
        model = scene.model
        opacities = model.opacities().detach()
        dead = (opacities <= self.dead).nonzero().squeeze(1)
        if len(dead) == 0 or len(dead) == len(model):
            return
        weights = torch.where(opacities > self.dead, opacities, 0.0)
        drawn = draw(weights, len(dead), generator)
        parents, rows, parts = divided(model, drawn)
        with scene.edit() as edit:
            edit.replace(parents, rows)
            edit.replace(dead, parts)

    def add(self, scene: Scene, generator: torch.Generator) -> None:
        """Add a share of new splats, up to the budget."""
        model = scene.model
        count = min(self.cap, int((1 + self.growth) * len(model)) + 1) - len(model)
        if count <= 0:
            return
        drawn = draw(model.opacities().detach(), count, generator)
        parents, rows, parts = divided(model, drawn)
        with scene.edit() as edit:
            edit.replace(parents, rows)
            edit.append(parts)

    def shake(self, scene: Scene) -> None:
        """Move each centre a little at random, as its ellipsoid reaches; those that are nearly dead by far the most."""
        model = scene.model
        (rate,) = (group["lr"] for group in scene.optimizer.param_groups if group["name"] == "means")
        noise = torch.randn(model.means.shape, generator=scene.generator("noise")).to(model.means)
        restless = sigmoid(-STEEP * (model.opacities() - self.dead))
        faint = (restless > STILL).nonzero().squeeze(1)
        turned, scales = rotations(model.quaternions[faint]), model.log_scales[faint].exp()
        local = (turned * noise[faint, :, None]).sum(1) * scales.square()
        moves = (turned * local[:, None, :]).sum(2) * (restless[faint, None] * (rate * self.noise))
        model.means.index_add_(0, faint, moves)


def draw(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` rows, int64, drawn with replacement with chances as their weights (n,); the same on every device."""
    ends = weights.double().cpu().cumsum(0)
    places = torch.rand(count, generator=generator, dtype=torch.float64) * ends[-1]
    return torch.searchsorted(ends, places, right=True).clamp(max=len(ends) - 1).to(weights.device)


def divided(model: Splats, drawn: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """What becomes of splats each of which turns into one part more for each time that it was `drawn`.

    Returns the distinct rows that were drawn, their new values, and the values of the further parts, one for each entry
    of `drawn`.
    """
    counts = torch.bincount(drawn, minlength=len(model))
    parents = counts.nonzero().squeeze(1)
    rows = row_values(model, parents)
    opacities, shrink = share(sigmoid(rows["logits"]), (counts[parents] + 1).clamp(max=MOST_PARTS))
    rows["logits"] = torch.logit(opacities)
    rows["log_scales"] = rows["log_scales"] + shrink.log()[:, None]
    place = torch.empty_like(counts)
    place[parents] = torch.arange(len(parents), device=parents.device)
    which = place[drawn]
    return parents, rows, {name: values[which] for name, values in rows.items()}


def share(opacities: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
    """The opacity of each of `parts` (n,) equal splats that replace one, and by which factor its size changes.

    o' = 1 - (1 - o)^(1 / n); the size is that for which the sum over rays stays what it was (equation 9 of the paper).
    """
    o, n = opacities.double(), parts.double()
    each = -torch.expm1(torch.log1p(-o) / n)
    powers = each[:, None].expand(-1, MOST_PARTS).cumprod(1)
    total = (_series().to(o.device)[parts - 1] * powers).sum(1)
    least = torch.finfo(opacities.dtype).eps
    return each.clamp(least, 1 - least).to(opacities), (o / total).to(opacities)


@cache
def _series() -> Tensor:
    """(parts, k) factors of o'^(k + 1): sum over i = 1 .. n of C(i - 1, k) (-1)^k / sqrt(k + 1), for n parts.

    The sum over i of C(i - 1, k) is C(n, k + 1).
    """
    rows = [
        [math.comb(n, k + 1) * (-1) ** k / math.sqrt(k + 1) for k in range(MOST_PARTS)]
        for n in range(1, MOST_PARTS + 1)
    ]
    return torch.tensor(rows, dtype=torch.float64)
