"""Nested values to plain data and back, exactly."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from treadle import StateError
from treadle.checkpoint.packing import Packer, unpack

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
keys = st.text() | st.integers() | st.tuples(st.integers(), st.text())
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(keys, inner),
    max_leaves=20,
)


def same(a, b):
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@given(values)
def test_it_round_trips_through_strict_json(value):
    packer = Packer()
    text = json.dumps(packer.pack(value, "value"), allow_nan=False)
    assert same(unpack(json.loads(text), packer.tensors), value)


@given(st.dictionaries(st.sampled_from(["~tensor", "~float", "~tuple", "~items", "~array"]), st.text(), min_size=1))
def test_keys_that_look_like_marks_are_data(value):
    packer = Packer()
    assert unpack(packer.pack(value, "value"), packer.tensors) == value


def test_tensors_and_arrays_come_back_by_path():
    packer = Packer()
    value = {"w": torch.arange(3.0), "a": np.arange(4).reshape(2, 2), "b": torch.tensor(2, dtype=torch.bfloat16)}
    packed = packer.pack(value, "x")
    assert set(packer.tensors) == {"x/w", "x/a", "x/b"}
    back = unpack(packed, packer.tensors)
    assert torch.equal(back["w"], value["w"]) and np.array_equal(back["a"], value["a"])
    assert back["b"].dtype == torch.bfloat16 and back["b"].shape == ()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"deep": [object()]}, r"v/deep/0 is a builtins.object, which cannot be saved"),
        ({1, 2}, "v is a builtins.set"),
        (np.array(["a", None], dtype=object), "v is an array of dtype object"),
        (torch.eye(2).to_sparse(), "v is a tensor with layout torch.sparse_coo"),
    ],
)
def test_what_cannot_be_saved_is_named_by_its_path(value, message):
    with pytest.raises(StateError, match=message):
        Packer().pack(value, "v")


def test_a_missing_tensor_is_named():
    with pytest.raises(StateError, match="no tensor 'w'"):
        unpack({"~tensor": "w"}, {})
