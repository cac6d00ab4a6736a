"""A plain PyTorch loop that survives `kill -9` at any instant: start it again, and it ends with the very same bits."""

import sys

import torch
from torch import nn

import treadle


def main(directory="plain_loop", epochs=30, save_every="50 steps"):
    treadle.seed_everything(0)
    places = torch.linspace(-1, 1, 512)[:, None]
    feed = treadle.TensorFeed((places, torch.sin(5 * places)), 32, seed=0)  # its order follows from (seed, epoch)
    model = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Dropout(0.02), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=160, gamma=0.5)
    average = treadle.EMA(model, decay=0.98)
    progress = treadle.Progress(max_epochs=epochs, batches_per_epoch=feed.batches)
    save, losses = treadle.Every(save_every), []

    objects = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "average": average, "feed": feed}
    objects |= {"progress": progress, "losses": losses}
    checkpoints = treadle.Checkpoints(directory)
    if (state := checkpoints.newest()) is not None:
        treadle.restore(objects, state)
        print(f"going on after step {progress.step}")

    while not progress.at_limit:
        for x, y in feed.epoch(progress.epoch, start=progress.batch):
            noisy = y + 0.05 * torch.randn_like(y)  # drawn, like dropout, from torch's global generator
            loss = nn.functional.mse_loss(model(x), noisy)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            average.update()
            losses.append(loss.item())
            progress.count_step()
            if save.due_after_step(progress):
                checkpoints.save(treadle.capture(objects, random=True), progress.step, wait=False)
        progress.count_epoch()
    state = treadle.capture(objects, random=True)
    checkpoints.save(state, progress.step)
    print(f"{progress.step} steps, loss {sum(losses[-16:]) / 16:.4f}, digest {state.digest}")
    return state.digest


if __name__ == "__main__":
    main(*sys.argv[1:])
