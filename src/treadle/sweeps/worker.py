"""The process of a worker: trains trials of a sweep, and tells its parent how each ended.

It is started as `python -P -m treadle.sweeps.worker`, with its orders in JSON on the first line of standard input. When
that ends, or says "stop", it stops after the step under way, and what it trains can be resumed: its parent has been
told to, or is gone. What it has to say is in lines of JSON on standard output; what a trial prints goes into the
trial's own `output.txt`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from treadle.errors import TreadleError, one_line
from treadle.sweeps.plan import RECIPE
from treadle.sweeps.trials import OUTPUT, Trial

ENDED, ERROR = "ended", "error"
"""What it says: that a trial has ended, with the trial; that no trial is to blame for what went wrong."""


def main() -> int:
    """Carry out the orders on standard input; returns the exit code."""
    orders: dict[str, Any] = json.loads(sys.stdin.readline())
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a trainer prints is no message
    try:
        _work(Path(orders["sweep"]), orders["trainer"], orders["url"], orders["log"], said)
        return 0
    except TreadleError as error:
        _say(said, ERROR, text=one_line(error), code=error.exit_code)
        return error.exit_code
    except Exception as error:
        _say(said, ERROR, text=f"failed: {one_line(error)}", code=1)
        return 1


def _work(path: Path, script: str | None, url: str | None, log: list[str], said: IO[str]) -> None:
    import torch

    from treadle.recipes.registry import load_recipe
    from treadle.recipes.scripts import load_trainer
    from treadle.sweeps.plan import read_plan
    from treadle.sweeps.search import dimensions
    from treadle.sweeps.study import Study
    from treadle.sweeps.training import Stop
    from treadle.sweeps.work import work

    stop = Stop()
    threading.Thread(target=_heed_parent, args=(stop,), name="treadle-parent", daemon=True).start()
    planned = read_plan(path)
    recipe = load_recipe(path / RECIPE, None if script is None else load_trainer(script))
    dims = dimensions(planned.plan.search, recipe)
    study = Study(planned, dims, url, torch.get_num_threads())

    def told(trial: Trial) -> None:
        _say(said, ENDED, trial=asdict(trial) | {"path": str(trial.path)})

    work(study, planned.plan, recipe, dims, stop, told, _listen, log)


def _listen(trial: Trial) -> None:
    """From here on, what this process prints is kept with the trial."""
    descriptor = os.open(trial.path / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _heed_parent(stop: Any) -> None:
    for line in sys.stdin:
        if line.strip() == "stop":
            break
    stop.ask("interrupted")


def _say(said: IO[str], what: str, **fields: Any) -> None:
    with suppress(OSError):  # the parent is gone; all it would have learnt is in the files
        said.write(json.dumps({"said": what, **fields}) + "\n")
        said.flush()


if __name__ == "__main__":
    sys.exit(main())
