"""The console: plain lines, and a bar in a real pseudo-terminal."""

from __future__ import annotations

import fcntl
import io
import os
import re
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

import pytest

from treadle.engine.events import Hook
from treadle.engine.summary import Overview
from treadle.sinks import console
from treadle.sinks.console import Console, Rate, duration, epoch_of, shown


def test_plain_lines_at_the_log_interval(line: Callable[..., Any]) -> None:
    out = io.StringIO()
    line(hooks=[Console(out)]).train()
    lines = out.getvalue().splitlines()
    trained = [text for text in lines if text.startswith("step")]
    assert [text.split("  ")[0] for text in trained] == [f"step {step}/12" for step in (2, 4, 6, 8, 10, 12)]
    assert [text.split("  ")[1] for text in trained] == [f"epoch {epoch}/3" for epoch in (1, 1, 2, 2, 3, 3)]
    assert all(re.search(r"  loss \d\S*  psnr -\S+  \d\S* steps/s", text) for text in trained)
    assert all(re.search(r"\d:\d\d left$", text) for text in trained[:-1]) and "left" not in trained[-1]
    validated = [text for text in lines if text.startswith("validation")]
    assert len(validated) == 3 and re.fullmatch(r"validation at step 4:  loss \d\S*", validated[0])
    assert "\x1b" not in out.getvalue() and "\r" not in out.getvalue()


def test_text_goes_there_too(line: Callable[..., Any]) -> None:
    out = io.StringIO()
    trainer = line(hooks=[Console(out)])
    trainer.iterate()
    trainer.log_text("sample", "once upon [a] time")
    trainer.close()
    assert "sample at step 1: once upon [a] time" in out.getvalue()


def test_standard_error_by_default(line: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    line(hooks=[Console()]).train()
    captured = capsys.readouterr()
    assert captured.out == "" and "step 12/12" in captured.err


class Terminal:
    """A pseudo-terminal of some width; `text` is all that was written to it."""

    def __init__(self, width: int) -> None:
        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        self.file: TextIO = os.fdopen(slave, "w")
        self.text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            if not data:
                return
            self.text += data.decode()

    def finish(self) -> str:
        self.file.close()
        self._reader.join(60)
        os.close(self.master)
        return self.text


def screen(text: str, width: int) -> list[str]:
    """The lines a terminal shows: cursor up, line erase and carriage return are obeyed, colours dropped."""
    rows, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[\d;?]*[A-Za-z]|.|\n", text, flags=re.DOTALL):
        if token.startswith("\x1b"):
            count = int(re.sub(r"\D", "", token) or 1)
            if token.endswith("A"):
                row = max(0, row - count)
            elif token.endswith("K"):
                rows[row] = ""
            continue
        if token == "\r":
            column = 0
        elif token == "\n":
            row, column = row + 1, 0
        else:
            assert column < width, f"a line is wider than {width}: {rows[row]}"
            rows[row] = rows[row][:column].ljust(column) + token + rows[row][column + 1 :]
            column += 1
        while row >= len(rows):
            rows.append("")
    return rows


@pytest.fixture
def color_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("LINES", raising=False)


@pytest.mark.parametrize("width", [100, 60, 40, 20, 12])
def test_the_bar_fits_any_width(
    line: Callable[..., Any], color_terminal: None, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))  # rich asks the standard streams, which are not this terminal
    terminal = Terminal(width)
    trainer = line(hooks=[Console(terminal.file)], validate_every=None, validation_data=None)
    while trainer.iterate():
        time.sleep(0.02)
    rows = [row.rstrip() for row in screen(terminal.finish(), width)]
    bar = [row for row in rows if row][-1]
    assert "12/12" in bar and ("epoch 3/3" in bar) == (width >= 100) and ("━" in bar) == (width >= 20)
    assert len([row for row in rows if row]) == 1


def test_validations_stay_above_the_bar(line: Callable[..., Any], color_terminal: None) -> None:
    terminal = Terminal(100)
    trainer = line(hooks=[Console(terminal.file)])
    while trainer.iterate():
        time.sleep(0.03)
    rows = [row.rstrip() for row in screen(terminal.finish(), 100) if row.strip()]
    assert [row.split("  ")[0] for row in rows[:3]] == [f"validation at step {step}:" for step in (4, 8, 12)]
    assert len(rows) == 4 and "12/12" in rows[3] and "loss" in rows[3]


def test_a_step_pays_nothing_for_the_bar() -> None:
    for event in ("pre_step", "post_step", "pre_update", "pre_epoch", "post_epoch"):
        assert getattr(Console, event) is getattr(Hook, event)


def test_no_thread_is_left(line: Callable[..., Any], color_terminal: None) -> None:
    before = set(threading.enumerate())
    terminal = Terminal(80)
    trainer = line(hooks=[Console(terminal.file)])
    trainer.iterate()
    assert len(set(threading.enumerate()) - before) == 2  # the bar's, and this test's reader
    trainer.stop("enough")
    trainer.train()
    assert len(set(threading.enumerate()) - before) == 1  # a stopped run leaves the terminal to others
    trainer.train()
    terminal.finish()
    assert set(threading.enumerate()) <= before
    assert sys.stderr is not None and "FileProxy" not in type(sys.stdout).__name__


def test_an_error_leaves_the_terminal_as_it_was(line: Callable[..., Any], color_terminal: None) -> None:
    terminal = Terminal(80)
    trainer = line(hooks=[Console(terminal.file)])
    trainer.iterate()
    trainer.replace("step", lambda trainer, batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    text = terminal.finish()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is shown again


def test_a_dumb_terminal_gets_lines(line: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal(80)
    line(hooks=[Console(terminal.file)]).train()
    assert "\x1b" not in (text := terminal.finish()) and "step 12/12" in text


def test_shown_metrics() -> None:
    metrics = {
        "l1.weight": 1.0,
        "l1": 0.5,
        "psnr": 31.23456,
        "loss": 1e-7,
        "lr": 0.1,
        "generator.lr.base": 0.1,
        "a": 1.0,
        "b": 2.0,
    }
    assert shown(metrics) == ["loss 1e-07", "l1 0.5", "psnr 31.23", "a 1"]


def snapshot(**values: Any) -> Overview:
    defaults = {"status": "running", "paused": False, "epoch": 0, "step": 0, "batch": 0, "max_epochs": None,
                "max_steps": None, "total_steps": None, "seconds": 0.0}  # fmt: skip
    return Overview(**(defaults | values))


def test_epochs_are_counted_as_people_do() -> None:
    assert epoch_of(snapshot(max_epochs=20)) == "epoch 1/20"
    assert epoch_of(snapshot(max_epochs=20, epoch=20)) == "epoch 20/20"
    assert epoch_of(snapshot()) == "" and epoch_of(snapshot(epoch=2)) == "epoch 3"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (9, "0:09"), (754, "12:34"), (3723, "1:02:03"), (273900, "3 d 04:05")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_rate_is_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    rate = Rate()
    assert rate.per_second == 0.0
    for second in range(60):
        now = float(second)
        rate.add(second * 2 if second <= 40 else 80 + (second - 40) * 10)
    assert rate.per_second == pytest.approx(10.0)
    now = 61.0
    rate.add(5)  # rewound
    assert rate.per_second == 0.0
