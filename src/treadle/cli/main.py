"""`treadle`: finds the command, and turns every ending into one clear line and an exit code."""

from __future__ import annotations

import importlib
import sys
import traceback
import warnings
from collections.abc import Sequence
from keyword import iskeyword
from typing import Any

from treadle.cli import several
from treadle.errors import TreadleError, UsageError, nearest
from treadle.terminal import say, steady_streams

COMMANDS = {
    "train": "train a recipe: treadle train image",
    "sweep": "train a recipe with many settings, and rank them",
    "slurm": "have a cluster train or sweep: writes, and submits, a batch script",
    "resume": "continue a run from its newest checkpoint",
    "verify": "replay a run from a checkpoint and compare digests",
    "fork": "branch a new run from a checkpoint of another",
    "test": "evaluate a run's best model, write pictures and a report",
    "export": "write a run's best model as a file for other programs",
    "translate": "translate pictures with a run's model",
    "runs": "list runs, or compare some",
    "studio": "look at runs in a browser, and drive them",
    "import": "make a run of another program's networks",
    "pairs": "prepare paired pictures for image-to-image translation",
    "tracts": "prepare and look at the data of tractography",
    "track": "track streamlines with a run's best model",
    "recipes": "what can be trained",
    "doctor": "what works on this machine",
}
"""Each command is the module `treadle.cli.<name>` with `run(arguments) -> exit code`, imported when it is called."""

HELP = """usage: treadle COMMAND ...

A training loop you can step, rewind and trust.

commands:
{commands}

options:
  -h, --help            this page; treadle COMMAND --help explains a command
  --version             print the version
  --debug               with any command: show the traceback of an error

examples:
  treadle train image                        fit the default photograph
  treadle train image --data photo.jpg       fit your own
  treadle train image --help                 the recipe's settings
  treadle runs                               what has been trained here

exit codes: 0 done, 1 the run failed or a check did not hold, 2 bad usage,
config or data, 130 and 143 interrupted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; never raises for what a person can do wrong.

    A closed pipe or terminal and a full disk take what it prints from its readers, and change no exit code.
    """
    with steady_streams(), warnings.catch_warnings():
        own = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            # What a person should know of their data: where the code says so tells them nothing.
            if category is UserWarning:
                say(f"treadle: {message}")
            else:
                own(message, category, *where, **more)

        warnings.showwarning = show
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        with several.one_of_several():
            return _dispatch(given)
    except TreadleError as error:
        _explain(error, str(error), debug)
        return error.exit_code
    except SystemExit as leaving:  # argparse leaves so after its help
        return leaving.code if isinstance(leaving.code, int) else 0
    except KeyboardInterrupt as error:
        _explain(error, "interrupted", False)
        return 130
    except Exception as error:
        notes = " ".join(getattr(error, "__notes__", ()))
        tail = "" if debug else " (--debug shows the traceback)"
        _explain(error, f"failed: {type(error).__name__}: {error} {notes}".rstrip() + tail, debug)
        return 1


def _dispatch(arguments: list[str]) -> int:
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help", "help"):
        if command == "help" and len(arguments) > 1:
            return _dispatch([arguments[1], "--help"])
        print(HELP.format(commands="\n".join(f"  {name:<10}  {what}" for name, what in COMMANDS.items())))
        return 0 if arguments else 2
    if command == "--version":
        from treadle import __version__

        print(f"treadle {__version__}")
        return 0
    if command not in COMMANDS:
        what = "option" if command.startswith("-") else "command"
        raise UsageError(f"unknown {what} {command!r}{nearest(command, COMMANDS)}")
    count, rest = several.split_off(command, arguments[1:])
    if count is not None and count > 1:
        return several.launch(count, [command, *rest])
    if several.size() > 1 and command not in several.COMMANDS:
        raise UsageError(
            f"treadle {command} is one process, and a launcher has started {several.size()} (WORLD_SIZE): several "
            f"carry out treadle {' and '.join(several.COMMANDS)}; unset WORLD_SIZE where nothing has started several"
        )
    if several.size() > 1:
        several.meet()  # before anything can go wrong in one of them that the others should hear of
    module = importlib.import_module(f"treadle.cli.{command}{'_' * iskeyword(command)}")
    code: int = module.run(rest)
    return code


def _explain(error: BaseException, message: str, debug: bool) -> None:
    """Say what went wrong: of several processes one does, and the others are told where they wait for this one."""
    world = several.world()
    met = world.size > 1 or several.is_main()
    if world.tells(error) if met else not isinstance(error, UsageError):
        if debug:
            traceback.print_exception(error)
        say(f"treadle: {' '.join(message.split())}")
    world.leave(error)
