"""Runs that come from somebody else: what is planted in them harms no file outside and keeps no command waiting."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from treadle.runs.run import read_summary

RUN = Path("runs/line/v001")
COMMANDS = {
    "resume": ("resume", str(RUN), "--set", "max_steps=25"),
    "runs": ("runs",),
    "runs RUN": ("runs", str(RUN)),
    "compare": ("runs", str(RUN), "runs/other/v001"),
    "verify": ("verify", str(RUN)),
    "fork": ("fork", str(RUN), "--at", "10"),
    "test": ("test", str(RUN)),
}
FILES = (
    *("config.yaml", "environment.json", "metrics.jsonl", "journal.jsonl", "summary.json", ".lock"),
    *("logs/validation.loss.npy",),
)
"""What a command reads of a run, or writes in it, by name."""
DEEPER = {
    "best_model/config.yaml": ("test", "fork"),
    "best_model/metrics.json": ("runs", "test", "fork"),
    "best_model/weights.safetensors": ("test", "fork"),
    "checkpoints/latest.json": ("verify", "fork"),
    "checkpoints/pins.json": ("fork",),
    "checkpoints/step-00000020/state.json": ("verify",),
    "checkpoints/step-00000020/tensors.safetensors": ("verify",),
    "checkpoints/step-00000010/manifest.json": ("fork", "verify"),
    "test/slope.txt": ("test",),
    "anything": ("runs RUN",),
}
"""More of them, with the commands that come near them; resume does everywhere."""


@pytest.fixture
def run(treadle: Any, line: None) -> Path:
    """A run that can be resumed, verified, forked and tested, and another beside it."""
    for name in ("line", "other"):
        where = ("--run", f"runs/{name}", "--save-every", "5 steps", "--keep-checkpoints", "9", "--max-steps", "20")
        assert treadle("train", "line", *where) == 0
    return RUN.absolute()


def said_in_one_line(treadle: Any) -> bool:
    lines = [text for text in treadle.err.splitlines() if text.startswith("treadle: ")]
    return len(lines) == 1 and "failed: " not in lines[0]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_waits_for_a_pipe_in_a_run(treadle: Any, run: Path, command: str) -> None:
    for name in FILES:
        path = run / name
        content = path.read_bytes() if path.exists() else None
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        code = treadle(*COMMANDS[command])
        assert code == 0 or said_in_one_line(treadle), (name, code, treadle.err)
        if path.is_fifo():
            path.unlink()
        if content is not None and not path.exists():
            path.write_bytes(content)
        shutil.rmtree("runs/line/v002", ignore_errors=True)


@pytest.mark.timeout(120)
def test_no_command_waits_for_a_pipe_deeper_in_a_run(treadle: Any, run: Path) -> None:
    for name, commands in DEEPER.items():
        path = run / name
        path.parent.mkdir(exist_ok=True)
        content = path.read_bytes() if path.exists() else None
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        assert treadle(*COMMANDS["resume"]) == 2 and said_in_one_line(treadle), (name, treadle.err)
        assert f"{name} is a pipe, a socket or a device, which no run has: remove it" in treadle.err
        for command in commands:
            code = treadle(*COMMANDS[command])
            assert code == 0 or said_in_one_line(treadle), (name, command, code, treadle.err)
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        shutil.rmtree("runs/line/v002", ignore_errors=True)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", FILES)
def test_no_command_writes_through_a_link_to_a_file(treadle: Any, run: Path, tmp_path: Path, name: str) -> None:
    mine = tmp_path / "mine"
    content = (run / name).read_bytes()
    (run / name).unlink()
    mine.write_bytes(content)
    (run / name).symlink_to(mine)
    for command in COMMANDS.values():
        before = read_summary(run)
        code = treadle(*command)
        assert mine.read_bytes() == content, command
        if command[0] == "resume":
            assert code == 2 and said_in_one_line(treadle) and f"{name} is a link to {mine}" in treadle.err, treadle.err
            assert read_summary(run) == before
        else:
            assert code == 0, (command, treadle.err)  # what is only read may be a link, as archives make them


@pytest.mark.parametrize("name", ["checkpoints", "logs", "examples", "best_model", "test", "report"])
def test_no_command_writes_into_a_folder_that_is_a_link(treadle: Any, run: Path, tmp_path: Path, name: str) -> None:
    mine = tmp_path / "mine"
    if (run / name).exists():
        shutil.move(run / name, mine)
    else:
        mine.mkdir()
    (run / name).symlink_to(mine)

    def everything() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sorted(mine.rglob("*")) if path.is_file()}

    before = everything()
    assert treadle(*COMMANDS["resume"]) == 2
    assert said_in_one_line(treadle) and f"{name} is a link to {mine}" in treadle.err
    assert treadle(*COMMANDS["test"]) == (2 if name == "test" else 0), treadle.err
    assert everything() == before
    assert treadle(*COMMANDS["verify"]) == 0


def test_no_report_is_written_through_a_link(treadle: Any, run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (run / "test").mkdir()
    (run / "test" / "slope.txt").symlink_to(tmp_path / "mine")
    assert treadle(*COMMANDS["test"]) == 2
    assert said_in_one_line(treadle) and f"test/slope.txt is a link to {tmp_path / 'mine'}, outside of" in treadle.err
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_run_may_itself_be_reached_through_links(treadle: Any, run: Path, tmp_path: Path) -> None:
    shutil.move(run, tmp_path / "elsewhere")
    run.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "newest").symlink_to("checkpoints/step-00000020")  # within the run: nobody's harm
    Path("way").symlink_to(Path("runs").absolute())
    assert treadle("resume", "way/line/v001", "--set", "max_steps=25") == 0
    assert read_summary(tmp_path / "elsewhere")["step"] == 25
    assert treadle("test", "way/line") == 0 and (tmp_path / "elsewhere" / "test" / "metrics.json").exists()
    assert treadle("fork", "way/line/v001", "--at", "20") == 0
