"""Fit a picture with 2D Gaussians that split where the loss pulls hardest, and die where they have faded."""

import tempfile

import torch
import tyro
from PIL import Image
from torch.nn import Parameter

from treadle import Every, LearningRate, Span, Trainer


def sunset(n=96):
    """A small picture, (n, n, 3) in [0, 1], and the place of each pixel, (n, n, 2): x and y in [0, 1]."""
    y, x = torch.meshgrid(*[(torch.arange(n) + 0.5) / n] * 2, indexing="ij")
    picture = torch.stack([0.25 + 0.7 * y, 0.2 + 0.3 * y, 0.55 - 0.25 * y], -1)
    picture[(x - 0.62) ** 2 + (y - 0.45) ** 2 < 0.03] = torch.tensor([1.0, 0.85, 0.4])
    picture[y > 0.62 + 0.10 * torch.sin(9 * x)] = torch.tensor([0.35, 0.15, 0.35])
    picture[y > 0.78 + 0.07 * torch.cos(13 * x + 1)] = torch.tensor([0.10, 0.06, 0.18])
    return picture, torch.stack([x, y], -1)


class Cloud(Trainer):
    def setup(self):
        self.xy, self.size = Parameter(torch.rand(24, 2)), Parameter(torch.full((24, 2), -2.0))
        self.rgb = Parameter(0.1 * torch.randn(24, 3))
        self.pull = torch.zeros(24, device=self.device)  # how hard each was pulled since the last growth
        self.optimizer = torch.optim.Adam([self.xy, self.size, self.rgb])
        self.rate = LearningRate(self.optimizer, "constant 2e-2 for 70% then linear to 1e-3")

    def paint(self, places):
        """The sum of all Gaussians at places, (..., 2): colours, (..., 3)."""
        away = (places[..., None, :] - self.xy) / self.size.exp()
        return torch.exp(-0.5 * away.square().sum(-1)) @ self.rgb

    def step(self, batch):
        places, colours = batch
        loss = (self.paint(places) - colours).square().mean()
        self.minimize(loss)
        return {"loss": loss}

    def pre_update(self, optimizer):
        self.pull += self.xy.grad.norm(dim=1)

    def post_epoch(self):
        if Every("8 epochs").due_after_epoch(self.progress) and not Span.parse("70%").reached(self.progress):
            self.grow()

    @torch.no_grad()
    def grow(self):
        """Remove what has faded, split the most pulled half in two. All tensors, and Adam's moments, follow."""
        rows = {"xy": self.xy, "size": self.size, "rgb": self.rgb, "pull": self.pull}
        alive = self.rgb.abs().amax(1) > 0.05
        parents = self.pull[alive].argsort(descending=True)[: len(alive) // 2]
        child = {name: tensor[alive][parents] for name, tensor in rows.items()}
        child |= {"size": child["size"] - 0.5, "rgb": 0.7 * child["rgb"], "pull": 0 * child["pull"]}
        shift = 0.5 * child["size"].exp() * torch.randn_like(child["xy"])
        with self.edit_rows(rows) as edit:
            edit.keep(alive)
            edit.replace(parents, child | {"xy": child["xy"] - shift}, moments="keep")
            edit.append(child | {"xy": child["xy"] + shift}, copy_from=parents)


def main(epochs: int = 80, out: str = f"{tempfile.gettempdir()}/sunset.png"):
    """Fit the picture without growth and with it; print both PSNR and save both fits beside the picture."""
    (picture, places), fits = sunset(), []
    for name in ("never grown", "growing"):
        trainer = Cloud(data=(places.flatten(0, 1), picture.flatten(0, 1)), batch_size=1024, max_epochs=epochs)
        if name == "never grown":
            trainer.replace("post_epoch", lambda trainer: None)
        trainer.train()
        fits.append(trainer.paint(places.to(trainer.device)).detach().cpu().clamp(0, 1))
        error = (fits[-1] - picture).square().mean()
        print(f"{name}: {len(trainer.xy)} Gaussians, PSNR {-10 * error.log10():.1f} dB")
    Image.fromarray(torch.cat([*fits, picture], 1).mul(255).byte().numpy()).resize((864, 288), 0).save(out)
    print(f"never grown, growing, and the picture itself: {out}")


if __name__ == "__main__":
    tyro.cli(main)
