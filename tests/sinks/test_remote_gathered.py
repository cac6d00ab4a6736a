"""A service may gather what it is given: it counts as sent once it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recording import Recorded, told

from treadle.runs.metrics import read_metrics


def numbers(lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(line["split"], line["step"], line["values"]) for line in lines]


def test_what_is_gathered_and_not_sent_is_sent_when_the_run_goes_on(
    line: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, blocked = tmp_path / "told", tmp_path / "blocked"
    blocked.touch()

    def sink() -> Recorded:
        return Recorded(file, "Gathering", "gathering_service")

    first = line(run_dir=tmp_path / "line", hooks=[sink()], max_epochs=1)
    first.train()
    said = [text for text in capfd.readouterr().err.splitlines() if "Gathering" in text]
    assert told(file, "scalars") == []
    assert said[0] == "treadle: Gathering: the way is blocked; the run goes on"
    assert said[-1].startswith("treadle: Gathering: its SDK dropped 4 records of scalars (the way is blocked)")
    blocked.unlink()
    line(run_dir=first.run.path, resume=True, hooks=[sink()], max_epochs=2).train()
    assert numbers(told(file, "scalars")) == numbers(read_metrics(first.run.path)) != []


def test_what_is_gathered_is_sent_while_the_run_goes_on(line: Callable[..., Any], tmp_path: Path) -> None:
    trainer = line(run_dir=tmp_path / "line", hooks=[Recorded(tmp_path / "told", "Gathering", "gathering_service")])
    trainer.train()
    assert numbers(told(tmp_path / "told", "scalars")) == numbers(read_metrics(trainer.run.path)) != []
