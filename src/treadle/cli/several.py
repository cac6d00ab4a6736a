"""A command in several processes: started by `--processes N`, or by torchrun; one of them talks to people."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from treadle.errors import UsageError
from treadle.terminal import say

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from treadle.parallel import World

COMMANDS = ("train", "resume")
"""The commands that several processes can carry out together."""
STARTED = "TREADLE_STARTED"
"""The variable that has the folder in which processes that `--processes` has started leave their numbers."""
MOST = 1024
FORWARDED = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
]  # fmt: skip


def add_processes(parser: ArgumentParser) -> None:
    """Give `parser` the option that says how many processes train; `split_off` has taken it from the arguments."""
    parser.add_argument("--processes", metavar="N", help="train with so many processes here, each of which takes its "
                        "part of every batch; the same as torchrun --nproc-per-node N -m treadle ...")  # fmt: skip


def size() -> int:
    """How many processes a launcher has started; 1 where none has."""
    text = os.environ.get("WORLD_SIZE", "1")
    return int(text) if text.isdecimal() else 1


def is_main() -> bool:
    """Whether this is the process that talks to people, as one does that has no place among the others."""
    rank = os.environ.get("RANK", "0")
    return not (rank.isdecimal() and 0 < int(rank) < size())


def world() -> World:
    """The processes that this one has met; itself alone where it has met none yet."""
    from treadle.parallel import ALONE

    if size() <= 1:
        return ALONE
    import torch.distributed as dist

    from treadle.parallel import this_world

    return this_world() if dist.is_initialized() else ALONE


def meet() -> None:
    """Wait for the other processes; raises RunError where they do not come."""
    from treadle.parallel import this_world

    this_world()


def split_off(command: str, arguments: Sequence[str]) -> tuple[int | None, list[str]]:
    """The number that `--processes` gives, and the arguments without it. Raises UsageError for what is no number."""
    if command == "slurm":  # which has jobs of several processes written
        return None, list(arguments)
    count: str | None = None
    rest: list[str] = []
    waiting = iter(arguments)
    for each in waiting:
        if each == "--processes":
            count = next(waiting, "")
        elif each.startswith("--processes="):
            count = each.partition("=")[2]
        else:
            rest.append(each)
    if count is None or "-h" in rest or "--help" in rest:
        return None, rest
    if command not in COMMANDS:
        raise UsageError(f"treadle {command} is one process: --processes is of treadle {' and '.join(COMMANDS)}")
    if not (count.isdecimal() and 1 <= int(count) <= MOST):
        raise UsageError(f"--processes is {count!r}: expected a whole number of 1 to {MOST}")
    if size() > 1:
        raise UsageError(
            f"--processes starts processes, and a launcher has started {size()} already: leave one of the two out"
        )
    return int(count), rest


def check(config: Any, processes: int | None = None) -> None:
    """Raise UsageError where some of `processes` (those that a launcher has started) would have nothing to do."""
    count, batch_size = size() if processes is None else processes, getattr(config, "batch_size", None)
    if isinstance(batch_size, int) and batch_size < count:
        raise UsageError(
            f"batch_size is {batch_size}, and {count} processes are to share each batch: start {batch_size} at most, "
            "or raise batch_size, which is that of all together"
        )


def launch(count: int, arguments: Sequence[str]) -> int:
    """Carry out a command line in `count` processes of torchrun's; returns the exit code of the main one."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="treadle-processes-") as folder, _forwarding(Path(folder), count):
        os.environ[STARTED] = folder
        # "--": torchrun would take our options for abbreviations of its own.
        own = ["--standalone", "--nproc-per-node", str(count), "--signals-to-handle", "SIGQUIT", "-m", "--", "treadle"]
        try:
            run(parse_args([*own, *arguments]))
        except ChildFailedError as error:
            return _code(error)
        finally:
            del os.environ[STARTED]
    return 0


def _code(error: ChildFailedError) -> int:
    """The exit code of processes that have ended in any other way than well; says which was killed."""
    rank, failure = error.get_first_failure()
    codes = [error.failures.get(0, failure).exitcode, failure.exitcode]
    if failure.exitcode == -signal.SIGKILL:
        say(f"treadle: process {rank} was killed (SIGKILL)")
    return next((code for code in codes if code > 0), 128 - codes[-1])


@contextmanager
def _forwarding(folder: Path, count: int) -> Iterator[None]:
    """Within, signals go to the processes themselves: torchrun's own ways would end them, or leave them behind."""

    def forward(number: int, frame: FrameType | None) -> None:
        started = list(folder.iterdir())
        if len(started) < count and number != getattr(signal, "SIGUSR1", None):
            from torch.distributed.elastic.multiprocessing.api import SignalException

            raise SignalException(f"interrupted by {signal.Signals(number).name}", sigval=signal.Signals(number))
        for each in started:
            with suppress(OSError, ValueError):
                os.kill(int(each.name), number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def one_of_several() -> Iterator[None]:
    """Within, only the main process prints; and who has started it knows its number."""
    folder = os.environ.get(STARTED)
    if folder is not None and Path(folder).is_dir():
        (Path(folder) / str(os.getpid())).touch()
    if is_main():
        yield
        return
    out, err = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        try:
            yield
        finally:
            sys.stdout, sys.stderr = out, err
