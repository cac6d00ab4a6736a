"""Settings given in Python are held to their types and ranges, as those of a file are."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pytest

from treadle import Span, TrainerConfig, UsageError
from treadle.config.settings import resumable, resumable_with_effect, rules_of
from treadle.engine.schedule import Every
from treadle.engine.settings import OptimizationSettings, settings_from


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_epochs": "3"}, "max_epochs is '3': expected a whole number, or null"),
        ({"max_steps": 3.5}, "max_steps is 3.5: expected a whole number, or null"),
        ({"batch_size": True}, "batch_size is True: expected a whole number, or null"),
        ({"shuffle": "no"}, "shuffle is 'no': expected true or false"),
        ({"clip_norm": "high"}, "clip_norm is 'high': expected a number or a group of settings, or null"),
        ({"clip_norm": {"g_optimizer": "low"}}, "clip_norm.g_optimizer is 'low': expected a number"),
        ({"clip_norm": {"g_optimizer": 0}}, "clip_norm.g_optimizer is 0.0: expected above 0"),
        ({"precision": "fp8"}, "precision is 'fp8': expected one of 'fp32', 'bf16', 'fp16', 'auto'"),
        ({"monitor_mode": "least"}, "monitor_mode is 'least': expected one of 'min', 'max', or null"),
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
    rules = rules_of(TrainerConfig)
    assert {name for name, rule in rules.items() if rule.parse is Every} == {
        *("log_every", "validate_every", "save_every", "snapshot_every")
    }
    assert {name for name, rule in rules.items() if rule.parse == Span.parse} == {"patience_warm_up", "keep_every"}


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        *((name, (0, -1), "at least 1") for name in ("accumulate", "keep_checkpoints", "keep_snapshots")),
        *((name, (0, -1), "at least 1, or null") for name in ("batch_size", "max_epochs", "max_steps", "patience")),
        *(
            (name, (0.0, -1.0, float("inf"), float("nan")), "above 0, or null")
            for name in ("max_time", "clip_norm", "clip_value", "spike")
        ),
        ("save_patience", (0.0, -1.0, float("inf"), float("nan")), "above 0"),
        ("max_recoveries", (-1,), "0 or more"),
        ("workers", (-1,), "0 or more"),
        ("seed", (-1, 2**63), "between 0 and 2**63 - 1"),
        ("min_improvement", (-0.1, float("inf"), float("nan")), "0 or more"),
    ],
)
def test_a_value_out_of_range_is_one_line_that_names_the_field(
    name: str, values: tuple[Any, ...], expected: str
) -> None:
    for value in values:
        with pytest.raises(UsageError) as caught:
            TrainerConfig(**{name: value})
        assert str(caught.value) == f"{name} is {value!r}: expected {expected}"


@pytest.mark.parametrize("name", ["log_every", "validate_every", "save_every", "snapshot_every", "keep_every"])
def test_a_schedule_that_is_not_understood_names_the_field(name: str) -> None:
    assert getattr(TrainerConfig(**{name: None}), name) is None
    for value in (50, "often", "3"):
        with pytest.raises(UsageError, match=f"^{name}: schedule "):
            TrainerConfig(**{name: value})


def test_the_edges_of_the_ranges_are_inside() -> None:
    config = TrainerConfig(batch_size=1, max_steps=1, workers=0, seed=2**63 - 1, min_improvement=0, max_time=1e-9)
    assert (config.seed, config.min_improvement) == (2**63 - 1, 0.0)


def test_what_a_resume_may_change_is_what_is_listed_here() -> None:
    with_effect = {"max_epochs", "max_steps", "patience", "min_improvement", "patience_warm_up", "log_every"}
    with_effect |= {"max_recoveries", "min_steps", "keep_best"}
    without = {"max_time", "save_every", "keep_checkpoints", "keep_every", "save_patience", "snapshot_every", "workers"}
    without |= {"keep_snapshots", "deterministic", "keep_memory", "limit_test_batches"}
    assert resumable_with_effect(TrainerConfig) == with_effect
    assert resumable(TrainerConfig) == with_effect | without


def test_a_group_stands_alone_and_a_config_is_each_of_its_groups() -> None:
    assert OptimizationSettings(clip_norm=1).clip_norm_of("any") == 1.0
    assert OptimizationSettings(clip_norm={"g": 2}).clip_norm_of("g") == 2.0
    assert OptimizationSettings(clip_norm={"g": 2}).clip_norm_of("d") is None
    with pytest.raises(UsageError, match="accumulate is 0: expected at least 1"):
        OptimizationSettings(accumulate=0)
    assert isinstance(TrainerConfig(), OptimizationSettings)


def test_what_was_assigned_to_a_config_is_checked_when_it_is_used() -> None:
    config = TrainerConfig()
    config.batch_size = 0
    with pytest.raises(UsageError, match="batch_size is 0"):
        settings_from(TrainerConfig, config, {})
    config = TrainerConfig()
    config.batchsize = 3  # type: ignore[attr-defined]
    with pytest.raises(
        UsageError, match=r"config\.batchsize was assigned, but is no setting .* did you mean 'batch_size'"
    ):
        settings_from(TrainerConfig, config, {})
    with pytest.raises(UsageError, match="config is a dict: expected a TrainerConfig"):
        settings_from(TrainerConfig, {}, {})  # type: ignore[arg-type]


def test_what_a_config_makes_of_its_settings_may_be_kept_on_it() -> None:
    @dataclass(kw_only=True)
    class Config(TrainerConfig):
        width: int = 4
        area: int = field(init=False)

        def __post_init__(self) -> None:
            super().__post_init__()
            self.area, self.derived = self.width**2, self.width + 1

        @cached_property
        def late(self) -> int:
            return self.width

    config = Config(width=3)
    assert config.late == 3
    made = settings_from(Config, config, {"width": 5})
    assert (made.area, made.derived, made.late) == (25, 6, 5)  # type: ignore[attr-defined]


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
