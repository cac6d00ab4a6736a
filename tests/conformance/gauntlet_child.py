"""The gauntlet's child: reads one task per line, trains it in a process of its own, kills it where it is told to.

A task is JSON: {"name", "run", "workers", "log", "kill": null | {"at": stage, "nth": 1} | {"after": seconds}}; the
answer is {"code": exit code, negative for a signal, "seconds": life of the process}. Each task runs in a fork of this
process, which has imported everything and trained nothing, so it begins as a fresh interpreter would, without its many
seconds of imports. With `--task JSON` it is a fresh interpreter.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STAGES: dict[str, tuple[str, str]] = {
    "step: before backward": ("treadle.engine.minimize:Minimizer._backward", "before"),
    "step: gradients, no update": ("treadle.engine.minimize:Updater.update", "before"),
    "step: parameters updated": ("treadle.engine.minimize:Updater._drop", "before"),
    "step: counted": ("treadle.engine.progress:Progress.count_step", "after"),
    "log: half a metric line": ("treadle.files:os.write", "half"),
    "log: line written": ("treadle.runs.metrics:MetricLog.append", "after"),
    "log: series": ("treadle.runs.metrics:MetricLog.write_series", "before"),
    "row edit: staged": ("treadle.engine.rows:exchange", "before"),
    "row edit: in the middle": ("treadle.engine.row_commit:forget_accumulator", "after"),
    "row edit: done": ("treadle.engine.rows:exchange", "after"),
    "validation: begins": ("treadle.engine.evaluation:Evaluator.evaluate", "before"),
    "validation: ends": ("treadle.engine.evaluation:Evaluator.evaluate", "after"),
    "best model: begins": ("treadle.runs.saving:write_best", "before"),
    "best model: before its rename": ("treadle.runs.best:replace_directory", "before"),
    "best model: written": ("treadle.runs.saving:write_best", "after"),
    "kept model: begins": ("treadle.runs.saving:keep_model", "before"),
    "kept model: others go": ("treadle.runs.saving:prune_models", "before"),
    "kept model: others are gone": ("treadle.runs.saving:prune_models", "after"),
    "rollback: begins": ("treadle.engine.driver:Driver._roll_back", "before"),
    "rollback: done": ("treadle.engine.driver:Driver._roll_back", "after"),
    "snapshot": ("treadle.checkpoint.state:State.copy", "before"),
    "checkpoint: begins": ("treadle.checkpoint.writer:write_checkpoint", "before"),
    "checkpoint: half the tensors": ("treadle.checkpoint.store:_write_all", "half"),
    "checkpoint: state.json, manifest": ("treadle.checkpoint.store:write_synced", "half"),
    "checkpoint: files written": ("treadle.checkpoint.store:_write_files", "after"),
    "checkpoint: before its rename": ("treadle.checkpoint.store:replace_directory", "before"),
    "checkpoint: renamed": ("treadle.checkpoint.store:replace_directory", "after"),
    "checkpoint: a sync": ("treadle.checkpoint.store:sync", "before"),
    "checkpoint: before latest.json": ("treadle.checkpoint.store:write_json", "before"),
    "checkpoint: latest.json moved": ("treadle.checkpoint.store:write_json", "after"),
    "checkpoint: within retention": ("treadle.checkpoint.store:shutil.rmtree", "after"),
    "checkpoint: reported": ("treadle.checkpoint.writer:write_checkpoint", "after"),
    "resume: before restoring": ("treadle.engine.state:restore", "before"),
    "resume: restored": ("treadle.engine.state:restore", "after"),
    "resume: metrics cut": ("treadle.runs.metrics:LineFile.cut_after", "after"),
    "start: config.yaml": ("treadle.runs.run:Run.write_config", "before"),
    "journal": ("treadle.runs.recorder:RunRecorder.on_journal", "after"),
    "end: summary": ("treadle.runs.run:Run.write_summary", "before"),
}
"""Where a process can be told to die: the function, and when in its n-th call. "half" does half of a write first."""

IMPORTED = (
    *("torch._dynamo", "tyro", "PIL.Image", "gauntlet_trainers", "treadle.engine.trainer", "treadle.runs.pictures"),
    *(
        "treadle.hooks.best_model",
        "treadle.hooks.early_stopping",
        "treadle.hooks.kept_models",
        "treadle.runs.recorder",
        "treadle.cli.train",
        "treadle.checkpoint.writer",
        "treadle.runs.attach",
        "treadle.runs.keeping",
        "treadle.runs.saving",
    ),
    *("numba", "scipy.ndimage", "scipy.spatial", "skimage.metrics", "h5py", "nibabel", "trimesh", "igl"),
)
"""What a run imports sooner or later. Here, and not at the top: data workers import this file, too."""


def die(*_: Any) -> None:
    """What the kernel's out-of-memory killer, or a pulled plug, would do."""
    os.kill(os.getpid(), signal.SIGKILL)


