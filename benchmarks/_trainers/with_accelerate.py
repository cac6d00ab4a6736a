"""The program with Accelerate: `save_state`, `load_state` and `skip_first_batches`, with a sampler that has a seed.

The loader has a generator of its own: without one, it draws from the global stream when an epoch begins, after
`load_state` has restored that.
"""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import set_seed
from problem import BATCH, EPOCHS, SAVE_EVERY, Net, adadelta, report, test_data, train_data
from torch.nn.functional import nll_loss
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader


@torch.no_grad()
def test(model, loader):
    model.eval()
    loss = correct = count = 0
    for x, y in loader:
        scores = model(x)
        loss += nll_loss(scores, y, reduction="sum").item()
        correct += (scores.argmax(1) == y).sum().item()
        count += len(y)
    model.train()
    print({"loss": loss / count, "accuracy": correct / count})


class Position:
    """Where the run is: an object that `register_for_checkpointing` takes."""

    def __init__(self):
        self.epoch = self.batch = 0

    def state_dict(self):
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state):
        self.epoch, self.batch = state["epoch"], state["batch"]


def main():
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True))
    set_seed(0)
    net = Net()
    optimizer = adadelta(net)
    model, optimizer, scheduler, loader, test_loader = accelerator.prepare(
        net,
        optimizer,
        StepLR(optimizer, step_size=1, gamma=0.7),
        DataLoader(train_data(), batch_size=BATCH, shuffle=True, generator=torch.Generator()),
        DataLoader(test_data(), batch_size=BATCH),
    )
    at = Position()
    accelerator.register_for_checkpointing(at)
    directory = Path(sys.argv[1]) / "last"
    if directory.exists():
        accelerator.load_state(str(directory))
    step = at.epoch * len(loader) + at.batch
    while at.epoch < EPOCHS:
        loader.set_epoch(at.epoch)
        for x, y in accelerator.skip_first_batches(loader, at.batch) if at.batch else loader:
            optimizer.zero_grad()
            loss = nll_loss(model(x), y)
            accelerator.backward(loss)
            optimizer.step()
            at.batch += 1
            step += 1
            if step % SAVE_EVERY == 0:
                accelerator.save_state(str(directory))
        scheduler.step()
        at.epoch, at.batch = at.epoch + 1, 0
        test(model, test_loader)
    report(net)


if __name__ == "__main__":
    main()
