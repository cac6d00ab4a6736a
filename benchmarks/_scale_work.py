"""What several processes train in the scale benchmark: the same steps by torch's own means, and by Treadle's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from treadle import Trainer
from treadle.data.sampler import epoch_order
from treadle.engine.strands import Strand

ROWS, BATCH = 4096, 128
"""Samples of an epoch, and of a global batch: the same work however many processes share it."""
RATE, MOMENTUM = 1e-2, 0.9


@dataclass(frozen=True)
class Size:
    """An MLP, of so many entries in each layer."""

    name: str
    widths: tuple[int, ...]

    def model(self) -> nn.Sequential:
        """The model with its initial weights, the same in every process and for every contestant."""
        layers: list[nn.Module] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for before, after in zip(self.widths, self.widths[1:], strict=False):
                layers += [nn.Linear(before, after), nn.Tanh()]
        return nn.Sequential(*layers[:-1])

    def data(self) -> tuple[Tensor, Tensor]:
        """An epoch of samples and targets."""
        generator = torch.Generator().manual_seed(1)
        rows = (torch.randn(ROWS, width, generator=generator) for width in (self.widths[0], self.widths[-1]))
        return tuple(rows)  # type: ignore[return-value]

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(a * b + b for a, b in zip(self.widths, self.widths[1:], strict=False))


SIZES = {
    "12k": Size("12k", (48, 80, 88, 10)),
    "1.6M": Size("1.6M", (256, 768, 768, 768, 256)),
}


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum: it does not blow up the last bits of sums, and leaves them in sight, as Adam's would not."""
    return torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, fused=True)


class Net(Trainer):
    """The MLP as a user of Treadle has it."""

    size: Size
    after_step: Callable[[], None] = staticmethod(lambda: None)

    def setup(self) -> None:
        """Model and optimizer."""
        self.model = self.size.model()
        self.optimizer = optimizer_of(self.model)

    def step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        """Fit a batch."""
        loss = nn.functional.mse_loss(self.model(batch[0]), batch[1])
        self.minimize(loss)
        return {"loss": loss}

    def post_step(self, batch: Any, outputs: Any) -> None:
        """Let others have their turn."""
        self.after_step()

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        """How well it fits a batch."""
        return {"loss": nn.functional.mse_loss(self.model(batch[0]), batch[1])}


def trainer(size: Size, **settings: Any) -> Net:
    """A trainer of that MLP, which nothing is asked of but to train."""
    kind = type("Net", (Net,), {"size": size})
    usual: dict[str, Any] = {"batch_size": BATCH, "max_steps": 10**9, "log_every": None, "seed": 0, "device": "cpu"}
    made: Net = kind(data=size.data(), **usual | settings)
    return made


class Contestant:
    """Somebody who takes steps; all of them see the same batches, of which each process has its part."""

    def take(self, steps: int) -> None:
        """Take so many steps."""
        raise NotImplementedError

    def weights(self) -> Tensor:
        """All weights, flat."""
        raise NotImplementedError


class Treadle(Contestant):
    """Ours: `train`, which waits for its turn between two steps.

    Args:
        size: what to train.
        settings: of the trainer.
    """

    def __init__(self, size: Size, **settings: Any) -> None:
        self.trainer = trainer(size, **settings)
        self.trainer.after_step = self._after_step
        self.left = 0
        self.strand = Strand("treadle-turns")
        self.strand.begin(self._train)

    def _train(self) -> None:
        self.trainer.train()

    def take(self, steps: int) -> None:
        self.left = steps
        self.strand.resume()

    def _after_step(self) -> None:
        self.left -= 1
        if not self.left:
            self.strand.wait()

    def weights(self) -> Tensor:
        return flat(self.trainer.model)

    def end(self) -> None:
        """Let go of the run."""
        self.strand.abandon()
        self.strand.end()


class Raw(Contestant):
    """A loop of one's own.

    Args:
        size: what to train.
        rank, ranks: of this process, and how many there are.
        wrap: what is made of the model, such as DDP of it.
        reduce: what is done to the gradients before the update.
    """

    def __init__(
        self,
        size: Size,
        rank: int,
        ranks: int,
        wrap: Callable[[nn.Module], nn.Module] = lambda model: model,
        reduce: Callable[[list[nn.Parameter]], None] = lambda parameters: None,
    ) -> None:
        self.model = size.model()
        self.parameters = list(self.model.parameters())
        self.wrapped, self.reduce = wrap(self.model), reduce
        self.optimizer = optimizer_of(self.model)
        self.batches = self._batches(size, slice(BATCH * rank // ranks, BATCH * (rank + 1) // ranks))

    def take(self, steps: int) -> None:
        for _ in range(steps):
            x, y = next(self.batches)
            nn.functional.mse_loss(self.wrapped(x), y).backward()
            self.reduce(self.parameters)
            self.optimizer.step()
            self.optimizer.zero_grad()

    def weights(self) -> Tensor:
        return flat(self.model)

    @staticmethod
    def _batches(size: Size, part: slice) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = size.data()
        for epoch in count():
            for index in torch.split(torch.from_numpy(epoch_order(ROWS, 0, epoch)), BATCH):
                yield x.index_select(0, index[part]), y.index_select(0, index[part])


def flat(model: nn.Module) -> Tensor:
    """All weights end to end."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def a_message_each(parameters: list[nn.Parameter]) -> None:
    """The mean of gradients as it is often written by hand: a message for each parameter, one after the other."""
    for p in parameters:
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()  # type: ignore[operator]


def contestants(size: Size, rank: int, ranks: int) -> dict[str, Contestant]:
    """Those that train with so many processes."""
    found: dict[str, Contestant] = {"alone": Raw(size, rank, ranks)}
    if ranks > 1:
        found["ddp"] = Raw(size, rank, ranks, DistributedDataParallel)
        views = {"gradient_as_bucket_view": True, "static_graph": True}
        found["ddp, views"] = Raw(size, rank, ranks, lambda model: DistributedDataParallel(model, **views))
        found["each"] = Raw(size, rank, ranks, reduce=a_message_each)
    found["treadle"] = Treadle(size)
    for parts in (2, 4):
        if parts % ranks == 0:
            found[f"parts {parts}"] = Treadle(size, parts=parts)
    return found
