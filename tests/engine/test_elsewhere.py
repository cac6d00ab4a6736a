"""What other trainers call things leads to what is called so here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from treadle import Trainer, TrainerConfig, UsageError
from treadle.engine.elsewhere import EVENTS_ELSEWHERE, SETTINGS_ELSEWHERE
from treadle.engine.events import EVENTS


def test_every_event_leads_to_one_of_ours_and_is_none() -> None:
    assert set(EVENTS_ELSEWHERE.values()) <= set(EVENTS)
    assert not EVENTS_ELSEWHERE.keys() & set(EVENTS)


def test_every_setting_leads_to_one_of_ours_or_an_argument() -> None:
    known = {field.name for field in fields(TrainerConfig)} | set(inspect.signature(Trainer.__init__).parameters)
    assert {name for value in SETTINGS_ELSEWHERE.values() for name in re.split(" or ", value)} <= known
    assert not SETTINGS_ELSEWHERE.keys() & known


@pytest.mark.parametrize("name", ["epochs", "accumulate_grad_batches", "callbacks"])
def test_the_error_says_so(name: str, line: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match=f"{name!r} is no setting of .*; here it is {SETTINGS_ELSEWHERE[name]}$"):
        line(**{name: 1})


def test_a_trainers_own_method_is_looked_at_too(line: Callable[..., Any], line_class: Any) -> None:
    class Ported(line_class):  # type: ignore[misc]
        def on_train_start(self) -> None: ...

    with pytest.raises(UsageError, match=r"Ported\.on_train_start is no event .*'pre_training'"):
        line(Ported)
