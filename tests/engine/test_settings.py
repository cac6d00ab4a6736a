"""Settings given in Python are held to their types, as those of a file are."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import pytest

from treadle import Span, TrainerConfig, UsageError
from treadle.engine.settings import SCHEDULES, settings_from


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_epochs": "3"}, "max_epochs is '3': expected a whole number, or null"),
        ({"max_steps": 3.5}, "max_steps is 3.5: expected a whole number, or null"),
        ({"batch_size": True}, "batch_size is True: expected a whole number"),
        ({"shuffle": "no"}, "shuffle is 'no': expected true or false"),
        ({"clip_norm": "high"}, "clip_norm is 'high': expected a number, or null"),
        ({"precision": "fp8"}, "precision is 'fp8': expected one of 'fp32', 'bf16', 'fp16', 'auto'"),
        ({"monitor_mode": "least"}, "monitor_mode is 'least': expected one of 'min', 'max'"),
        ({"on_bad_step": "retry"}, "on_bad_step is 'retry': expected one of 'stop', 'skip', 'rollback'"),
    ],
)
def test_a_wrong_type_is_one_line_that_names_the_field(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        TrainerConfig(**settings)
    assert str(caught.value) == message


def test_a_whole_number_is_a_number() -> None:
    assert TrainerConfig(max_time=60).max_time == 60.0
    assert isinstance(TrainerConfig(max_time=60).max_time, float)


def test_a_schedule_may_be_a_span() -> None:
    assert TrainerConfig(log_every=Span(10, "steps")).log_every == Span(10, "steps")  # type: ignore[arg-type]


def test_all_schedules_are_read_as_such() -> None:
    names = {field.name for field in fields(TrainerConfig)}
    assert set(SCHEDULES) == {name for name in names if name.endswith("_every") or name == "patience_warm_up"} | {
        "keep_every"
    }


def test_what_a_subclass_declares_is_its_own_business() -> None:
    @dataclass(kw_only=True)
    class Config(TrainerConfig):
        batch_size: Any = None
        anything: Any = object

        def __post_init__(self) -> None:
            self.batch_size = self.batch_size or 8
            super().__post_init__()

    config = settings_from(Config, None, {"anything": len})
    assert (config.batch_size, config.anything) == (8, len)  # type: ignore[attr-defined]
