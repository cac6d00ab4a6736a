"""What several processes are proved on: the examples and recipes of the gauntlet, in few steps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from treadle import Trainer, TreadleError
from treadle.parallel import this_world

CONFORMANCE = Path(__file__).parents[1] / "conformance"


class Layers(Trainer):
    """An MLP whose windows are of three batches, the last of an epoch of fewer, and of fewer samples."""

    def setup(self) -> None:
        self.model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)

    def step(self, batch: Any) -> Any:
        loss = nn.functional.mse_loss(self.model(batch[0]), batch[1])
        self.minimize(loss)
        return {"loss": loss}


class Opponents(Trainer):
    """A GAN whose latents are data: nothing is drawn in its steps. One of its networks only some samples use."""

    def setup(self) -> None:
        self.made = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
        self.rare, self.never = nn.Linear(3, 1), nn.Linear(3, 1)
        self.judge = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
        mine = [*self.made.parameters(), *self.rare.parameters(), *self.never.parameters()]
        self.first = torch.optim.Adam(self.judge.parameters(), lr=1e-3, betas=(0.5, 0.9))
        self.second = torch.optim.Adam(mine, lr=1e-3, betas=(0.5, 0.9))

    def step(self, batch: Any) -> Any:
        x, y = batch
        made = self.made(x[:, :3])
        if bool((x[:, 3] > 1.5).any()):
            made = made + self.rare(x[:, :3]) * (x[:, 3:] > 1.5)
        judged = nn.functional.softplus(self.judge(made.detach())).mean()
        judged = judged + nn.functional.softplus(-self.judge(y)).mean()
        self.minimize(judged, self.first)
        loss = nn.functional.softplus(-self.judge(made)).mean()
        self.minimize(loss, self.second)
        return {"loss": loss, "judged": judged}


OWN: dict[str, tuple[type[Trainer], dict[str, Any]]] = {
    "mlp": (Layers, {"batch_size": 10, "max_epochs": 4, "accumulate": 3, "clip_norm": 0.1}),
    "gan": (Opponents, {"batch_size": 10, "max_epochs": 4}),
}


def build(name: str, place: str, settings: dict[str, Any]) -> Trainer:
    """The trainer of that name, on disk at `place`."""
    if name in OWN:
        x = torch.randn(53, 4, generator=torch.Generator().manual_seed(1))
        kind, own = OWN[name]
        return kind(data=(x, x.sum(1, keepdim=True).sin()), run_dir=place, save_every="5 steps", **own | settings)
    if str(CONFORMANCE) not in sys.path:
        sys.path.insert(0, str(CONFORMANCE))
    import gauntlet_trainers

    if name in gauntlet_trainers.BUILDERS:
        return gauntlet_trainers.build(name, 0, run_dir=place, **settings)
    where = {key: settings[key] for key in ("resume",) if key in settings}
    overrides = [f"{key}={value}" for key, value in settings.items() if key not in where]
    return (
        gauntlet_trainers.small_recipe(name, Path(place).parent).with_overrides(overrides).build(run_dir=place, **where)
    )


def write_data(name: str, folder: Path) -> None:
    """Write what a recipe trains on, before several processes do so at once."""
    if str(CONFORMANCE) not in sys.path:
        sys.path.insert(0, str(CONFORMANCE))
    import gauntlet_trainers

    if name in gauntlet_trainers.RECIPES:
        gauntlet_trainers.small_recipe(name, folder)


def train(name: str, place: str, settings: dict[str, Any], until: int = 0, nudge: int = 0) -> dict[str, Any]:
    """Train what the gauntlet calls `name`, with other settings; digest, weights and counts, or why not.

    After `until` steps the run is left as a kill leaves it. With a `nudge` half of the weights begin at the next
    larger float; its number says which half.
    """
    try:
        trainer = build(name, place, settings)
        if nudge:
            stream = torch.Generator().manual_seed(nudge)
            with torch.no_grad():
                for p in trainer.parts.all_parameters().values():
                    further = torch.nextafter(p, torch.full_like(p, torch.inf))
                    p.copy_(torch.where(torch.rand(p.shape, generator=stream) < 0.5, further, p))
        if until:
            while trainer.progress.step < until:
                trainer.iterate()
            trainer.driver.abandon()
            return {}
        trainer.train()
    except TreadleError as error:
        return {"error": str(error)}
    weights = {key: p.detach().flatten().tolist() for key, p in trainer.parts.all_parameters().items()}
    return {"digest": trainer.digest(), "weights": weights, "step": trainer.progress.step, "rank": this_world().rank}


def differ(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference of any weight; infinity where there are others, or another number."""
    return max((float(apart.max()) for apart in differences(one, other)), default=0.0)


def differ_on_average(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The mean difference of all weights; infinity where there are others, or another number."""
    return float(torch.cat(differences(one, other)).mean())


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[torch.Tensor]:
    """How far weights are apart, parameter by parameter; infinity where there are others, or another number."""
    mine, theirs = one["weights"], other["weights"]
    if list(mine) != list(theirs) or any(len(mine[name]) != len(theirs[name]) for name in mine):
        return [torch.tensor([float("inf")])]
    pairs = [(torch.tensor(mine[name]), torch.tensor(theirs[name])) for name in mine if mine[name]]
    return [(here - there).abs() for here, there in pairs]
