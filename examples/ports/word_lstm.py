"""A word-level LSTM with truncated backpropagation reads sentences of a small grammar and learns which word follows.

After Mikolov et al. (2010) and Zaremba et al. (2014): the text runs in columns, side by side; memory goes from one
window to the next without its graph; SGD has a large rate that is cut when validation gets no better. Verbs agree with
nouns far before them; as the grammar is known, so is the best perplexity that anything can reach.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from treadle import Trainer

WORDS = ["<end>", "the", "a", "every", "two", "many", "old", "red", "near", "behind"]
WORDS += ["fox", "foxes", "dog", "dogs", "jumps", "jump", "sees", "see"]
WINDOW, COLUMNS = 20, 16


def sentence(rng: torch.Generator) -> tuple[list[str], float]:
    """A sentence, and minus the logarithm of its probability: the sum over the choices that were made."""
    nats = 0.0

    def pick(*choices: str) -> str:
        nonlocal nats
        nats += math.log(len(choices))
        return choices[int(torch.randint(len(choices), (), generator=rng))]

    def nouns(verb_follows: bool) -> list[str]:
        many = pick("one", "many") == "many"
        words = [pick("the", "two", "many") if many else pick("the", "a", "every"), pick("", "old", "red")]
        words.append(pick("foxes", "dogs") if many else pick("fox", "dog"))
        if verb_follows:
            words += [pick("near", "behind"), *nouns(False)] if pick("", "further") else []
            words.append(pick("jump", "see") if many else pick("jumps", "sees"))
        return [word for word in words if word]

    words = nouns(True)
    return [*words, *(nouns(False) if words[-1].startswith("see") else []), "<end>"], nats


def text(length: int, seed: int) -> tuple[tuple[Tensor, Tensor], float]:
    """Words in columns and the words that follow them, each (rows, COLUMNS), and the least possible perplexity."""
    rng, words, nats = torch.Generator().manual_seed(seed), [], 0.0
    while len(words) < length:
        more, theirs = sentence(rng)
        words, nats = words + more, nats + theirs
    codes = torch.tensor([WORDS.index(word) for word in words[:length]]).view(COLUMNS, -1).T.contiguous()
    return (codes[:-1], codes[1:]), math.exp(nats / len(words))


class WordLSTM(Trainer):
    """Trains on windows of rows: `memory` is what was read before them, here and in validation."""

    def setup(self) -> None:
        self.lstm, self.ends = nn.LSTM(32, 64), nn.ModuleList([nn.Embedding(len(WORDS), 32), nn.Linear(64, len(WORDS))])
        self.optimizer = torch.optim.SGD([*self.lstm.parameters(), *self.ends.parameters()], lr=5.0)
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, factor=0.25, patience=0)
        self.memory: dict[str, Any] = {"train": None, "validation": None}

    def read(self, batch: tuple[Tensor, Tensor], which: str) -> Tensor:
        """The mean loss over a window, in nats per word; goes on where the one before ended."""
        words, following = batch
        seen, memory = self.lstm(self.ends[0](words), self.memory[which])
        self.memory[which] = tuple(part.detach() for part in memory)
        return nn.functional.cross_entropy(self.ends[1](seen).flatten(0, 1), following.flatten())

    def pre_epoch(self) -> None:
        self.memory["train"] = None  # the text begins again

    def step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        loss = self.read(batch, "train")
        self.minimize(loss)
        return {"loss": loss}

    def pre_validation(self) -> None:
        self.memory["validation"] = None

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return {"loss": self.read(batch, "validation")}

    def post_validation(self, metrics: dict[str, float]) -> None:
        metrics["perplexity"] = math.exp(metrics["loss"])
        self.plateau.step(metrics["loss"])


def main(**settings: Any) -> tuple[float, float]:
    """Train; returns the perplexity on text that it has not read, and the least possible one."""
    (data, _), (held_out, least) = text(16_000, seed=1), text(4_000, seed=2)
    settings = {"batch_size": WINDOW, "shuffle": False, "clip_norm": 0.25, "max_epochs": 6, **settings}
    trainer = WordLSTM(data=data, validation_data=held_out, **settings)
    trainer.train()
    return trainer.validation_metrics["perplexity"], least


if __name__ == "__main__":
    print("perplexity {:.2f}, where the grammar's own is {:.2f}".format(*main()))
