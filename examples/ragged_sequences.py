"""Sequences of every length: an LSTM learns how curves go on, in batches of similar length, weighted by their points.

Each sequence is the steps of a curve that bends at its own constant rate; the model is to say the next step at every
point, before and against the best one can do without memory: repeating the step before.

    python examples/ragged_sequences.py
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from treadle import Trainer
from treadle.data import DatasetFeed, LengthBuckets, Padded, pad_collate


def curves(count: int, seed: int) -> list[Tensor]:
    """Unit steps (length, 2) of `count` curves of 10 to 60 points, each with a bend of its own and a little noise."""
    rng = torch.Generator().manual_seed(seed)
    found = []
    for length in torch.randint(10, 61, (count,), generator=rng).tolist():
        start, bend = torch.rand(2, generator=rng) * torch.tensor([2 * math.pi, 0.8])
        angle = start + (bend - 0.4) * torch.arange(length) + 0.02 * torch.randn(length, generator=rng)
        found.append(torch.stack([angle.cos(), angle.sin()], dim=1))
    return found


def feed(sequences: list[Tensor], shuffle: bool) -> DatasetFeed:
    """Batches of at most 1,500 points, padding included: few long sequences or many short ones."""
    batching = LengthBuckets([len(s) for s in sequences], max_elements=1500, shuffle=shuffle)
    return DatasetFeed(sequences, batching=batching, collate=pad_collate)


def mean_error(predicted: Tensor, batch: Padded) -> Tensor:
    """Mean of 1 - cos between predicted and true next steps, over the points that have one."""
    has_next = batch.mask[:, 1:]
    cosine = nn.functional.cosine_similarity(predicted[:, :-1], batch.values[:, 1:], dim=2)
    return (1 - cosine)[has_next].mean()


class NextStep(Trainer):
    """Trains an LSTM on padded batches."""

    def setup(self) -> None:
        self.lstm = nn.LSTM(2, 48, batch_first=True)
        self.head = nn.Linear(48, 2)
        self.optimizer = torch.optim.Adam([*self.lstm.parameters(), *self.head.parameters()], lr=1e-2)

    def step(self, batch: Padded) -> dict[str, Tensor]:
        loss = mean_error(self.head(self.lstm(batch.values)[0]), batch)
        self.minimize(loss)
        return {"loss": loss}

    def validation_step(self, batch: Padded) -> dict[str, Tensor]:
        loss = mean_error(self.head(self.lstm(batch.values)[0]), batch)
        return {"loss": loss, "repeating": mean_error(batch.values, batch)}

    def elements(self, batch: Any) -> int:
        return int(batch.elements) - len(batch.lengths)  # the last point of a sequence has no next one


def main(**settings: Any) -> NextStep:
    settings = {"max_epochs": 8, "log_every": "1 epoch", "seed": 0, **settings}
    data, held_out = feed(curves(800, seed=1), shuffle=True), feed(curves(200, seed=2), shuffle=False)
    trainer = NextStep(data=data, validation_data=held_out, **settings)
    trainer.train()
    return trainer


if __name__ == "__main__":
    metrics = main().validation_metrics
    print(f"error on unseen curves: {metrics['loss']:.5f}; repeating the step before: {metrics['repeating']:.5f}")
