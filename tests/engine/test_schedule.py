"""When something periodic is due, and how long a span is."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from treadle.engine.progress import Progress
from treadle.engine.schedule import Every, Span
from treadle.errors import UsageError


def run(total: int, batches: int | None = None, *, known: bool = True) -> Iterator[tuple[Progress, bool]]:
    """Walk the counters through a run: after each step, and (second value True) after each epoch."""
    progress = Progress(max_steps=total if known else None, batches_per_epoch=batches)
    while progress.step < total:
        progress.step += 1
        progress.batch += 1
        yield progress, False
        if batches and progress.batch == batches:
            progress.epoch += 1
            progress.batch = 0
            yield progress, True


@pytest.mark.parametrize(
    ("text", "value", "unit", "canonical"),
    [
        ("500 steps", 500, "steps", "500 steps"),
        ("1 step", 1, "steps", "1 step"),
        ("1_000 steps", 1000, "steps", "1000 steps"),
        ("  2   Epochs ", 2, "epochs", "2 epochs"),
        ("0.5 epochs", 0.5, "epochs", "0.5 epochs"),
        ("30%", 30, "%", "30%"),
        ("2.5 %", 2.5, "%", "2.5%"),
        ("1e3 steps", 1000, "steps", "1000 steps"),
    ],
)
def test_spans_read_and_write(text: str, value: float, unit: str, canonical: str) -> None:
    span = Span.parse(text)
    assert (span.value, span.unit, str(span)) == (value, unit, canonical)
    assert Span.parse(canonical) == span == Span.parse(span)


@given(st.one_of(st.integers(1, 10**9), st.floats(1e-6, 100)), st.sampled_from(["steps", "epochs", "%"]))
def test_every_span_reads_back_as_itself(value: float, unit: str) -> None:
    if (unit == "steps" and value != int(value)) or (unit == "%" and value > 100):
        return
    span = Span(value, unit)  # type: ignore[arg-type]
    assert Span.parse(str(span)) == span


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("500", "write '500 steps', '500 epochs'"),
        (500, "write '500 steps', '500 epochs'"),
        ("0 steps", "more than zero"),
        ("-3 epochs", "more than zero"),
        ("1e999 steps", "finite"),
        ("2.5 steps", "whole"),
        ("120%", "at most 100%"),
        ("5 stepps", "did you mean 'steps'"),
        ("5 parsecs", "known: %, epochs, steps"),
        ("steps", "'500 steps', '2 epochs' or '30%'"),
        ("", "'500 steps', '2 epochs' or '30%'"),
        (None, "'500 steps', '2 epochs' or '30%'"),
    ],
)
def test_bad_spans_are_refused_with_the_remedy(text: object, told: str) -> None:
    with pytest.raises(UsageError, match="schedule") as error:
        Span.parse(text)  # type: ignore[arg-type]
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_spans_are_checked_when_built_directly_too() -> None:
    with pytest.raises(UsageError, match="unknown unit 'epoch' in a schedule; did you mean 'epochs'"):
        Span(3, "epoch")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="more than zero"):
        Span(0, "steps")


def test_spans_in_steps() -> None:
    progress = Progress(max_epochs=4, batches_per_epoch=10)
    assert Span.parse("7 steps").steps(progress) == 7
    assert Span.parse("1.5 epochs").steps(progress) == 15
    assert Span.parse("12.5%").steps(progress) == 5


@example(total=1000, thousandths=900, batches=10)  # in floats 0.9% of 1000 is more than 9
@given(total=st.integers(1, 2000), thousandths=st.integers(1, 100_000), batches=st.integers(1, 100))
def test_reached_is_exact(total: int, thousandths: int, batches: int) -> None:
    lengths = {
        f"{thousandths} steps": thousandths,
        f"{thousandths / 1000}%": Fraction(thousandths, 100_000) * total,
        f"{thousandths / 1000} epochs": Fraction(thousandths, 1000) * batches,
    }
    for text, length in lengths.items():
        reached = -(-length // 1)  # the first step at which it is
        for step in (reached - 1, reached):
            progress = Progress(epoch=step // batches, step=step, max_steps=total, batches_per_epoch=batches)
            assert Span.parse(text).reached(progress) == (step >= length)


def test_whole_epochs_are_reached_without_knowing_their_length() -> None:
    assert Span.parse("2 epochs").reached(Progress(epoch=2, step=3))
    assert not Span.parse("2 epochs").reached(Progress(epoch=1, step=300))


@pytest.mark.parametrize(("text", "told"), [("30%", "set max_steps"), ("0.5 epochs", "length of an epoch")])
def test_unknown_lengths_are_named_with_the_remedy(text: str, told: str) -> None:
    span = Span.parse(text)
    for ask in (span.steps, span.reached):
        with pytest.raises(UsageError, match=told):
            ask(Progress(step=1))


@given(total=st.integers(1, 400), period=st.integers(1, 100), batches=st.integers(1, 50))
def test_steps_fire_as_often_as_they_divide(total: int, period: int, batches: int) -> None:
    every = Every(f"{period} steps")
    due = [(p.step, after_epoch) for p, after_epoch in run(total, batches) if _due(every, p, after_epoch)]
    assert due == [(step, False) for step in range(period, total + 1, period)]


@given(total=st.integers(1, 300), period=st.integers(1, 10), batches=st.integers(1, 40))
def test_epochs_fire_as_often_as_they_divide(total: int, period: int, batches: int) -> None:
    every = Every(f"{period} epochs")
    due = [(p.epoch, after_epoch) for p, after_epoch in run(total, batches, known=False) if _due(every, p, after_epoch)]
    assert due == [(epoch, True) for epoch in range(period, total // batches + 1, period)]


@given(total=st.integers(1, 400), tenths=st.integers(1, 1000))
def test_percent_fires_where_a_share_of_the_run_is_complete(total: int, tenths: int) -> None:
    every = Every(f"{tenths / 10}%")
    share = Fraction(tenths, 1000) * total
    due = [p.step for p, after_epoch in run(total, 7) if _due(every, p, after_epoch)]
    complete = [-(-k * share // 1) for k in range(1, 1000 // tenths + 1)]  # the step that completes each share
    assert due == sorted(set(complete))
    assert len(due) == min(1000 // tenths, total) or share < 1
    if 1000 % tenths == 0:
        assert due[-1] == total


def test_percent_is_exact_where_floats_are_not() -> None:
    due = [p.step for p, _ in run(1000) if Every("0.7%").due_after_step(p)]
    assert due == list(range(7, 1001, 7))[: 1000 // 7]


def test_nothing_is_due_before_the_first_step() -> None:
    progress = Progress(max_steps=10, batches_per_epoch=5)
    for text in ("1 step", "100%", "1 epoch"):
        assert not Every(text).due_after_step(progress)
        assert not Every(text).due_after_epoch(progress)


def test_a_percentage_of_a_run_of_unknown_length_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'10%' needs the length of the run; set max_steps or max_epochs"):
        Every("10%").due_after_step(Progress(step=1))


@pytest.mark.parametrize(
    ("text", "batches", "due"),
    [
        ("0.25 epochs", 10, [3, 5, 8, 10, 13, 15, 18, 20]),
        ("0.5 epochs", 4, [2, 4, 6, 8]),
        ("1.5 epochs", 4, [6, 12]),
        ("0.25 epochs", 2, [1, 2, 3, 4]),
        ("0.1 epochs", 10, list(range(1, 21))),
    ],
)
def test_a_part_of_an_epoch_is_due_after_steps_and_with_its_last_one(text: str, batches: int, due: list[int]) -> None:
    period, progress = Every(text), Progress(max_epochs=20, batches_per_epoch=batches)
    found = []
    for _ in range(due[-1]):
        progress.count_step()
        if period.due_after_step(progress):
            found.append(progress.step)
        if progress.batch == batches:
            progress.count_epoch()
            assert not period.due_after_epoch(progress)
    assert found == due


def test_a_part_of_an_epoch_needs_its_length() -> None:
    with pytest.raises(UsageError, match=r"'0\.5 epochs' needs the length of an epoch"):
        Every("0.5 epochs").due_after_step(Progress(step=3, max_steps=9))


def test_every_is_a_value() -> None:
    assert Every("2 epochs") == Every(Span(2, "epochs")) != Every("2 steps")
    assert len({Every("2 epochs"), Every("2  Epochs")}) == 1
    assert str(Every("1_000 steps")) == "1000 steps"
    assert repr(Every("30%")) == "Every('30%')"


def _due(every: Every, progress: Progress, after_epoch: bool) -> bool:
    return every.due_after_epoch(progress) if after_epoch else every.due_after_step(progress)
