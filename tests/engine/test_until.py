"""What a run can be let run to: read from text, and told as soon as it is so."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle import UsageError
from treadle.engine.progress import Progress
from treadle.engine.until import Until
from treadle.engine.watches import Newest, Watch

NAMES = st.from_regex(r"[a-z][a-z_.]{0,8}(/[a-z_]{1,8})?", fullmatch=True)


def reached(text, *, outputs=(), metrics=(), validation=(), began=None, **counters):
    """Whether `text`, waited for since the counters were `began`, is so now."""
    watch = Watch(Until.parse(text), Progress(**(began or {})))
    return watch.reached(Progress(**counters), Newest(dict(outputs), dict(metrics), dict(validation)))


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ("step 500", Until("step", value=500)),
        ("step 0", Until("step", value=0)),
        ("epoch", Until("epoch")),
        ("  epoch   3 ", Until("epoch", value=3)),
        ("nan", Until("nan")),
        ("loss < 0.1", Until("rule", "loss", "<", 0.1)),
        ("loss<=.1", Until("rule", "loss", "<=", 0.1)),
        ("validation/psnr >= 3e1", Until("rule", "validation/psnr", ">=", 30.0)),
        ("fit.weight > -1", Until("rule", "fit.weight", ">", -1.0)),
        ("event observer failed", Until("event", "observer failed")),
        ("best", Until("best")),
        ("validation/psnr > 30 for 3", Until("rule", "validation/psnr", ">", 30.0, 3)),
        ("loss<.1  for  2", Until("rule", "loss", "<", 0.1, 2)),
        ("loss < 1 for 1", Until("rule", "loss", "<", 1.0)),
        ("validation/loss no  better for 5", Until("stall", "validation/loss", times=5)),
    ],
)
def test_it_is_read(text, until):
    assert Until.parse(text) == until
    assert Until.parse(str(until)) == until


@given(
    st.one_of(
        st.builds(Until, st.just("step"), value=st.integers(0, 10**9)),
        st.builds(Until, st.just("epoch"), value=st.integers(0, 10**9)),
        st.builds(Until, st.just("event"), NAMES),
        st.builds(
            Until, st.just("rule"), NAMES, st.sampled_from(["<", "<=", ">", ">="]), st.floats(allow_nan=False)
        ).filter(lambda until: math.isfinite(until.value)),
        st.builds(Until, st.just("rule"), NAMES, st.just("<"), st.integers(-9, 9), times=st.integers(1, 99)),
        st.builds(Until, st.just("stall"), NAMES, times=st.integers(1, 99)),
        st.just(Until("best")),
    )
)
def test_what_is_written_is_read_again(until):
    assert Until.parse(str(until)) == until


@pytest.mark.parametrize(
    "text",
    [
        *("", "step", "step x", "step -1", "step 1.5", "step 1 2", "epoch 0", "epoch -1", "nan 3", "event", "loss"),
        *("best 3", "loss < 1 for 0", "loss < 1 for x", "loss < 1 for 2 times", "loss no better", "no better for 3"),
        *("loss no better for 0", "loss no better for -1", "loss < 1 for 9999999", "loss no better for 9999999"),
        *("loss = 3", "loss == 3", "< 3", "loss < x", "loss < 1 2", "loss <", "loss < nan", "loss < inf", 3, None),
    ],
)
def test_anything_else_is_refused_with_examples(text):
    with pytest.raises(UsageError, match=r"is not understood.*write for example 'step 500', 'epoch'"):
        Until.parse(text)


def test_a_near_miss_is_named():
    with pytest.raises(UsageError, match="did you mean 'epoch'"):
        Until.parse("epochs 3")


def test_steps_and_epochs():
    assert not reached("step 5", step=4) and reached("step 5", step=5) and reached("step 5", step=6)
    assert not reached("epoch", began={"epoch": 2}, epoch=2) and reached("epoch", began={"epoch": 2}, epoch=3)
    assert not reached("epoch 2", epoch=1) and reached("epoch 2", epoch=2)


def test_a_rule_looks_at_the_step_first_and_at_the_newest_metrics_where_it_says_nothing():
    assert reached("loss < 0.1", outputs={"loss": 0.05}, metrics={"loss": 0.5})
    assert not reached("loss < 0.1", outputs={"loss": 0.5}, metrics={"loss": 0.05})
    assert reached("grad_norm > 1", outputs={"loss": 0.5}, metrics={"grad_norm": 2.0})
    assert reached("train/loss <= 0.5", metrics={"loss": 0.5})
    assert not reached("loss > 0", validation={"loss": 1.0}), "that is validation/loss"
    assert not reached("lost < 1", metrics={"loss": 0.0})
    assert not reached("loss < 1", outputs={"loss": float("nan")})


def test_a_rule_on_validation_looks_only_there_and_names_may_have_slashes():
    assert reached("validation/psnr > 30", validation={"psnr": 31.0})
    assert not reached("validation/psnr > 30", metrics={"psnr": 31.0})
    assert reached("validation/fit/l1 < 1", validation={"fit/l1": 0.5})
    assert reached("fit/l1 < 1", outputs={"fit/l1": 0.5})
    assert reached("train/fit/l1 < 1", outputs={"fit/l1": 0.5})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_is_any_scalar_that_is_not_finite(bad):
    assert not reached("nan", outputs={"loss": 1.0}, metrics={"a": 1.0}, validation={"b": 1.0})
    for where in ("outputs", "metrics", "validation"):
        assert reached("nan", **{where: {"fine": 1.0, "loss": bad}})


def test_events_count_from_when_they_are_waited_for():
    watch = Watch(Until.parse("event checkpoint"), Progress())
    now = Progress(step=1), Newest()
    assert not watch.reached(*now)
    watch.journal("bad step")
    assert not watch.reached(*now)
    watch.journal("checkpoint")
    assert watch.reached(*now)


def test_a_bad_step_is_what_nan_waits_for_too():
    watch = Watch(Until.parse("nan"), Progress())
    watch.journal("checkpoint")
    assert not watch.reached(Progress(), Newest())
    watch.journal("bad step")
    assert watch.reached(Progress(), Newest())
