"""Never in the way: whatever a service does, the run ends as it would have without it, and soon."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recording import Recorded, told

from treadle.runs.run import read_journal

QUIET = ("Floods", "Draws", "Handles", "Forks", "Slow")
"""They misbehave, and get everything all the same."""
LOUD = {
    "Exits": "12 records of scalars not sent (SystemExit: 4)",
    "Dies": "1 record of scalars not sent (its process ended with code 5: a segmentation fault)",
    "Raises": "RuntimeError: no: https://***@example.org said no to ***; the run goes on",
    "Nonsense": "it answers nonsense: a frame of",
    "Greedy": "12 records of scalars not sent (MemoryError)",
    "Refuses": "3 events, 1 artifact, 1 summary not sent (ConnectionError: nobody is there)",
    "Drops": "its SDK dropped 3 records of scalars;",
}
HANGING = {
    "HangsInOpen": "12 records of scalars, 3 events, 1 artifact, 1 summary not sent (not done in 6 s)",
    "HangsInScalars": "12 records of scalars",
    "HangsInClose": "not closed (not done in 6 s)",
}
"""What is said about the others."""


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(("kinds", "seconds"), [({**LOUD, **dict.fromkeys(QUIET, "")}, 60), (HANGING, 6)])
def test_services_change_nothing(
    line: Callable[..., Any],
    tmp_path: Path,
    kinds: Mapping[str, str],
    seconds: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", str(seconds))
    bare = line(run_dir=tmp_path / "bare", save_every=None).train()
    handlers = [signal.getsignal(number) for number in range(1, 32)]
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist(), os.getcwd(), torch.get_rng_state()
    hooks = [Recorded(tmp_path / kind, kind, "hostile_service") for kind in kinds]
    trainer = line(hooks=hooks, run_dir=tmp_path / "runs" / "line", save_every=None)
    began = time.monotonic()
    while trainer.iterate():
        if trainer.progress.step == 11 and "HangsInClose" in kinds:  # it has begun before the end, which is short
            wait_for(lambda: len(told(tmp_path / "HangsInClose", "scalars")) >= 6)
        began = time.monotonic()
    assert time.monotonic() - began < seconds + 30
    summary = trainer.summary()
    after = random.getstate(), np.random.get_state()[1].tolist(), os.getcwd(), torch.get_rng_state()
    assert summary.digest == bare.digest and summary.status == "finished"
    assert before[:3] == after[:3] and torch.equal(before[3], after[3])
    assert handlers == [signal.getsignal(number) for number in range(1, 32)]
    said = capfd.readouterr().err.splitlines()
    run = trainer.run.path
    for kind, expected in kinds.items():
        own = [text for text in said if text.startswith(f"treadle: {kind}: ")]
        assert any(expected in text for text in own) or (kind in QUIET and not own), (kind, own)
        if kind in QUIET:
            steps = [line["step"] for line in told(tmp_path / kind, "scalars")]
            assert steps == [2, 4, 4, 4, 6, 8, 8, 8, 10, 12, 12, 12]
        elif kind != "Nonsense":  # another process got everything
            assert sum(text.endswith(f"; treadle runs --to recorded {run} sends it") for text in own) == 1
    secrets = ("hunter22", "0123456789abcdef01")
    for text in ["\n".join(said), *(path.read_text() for path in run.rglob("*.json*"))]:
        assert not any(secret in text for secret in secrets)
    lost = {entry["service"] for entry in read_journal(run) if entry["event"] == "not sent"}
    assert lost == {"recorded"}
