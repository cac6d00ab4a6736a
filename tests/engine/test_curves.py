"""Values that change over the run: what they are at which step, and their notation."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.engine.curves import (
    Constant,
    Cosine,
    Curve,
    Linear,
    LogLinear,
    Milestones,
    PerEpoch,
    Ramp,
    WarmUp,
    parse_curve,
)
from treadle.engine.progress import Progress
from treadle.engine.schedule import Span
from treadle.errors import UsageError

numbers = st.floats(-1e3, 1e3, allow_nan=False)
positive = st.floats(1e-6, 1e3)
spans = st.one_of(
    st.builds(Span, st.integers(1, 2000), st.just("steps")),
    st.builds(Span, st.floats(0.01, 100), st.just("epochs")),
    st.builds(Span, st.floats(0.01, 100), st.just("%")),
)
ramps = st.one_of(
    st.builds(Linear, numbers, numbers, st.none() | spans, st.none() | spans),
    st.builds(Cosine, numbers, numbers, st.none() | spans, st.none() | spans),
    st.builds(LogLinear, positive, positive, st.none() | spans, st.none() | spans),
)
plain = st.one_of(
    st.builds(Constant, numbers),
    st.builds(PerEpoch, st.lists(numbers, min_size=1, max_size=6).map(tuple)),
    st.builds(Milestones, numbers, st.lists(st.tuples(spans, positive), min_size=1, max_size=4).map(tuple)),
    ramps,
)
curves = plain | st.builds(WarmUp, spans, plain)


def values(curve: Curve, total: int, batches: int = 10) -> list[float]:
    """The curve before each of `total` steps, and once more after the last."""
    made = []
    for step in range(total + 1):
        epoch, batch = divmod(step, batches)
        made.append(curve(Progress(epoch=epoch, step=step, batch=batch, max_steps=total, batches_per_epoch=batches)))
    return made


@given(curves)
def test_text_round_trip(curve: Curve) -> None:
    assert parse_curve(str(curve)) == curve


@pytest.mark.parametrize(
    ("text", "curve"),
    [
        ("0.01", Constant(0.01)),
        ("constant 1e-2", Constant(0.01)),
        ("linear 1e-2 to 0", Linear(0.01, 0)),
        ("Cosine 1e-2  to 1e-4", Cosine(0.01, 0.0001)),
        ("log 1e-2 to 1e-4 over 30%", LogLinear(0.01, 0.0001, Span(30, "%"))),
        ("linear 0 to 1 over 0.5 epochs", Linear(0, 1, Span(0.5, "epochs"))),
        ("0.001*3 0.0001", PerEpoch((0.001, 0.001, 0.001, 0.0001))),
        ("0.001 * 3 0.0001", PerEpoch((0.001, 0.001, 0.001, 0.0001))),
        ("milestones 1e-2 x0.33 at 50% 75%", Milestones(0.01, ((Span(50, "%"), 0.33), (Span(75, "%"), 0.33)))),
        (
            "milestones 1 x0.5 at 10 epochs 20 epochs x0.1 at 90%",
            Milestones(1, ((Span(10, "epochs"), 0.5), (Span(20, "epochs"), 0.5), (Span(90, "%"), 0.1))),
        ),
        ("constant 2e-4 for 100 epochs then linear to 0", Linear(0.0002, 0, None, Span(100, "epochs"))),
        ("constant 1 for 10% then cosine to 0 over 1_000 steps", Cosine(1, 0, Span(1000, "steps"), Span(10, "%"))),
        ("warm-up 500 steps then cosine 1e-2 to 1e-4", WarmUp(Span(500, "steps"), Cosine(0.01, 0.0001))),
        ("warm-up 1 epoch then 1*2 0.5", WarmUp(Span(1, "epochs"), PerEpoch((1, 1, 0.5)))),
    ],
)
def test_notation(text: str, curve: Curve) -> None:
    assert parse_curve(text) == curve


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "neither a number nor a kind of curve"),
        ("cosin 1 to 0", "did you mean 'cosine'"),
        ("cosine 1e-2 1e-4", "'cosine 1e-2 to 1e-4'"),
        ("cosine 1e-2 to 1e-4 over 30", "'cosine 1e-2 to 1e-4'"),
        ("cosine 1e-2 to 1e-4 over 30 parsecs", "unknown unit 'parsecs'"),
        ("log 1 to 0", "both ends above zero"),
        ("milestones 1 at 50%", "'milestones 1e-2 x0.33 at 50% 75%'"),
        ("warm-up 500 steps then", "'warm-up 500 steps then"),
        ("warm-up 500 steps then nothing", "'nothing'"),
        ("0.1*0", "at least one value"),
        ("0.1 1e999", "not a finite number"),
        ("nan", "neither a number"),
        (math.inf, "not a finite number"),
        (None, "not a curve"),
        (True, "not a curve"),
    ],
)
def test_what_is_not_understood_is_refused_with_the_remedy(text: object, told: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_curve(text)  # type: ignore[arg-type]
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_numbers_and_callables_are_curves() -> None:
    def mine(progress: Progress) -> float:
        return progress.step / 2

    assert parse_curve(mine) is mine
    assert parse_curve(3) == Constant(3.0)


@given(ramps.filter(lambda ramp: ramp.after is None and ramp.over is None), st.integers(1, 200))
def test_ramps_run_from_their_start_to_their_end(ramp: Ramp, total: int) -> None:
    made = values(ramp, total)
    assert made[0] == ramp.start
    assert made[-1] == ramp.end
    tolerance = 1e-12 * max(abs(ramp.start), abs(ramp.end))
    direction = 1 if ramp.end >= ramp.start else -1
    assert all((b - a) * direction >= -tolerance for a, b in itertools.pairwise(made))


@given(ramps.filter(lambda ramp: ramp.after is not None or ramp.over is not None), st.integers(1, 100))
def test_ramps_hold_their_ends_outside_their_span(ramp: Ramp, total: int) -> None:
    progress = Progress(max_steps=total, batches_per_epoch=10)
    begin = ramp.after.steps(progress) if ramp.after else 0
    end = begin + ramp.over.steps(progress) if ramp.over else max(total, begin)
    for step, value in enumerate(values(ramp, total)):
        if step < begin or (step == begin < end):
            assert value == ramp.start
        elif step >= end:
            assert value == ramp.end
        else:
            assert min(ramp.start, ramp.end) - 1e-9 <= value <= max(ramp.start, ramp.end) + 1e-9


def test_the_middle_of_the_way() -> None:
    assert values(Linear(1, 0), 4) == [1, 0.75, 0.5, 0.25, 0]
    assert values(Cosine(1, 0), 4) == pytest.approx([1, 0.8535534, 0.5, 0.1464466, 0])
    assert values(LogLinear(1, 1e-4), 4) == pytest.approx([1, 0.1, 0.01, 0.001, 0.0001])


def test_constant_then_linear_reaches_zero_with_the_last_step() -> None:
    curve = parse_curve("constant 2e-4 for 1 epoch then linear to 0")
    assert values(curve, 20) == pytest.approx([2e-4] * 10 + [2e-4 * (10 - k) / 10 for k in range(11)])


@given(st.lists(numbers, min_size=1, max_size=5), st.integers(1, 7))
def test_the_last_value_of_a_per_epoch_list_holds(listed: list[float], batches: int) -> None:
    curve = PerEpoch(tuple(listed))
    made = values(curve, batches * (len(listed) + 3), batches)
    assert made == [listed[min(step // batches, len(listed) - 1)] for step in range(len(made))]


def test_milestones_multiply_when_their_step_is_finished() -> None:
    assert values(parse_curve("milestones 1 x0.5 at 50% 75%"), 4) == [1, 1, 0.5, 0.25, 0.25]
    assert values(parse_curve("milestones 8 x0.5 at 1 epoch 3 steps"), 4, batches=2) == [8, 8, 4, 2, 2]


@given(plain, st.integers(1, 60))
def test_warm_up_rises_then_follows(curve: Curve, length: int) -> None:
    made = values(WarmUp(Span(length, "steps"), curve), 80)
    if isinstance(curve, Ramp) and curve.after is None:
        after = type(curve)(curve.start, curve.end, curve.over, Span(length, "steps"))
        full = values(after, 80)
        assert made[length - 1] == curve.start  # the peak, with the warm-up's last step
    else:
        full = values(curve, 80)
    for step in range(81):
        factor = min(1.0, (step + 1) / length)
        assert made[step] == pytest.approx(full[step] * factor, rel=1e-12, abs=1e-15)
    assert made[length - 1 :] == full[length - 1 :]


def test_a_ramp_that_begins_after_the_run_is_held() -> None:
    assert values(Linear(1, 0, after=Span(1000, "steps")), 10) == [1] * 11


def test_a_curve_over_the_whole_run_needs_its_length() -> None:
    with pytest.raises(UsageError, match=r"'linear 1 to 0' needs the length of the run; set max_steps"):
        Linear(1, 0)(Progress(step=3))
    assert Linear(1, 0, over=Span(4, "steps"))(Progress(step=3)) == 0.25


def test_curves_that_hold_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="at least one"):
        PerEpoch(())
    with pytest.raises(UsageError, match="at least one"):
        Milestones(1.0, ())
    with pytest.raises(UsageError, match="Linear: nan is not a finite number"):
        Linear(1.0, math.nan)
