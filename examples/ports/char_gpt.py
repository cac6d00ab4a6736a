"""A character-level GPT: a small decoder-only transformer that learns to continue the text of this project's licence.

After Vaswani et al. (2017) and GPT-2 (Radford et al., 2019): causal attention in pre-norm blocks, AdamW with weight
decay on matrices alone, warm-up and cosine decay, gradients clipped at 1, dropout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from treadle import LearningRate, Trainer, parameter_groups

LICENCE = Path(__file__).parents[2] / "LICENSE"
CHARACTERS, CONTEXT, WIDTH = 128, 32, 64


def windows(text: str) -> tuple[Tensor, Tensor]:
    """The ASCII codes of a text in windows, (count, CONTEXT + 1): of its first nine tenths, and of the last one."""
    codes = torch.tensor(list(" ".join(text.split()).encode("ascii")))
    learned, held_out = codes.tensor_split([len(codes) * 9 // 10])
    return learned.unfold(0, CONTEXT + 1, 4), held_out.unfold(0, CONTEXT + 1, CONTEXT)


class Block(nn.Module):
    """Causal attention, then two layers on each place by itself; both add to what flows past."""

    def __init__(self, heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.norm, self.qkv, self.mix = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp_norm = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.norm(x)).chunk(3, dim=2)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        seen = scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.mix(seen))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class GPT(nn.Module):
    """Scores of the next character at each place: (batch, places) -> (batch, places, CHARACTERS)."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.character, self.place = nn.Embedding(CHARACTERS, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        for table in (self.character, self.place):
            nn.init.normal_(table.weight, std=0.3)
        self.blocks = nn.Sequential(*(Block() for _ in range(depth)))
        self.norm, self.scores = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CHARACTERS)

    def forward(self, codes: Tensor) -> Tensor:
        return self.scores(self.norm(self.blocks(self.character(codes) + self.place.weight[: codes.shape[1]])))


class CharGPT(Trainer):
    """Trains a GPT on windows of characters."""

    def setup(self) -> None:
        self.model = GPT()
        plain = {"weight_decay": 0.0}
        groups = parameter_groups(self.model, {"*.bias": plain, "*norm.weight": plain})  # no decay of vectors
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.1)
        self.rate = LearningRate(self.optimizer, "warm-up 10 steps then cosine 1e-2 to 1e-3")

    def step(self, batch: Tensor) -> dict[str, Tensor]:
        loss = cross_entropy(self.model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        if self.model.training:
            self.minimize(loss)
        return {"loss": loss}

    validation_step = step

    def write(self, start: str, length: int) -> str:
        """Continue `start` by `length` characters, each drawn from what the model expects."""
        codes = torch.tensor([list(start.encode("ascii"))], device=self.device)
        with self.evaluating():
            for _ in range(length):
                chances = self.model(codes[:, -CONTEXT:])[0, -1].div(0.8).softmax(0)
                codes = torch.cat([codes, chances.multinomial(1)[None]], dim=1)
        return "".join(map(chr, codes[0].tolist()))


def main(**settings: Any) -> CharGPT:
    learned, held_out = windows(LICENCE.read_text())
    settings = {"batch_size": 32, "max_steps": 300, "clip_norm": 1.0, "validate_every": "100 steps", **settings}
    trainer = CharGPT(data=learned, validation_data=held_out, **settings)
    trainer.train()
    print(trainer.write("Subject to the terms ", 300))
    return trainer


if __name__ == "__main__":
    print(f"nats per character that it has not read: {main().validation_metrics['loss']:.2f}")
