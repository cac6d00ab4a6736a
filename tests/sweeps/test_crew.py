"""Workers in processes of their own: killed, replaced, interrupted, and what they say."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

import treadle
from treadle import RunError, UsageError
from treadle.runs.run import read_environment, read_summary
from treadle.sweeps import crew
from treadle.sweeps.trials import read_sweep

from .conftest import held, wait_for

pytest.importorskip("optuna")


@pytest.mark.timeout(300)  # three processes that import torch, on a machine that may be busy
def test_killed_workers_are_replaced_and_ctrl_c_reaches_all(
    slope: Any, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(crew, "cores", lambda: 2)
    path = tmp_path / "s"
    given: dict[str, Any] = {"sampler": "random", "trials": 3, "run_dir": path}
    given |= {"settings": {"save_every": "1 step"}}
    monkeypatch.setenv("SLOPE_HOLD", "trial-001 trial-002")
    lines: list[str] = []
    heard: list[str] = []
    both = [path / "trial-001", path / "trial-002"]

    monkeypatch.setattr(crew, "say", heard.append)

    others = psutil.Process().children()

    def disturb() -> None:
        wait_for(lambda: held(*both))
        victim = next(child for child in psutil.Process().children() if child not in others)
        victim.kill()
        wait_for(lambda: sum(len((trial / "held").read_text()) for trial in both) == 3)  # another one has come so far
        os.kill(os.getpid(), signal.SIGINT)
        wait_for(lambda: any("stopping after" in line for line in heard))
        for trial in both:
            (trial / "go").touch()

    thread = threading.Thread(target=disturb)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        treadle.sweep(slope, {"lr": "log:1e-3..1"}, workers=2, told=lines.append, **given)
    thread.join()
    assert heard == [
        "treadle: a worker was killed (SIGKILL): another one goes on with its trial",
        "\nstopping after the steps under way (once more: at once)",
    ]
    assert not [child for child in psutil.Process().children() if "treadle.sweeps.worker" in child.cmdline()]
    stopped = read_sweep(path)
    assert [trial.state for trial in stopped.trials] == ["unfinished"] * 2
    assert [read_summary(trial.path / "v001")["status"] for trial in stopped.trials] == ["stopped"] * 2
    # Each worker had its share of two processors, and whoever goes on computes with as many threads.
    assert {trial.threads for trial in stopped.trials} == {1}
    assert read_environment(path / "trial-001" / "v001")["variables"]["OMP_NUM_THREADS"] == "1"
    monkeypatch.delenv("SLOPE_HOLD")
    # What is left ends as in a sweep that nobody disturbed; and here in one process.
    found = treadle.sweep(slope, {"lr": "log:1e-3..1"}, told=lines.append, **given)
    assert found.count("finished") == 3 and len(lines) == 3
    calm = treadle.sweep(slope, {"lr": "log:1e-3..1"}, told=lines.append, **given | {"run_dir": tmp_path / "calm"})
    for trial in calm.trials:
        there = read_summary(path / trial.path.name / "v001")
        assert there["digest"] == read_summary(trial.path / "v001")["digest"]


def test_workers_share_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    echo = 'import os, sys; print(\'{"said": "error", "code": 2, "text": "\' + os.environ[sys.argv[1]] + \'"}\')'
    monkeypatch.setattr(crew, "WORKER", (sys.executable, "-c", echo, "CUDA_VISIBLE_DEVICES"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    seen = set()
    for workers in (1, 2):
        with pytest.raises(UsageError) as caught:
            crew.Crew(tmp_path, workers, None, None, lambda trial: None, share_devices=True).work()
        seen.add(str(caught.value))
    assert crew.visible_devices() == ["4", "GPU-7"] and seen <= {"4", "GPU-7"}
    with pytest.raises(UsageError, match=r"^4,GPU-7$"):
        crew_of(tmp_path).work()


class Dying:
    """Stands in the place of a worker's program."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
        monkeypatch.setattr(crew, "WORKER", (sys.executable, "-c", code))


def crew_of(tmp_path: Path) -> crew.Crew:
    return crew.Crew(tmp_path, 2, None, None, lambda trial: None)


def test_what_kills_every_worker_ends_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Dying(monkeypatch, "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(RunError, match=r"^6 workers ended before any trial did, the last one was killed \(SIGKILL\)$"):
        crew_of(tmp_path).work()


def test_what_is_wrong_with_no_trial_ends_all_with_that_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Dying(monkeypatch, 'import sys; print(\'{"said": "error", "text": "no room", "code": 2}\'); sys.exit(2)')
    with pytest.raises(UsageError, match=r"^no room$"):
        crew_of(tmp_path).work()
