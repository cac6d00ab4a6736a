"""What the five programs train, and what happens to them: a kill, and a parameter that grows.

The problem has the shape of PyTorch's own example `mnist`: a small convolutional network with dropout, Adadelta, a rate
that is multiplied by 0.7 after each epoch, a test after each epoch. Its pictures are drawn here. Besides the two linear
layers of that example it has one parameter whose number of rows may change.

The programs know nothing of what the environment asks for: TRAINERS_KILL_AT kills the process in the forward pass of
that training step of it, TRAINERS_GROW gives the parameter more rows after GROW_AT updates, TRAINERS_DROPOUT sets the
share that dropout drops.
"""

from __future__ import annotations

import hashlib
import os
import signal

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, max_pool2d, relu, softmax
from torch.utils.data import TensorDataset

EPOCHS, BATCH, SAVE_EVERY, GROW_AT = 3, 32, 4, 9
SIZE, CLASSES = 10, 4


class Net(nn.Module):
    """Logarithms of the classes' probabilities, (batch, CLASSES), of pictures (batch, 1, SIZE, SIZE)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.dropout = nn.Dropout(float(os.environ.get("TRAINERS_DROPOUT", "0.25")))
        self.first, self.second = nn.Linear(8 * 16, 32), nn.Linear(32, CLASSES)
        self.rows = nn.Parameter(torch.randn(6, 32))
        self.kill_at, self.calls = int(os.environ.get("TRAINERS_KILL_AT", "-1")), 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            if self.calls == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.calls += 1
        x = self.dropout(max_pool2d(relu(self.conv(x)), 2))
        x = self.dropout(relu(self.first(x.flatten(1))))
        return log_softmax(self.second(x + softmax(x @ self.rows.T, 1) @ self.rows), 1)


def pictures(count: int, seed: int) -> TensorDataset:
    """Bars that stand, lie or lean to either side, under noise."""
    rng = torch.Generator().manual_seed(seed)
    label = torch.randint(CLASSES, (count,), generator=rng)
    angle = label * torch.pi / CLASSES + 0.2 * torch.randn(count, generator=rng)
    at = torch.arange(SIZE) - (SIZE - 1) / 2
    far = at[:, None] * angle.cos()[:, None, None] - at * angle.sin()[:, None, None]
    noise = 0.5 * torch.randn(count, 1, SIZE, SIZE, generator=rng)
    return TensorDataset((far.abs() < 1.5).float()[:, None] + noise, label)


def train_data() -> TensorDataset:
    """Ten batches."""
    return pictures(10 * BATCH, 1)


def test_data() -> TensorDataset:
    """Four batches."""
    return pictures(4 * BATCH, 2)


def adadelta(model: Net) -> torch.optim.Optimizer:
    """The optimizer; where the environment asks for it, `model.rows` grows after GROW_AT updates."""
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    if "TRAINERS_GROW" in os.environ:
        optimizer.register_step_post_hook(lambda *_: grow_by_hand(model, optimizer))
    return optimizer


def new_rows() -> Tensor:
    """What is added to `Net.rows`, (3, 32)."""
    return torch.randn(3, 32, generator=torch.Generator().manual_seed(9))


def grow_by_hand(model: Net, optimizer: torch.optim.Optimizer) -> None:
    """After GROW_AT updates, add rows to a parameter and to its moments: what has to be written without a row edit."""
    old, more = model.rows, new_rows()
    if optimizer.state[old]["step"] == GROW_AT:
        model.rows = nn.Parameter(torch.cat([old.detach(), more]))
        for group in optimizer.param_groups:
            group["params"] = [model.rows if p is old else p for p in group["params"]]
        state = optimizer.state.pop(old)
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == old.shape:
                state[name] = torch.cat([value, torch.zeros_like(more)])
        optimizer.state[model.rows] = state


def report(model: nn.Module) -> None:
    """Print the digest of the weights: the end of each program."""
    sha = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        sha.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    print("digest", sha.hexdigest())
