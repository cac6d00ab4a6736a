"""A GAN learns a ring of eight Gaussians: two optimizers, two learning-rate schedules, one objective of named terms."""

import math
import tempfile

import torch
import tyro
from PIL import Image
from torch.nn import Linear, ReLU, Sequential
from torch.nn.functional import softplus

from treadle import EMA, LearningRate, Objective, Trainer

MODES, SIGMA, LATENT = 8, 0.08, 8
ANGLES = torch.arange(MODES) * 2 * math.pi / MODES
CENTRES = torch.stack([ANGLES.cos(), ANGLES.sin()], 1)


def network(inputs, outputs):
    return Sequential(Linear(inputs, 128), ReLU(), Linear(128, 128), ReLU(), Linear(128, outputs))


def slope(logits, points):
    """The squared gradient of the discriminator at real points; small, it keeps the game stable (R1)."""
    (gradient,) = torch.autograd.grad(logits.sum(), points, create_graph=True)
    return gradient.square().sum(1).mean()


class RingGAN(Trainer):
    def setup(self):
        self.generator, self.discriminator = network(LATENT, 2), network(2, 1)
        self.g_optimizer = torch.optim.Adam(self.generator.parameters(), betas=(0.0, 0.99))
        self.d_optimizer = torch.optim.Adam(self.discriminator.parameters(), betas=(0.0, 0.99))
        self.g_rate = LearningRate(self.g_optimizer, "constant 1e-3 for 50% then linear to 0")
        self.d_rate = LearningRate(self.d_optimizer, "warm-up 100 steps then cosine 2e-3 to 1e-4")
        self.average = EMA(self.generator, decay=0.995)
        self.objective = Objective()
        self.objective.add("real", lambda logits: softplus(-logits).mean())
        self.objective.add("fake", lambda logits: softplus(logits).mean())
        self.objective.add("slope", slope, weight="linear 0.2 to 0.01 over 50%")
        self.objective.add("fool", lambda logits: softplus(-logits).mean())

    def step(self, real):
        real.requires_grad_(True)
        fake = self.generator(torch.randn(len(real), LATENT, device=self.device))
        on_real, on_fake = self.discriminator(real), self.discriminator(fake.detach())
        d_loss = self.objective(real=(on_real,), fake=(on_fake,), slope=(on_real, real))
        self.minimize(d_loss, self.d_optimizer)
        g_loss = self.objective(fool=(self.discriminator(fake),))
        self.minimize(g_loss, self.g_optimizer)
        return {"d_loss": d_loss.total, "g_loss": g_loss.total}


def histogram(points):
    """Count points, (n, 2), in a picture of the square from -1.5 to 1.5: (256, 256), uint8, y up."""
    x, y = ((points + 1.5) / 3 * 256).long().clamp(0, 255).T
    counts = torch.bincount((255 - y) * 256 + x, minlength=256 * 256).reshape(256, 256)
    return (counts / counts.max()).sqrt().mul(255).byte()


def main(steps: int = 2000, out: str = f"{tempfile.gettempdir()}/ring.png"):
    """Train, print what the samples are like and save a picture; returns their share in each mode, (8,)."""
    torch.manual_seed(0)
    data = CENTRES[torch.randint(MODES, (20_000,))] + SIGMA * torch.randn(20_000, 2)
    trainer = RingGAN(data=data, batch_size=128, max_steps=steps)
    trainer.train()
    with torch.no_grad(), trainer.average.applied():
        sample = trainer.generator(torch.randn(20_000, LATENT, device=trainer.device)).cpu()
    distance, mode = torch.cdist(sample, CENTRES).min(1)
    near = distance < 3 * SIGMA
    share = torch.bincount(mode[near], minlength=MODES) / len(sample)
    print(f"{int((share > 0.5 / MODES).sum())} of {MODES} modes covered; {share.sum():.0%} of the samples are in one")
    print(f"standard deviation within a mode: {(sample - CENTRES[mode])[near].std():.3f} (data: {SIGMA})")
    Image.fromarray(torch.cat([histogram(data), histogram(sample)], 1).numpy()).save(out)
    print(f"data and samples side by side: {out}")
    return share


if __name__ == "__main__":
    tyro.cli(main)
