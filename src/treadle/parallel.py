"""World: the processes that take part in one run, and all that they ever say to one another.

Whatever several processes must agree on goes through the five methods of `World`. In a single process each of them
gives back what it was given, at the cost of a call, so code above is written once, for any number of processes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor

from treadle.errors import UsageError

T = TypeVar("T")


class World:
    """The processes of a run, numbered by `rank` from 0 to `size - 1`. This one is alone.

    A world of several processes is a subclass with the same five methods. All of them are collective: every process
    calls them, in the same order.

    Example:
        world = World()
        total = world.gather(elements)        # [elements]
    """

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files, logs and talks to people: rank 0."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Which of `count` things, in their order, are this process's: everybody's parts together are all of them."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Add up each tensor over the processes, in place, in the order of ranks."""

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


ALONE = World()
"""The world of a single process."""


def this_world() -> World:
    """The world of this process, which is its own: a run is trained by one.

    Raises UsageError in one of several that a launcher such as torchrun has started: each would train the same run.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size.isdecimal() and int(size) > 1:
        raise UsageError(
            f"a run is trained by one process, and here are {size} (WORLD_SIZE): start it with python in place of "
            "torchrun, or unset WORLD_SIZE where nothing has started several"
        )
    return ALONE
