"""Patience, alone and as a hook."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.errors import UsageError
from treadle.hooks import EarlyStopping, Patience

NAN, INF = float("nan"), float("inf")


def verdicts(policy: Patience, values: list[float]) -> list[bool]:
    return [policy.give_up(value) for value in values]


def test_gives_up_after_patience_values_without_improvement() -> None:
    assert verdicts(Patience(2), [3, 2, 2, 1, 1, 1.5]) == [False, False, False, False, False, True]
    assert verdicts(Patience(1), [3, 3]) == [False, True]
    assert verdicts(Patience(2, mode="max"), [1, 2, 1, 3, 0, 0]) == [False, False, False, False, False, True]


def test_an_improvement_has_to_be_more_than_the_least() -> None:
    policy = Patience(2, min_improvement=0.5)
    assert verdicts(policy, [3.0, 2.5, 2.4]) == [False, False, False]
    assert policy.best == 2.4 and policy.waited == 0
    assert verdicts(Patience(2, mode="max", min_improvement=0.5), [3.0, 3.5, 3.5]) == [False, False, True]


def test_slow_progress_adds_up_against_the_best_that_counted() -> None:
    policy = Patience(3, min_improvement=1.0)
    assert verdicts(policy, [10.0, 9.5, 9.0, 8.9]) == [False] * 4
    assert policy.best == 8.9


def test_nan_is_no_improvement_and_can_be_improved_upon() -> None:
    policy = Patience(3)
    assert verdicts(policy, [NAN, NAN, 5.0]) == [False, False, False]
    assert policy.best == 5.0 and policy.waited == 0
    assert verdicts(policy, [NAN, NAN, NAN]) == [False, False, True]
    assert verdicts(Patience(2), [NAN, NAN]) == [False, True]
    assert verdicts(Patience(2), [INF, 1e30]) == [False, False]


def test_what_does_not_count_costs_nothing_but_is_remembered() -> None:
    policy = Patience(1)
    assert not policy.give_up(1.0, counts=False)
    assert not policy.give_up(2.0, counts=False)
    assert policy.best == 1.0 and policy.give_up(1.5)


@given(st.lists(st.floats(allow_nan=True), max_size=30), st.integers(1, 4), st.sampled_from(["min", "max"]), st.data())
def test_state_restores_at_any_point(values: list[float], patience: int, mode: Any, data: Any) -> None:
    cut = data.draw(st.integers(0, len(values)))
    whole, first, second = (Patience(patience, mode=mode) for _ in range(3))
    expected = verdicts(whole, values)
    before = verdicts(first, values[:cut])
    second.load_state_dict(first.state_dict())
    assert before + verdicts(second, values[cut:]) == expected


@pytest.mark.parametrize(
    "settings",
    [{"patience": 0}, {"patience": True}, {"patience": 1.5}, {"patience": 1, "mode": "low"},
     {"patience": 1, "min_improvement": -1.0}, {"patience": 1, "min_improvement": NAN}],
)  # fmt: skip
def test_bad_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected"):
        Patience(**settings)


def test_ends_the_run_as_finished(scripted: Callable[..., Any]) -> None:
    trainer = scripted([5, 4, 4, 4, 4, 4], patience=2)
    summary = trainer.train()
    assert (summary.status, summary.epoch) == ("finished", 4)
    assert summary.reason == "early stopping: loss has not improved in 2 validations"
    assert trainer.validations == 4


def test_warm_up_is_not_counted(scripted: Callable[..., Any]) -> None:
    assert scripted([5.0], patience=2, patience_warm_up="4 epochs").train().epoch == 5
    assert scripted([5.0], patience=2, patience_warm_up="50%").train().epoch == 5
    assert scripted([5.0], patience=2).train().epoch == 3


def test_a_step_validated_twice_counts_once(scripted: Callable[..., Any]) -> None:
    trainer = scripted([5.0], patience=2)
    trainer.iterate()
    for _ in range(4):
        trainer.validate()
    assert trainer.train().epoch == 2


def test_an_unknown_monitor_is_named(scripted: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match=r"monitor is 'los', .* does not return; did you mean 'loss'"):
        scripted(monitor="los").train()


def test_state_is_plain_and_survives_json(scripted: Callable[..., Any]) -> None:
    hook = EarlyStopping(3)
    trainer = scripted([5, 6, 6], hooks=[hook], max_epochs=2)
    trainer.train()
    other = EarlyStopping(3)
    other.load_state_dict(json.loads(json.dumps(hook.state_dict())))
    assert other.state_dict() == hook.state_dict() == {"policy": {"best": 5.0, "waited": 1}, "last_step": 8}


def test_a_validation_without_the_metric_is_no_bad_one(scripted: Callable[..., Any]) -> None:
    class Sometimes(type(scripted([5.0]))):  # type: ignore[misc]
        """Every third validation measures what takes long, too: it is 3, then 2, then 2."""

        occasional_metrics = ("slow",)

        def post_validation(self, metrics: Any) -> None:
            super().post_validation(metrics)
            if self.validations % 3 == 0:
                metrics["slow"] = 3.0 - min(self.validations // 3 - 1, 1)

    trainer = scripted([5.0], kind=Sometimes, monitor="slow", patience=1, max_epochs=20)
    summary = trainer.train()
    assert summary.epoch == 9 and summary.best["value"] == 2.0 and summary.best["epoch"] == 6
    with pytest.raises(UsageError, match="did you mean 'slow'"):
        scripted([5.0], kind=Sometimes, monitor="slov").train()
