"""World: the processes that take part in one run, and all that they ever say to one another.

Whatever several processes must agree on goes through the methods of `World`. In a single process each of them
gives back what it was given, at the cost of a call, so code above is written once, for any number of processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch.distributed
from torch import Tensor

T = TypeVar("T")
LAUNCH = "TORCHELASTIC_RUN_ID"
"""The variable that has torchrun's name of what it has started."""


def restarts() -> int:
    """How often torchrun has started these processes again (`--max-restarts`)."""
    text = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return int(text) if text.isdecimal() else 0


def local_gpu(count: int) -> int | None:
    """Which of the `count` GPUs that this process sees is its own, of the processes that a launcher has started here.

    None where nothing has started several (LOCAL_RANK), and where there are fewer GPUs than processes.
    """
    text = os.environ.get("LOCAL_RANK", "")
    if not text.isdecimal():
        return None
    if int(text) < count:
        return int(text)
    return 0 if count == 1 and "CUDA_VISIBLE_DEVICES" in os.environ else None  # as Slurm shows each task only its own


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` without what a launcher says in it: for a process that is to be alone."""
    said = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK")
    return {
        name: text for name, text in environment.items() if name not in said and not name.startswith("TORCHELASTIC")
    }


class World:
    """The processes of a run, numbered by `rank` from 0 to `size - 1`. This one is alone.

    A world of several processes is a subclass with the same methods. All of them are collective: every process
    calls them, in the same order. What is plain is numbers, texts, None, and lists and dicts (by name) of these.

    Example:
        world = World()
        total = world.gather(elements)        # [elements]
    """

    rank: int = 0
    size: int = 1
    where: Callable[[], str] = staticmethod(lambda: "")
    """What this process is at, for messages: "step 12 (epoch 1, batch 4)"."""

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files, logs and talks to people: rank 0."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Which of `count` things, in their order, are this process's: everybody's parts together are all of them."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Add up each tensor over the processes, in place; all of them get the same bits."""

    def beside(self) -> Callable[[Tensor], Callable[[], None]]:
        """A way for sums that go on while this process computes, or says other things: they cross no other message.

        What it gives begins to add up a tensor in place, and returns what waits for the sum. All processes begin the
        same sums in the same order.
        """
        return lambda _: _nothing

    def spread(self, tensors: Sequence[Tensor], source: int = 0) -> None:
        """Give every process those tensors of process `source`, in place; shapes and dtypes are the same everywhere."""

    def deal(self, tensor: Tensor) -> Tensor:
        """Row i of `tensor` (size, ...) goes to process i; gives the rows that came, by who has sent them."""
        return tensor

    def collect(self, tensor: Tensor) -> Tensor:
        """Every process's tensor, (size, ...), in the order of ranks; shapes and dtypes are the same everywhere."""
        return tensor[None]

    def gather(self, value: T) -> list[T]:
        """Every process's plain value, in the order of ranks."""
        return [value]

    def share(self, value: T) -> T:
        """The plain value of the main process."""
        return value

    def agree(self, value: T, what: str) -> T:
        """`value`, which has to be the same in every process; raises RunError naming `what` where it is not."""
        return value

    def wait(self) -> None:
        """Go on when every process is here."""

    @contextmanager
    def silent(self, during: str) -> Iterator[None]:
        """Within the block nothing can be said to the others, who are at something else: UsageError names `during`."""
        yield

    def tells(self, error: BaseException) -> bool:
        """Whether this process tells people of the error that ends it; the others have the same one, or know."""
        return True

    def leave(self, error: BaseException) -> None:
        """This process ends for that error: the others find it named, where they wait for this one."""


def _nothing() -> None:
    pass


ALONE = World()
"""The world of a single process."""


def this_world() -> World:
    """The world of this process: that of the processes which a launcher (torchrun, srun) has started with it, or alone.

    Raises UsageError where a launcher's variables do not say who is who, RunError where the others do not come.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if torch.distributed.is_available() and (
        torch.distributed.is_initialized() or (size.isdecimal() and int(size) > 1)
    ):
        from treadle.parallel.group import group  # torch's own machinery, which a process that is alone never needs

        return group()
    return ALONE
