"""The program with Fabric: `fabric.save` and `fabric.load` of everything that has a state, the loader too."""

import sys
from pathlib import Path

import torch
from lightning.fabric import Fabric
from problem import BATCH, EPOCHS, SAVE_EVERY, Net, adadelta, report, test_data, train_data
from torch.nn.functional import nll_loss
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader


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


def main():
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.seed_everything(0)
    fabric.launch()
    net = Net()
    model, optimizer = fabric.setup(net, adadelta(net))
    scheduler = StepLR(optimizer, step_size=1, gamma=0.7)
    loader = StatefulDataLoader(train_data(), batch_size=BATCH, shuffle=True)
    test_loader = fabric.setup_dataloaders(DataLoader(test_data(), batch_size=BATCH))
    state = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "loader": loader, "epoch": 0, "step": 0}
    path = Path(sys.argv[1]) / "last.ckpt"
    if path.exists():
        fabric.load(path, state)
    while state["epoch"] < EPOCHS:
        for x, y in loader:
            optimizer.zero_grad()
            loss = nll_loss(model(x), y)
            fabric.backward(loss)
            optimizer.step()
            state["step"] += 1
            if state["step"] % SAVE_EVERY == 0:
                fabric.save(path, state)
        scheduler.step()
        state["epoch"] += 1
        test(model, test_loader)
    report(net)


if __name__ == "__main__":
    main()
