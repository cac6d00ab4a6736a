"""Inside Lightning (pip install lightning==2.6.6): rows of parameters split and die, and no kill changes the result."""

import sys

import lightning as L
import torch
from torch import nn

import treadle


class Bumps(L.LightningModule):
    """A curve as a sum of Gaussian bumps; every 50 steps those that are low die and the highest split."""

    def __init__(self, count=8):
        super().__init__()
        self.at = nn.Parameter(torch.linspace(-1, 1, count)[:, None])
        self.height = nn.Parameter(0.1 * torch.randn(count, 1))

    def training_step(self, batch, _):
        x, y = batch
        curve = (self.height * torch.exp(-60 * (x[:, 0] - self.at) ** 2)).sum(0)[:, None]
        return nn.functional.mse_loss(curve, y + 0.02 * torch.randn_like(y))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)

    def grow(self):
        height = self.height.detach().abs().squeeze(1)
        parents = height.topk(3).indices
        with treadle.RowEdit({"at": self.at, "height": self.height}, self.trainer.optimizers) as edit:
            edit.keep(height > 0.02)  # and their moments, in the optimizer that Lightning holds
            edit.append({"at": self.at[parents] + 0.05, "height": self.height[parents] / 2})


class Exact(L.Callback):
    """What Lightning iterates, and what saves and restores: its place is `progress`, not Lightning's own counters."""

    def __init__(self, feed, epochs, directory):
        self.feed, self.checkpoints = feed, treadle.Checkpoints(directory)
        self.progress = treadle.Progress(max_epochs=epochs, batches_per_epoch=feed.batches)

    def __iter__(self):
        return self.feed.epoch(self.progress.epoch, start=self.progress.batch)

    def __len__(self):  # so that Lightning does not read ahead
        return self.feed.batches - self.progress.batch

    def on_fit_start(self, trainer, module):
        self.objects = {"module": module, "optimizers": trainer.optimizers, "feed": self.feed, "place": self.progress}
        if (state := self.checkpoints.newest()) is not None:
            treadle.restore(self.objects, state)
            print(f"going on after step {self.progress.step} with {len(module.at)} bumps")

    def on_train_batch_end(self, trainer, module, outputs, batch, number):
        self.progress.count_step()
        if self.progress.batch == self.feed.batches:
            self.progress.count_epoch()
        if self.progress.step % 50 == 0:
            module.grow()
        if self.progress.step % 20 == 0 or self.progress.at_limit:
            self.checkpoints.save(treadle.capture(self.objects, random=True), self.progress.step)
        trainer.should_stop = self.progress.at_limit


def main(directory="inside_lightning", epochs=20):
    treadle.seed_everything(0)
    x = torch.linspace(-1, 1, 512)[:, None]
    exact, bumps = Exact(treadle.TensorFeed((x, torch.sin(5 * x) * x), 32, seed=0), epochs, directory), Bumps()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    L.Trainer(max_epochs=-1, accelerator="cpu", callbacks=[exact], **quiet).fit(bumps, exact)
    state = exact.checkpoints.newest()
    print(f"{state.step} steps, {len(bumps.at)} bumps, digest {state.digest}")
    return state.digest


if __name__ == "__main__":
    main(*sys.argv[1:])
