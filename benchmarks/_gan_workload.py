"""What everybody trains in the pix2pix benchmark: networks, optimizers, pictures, and what the work came to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from treadle.data.random import RandomStreams
from treadle.data.sampler import epoch_order
from treadle.gans.pix2pix import Pix2PixConfig

RATE, BETAS = 2e-4, (0.5, 0.999)


@dataclass(frozen=True)
class Workload:
    """Networks of pix2pix at one size, as settings of `Pix2PixTrainer`, and how long they are trained.

    Attributes:
        warm_up: steps before anything is timed.
        settle, timed: steps in a turn before the clock is read, and those that it times.
        rounds: turns.
    """

    title: str
    settings: dict[str, Any]
    warm_up: int
    settle: int
    timed: int
    rounds: int
    pictures: int = 16

    @property
    def config(self) -> Pix2PixConfig:
        """What `Pix2PixTrainer` is told; the other loops build their networks from it too."""
        return Pix2PixConfig(
            max_steps=self.steps,
            precision="bf16",
            learning_rate=f"constant {RATE}",
            ema=None,
            save_every="100 steps",  # as in the recipe; the last state is saved in any case
            examples_every=None,  # the others make no pictures on the way, and keep no models
            keep_generators=0,
            **self.settings,
        )

    @property
    def steps(self) -> int:
        """Steps that everybody takes; the last one closes the last reading."""
        return self.warm_up + self.rounds * (self.settle + self.timed) + 1

    def data(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets, float32 (pictures, 3, size, size) in [-1, 1]: noise, and the same in other colours."""
        size = self.config.size
        x = torch.rand(self.pictures, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
        return x, x.flip(1) * 0.5

    def batches(self) -> Batches:
        """The batches of `TensorFeed` with seed 0: as many as there are steps."""
        return Batches(self.data(), self.steps)


class Batches:
    """Batches of one pair, in the order and by the gather of Treadle's feed; all epochs after one another."""

    def __init__(self, data: tuple[Tensor, Tensor], steps: int) -> None:
        self.data, self.steps = data, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = self.data
        for step in range(self.steps):
            epoch, batch = divmod(step, len(x))
            if batch == 0:
                order = torch.from_numpy(epoch_order(len(x), 0, epoch))
            index = order[batch : batch + 1]
            yield x.index_select(0, index), y.index_select(0, index)


@dataclass
class Players:
    """Both networks with their optimizers; with an average of the generator's weights, if somebody keeps one."""

    generator: nn.Module
    discriminator: nn.Module
    g_adam: torch.optim.Optimizer
    d_adam: torch.optim.Optimizer
    shadows: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, workload: Workload, fused: bool | None, average: bool = False) -> Players:
        """New ones, with the initial weights that the global random stream gives."""
        config = workload.config
        generator, discriminator = config.build_generator(), config.build_discriminator(6)
        shadows = [parameter.detach().clone() for parameter in generator.parameters()] if average else []
        adams = (
            torch.optim.Adam(network.parameters(), lr=RATE, betas=BETAS, fused=fused)
            for network in (generator, discriminator)
        )
        return cls(generator, discriminator, *adams, shadows)

    def digest(self) -> str:
        """SHA-256 over all weights, and the average if there is one."""
        sha = hashlib.sha256()
        for tensor in (*self.generator.parameters(), *self.discriminator.parameters(), *self.shadows):
            sha.update(tensor.detach().numpy())
        return sha.hexdigest()

    @torch.no_grad()
    def quality(self, data: tuple[Tensor, Tensor]) -> float:
        """Mean absolute difference of what the generator makes, without dropout, in float32, to the targets."""
        self.generator.eval()
        errors = [(self.generator(x[None]) - y).abs().mean() for x, y in zip(*data, strict=True)]
        return float(torch.stack(errors).mean())


def streams() -> RandomStreams:
    """The random streams that a Treadle run with seed 0 begins with: equal initial weights, equal dropout."""
    return RandomStreams(0)


RECIPE = {"size": 128, "features": 32, "d_features": 32, "upsampling": "bilinear"}
WORKLOADS = {
    "256": Workload("U-Net of 54.4 M parameters, 256 px", {"size": 256}, 2, 1, 2, 6),
    "128": Workload("U-Net of 41.8 M parameters, 128 px", {"size": 128}, 2, 1, 4, 5),
    "recipe": Workload("The shipped recipe's U-Net of 7.6 M parameters, 128 px", RECIPE, 4, 2, 8, 6),
}
"""What is timed by the wall clock."""

THIN = Workload(
    "The recipe's layers of one feature each, 128 px", RECIPE | {"features": 1, "d_features": 1}, 4, 2, 8, 8
)
"""As many layers, operators and parameter tensors as the recipe, next to no arithmetic: what is left is overhead."""

TINY = Workload(
    "Tiny networks, 32 px", {"size": 32, "features": 4, "d_features": 4, "patch": 16}, 2, 1, 2, 1, pictures=4
)
"""For the tests."""