def plant(stage: str, nth: int, strike: Callable[[], None] = die, *, deadly: bool = True) -> None:
    """Let the process die in the n-th call of the stage's function, or do what `strike` does.

    Where that is not `deadly` for this process, it goes on, and nothing is written by halves.
    """
    where, when = STAGES[stage]
    module, _, path = where.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def planted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth and when == "half" and deadly:
            half_of(real, args)
        if calls == nth and when != "after":
            strike()
        result = real(*args, **kwargs)
        if calls == nth and when == "after":
            strike()
        return result

    setattr(owner, name, planted)


def half_of(real: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Write the first half of what `real(file, data)` would."""
    file, data = args
    if isinstance(file, Path):
        file.write_bytes(data[: len(data) // 2])
    else:
        real(file, data[: len(data) // 2])


def train(task: dict[str, Any]) -> None:
    """Start the run, or resume it where it has begun, and train to its end."""
    import gauntlet_trainers

    from treadle.runs.run import is_run

    kill = task.get("kill") or {}
    if "at" in kill:
        plant(kill["at"], kill["nth"])
    run = Path(task["run"])
    if task["name"] in gauntlet_trainers.LOOPS:
        gauntlet_trainers.LOOPS[task["name"]](run)
        return
    resume = run.is_dir() and is_run(run)
    if not resume:
        shutil.rmtree(run, ignore_errors=True)
    trainer = gauntlet_trainers.build(task["name"], task["workers"], run_dir=run, resume=resume)
    trainer.train()
    trainer.close()


def in_a_fork(task: dict[str, Any]) -> dict[str, Any]:
    """Train in a fork of this process; returns how it ended."""
    begin = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            log = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for descriptor in (1, 2):
                os.dup2(log, descriptor)
            train(task)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            from multiprocessing import util

            util._exit_function()
            os._exit(code)
    after = (task.get("kill") or {}).get("after")
    if after is not None:
        while time.monotonic() - begin < after:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                break
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - begin}


def prepare() -> None:
    """What takes a process seconds, and has nothing to do with a run: the recipes' trainers are imported, numba has
    read what it needs before its first kernel, and the light of the procedural scene is found."""
    import numba
    from gauntlet_trainers import recipes

    from treadle.cameras.procedural import scene
    from treadle.recipes.registry import trainer

    for name in recipes():
        trainer(name)
    numba.njit(lambda: 0)()
    assert len(scene().light) == 2


def main() -> None:
    """Answer tasks until the pipe is closed."""
    import torch

    torch.set_num_threads(1)
    if "--task" in sys.argv:
        train(json.loads(sys.argv[sys.argv.index("--task") + 1]))
        return
    for module in IMPORTED:
        importlib.import_module(module)
    prepare()
    for text in sys.stdin:
        print(json.dumps(in_a_fork(json.loads(text))), flush=True)


if __name__ == "__main__":
    main()
