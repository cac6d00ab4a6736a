"""The GAN trainers against loops as one writes them by hand: default Adam, zero_grad, backward, step, nothing frozen.

After 20 steps the weights of all networks are the same: to the bit where the arithmetic is the same, within 1e-6 with
the fused kernels that a trainer takes by default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from treadle.gans.cyclegan import CycleGANTrainer
from treadle.gans.pix2pix import Pix2PixTrainer

STEPS = 20
SMALL: dict[str, Any] = {
    "max_steps": STEPS,
    "batch_size": 2,  # of 7 pictures: every fourth batch has one
    "shuffle": False,
    "device": "cpu",
    "precision": "fp32",
    "size": 16,
    "features": 4,
    "downs": 2,
    "d_features": 4,
    "patch": 16,
    "learning_rate": "constant 2e-4 for 10 steps then linear to 0",
}

ones, zeros = torch.ones_like, torch.zeros_like
bce, mse, l1 = functional.binary_cross_entropy_with_logits, functional.mse_loss, functional.l1_loss
GAMES: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "bce": (lambda d: bce(d, ones(d)), lambda d: bce(d, zeros(d)), lambda d: bce(d, ones(d))),
    "lsgan": (lambda d: mse(d, ones(d)), lambda d: mse(d, zeros(d)), lambda d: mse(d, ones(d))),
    "hinge": (lambda d: torch.relu(1 - d).mean(), lambda d: torch.relu(1 + d).mean(), lambda d: -d.mean()),
}
"""What is minimized: by the discriminator for real pictures and for fakes, and by the generator."""


def pictures() -> tuple[Tensor, Tensor]:
    """Seven smooth inputs and targets, float32 (7, 3, 16, 16) in [-1, 1]."""
    noise = torch.rand(2, 7, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    x, y = (functional.interpolate(each, size=16, mode="bilinear") for each in noise)
    return x, y


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of a run, in order."""
    x, y = pictures()
    for step in range(STEPS):
        first = step % 4 * 2
        yield x[first : first + 2], y[first : first + 2]


def adam(*networks: nn.Module) -> torch.optim.Adam:
    """The papers' optimizer, with the plain kernels."""
    parameters = [p for network in networks for p in network.parameters()]
    return torch.optim.Adam(parameters, lr=2e-4, betas=(0.5, 0.999))


