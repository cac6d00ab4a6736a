"""Strands: functions in turns; a Ctrl-C that comes while another one has the turn is neither lost, nor does it tear."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from treadle.engine.strands import Abandoned, Strand
from treadle.testing import Line, line_data

WAIT = 90


class Keyboard:
    """Somebody at it, who presses Ctrl-C from within a strand, while the main thread waits for that."""

    def __init__(self) -> None:
        self.heard = threading.Event()

    def press(self) -> None:
        end = time.monotonic() + WAIT
        while not self.heard.wait(0.05):  # one that comes just before the main thread waits does not wake it
            assert time.monotonic() < end
            os.kill(os.getpid(), signal.SIGINT)

    def handle(self, *_: Any) -> None:
        if not self.heard.is_set():
            self.heard.set()
            raise KeyboardInterrupt


@pytest.fixture
def keyboard() -> Iterator[Keyboard]:
    keyboard = Keyboard()
    before = signal.signal(signal.SIGINT, keyboard.handle)
    yield keyboard
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def strand() -> Iterator[Strand]:
    strand = Strand("a-strand")
    yield strand
    strand.end()


def takes_turns(strand: Strand) -> None:
    done = []
    strand.begin(lambda: (done.append(1), strand.wait(), done.append(2)))
    strand.resume()
    assert done == [1] and strand.busy
    strand.resume()
    assert done == [1, 2] and not strand.busy


def test_it_goes_on_in_turns_and_raises_what_its_function_does(strand: Strand) -> None:
    takes_turns(strand)
    strand.begin(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        strand.resume()
    takes_turns(strand)


def test_an_interrupt_is_raised_when_the_strand_waits(strand: Strand, keyboard: Keyboard) -> None:
    done = []
    strand.begin(lambda: (keyboard.press(), done.append(1), strand.wait(), done.append(2)))
    with pytest.raises(KeyboardInterrupt):
        strand.resume()
    assert done == [1] and strand.busy
    strand.abandon()
    assert done == [1] and not strand.busy
    takes_turns(strand)


def test_an_interrupt_while_it_is_unwound_is_raised_after_that(strand: Strand, keyboard: Keyboard) -> None:
    left = []

    def function() -> None:
        try:
            strand.wait()
        except Abandoned:
            keyboard.press()
            left.append("it")
            raise

    strand.begin(function)
    strand.resume()
    with pytest.raises(KeyboardInterrupt):
        strand.abandon()
    assert left == ["it"] and not strand.busy
    takes_turns(strand)


class Failing(Line):
    """Its last part fails; a Ctrl-C comes as the first is unwound."""

    transient = ("fails", "keyboard")

    def step(self, batch: Any) -> Any:
        loss = self.loss(batch)
        if not self.fails:
            self.minimize(loss)
            return {"loss": loss}
        if self.loop.fixed.current == 2:
            raise ValueError("no")
        first = self.loop.fixed.current == 0
        try:
            self.minimize(loss)
        finally:
            left.append(int(not first))
            if first:
                self.keyboard.press()
        return {"loss": loss}


left: list[int] = []


def test_an_interrupt_as_a_failed_part_unwinds_the_others_ends_the_run_as_such(keyboard: Keyboard) -> None:
    trainer = Failing(data=line_data(), max_steps=4, parts=3, snapshot_every="1 step")
    trainer.keyboard, trainer.fails = keyboard, False
    trainer.iterate()
    left.clear()
    trainer.fails = True
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert left == [0, 1]
    assert (trainer.status, trainer.reason) == ("stopped", "interrupted")
    trainer.fails = False
    trainer.rewind(1)
    assert trainer.train().step == 4
