"""A program that drives the training loop itself: it redraws, pauses, goes on, and edits the learning rate."""

import threading

import torch

from treadle import Trainer


class Wave(Trainer):
    def setup(self):
        self.model = torch.nn.Sequential(torch.nn.Linear(1, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)

    def step(self, batch):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.model(x), y)
        self.minimize(loss)
        return {"loss": loss}


def new_trainer():
    x = torch.linspace(-1, 1, 512)[:, None]
    return Wave(data=(x, torch.sin(5 * x)), batch_size=64, max_epochs=60, log_every="10 steps", seed=0)


@torch.no_grad()
def redraw(trainer):
    """Draw the fitted curve in one line of the terminal, with the step and the loss."""
    y = trainer.model(torch.linspace(-1, 1, 64, device=trainer.device)[:, None]).squeeze(1).clamp(-1, 1)
    bars = "".join(" ▁▂▃▄▅▆▇█"[round(4 + 4 * v)] for v in y.tolist())
    print(f"step {trainer.progress.step:4d}  |{bars}|  loss {trainer.metrics['loss']:.5f}")


def drive(trainer):
    """Take the steps one by one; halfway, pause like a viewer whose user has pressed the space bar."""
    while not trainer.ended:
        while trainer.iterate():
            if trainer.progress.step % 60 == 0:
                redraw(trainer)
            if trainer.progress.step == 240:
                trainer.commands.pause()
        if trainer.paused:
            print("paused: this thread is free for other things, and the trainer waits")
            trainer.commands.resume()


def main():
    driven, plain = new_trainer(), new_trainer()
    drive(driven)
    plain.train()
    ours, theirs = driven.model.state_dict(), plain.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    print(f"\nafter {driven.progress.step} steps the weights are those of train(), bit for bit\n")

    # The command queue may be used from any thread; the trainer obeys between two steps.
    edited = new_trainer()
    while edited.progress.step < 100:
        edited.iterate()
    before = edited.overview().learning_rates["lr"]
    threading.Thread(target=edited.commands.lr_multiplier, args=(0.1,)).start()
    while not any(entry["event"] == "edit" for entry in edited.journal):
        edited.iterate()
    print(f"learning rate: {before:g}, then {edited.overview().learning_rates['lr']:g}")
    for entry in edited.journal:
        print("journal:", {name: value for name, value in entry.items() if name != "time"})
    edited.train()
    print(f"loss: {plain.metrics['loss']:.5f} as planned, {edited.metrics['loss']:.5f} with the edit")
    return driven, plain, edited


if __name__ == "__main__":
    main()
