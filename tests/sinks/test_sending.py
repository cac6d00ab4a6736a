"""Runs that are over, sent to a service from their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import Recorded, told

from treadle import RunError, UsageError, testing
from treadle.cli import runs
from treadle.cli.sinks import tell_report
from treadle.sinks import table
from treadle.sinks.sending import send_run


@pytest.fixture
def done(line: Callable[..., Any], tmp_path: Path) -> Path:
    """A run that nobody was told of."""
    trainer = line(run_dir=tmp_path / "runs" / "line")
    trainer.iterate()
    trainer.log_image("probe", torch.full((2, 3), 0.5))
    trainer.train()
    path: Path = trainer.run.path
    return path


def test_a_finished_run_is_sent_once(done: Path, tmp_path: Path) -> None:
    file = tmp_path / "told"
    (done / "test").mkdir()
    (done / "test" / "report.json").write_text("{}")
    progress: list[tuple[float, int]] = []
    sent = send_run(Recorded(file), done, lambda *how: progress.append(how))
    lines = [line["what"] for line in told(file)]
    assert lines[0] == "open" and lines[-4:] == ["artifact", "artifact", "summary", "close"]
    counts = {"scalars": 12, "event": 5, "picture": 1, "artifact": 2, "summary": 1, "close": 1}
    assert {what: lines.count(what) for what in counts} == counts
    assert dict(sent.counts) == {name: count for name, count in counts.items() if name != "close"}
    assert sent.where == "recorded in told" and told(file, "close")[0]["status"] == "finished"
    assert not progress or progress[-1][1] >= 19
    assert not send_run(Recorded(file), done).counts and len(told(file)) == len(lines)
    (done / "test" / "report.json").write_text('{"psnr": 3}')  # tested anew
    assert dict(send_run(Recorded(file), done).counts) == {"artifact": 1}
    assert [line["what"] for line in told(file)[len(lines) :]] == ["open", "artifact", "close"]
    assert told(file, "open")[1]["goes_on"]


def test_what_a_run_has_told_itself_is_not_sent(line: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "told"
    trainer = line(run_dir=tmp_path / "runs" / "line", hooks=[Recorded(file)])
    trainer.iterate()
    trainer.log_image("probe", torch.rand(2, 3))
    trainer.log_text("note", "hello")
    trainer.train()
    before = told(file)
    assert not send_run(Recorded(file), trainer.run.path).counts
    assert told(file) == before


def test_what_did_not_arrive_is_sent(
    line: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "0.2")
    file = tmp_path / "told"
    trainer = line(run_dir=tmp_path / "runs" / "line", hooks=[Recorded(file, "HangsInScalars", "hostile_service")])
    trainer.train()
    assert "treadle runs --to recorded" in capfd.readouterr().err
    assert send_run(Recorded(file), trainer.run.path).counts["scalars"] == 12
    assert [line["step"] for line in told(file, "scalars")] == [2, 4, 4, 4, 6, 8, 8, 8, 10, 12, 12, 12]
    assert not send_run(Recorded(file), trainer.run.path).counts
    assert {line["event"] for line in told(file, "event")} == {"start", "checkpoint", "finish"}  # and not "not sent"


def test_a_run_that_was_killed_is_sent_as_such(line: Callable[..., Any], tmp_path: Path) -> None:
    trainer = line(run_dir=tmp_path / "runs" / "line")
    for _ in range(5):
        trainer.iterate()
    with pytest.raises(UsageError, match=r"is being trained: send it when that is over"):
        send_run(Recorded(tmp_path / "told"), trainer.run.path)
    testing.kill(trainer)
    send_run(Recorded(tmp_path / "told"), trainer.run.path)
    assert told(tmp_path / "told")[-1] == {"what": "close", "status": "killed"}
    assert len(told(tmp_path / "told", "scalars")) == 4


def test_a_service_that_does_not_take_it_is_named(done: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"line/v001: .*not sent \(ConnectionError: nobody is there\)"):
        send_run(Recorded(tmp_path / "told", "Refuses", "hostile_service"), done)
    with pytest.raises(RunError, match=r"12 records of scalars.* not sent \(RuntimeError: no: "):
        send_run(Recorded(tmp_path / "told", "Raises", "hostile_service"), done)


def test_the_command(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(table.SINKS, "recorded", ("recording:Recorded", "for tests"))
    monkeypatch.chdir(tmp_path)
    asked = f"recorded={tmp_path / 'told'}"
    assert runs.run(["--to", asked, "runs"]) == 0
    assert capsys.readouterr().out == (
        "runs/line/v001: 12 records of scalars, 5 events, 1 picture, 1 artifact, 1 summary sent to Recording at "
        "recorded in told\n"
    )
    assert runs.run(["--to", asked, "runs/line"]) == 0
    assert capsys.readouterr().out == "runs/line/v001: Recording has all of it at recorded in told\n"
    for arguments, message in (
        ([], "name one or more"),
        (["runs", "--csv", "x.csv"], "--to sends runs, --csv draws curves"),
        (["nothing"], "no run nothing"),
    ):
        with pytest.raises(UsageError, match=message):
            runs.run(["--to", asked, *arguments])
    with pytest.raises(UsageError, match="--to tensorboard: that is no service"):
        runs.run(["--to", "tensorboard", "runs"])


def test_a_report_made_after_the_end_is_sent_where_there_is_room_for_files(
    line: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Roomless(Recorded):
        name, takes_files = "roomless", False

    file, other = tmp_path / "told", tmp_path / "other"
    trainer = line(hooks=[Recorded(file), Roomless(other)], run_dir=tmp_path / "line", max_epochs=1)
    trainer.train()
    before, run = told(other), trainer.run.path
    (run / "report").mkdir()
    (run / "report" / "page.html").write_text("<p>")
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "60")
    tell_report(trainer, run / "report")
    assert [line["name"] for line in told(file, "artifact")] == ["best_model", "report"]
    assert [line["status"] for line in told(file, "close")] == ["finished", "finished"]
    assert told(other) == before
    assert not send_run(Recorded(file), run).counts
    assert capfd.readouterr().err == ""
    hanging = line(hooks=[Recorded(file, "HangsInOpen", "hostile_service")], run_dir=tmp_path / "line", max_epochs=1)
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "0.5")
    hanging.train()
    capfd.readouterr()
    tell_report(hanging, run / "report")
    said = capfd.readouterr().err
    assert said.startswith(
        "treadle: HangsInOpen: the report was not sent (not done in 0.5 s); treadle runs --to recorded"
    )
