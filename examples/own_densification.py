"""A densification of one's own: a strategy is a small class that looks at each step and edits rows, no more."""

import math
from dataclasses import dataclass, field

import torch

from treadle import Every
from treadle.cameras.procedural import procedural_capture
from treadle.splats.strategies.base import Pull, Strategy, row_values
from treadle.splats.trainer import SplatsTrainer


@dataclass
class SplitTheBusiest(Strategy):
    """Every so often those that are pulled hardest are split in two, and what has faded goes."""

    every: Every
    share: float = 0.2
    pull: Pull = field(default_factory=Pull, init=False)  # no setting but a state: it is saved with the run

    def after_update(self, scene, rendered):
        self.pull.add(rendered)
        if self.every.due_after_step(scene.finished):
            model = scene.model
            parents = self.pull.mean().argsort(descending=True, stable=True)[: int(self.share * len(model))]
            child = row_values(model, parents)
            child["log_scales"] -= math.log(1.6)
            noise = torch.randn(len(parents), 3, generator=scene.generator("split"))
            shift = noise.to(model.means) * child["log_scales"].exp()
            alive = model.opacities() > 0.005
            alive[parents] = True
            with scene.edit() as edit:  # every parameter, and Adam's moments, at once or not at all
                edit.replace(parents, child | {"means": child["means"] - shift}, moments="keep")
                edit.append(child | {"means": child["means"] + shift})
                edit.keep(torch.cat([alive, alive.new_ones(len(parents))]))
            self.pull.clear(model.means)


class Busiest(SplatsTrainer):
    """Trains with it; on the command line: --trainer own_densification.py:Busiest."""

    def build_strategy(self):
        return SplitTheBusiest(Every("10%"))


def main(steps: int = 300, size: int = 64):
    """Train a small scene without growth and with it; print how many splats there are, and the held-out PSNR."""
    capture = procedural_capture(size, train=20, test=4)
    for kind, name in ((SplatsTrainer, "never grown"), (Busiest, "grown")):
        trainer = kind(data=capture, max_steps=steps, random=500, strategy="none", examples_every=None)
        psnr = trainer.train().validation_metrics["psnr"]
        print(f"{name}: {len(trainer.model)} splats, {psnr:.1f} dB")


if __name__ == "__main__":
    main()
