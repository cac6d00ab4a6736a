"""Inside Accelerate (pip install accelerate): rows of a parameter come and go, and no kill changes the result.

Accelerate has the devices and the precision; batches, row edits and the state are Treadle's.
"""

import sys

import torch
from accelerate import Accelerator
from torch import nn

import treadle


class Codebook(nn.Module):
    """Points in the plane as the nearest of some codes: moved to where points are, split where many are."""

    def __init__(self, count=4):
        super().__init__()
        self.codes = nn.Parameter(0.1 * torch.randn(count, 2))
        self.register_buffer("use", torch.zeros(count))

    def forward(self, points):
        distances = torch.cdist(points, self.codes)
        nearest = distances.detach().argmin(1)
        self.use += torch.bincount(nearest, minlength=len(self.use))
        return distances[torch.arange(len(points)), nearest].square().mean()


def split(model, optimizer):
    """The busiest half of the codes get a neighbour each; codes that were never used go."""
    busiest = model.use.topk(len(model.use) // 2).indices
    children = {"codes": model.codes[busiest] + 0.02 * torch.randn(len(busiest), 2), "use": model.use[busiest] / 2}
    with treadle.RowEdit({"codes": model.codes, "use": model.use}, [optimizer]) as edit:
        edit.append(children, copy_from=busiest)  # a child goes on with its parent's moments
        edit.keep(torch.cat([model.use > 0, torch.ones(len(busiest), dtype=torch.bool)]))


def main(directory="inside_accelerate", epochs=12):
    treadle.seed_everything(0)
    accelerator = Accelerator(cpu=True)
    angles = torch.rand(800, 1, generator=torch.Generator().manual_seed(1)) * 6.28
    feed = treadle.TensorFeed(torch.cat([angles.cos(), angles.sin()], 1), batch_size=40, seed=0)
    model = Codebook()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    progress = treadle.Progress(max_epochs=epochs, batches_per_epoch=feed.batches)

    objects = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "feed": feed, "progress": progress}
    checkpoints = treadle.Checkpoints(directory)
    if (state := checkpoints.newest()) is not None:
        treadle.restore(objects, state)
        accelerator.print(f"going on after step {progress.step} with {len(model.codes)} codes")

    while not progress.at_limit:
        for points in feed.epoch(progress.epoch, start=progress.batch):
            loss = model((points + 0.05 * torch.randn_like(points)).to(accelerator.device))
            accelerator.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            progress.count_step()
            if progress.step % 60 == 0:
                split(accelerator.unwrap_model(model), optimizer)
            if progress.step % 25 == 0 and accelerator.is_main_process:
                checkpoints.save(treadle.capture(objects, random=True), progress.step)
        progress.count_epoch()
    state = treadle.capture(objects, random=True)
    if accelerator.is_main_process:
        checkpoints.save(state, progress.step)
    accelerator.print(f"{progress.step} steps, {len(model.codes)} codes, digest {state.digest}")
    return state.digest


if __name__ == "__main__":
    main(*sys.argv[1:])
