"""Arithmetic over logged curves: how it is written, and what it comes to."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.errors import UsageError
from treadle.runs.expressions import FUNCTIONS, Call, Name, evaluate, names, parse
from treadle.runs.metrics import Points

CURVES = {
    "train": (np.array([10, 20, 30, 40]), np.array([4.0, 2.0, 6.0, 0.0])),
    "validation": (np.array([20, 40]), np.array([5.0, 5.5])),
    "late": (np.array([40, 60]), np.array([1.0, 7.0])),
    "empty": (np.array([], int), np.array([])),
}


def curve(name: Name) -> Points:
    return CURVES[name.split]


def test_names_and_functions_nest() -> None:
    read = parse(" diff( v001:validation/loss,sum(a , b,c) ) ")
    assert read == Call(
        "diff",
        (Name("v001", "validation", "loss"), Call("sum", (Name("", "a", ""), Name("", "b", ""), Name("", "c", "")))),
    )
    assert [name.split for name in names(read)] == ["validation", "a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("dif(a, b)", "did you mean 'diff'"),
        ("diff(a)", "takes 2 curves, here it has 1"),
        ("sum(a)", "takes at least 2"),
        ("diff(a, b", "',' or ')' is missing"),
        ("diff(a, b) c", "'c' follows where it should end"),
        ("diff(, b)", "',' stands where a name"),
        ("diff(a,", "the end stands where a name"),
        (":loss", "is no name"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("(", r"\(").replace(")", r"\)")):
        parse(text)


def test_the_denser_curve_is_its_mean_since_the_point_before() -> None:
    steps, values = evaluate(parse("diff(validation, train)"), curve)  # type: ignore[misc]
    assert steps.tolist() == [20, 40] and values.tolist() == [5.0 - 3.0, 5.5 - 3.0]
    steps, values = evaluate(parse("sum(late, train)"), curve)  # type: ignore[misc]
    assert steps.tolist() == [40] and values.tolist() == [1.0 + 3.0]  # nothing of train belongs to 60
    assert len(evaluate(parse("sum(empty, train)"), curve)[0]) == 0  # type: ignore[index]


def test_correlation_is_pearsons_and_a_number() -> None:
    found = evaluate(parse("correlation(train, mean(train, train))"), curve)
    assert found == pytest.approx(1.0)
    assert math.isnan(evaluate(parse("correlation(validation, empty)"), curve))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="makes a number"):
        evaluate(parse("sum(train, correlation(train, train))"), curve)


def test_a_ratio_to_nothing_is_unknown() -> None:
    values = evaluate(parse("ratio(train, diff(train, train))"), curve)[1]  # type: ignore[index]
    assert np.isnan(values).all()
    assert evaluate(parse("ratio(train, train)"), curve)[1][:3].tolist() == [1.0, 1.0, 1.0]  # type: ignore[index]


WORDS = st.text("abcxyz01_.", min_size=1, max_size=6)
LEAVES = st.builds(Name, st.sampled_from(["", "v001", "a/v2"]), WORDS, st.sampled_from(["", "loss", "G.L1"]))


def grown(inner: st.SearchStrategy[Call | Name]) -> st.SearchStrategy[Call | Name]:
    return st.builds(Call, st.sampled_from(sorted(FUNCTIONS)), st.tuples(inner, inner))


@given(st.recursive(LEAVES, grown, max_leaves=8))
def test_what_is_written_is_read_back(node: Call | Name) -> None:
    def written(node: Call | Name) -> str:
        if isinstance(node, Call):
            return f"{node.function}({', '.join(map(written, node.arguments))})"
        return (f"{node.run}:" if node.run else "") + node.split + (f"/{node.metric}" if node.metric else "")

    assert parse(written(node)) == node


@given(st.text("diffsum(),: ab/", max_size=20))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    try:
        parse(text)
    except UsageError as error:
        assert "\n" not in str(error)
