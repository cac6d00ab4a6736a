"""A field and a tracer of one's own, together and with those of the pack: soft balls, seen by light and by X-rays."""

import torch

from treadle import Trainer
from treadle.cameras.procedural import procedural_capture
from treadle.data.views import ViewFeed
from treadle.fields.field import Field
from treadle.fields.pipeline import Pipeline
from treadle.fields.rays import Rays
from treadle.fields.structures.occupancy import OccupancyGrid
from treadle.fields.tracer import Traced, Tracer, declared
from treadle.fields.tracers.radiance import RadianceTracer


class Balls(Field):
    channels = {"density": 1, "color": 3, "heat": 1}

    def __init__(self, count=40):
        super().__init__()
        self.centers = torch.nn.Parameter(1.4 * torch.quasirandom.SobolEngine(3).draw(count) - 0.7)
        self.log_radii = torch.nn.Parameter(torch.full((count,), -2.0))
        self.colors = torch.nn.Parameter(torch.zeros(count, 3))

    def forward(self, points, directions=None, channels=None, lod=None):
        squares = (points[:, None] - self.centers).square().sum(2)
        shares = (-squares / self.log_radii.exp().square()).exp()
        every = shares.sum(1, keepdim=True).clamp(min=1e-6)
        color = shares @ self.colors.sigmoid() / every
        return {"density": 20 * every, "color": color, "heat": shares.amax(1, keepdim=True)}


class XRay(Tracer):
    def __init__(self, structure, step=0.02):
        super().__init__()
        self.structure, self.step = structure, step

    def forward(self, field, rays, channels=("color",), *, background=None, generator=None, lod=None):
        jitter = None if generator is None else torch.rand(len(rays), generator=generator)
        samples = self.structure.march(rays, step=self.step, jitter=jitter)
        there = rays[samples.rays]
        points = there.origins + samples.distances[:, None] * there.directions
        found = field(points, there.directions, ["density", *channels], lod)
        absorbed = found["density"] * samples.deltas[:, None]

        def total(values):
            return values.new_zeros(len(rays), values.shape[1]).index_add(0, samples.rays, values)

        thickness = total(absorbed).clamp(min=1e-9)
        means = {name: total(absorbed * found[name]) / thickness for name in declared(field, "density", channels)}
        distance = (total(absorbed * samples.distances[:, None]) / thickness)[:, 0]
        return Traced(means, distance, 1 - (-thickness[:, 0]).exp(), len(points))


class BallsTrainer(Trainer):
    def setup(self):
        self.model = Pipeline(Balls(), RadianceTracer(OccupancyGrid(16), step=0.08))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.03)

    def step(self, view):
        if self.progress.step % 20 == 19:  # now and then, look where anything is by now
            field, generator = self.model.field, torch.Generator().manual_seed(self.progress.step)
            self.model.tracer.structure.update(lambda points: field(points)["density"], generator, step=0.08)
        color = self.model(Rays.of(view.camera)).channels["color"]
        loss = torch.nn.functional.mse_loss(color, view.target(torch.zeros(3)).colors.reshape(-1, 3))
        self.minimize(loss)
        return {"loss": loss}


def main(steps=150, size=32):
    capture = procedural_capture(size, train=24, test=1)
    trainer = BallsTrainer(data=ViewFeed(capture.train), max_steps=steps, device="cpu", seed=0)
    loss = trainer.train().metrics["loss"]
    xray = Pipeline(trainer.model.field, XRay(trainer.model.tracer.structure))
    seen = xray(Rays.of(capture.test.cameras[0]), ["heat"])
    print(f"loss {loss:.4f}; {seen.opacity.mean():.0%} of the light is absorbed")


if __name__ == "__main__":
    main()
