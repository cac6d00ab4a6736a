"""The sinks of a run at the command line: `--log NAME[=WHERE]` of every command that trains, all made here."""

from __future__ import annotations

from argparse import SUPPRESS, Namespace
from typing import TYPE_CHECKING

from treadle.cli.common import Parser
from treadle.cli.several import is_main
from treadle.terminal import say

if TYPE_CHECKING:
    from pathlib import Path

    from treadle.engine.events import Hook
    from treadle.engine.trainer import Trainer


def add_log(parser: Parser) -> None:
    """Give `parser` `--log NAME[=WHERE] ...`."""
    from treadle.sinks.table import descriptions

    known = ", ".join(name for name in descriptions() if name != "console")
    parser.add_argument("--log", metavar="NAME[=WHERE]", nargs="+", action="extend", default=[],
                        help=f"show or keep elsewhere too what is logged: {known.replace('%', '%%')}; "
                        "'treadle doctor' says which are there, and what WHERE is")  # fmt: skip


def add_sinks(parser: Parser) -> None:
    """Give `parser` the option that says where else a run is shown."""
    add_log(parser)
    # What these were called until 0.1; they go with the next release.
    parser.add_argument("--tensorboard", action="store_true", help=SUPPRESS)
    parser.add_argument("--visdom", metavar="URL", nargs="?", const="", help=SUPPRESS)


def tell_report(trainer: Trainer, report: Path) -> None:
    """Send the report of an ended run to the services that it was logged to."""
    if any(hasattr(hook, "takes_files") for hook in trainer.hooks):
        from treadle.sinks.remote import RemoteSink
        from treadle.sinks.sending import send_report

        send_report([hook for hook in trainer.hooks if isinstance(hook, RemoteSink)], trainer.run.path, report)


def sinks(options: Namespace) -> list[Hook]:
    """The sinks that the command line asks for, and the console, which needs no asking.

    Raises UsageError in one line for one that there is not, or that cannot be made.
    """
    from treadle.sinks.table import make

    if not is_main():  # of several processes one has observers
        return []
    old = {"--tensorboard": "tensorboard"} if options.tensorboard else {}
    if options.visdom is not None:
        old["--visdom"] = f"visdom={options.visdom}" if options.visdom else "visdom"
    made: list[Hook] = []
    for text in dict.fromkeys(["console", *options.log, *old.values()]):
        name, equals, where = text.partition("=")
        made.append(make(name, where if equals else None))
    for flag, text in old.items():
        say(f"treadle: {flag} is --log {text} now, and goes with the next release")
    return made