def decay(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
    """The papers' schedule: constant, then linear to 0."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - max(0, step - STEPS // 2) / (STEPS // 2))


def give_weight(*discriminators: nn.Module) -> None:
    """Make initial weights larger: with N(0, 0.02) and four channels the generator would hardly feel its opponent."""
    for discriminator in discriminators:
        for parameter in discriminator.parameters():
            parameter.data *= 10 if parameter.dim() == 4 else 1


class History:
    """A pool of `size` pictures as its paper describes it, with the draws of the trainer's."""

    def __init__(self, size: int) -> None:
        self.size, self.kept = size, list[Tensor]()

    def __call__(self, images: Tensor) -> Tensor:
        if self.size == 0:
            return images
        chances, slots = torch.rand(len(images)), torch.randint(self.size, (len(images),))
        shown = []
        for image, chance, slot in zip(images, chances, slots.tolist(), strict=True):
            if len(self.kept) < self.size:
                self.kept.append(image)
                shown.append(image)
            elif chance < 0.5:
                shown.append(self.kept[slot])
                self.kept[slot] = image
            else:
                shown.append(image)
        return torch.stack(shown)


def plain_pix2pix(trainer: Pix2PixTrainer, game: str, pool: int) -> dict[str, nn.Module]:
    """Train copies of the trainer's networks, from the same weights, data and random numbers."""
    generator, discriminator = deepcopy(trainer.generator), deepcopy(trainer.discriminator)
    g_adam, d_adam = adam(generator), adam(discriminator)
    schedules, history = (decay(g_adam), decay(d_adam)), History(pool)
    real_loss, fake_loss, g_loss = GAMES[game]
    torch.set_rng_state(trainer.random.state_dict()["torch"])
    for x, y in batches():
        fake = generator(x)
        shown = history(torch.cat([x, fake.detach()], 1))
        d_adam.zero_grad()
        real = 0.5 * real_loss(discriminator(torch.cat([x, y], 1)))
        (real + 0.5 * fake_loss(discriminator(shown))).backward()
        d_adam.step()
        g_adam.zero_grad()
        verdict = g_loss(discriminator(torch.cat([x, fake], 1)))
        (verdict + 100.0 * l1(fake, y)).backward()
        g_adam.step()
        for schedule in schedules:
            schedule.step()
    return {"generator": generator, "discriminator": discriminator}


def plain_cyclegan(trainer: CycleGANTrainer, game: str, pool: int) -> dict[str, nn.Module]:
    """The same for CycleGAN, as its authors order it: the generators first, then the discriminators."""
    names = ("generator_ab", "generator_ba", "discriminator_a", "discriminator_b")
    networks = {name: deepcopy(getattr(trainer, name)) for name in names}
    g_ab, g_ba, d_a, d_b = networks.values()
    g_adam, d_adam = adam(g_ab, g_ba), adam(d_a, d_b)
    schedules, history_a, history_b = (decay(g_adam), decay(d_adam)), History(pool), History(pool)
    real_loss, fake_loss, g_loss = GAMES[game]
    torch.set_rng_state(trainer.random.state_dict()["torch"])
    for a, b in batches():
        fake_b, fake_a = g_ab(a), g_ba(b)
        g_adam.zero_grad()
        verdicts = g_loss(d_b(fake_b)) + g_loss(d_a(fake_a))
        cycles = 10.0 * l1(g_ba(fake_b), a) + 10.0 * l1(g_ab(fake_a), b)
        identities = 5.0 * l1(g_ba(a), a) + 5.0 * l1(g_ab(b), b)
        (verdicts + cycles + identities).backward()
        g_adam.step()
        shown_a, shown_b = history_a(fake_a.detach()), history_b(fake_b.detach())
        d_adam.zero_grad()
        (0.5 * real_loss(d_a(a)) + 0.5 * fake_loss(d_a(shown_a))).backward()
        (0.5 * real_loss(d_b(b)) + 0.5 * fake_loss(d_b(shown_b))).backward()
        d_adam.step()
        for schedule in schedules:
            schedule.step()
    return networks


def largest_difference(trainer: Any, networks: dict[str, nn.Module]) -> float:
    """The largest absolute difference of any weight or running statistic."""
    found = 0.0
    for name, network in networks.items():
        ours, theirs = getattr(trainer, name).state_dict(), network.state_dict()
        assert ours.keys() == theirs.keys()
        found = max(found, *((ours[key].double() - theirs[key].double()).abs().max().item() for key in ours))
    return found


def game_and_norm(*, more: dict[str, Any]) -> list[Any]:
    return [pytest.param(game, norm, more, id=f"{game} {norm}") for game in GAMES for norm in ("batch", "instance")]


def tolerance(game: str, *, fused: bool) -> float:
    """None where the arithmetic is the same: torch's bce is another formula than softplus, its fused Adam rounds."""
    return 1e-6 if fused or game == "bce" else 0.0


@pytest.mark.parametrize(
    ("game", "norm", "more"),
    [
        *game_and_norm(more={"dropout": 0.0}),
        pytest.param("bce", "instance", {"dropout": 0.5}, id="dropout"),
        pytest.param("lsgan", "batch", {"dropout": 0.5, "pool": 3}, id="dropout and pool"),
    ],
)
def test_pix2pix_is_the_loop_one_writes_by_hand(game: str, norm: str, more: dict[str, Any]) -> None:
    kernels = (False, True)
    trainers = [Pix2PixTrainer(data=pictures(), gan=game, norm=norm, fused=fused, **SMALL, **more) for fused in kernels]
    give_weight(*(trainer.discriminator for trainer in trainers))
    plain = plain_pix2pix(trainers[0], game, more.get("pool", 0))
    before = {name: deepcopy(getattr(trainers[0], name)) for name in plain}
    for fused, trainer in zip(kernels, trainers, strict=True):
        trainer.train()
        assert largest_difference(trainer, plain) <= tolerance(game, fused=fused)
        assert largest_difference(trainer, before) > 1e-3


# In 20 steps the small ResNet makes 1e-9 into 1e-3, so it is compared in equal arithmetic only.
RESNET = {"generator": "resnet", "blocks": 1, "fused": False}
UNET = {"generator": "unet", "dropout": 0.0, "fused": True}


@pytest.mark.parametrize(
    ("game", "norm", "more"),
    [
        *game_and_norm(more={**UNET, "pool": 0}),
        pytest.param("lsgan", "instance", {**UNET, "dropout": 0.5, "pool": 3}, id="dropout and pool"),
        pytest.param("hinge", "batch", {**RESNET, "pool": 0}, id="resnet"),
        pytest.param("lsgan", "instance", {**RESNET, "pool": 3}, id="resnet and pool"),
    ],
)
def test_cyclegan_is_the_loop_one_writes_by_hand(game: str, norm: str, more: dict[str, Any]) -> None:
    trainer = CycleGANTrainer(data=pictures(), gan=game, norm=norm, **SMALL, **more)
    give_weight(trainer.discriminator_a, trainer.discriminator_b)
    plain = plain_cyclegan(trainer, game, more["pool"])
    before = {name: deepcopy(getattr(trainer, name)) for name in plain}
    trainer.train()
    assert largest_difference(trainer, plain) <= tolerance(game, fused=more["fused"])
    assert largest_difference(trainer, before) > 1e-3
