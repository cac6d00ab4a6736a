"""The process of a branch: forks a run, trains the fork and serves a studio to its parent alone.

It is started as `python -m treadle.studio.child`, with its orders in JSON on standard input, which stays open. When
that ends without the words "go on", its parent is gone, and it stops where it is, resumable. What it has to say is in
lines of JSON on standard output; what goes wrong is a line on standard error.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from treadle.errors import TreadleError, one_line
from treadle.studio.driving.words import FORKED, GO_ON, READY
from treadle.terminal import say

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer
    from treadle.studio.hook import Studio

LOOK_SECONDS = 0.5


def main() -> int:
    """Carry out the orders on standard input; returns the exit code."""
    orders: dict[str, Any] = json.loads(sys.stdin.readline())
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a trainer prints is no message
    try:
        return _branch(orders, said)
    except TreadleError as error:
        say(f"treadle: {one_line(error)}")
        return error.exit_code
    except Exception as error:
        say(f"treadle: failed: {one_line(error)}")
        return 1


def _branch(orders: Mapping[str, Any], said: IO[str]) -> int:
    from treadle.recipes.actions import branched, recipe_of_run
    from treadle.recipes.scripts import load_trainer
    from treadle.studio.hook import Studio

    parent, script = Path(orders["run"]), orders["trainer"]
    before = recipe_of_run(parent, None if script is None else load_trainer(script))
    recipe = before.with_settings(orders["settings"])
    directory = branched(parent, before, recipe, orders["at"], None, same_data=True)
    _say(said, FORKED, run=str(directory))
    with recipe.build(run_dir=directory, resume=True) as trainer:
        place = {"socket": Path(orders["socket"]), "token": orders["token"]}
        with Studio(trainer, **place, open_browser=False, quiet=True) as studio:
            threading.Thread(target=_heed_parent, args=(trainer, studio), name="treadle-parent", daemon=True).start()
            _say(said, READY, run=str(directory), step=trainer.progress.step)
            try:
                studio.wait()
            except KeyboardInterrupt:
                trainer.stop("interrupted")
            if not trainer.ended:
                trainer.save()
    return 0


def _heed_parent(trainer: Trainer, studio: Studio) -> None:
    """Stop the run when standard input ends; one that was told to go on leaves when it has come to its end."""
    from treadle.engine.commands import Continue, Stop

    if any(line.strip() == GO_ON for line in sys.stdin):
        studio.live.commands.put(Continue())
        while not trainer.ended:
            time.sleep(LOOK_SECONDS)
    studio.live.commands.put(Stop("its parent has ended"))


def _say(said: IO[str], what: str, **fields: Any) -> None:
    said.write(json.dumps({"said": what, **fields}) + "\n")
    said.flush()


if __name__ == "__main__":
    sys.exit(main())
