"""Fit a line: the smallest complete Treadle program. It writes nothing to disk."""

import torch

from treadle import Trainer


class Line(Trainer):
    def setup(self):
        self.model = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def step(self, batch):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.model(x), y)
        self.minimize(loss)
        return {"loss": loss}


x = torch.linspace(-1, 1, 256)[:, None]
trainer = Line(data=(x, 3 * x + 1), batch_size=32, max_epochs=20, seed=0)
summary = trainer.train()  # or: while trainer.iterate(): ...

print(f"{summary.status} after {summary.epoch} epochs, {summary.step} steps: loss {summary.metrics['loss']:.2e}")
print(f"y = {trainer.model.weight.item():.3f} x + {trainer.model.bias.item():.3f}    (the data: y = 3 x + 1)")
