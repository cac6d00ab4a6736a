"""Waiting for a message between GPUs: through, failed, given up as another has left, or as it takes too long."""

from __future__ import annotations

import itertools

import pytest

from treadle.parallel import waiting
from treadle.parallel.waiting import poll


class Message:
    """Through after so many questions, or never; may have failed."""

    def __init__(self, questions: int | None, error: str = "") -> None:
        self.questions, self.error = questions, error
        self.waited = self.aborted = False

    def is_completed(self) -> bool:
        if self.questions is None:
            return False
        self.questions -= 1
        return self.questions < 0

    def wait(self) -> None:
        self.waited = True
        if self.error:
            raise RuntimeError(self.error)

    def abort(self) -> None:
        self.aborted = True


def test_what_comes_through_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "BRISK", 0.0)  # every question but the first after a pause
    message = Message(5)
    poll(message, lambda: False, 60, message.abort)
    assert message.waited and not message.aborted


def test_what_has_failed_says_so() -> None:
    message = Message(0, "NCCL error")
    with pytest.raises(RuntimeError, match="NCCL error"):
        poll(message, lambda: False, 60, message.abort)


def test_it_is_given_up_where_another_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOOK", 0.01)
    message, looks = Message(None), itertools.count(1)
    with pytest.raises(RuntimeError, match="closed by peer"):
        poll(message, lambda: next(looks) == 3, 1e9, message.abort)
    assert message.aborted and not message.waited


def test_it_is_given_up_where_it_takes_too_long() -> None:
    message = Message(None)
    with pytest.raises(RuntimeError, match="Timed out"):
        poll(message, lambda: False, 0.01, message.abort)
    assert message.aborted
