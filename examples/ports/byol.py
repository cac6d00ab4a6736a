"""BYOL: a network learns to see shapes without labels: it foretells what its moving average makes of another view.

After Grill et al. (2020): two random views of each picture; an online network with a predictor, and a target network,
its exponential moving average, whose decay goes to one; no negative pairs. What has been learned is judged by a linear
probe: how many shapes of new pictures a linear map of the frozen features tells, before training and after.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cosine_similarity, grid_sample, one_hot

from treadle import EMA, LearningRate, Trainer

SIZE, SHAPES, DECAY = 16, 5, 0.9


def pictures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Shapes of any colour, place, size and angle on noise: (count, 3, SIZE, SIZE), and which they are, (count,)."""
    rng = torch.Generator().manual_seed(seed)
    place, size, angle = torch.rand(2, count, 1, 1, generator=rng), *torch.rand(2, count, 1, 1, generator=rng)
    u, v, turn = torch.arange(SIZE) - 5 - 5 * place[0], torch.arange(SIZE)[:, None] - 5 - 5 * place[1], 1.57 * angle
    x, y = (u * turn.cos() + v * turn.sin()).abs(), (v * turn.cos() - u * turn.sin()).abs()
    far, near, r = torch.maximum(x, y), torch.minimum(x, y), 4 + 2 * size
    round_, hole = x.hypot(y) < r, x.hypot(y) < 0.6 * r
    every = torch.stack([round_, round_ & ~hole, far < r, (far < r) & (far > 0.6 * r), (near < 0.25 * r) & (far < r)])
    label = torch.randint(SHAPES, (count,), generator=rng)
    inside, outside = torch.rand(2, count, 3, 1, 1, generator=rng)
    noise = 0.1 * torch.randn(count, 3, SIZE, SIZE, generator=rng)
    return torch.where(every[label, torch.arange(count)][:, None], 0.6 + 0.4 * inside, 0.4 * outside) + noise, label


def view(images: Tensor) -> Tensor:
    """Moved, zoomed and mirrored at random, in other colours, with some noise."""
    count = len(images)
    zoom, mirror = 0.7 + 0.6 * torch.rand(count), torch.randint(2, (count,)) * 2.0 - 1
    map_ = torch.zeros(count, 2, 3)
    map_[:, 0, 0], map_[:, 1, 1], map_[:, :, 2] = zoom * mirror, zoom, 0.6 * torch.rand(count, 2) - 0.3
    grid = affine_grid(map_, list(images.shape), align_corners=False)
    seen = grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return seen * (0.6 + 0.8 * torch.rand(count, 3, 1, 1)) + 0.1 * torch.randn_like(seen)


def mlp(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 32))


class BYOL(Trainer):
    transient = ("probe",)  # made of labels, anew for each validation; training has none

    def setup(self) -> None:
        layers: list[Any] = []
        for inputs, outputs, stride in ((3, 16, 2), (16, 32, 2), (32, 64, 1)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.encoder = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.online, self.predictor = nn.Sequential(self.encoder, mlp(64)), mlp(32)
        self.target = EMA(self.online, decay=DECAY, evaluate=False)
        self.optimizer = torch.optim.AdamW([*self.online.parameters(), *self.predictor.parameters()], weight_decay=1e-4)
        self.rate = LearningRate(self.optimizer, "warm-up 10 steps then cosine 1e-2 to 0")

    def step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        self.target.decay = (
            1 - (1 - DECAY) * (math.cos(math.pi * self.progress.step / self.progress.total_steps) + 1) / 2
        )
        views = torch.cat([view(batch[0]), view(batch[0])])
        foretold = self.predictor(self.online(views))
        with torch.no_grad(), self.target.applied():
            wanted = self.online(views).roll(len(views) // 2, 0)  # what the target makes of the other view
        loss = 2 - 2 * cosine_similarity(foretold, wanted).mean()
        self.minimize(loss)
        return {"loss": loss}

    def pre_validation(self) -> None:
        images, labels = pictures(200, seed=3)
        f = self.features(images)
        self.probe = torch.linalg.solve(f.T @ f + torch.eye(f.shape[1]), f.T @ one_hot(labels, SHAPES).float())

    def features(self, images: Tensor) -> Tensor:
        found = self.encoder(images)
        return torch.cat([(found - found.mean(0)) / (found.std(0) + 1e-5), torch.ones(len(images), 1)], 1)

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        told = (self.features(batch[0]) @ self.probe).argmax(1)
        return {"accuracy": (told == batch[1]).float().mean()}


def main(**settings: Any) -> tuple[float, float]:
    """Train; returns the probe's accuracy on new pictures before training, and after it."""
    settings = {"batch_size": 64, "max_steps": 200, "validate_every": None, "monitor": "accuracy", **settings}
    trainer = BYOL(data=pictures(2000, 1), validation_data=pictures(500, 2), device="cpu", **settings)
    before = trainer.validate()
    return before["accuracy"], trainer.train().validation_metrics["accuracy"]


if __name__ == "__main__":
    print("shapes told by a linear probe: {:.0%} before training, {:.0%} after".format(*main()))
