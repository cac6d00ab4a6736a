"""The studio at the command line: `--studio` of the commands that train, and how they stay for it after the end."""

from __future__ import annotations

import signal
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.cli.common import Parser
from treadle.cli.several import is_main
from treadle.errors import UsageError
from treadle.terminal import say

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer
    from treadle.studio.hook import Studio

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add_studio(parser: Parser) -> None:
    """Give `parser` the options of a studio beside the training."""
    parser.add_argument("--studio", action="store_true", help="show and drive the run in a browser, which stays open "
                        "after the end until its stop or Ctrl-C; each option below asks for it too")  # fmt: skip
    parser.add_argument("--studio-paused", action="store_true", help="begin with a pause, before the first step")
    parser.add_argument("--studio-exit", action="store_true", help="leave when the training has ended")
    add_place(parser, "studio-")


def add_place(parser: Parser, prefix: str = "") -> None:
    """Give `parser` the options that say where a studio listens."""
    parser.add_argument(f"--{prefix}port", metavar="N", type=int, dest="studio_port", help="the port (default: a free "
                        "one)")  # fmt: skip
    parser.add_argument(f"--{prefix}host", metavar="H", dest="studio_host", help="the network to listen at (default: "
                        "127.0.0.1, this machine alone; anything else is not encrypted: ssh -L is safer)")  # fmt: skip
    parser.add_argument(f"--{prefix}socket", metavar="PATH", dest="studio_socket", help="a Unix socket, for you alone, "
                        "instead of a port that every user of the machine can reach")  # fmt: skip
    parser.add_argument(f"--{prefix}root", metavar="/X", dest="studio_root", help="what a proxy puts before the "
                        "studio's paths")  # fmt: skip
    parser.add_argument(f"--{prefix}origin", metavar="URL", dest="studio_origins", action="append", default=[],
                        help="an address under which a proxy shows it: https://hub.example.org")  # fmt: skip


def place(options: Namespace) -> dict[str, Any]:
    """The keyword arguments of a studio that say where it listens. Raises UsageError for what contradicts itself."""
    if options.studio_socket and (options.studio_port is not None or options.studio_host):
        raise UsageError("a studio listens at a port or at a Unix socket, not at both: leave one of them out")
    return {
        "host": options.studio_host or "127.0.0.1",
        "port": options.studio_port or 0,
        "socket": options.studio_socket and Path(options.studio_socket),
        "root": options.studio_root or "",
        "origins": options.studio_origins,
    }


def is_wanted(options: Namespace) -> bool:
    """Whether the command line asks for a studio."""
    theirs = {name: value for name, value in vars(options).items() if name.startswith("studio")}
    return any(value is not None and value is not False and value != [] for value in theirs.values())


def check(options: Namespace) -> None:
    """Raise UsageError, before anything is made, for a studio that cannot be."""
    if is_wanted(options):
        from treadle.studio.extra import need_extra

        need_extra()
        from treadle.studio.address import Place

        Place(**place(options))


@contextmanager
def studio_beside(trainer: Trainer, options: Namespace) -> Iterator[Studio | None]:
    """Within the block the studio that the command line asks for is open; None where it asks for none."""
    if not is_wanted(options) or not is_main():
        yield None
        return
    from treadle.studio.hook import Studio

    with Studio(trainer, paused=options.studio_paused, **place(options)) as studio:
        if (options.studio_host or LOOPBACK[0]) not in LOOPBACK:
            say(f"studio: at {options.studio_host} its token and all that it shows travel unencrypted: ssh -L is safer")
        yield studio


def train_and_stay(studio: Studio, train: Callable[[], int]) -> int:
    """Call `train`, and again when the ended run is opened again, until the studio's stop, Ctrl-C or a signal.

    Returns the code of the last `train`; what it raised last, it raises.
    """
    outcome: list[int | Exception] = []
    before = signal.getsignal(signal.SIGTERM)

    def terminate(handler: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)

    def once() -> None:
        terminate(before)
        try:
            outcome.append(train())
        except Exception as error:
            outcome.append(error)
            raise
        finally:
            terminate(signal.default_int_handler)  # as Ctrl-C: from here on it ends the wait
            if studio.ended:
                say("studio: open until 'stop' in the page or Ctrl-C here")

    try:
        studio.wait(once)
    except KeyboardInterrupt:
        if not outcome:
            raise
    finally:
        terminate(before)
    last = outcome[-1]
    if isinstance(last, Exception):
        raise last
    return last
