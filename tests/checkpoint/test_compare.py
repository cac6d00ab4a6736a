"""Where two states differ: every difference is named, and nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.checkpoint.compare import differences
from treadle.checkpoint.packing import Packer
from treadle.checkpoint.state import State


def state(value):
    packer = Packer()
    return State(packer.pack(value, "state"), packer.tensors, {})


def lines(a, b):
    return list(differences(state(a), state(b)))


def test_equal_states_have_no_differences_whatever_their_clocks():
    first, second = state({"a": 1, "t": torch.ones(3)}), state({"a": 1, "t": torch.ones(3)})
    second.clock = {"seconds": 5.0}
    assert list(differences(first, second)) == []


def test_counters_come_before_tensors_and_both_are_named_by_path():
    a = {"progress": {"step": 3}, "model": {"w": torch.zeros(4)}}
    b = {"progress": {"step": 4}, "model": {"w": torch.tensor([0.0, 0.5, 0.0, -2.0])}}
    assert lines(a, b) == ["progress/step: 3 and 4", "state/model/w: 2 of 4 entries differ, by up to 2"]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (1, 1.0, "x: 1 and 1.0"),
        (1, True, "x: 1 and True"),
        (0.0, -0.0, "x: 0.0 and -0.0"),
        (None, "None", "x: None and 'None'"),
        (math.nan, 1.0, "x: {'~float': 'nan'} and 1.0"),
        ([1, 2], [1, 2, 3], "x: 2 and 3 entries"),
        ([1, {"k": 2}], [1, {"k": 3}], "x/1/k: 2 and 3"),
        ((1, 2), (1, 5), "x/~tuple/1: 2 and 5"),
        ({1: "a"}, {1: "b"}, "x/~items/0/1: 'a' and 'b'"),
        ({"k": 1}, {}, "x/k: only in the first"),
        ({}, {"k": 1}, "x/k: only in the second"),
        ("a" * 90, "b", f"x: '{'a' * 56}... and 'b'"),
    ],
)
def test_plain_data(a, b, expected):
    assert lines({"x": a}, {"x": b}) == [expected]


def test_long_lists_name_the_first_entries_that_differ_too():
    assert lines({"x": [1, 2, 3]}, {"x": [1, 9]}) == ["x: 3 and 2 entries", "x/1: 2 and 9"]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (torch.ones(3), torch.ones(4), "float32[3] and float32[4]"),
        (torch.ones(3), torch.ones(3).double(), "float32[3] and float64[3]"),
        (torch.tensor([1, 2]), torch.tensor([1, 3]), "1 of 2 entries differ"),
        (torch.tensor([0.0, 0.0]), torch.tensor([-0.0, 0.0]), "1 of 2 entries differ, by up to 0"),
        (torch.tensor([math.nan, 1.0]), torch.tensor([2.0, 1.5]), "2 of 2 entries differ, by up to 0.5"),
        (torch.tensor([math.nan]), torch.tensor([2.0]), "1 of 1 entries differ"),
        (torch.tensor([math.inf, 1.0]), torch.tensor([1.0, 1.0]), "1 of 2 entries differ, by up to 0"),
        (torch.tensor([True, False]), torch.tensor([True, True]), "1 of 2 entries differ"),
        (torch.tensor(1.0), torch.tensor(3.0), "1 of 1 entries differ, by up to 2"),
        (torch.tensor([1j]), torch.tensor([2j]), "1 of 1 entries differ"),
        (
            torch.tensor([1, 2], dtype=torch.uint16),
            torch.tensor([1, 3], dtype=torch.uint16),
            "1 of 2 entries differ",
        ),
        (
            torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn),
            torch.tensor([1.0, 4.0]).to(torch.float8_e4m3fn),
            "1 of 2 entries differ, by up to 2",
        ),
    ],
)
def test_tensors(a, b, expected):
    assert lines({"t": a}, {"t": b}) == [f"state/t: {expected}"]


def test_a_nan_that_is_the_same_is_no_difference_beside_one_that_is():
    a, b = torch.tensor([math.nan, 1.0]), torch.tensor([math.nan, 2.0])
    assert lines({"t": a}, {"t": b}) == ["state/t: 1 of 2 entries differ, by up to 1"]


def test_a_tensor_that_only_one_has():
    assert lines({"t": [torch.ones(1)]}, {"t": []})[-1] == "state/t/0: only in the first"


data = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(data, data)
@settings(max_examples=200, deadline=None)
def test_there_are_differences_exactly_where_the_digests_differ(a, b):
    first, second = state({"x": a}), state({"x": b})
    assert bool(list(differences(first, second))) == (first.digest != second.digest)
