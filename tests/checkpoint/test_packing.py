"""Nested values to plain data and back, exactly."""

from __future__ import annotations

import enum
import json
import math
import tempfile
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from treadle import StateError
from treadle.checkpoint.kinds import Kinds, classes_in
from treadle.checkpoint.packing import Packer, unpack
from treadle.checkpoint.plain import is_constant, is_plain
from treadle.checkpoint.store import read_checkpoint, write_checkpoint
from treadle.testing import Line, capture, line_data, restore


class Mode(enum.Enum):
    SLOW = 1
    FAST = "fast"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    YES = "yes"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: Any
    y: Any = 0


@dataclass(frozen=True)
class Frozen:
    first: Any
    second: Any = None


@dataclass
class Loose:
    only: Any


class Home:
    """Stands for a trainer: what this file has at hand can be named."""


KINDS = Kinds(Home())
floats = st.floats()
numbers = st.sampled_from([np.float16, np.float32, np.float64]).flatmap(lambda kind: st.builds(kind, st.floats(-9, 9)))
scalars = st.one_of(
    *(st.none(), st.booleans(), st.integers(), floats, st.text(), st.binary(), st.complex_numbers(), numbers),
    st.sampled_from([*Mode, *Level, *Word, Rights.READ | Rights.WRITE, Rights(0)]),
    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.Size([2, 3]), torch.device("cpu")]),
    st.sampled_from(
        [Path("a/b"), PurePosixPath("/c"), PureWindowsPath("c:/d"), np.True_, np.int8(-3), np.str_("text")]
    ),
    st.sampled_from([np.float32("nan"), np.complex64(1 - 2j), np.uint64(2**64 - 1), np.float64("inf")]),
)
keys = (
    st.text()
    | st.integers()
    | st.tuples(st.integers(), st.text())
    | st.sampled_from([*Word, *Mode, np.str_("k"), b"k"])
)


def containers(inner):
    pairs = st.dictionaries(keys, inner, max_size=4)
    return st.one_of(
        *(st.lists(inner), st.tuples(inner, inner), pairs, st.builds(OrderedDict, pairs)),
        *(st.builds(Counter, st.dictionaries(keys, st.integers())), st.builds(deque, st.lists(inner))),
        st.builds(deque, st.lists(inner), st.just(3)),
        st.builds(defaultdict, st.sampled_from([None, int, list, dict, Counter]), pairs),
        *(st.builds(Point, inner, inner), st.builds(Frozen, inner, inner), st.builds(Loose, inner)),
    )


values = st.recursive(scalars, containers, max_leaves=12)


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, float | np.floating):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, complex | np.complexfloating):
        return same(float(a.real), float(b.real)) and same(float(a.imag), float(b.imag))
    if isinstance(a, defaultdict) and a.default_factory is not b.default_factory:
        return False
    if isinstance(a, deque) and a.maxlen != b.maxlen:
        return False
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            same(x, y) for one, other in zip(a.items(), b.items(), strict=True) for x, y in zip(one, other, strict=True)
        )
    if isinstance(a, list | tuple | deque):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Frozen | Loose):
        return same(vars(a), vars(b))
    return a == b


@settings(deadline=None, max_examples=300)
@given(values)
def test_it_round_trips_through_strict_json(value):
    packer = Packer(KINDS)
    text = json.dumps(packer.pack(value, "value"), allow_nan=False)
    assert same(unpack(json.loads(text), packer.tensors, KINDS), value)


class Holding(Line):
    """Holds a value that it was set up with, and one that came later."""

    def setup(self) -> None:
        super().setup()
        self.early: Any = None


attributes = values.filter(lambda value: is_plain(value) or is_constant(value))  # no paths beside data: refused


@settings(deadline=None, max_examples=25, phases=[Phase.explicit, Phase.generate])
@given(attributes, attributes)
def test_attributes_of_nested_types_come_back_from_the_disk(early, late):
    trainer, other = (Holding(data=line_data(), max_epochs=1, seed=0) for _ in range(2))
    trainer.early, trainer.late = early, late
    state = capture(trainer)
    with tempfile.TemporaryDirectory() as directory:
        path, digest = write_checkpoint(Path(directory), state)
        restore(other, read_checkpoint(path))
    assert same(other.early, early) and same(other.late, late)
    assert other.digest() == digest == trainer.digest()


LAYOUTS = {
    "transposed": lambda: torch.arange(6.0).reshape(2, 3).T,
    "channels last": lambda: torch.arange(120.0).reshape(1, 2, 6, 10).to(memory_format=torch.channels_last),
    "channels last of one channel": lambda: torch.arange(6.0).reshape(2, 1, 3, 1).to(memory_format=torch.channels_last),
    "every second column": lambda: torch.arange(24).reshape(4, 6)[:, ::2],
    "one column": lambda: torch.arange(24.0).reshape(4, 6)[:, 1],
    "expanded": lambda: torch.arange(3.0)[:, None].expand(3, 4),
    "overlapping windows": lambda: torch.arange(10.0).unfold(0, 4, 2),
    "no entries": lambda: torch.zeros(3, 0, 2),
    "a number": lambda: torch.tensor(3.5),
    "conjugated": lambda: torch.tensor([[1 + 2j, 3j]]).conj().T,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_memory_format_and_stride_comes_back(name):
    tensor = LAYOUTS[name]()
    packer = Packer()
    packed = packer.pack(tensor, "x")
    rows = {path: kept.clone(memory_format=torch.contiguous_format) for path, kept in packer.tensors.items()}
    back = unpack(json.loads(json.dumps(packed)), rows)
    assert torch.equal(back, tensor) and back.stride() == tensor.stride() and back.dtype == tensor.dtype


@pytest.mark.parametrize("strides", [[-1, 1], [1], [1.5, 1], [2**61, 2**61]])
def test_strides_that_nothing_has_are_damage(strides):
    with pytest.raises(StateError, match="damaged: strides"):
        unpack({"~tensor": "x", "~strides": strides}, {"x": torch.zeros(2, 3)})


def test_sparse_tensors_come_back_entry_by_entry():
    twice = torch.sparse_coo_tensor(torch.tensor([[2, 0, 2]]), torch.tensor([1.0, 2.0, 3.0]), (4,))
    for tensor in (twice, twice.coalesce(), torch.eye(3).to_sparse()):
        packer = Packer()
        back = unpack(json.loads(json.dumps(packer.pack(tensor, "x"))), packer.tensors)
        assert back.is_coalesced() == tensor.is_coalesced() and back.shape == tensor.shape
        assert torch.equal(back.to_dense(), tensor.to_dense()) and repr(back) == repr(tensor)  # its indices and values


def test_arrays_keep_their_order_in_memory():
    for array in (np.arange(6.0).reshape(2, 3).T, np.arange(6)[::-1].copy(), np.ones(()), np.zeros((0, 3))):
        packer = Packer()
        back = unpack(packer.pack(array, "x"), packer.tensors)
        assert type(back) is np.ndarray and back.dtype == array.dtype and np.array_equal(back, array)
        assert back.flags.f_contiguous == array.flags.f_contiguous


def test_classes_of_data_are_looked_up_where_the_program_is_and_nowhere_else():
    class Hidden(enum.Enum):
        A = 1

    with pytest.raises(StateError, match=r"mode is a .*Hidden, a class that a resume would not find: import it where"):
        Packer(KINDS).pack(Hidden.A, "mode")
    known = Kinds(Home(), lambda: classes_in({"mode": [{"deep": Hidden.A}]}))
    assert unpack(Packer(known).pack(Hidden.A, "mode"), {}, known) is Hidden.A

    class Nested(Home):
        class Mode(enum.Enum):
            A = 1

    inside = Kinds(Nested())
    assert unpack(Packer(inside).pack(Nested.Mode.A, "mode"), {}, inside) is Nested.Mode.A


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        ({"~enum": ["Mode", "__class__"]}, "has Mode.__class__, which that enumeration has not"),
        ({"~enum": ["Rights", 64]}, "has Rights.64"),
        ({"~enum": ["Path", "cwd"]}, "class 'Path', which is not where"),
        ({"~enum": ["os.system", "x"]}, "class 'os.system'"),
        ({"~fields": ["Frozen", {"__class__": 1}]}, "has other fields"),
        ({"~fields": ["Home", {}]}, "class 'Home'"),
        ({"~named": ["Point", [1]]}, "has other fields"),
        ({"~dtype": "load"}, "damaged: ~dtype"),
        ({"~numpy": ["ctypeslib", 1]}, "damaged: ~numpy"),
        ({"~default": ["eval", []]}, "damaged: ~default"),
        ({"~path": ["Popen", "x"]}, "damaged: ~path"),
        ({"~sparse": {"indices": 1, "values": 2, "shape": [1], "coalesced": True}}, "damaged: ~sparse"),
    ],
)
def test_a_forged_state_makes_nothing_that_is_no_data(packed, message):
    with pytest.raises(StateError, match=message):
        unpack(packed, {}, KINDS)


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
        (torch.eye(2).to_sparse_csr(), "v is a tensor with layout torch.sparse_csr"),
        (
            defaultdict(lambda: 3),
            r"v is a defaultdict that makes its entries by '<lambda>', which cannot be saved: use one",
        ),
        (type("Own", (dict,), {})(a=1), r"v is a .*\.Own, which cannot be saved"),
        (type("Text", (str,), {})("a"), r"v is a .*\.Text, which cannot be saved"),
        (math.sin, "v is a builtins.builtin_function_or_method"),
    ],
)
def test_what_cannot_be_saved_is_named_by_its_path(value, message):
    with pytest.raises(StateError, match=message):
        Packer().pack(value, "v")


def test_a_missing_tensor_is_named():
    with pytest.raises(StateError, match="no tensor 'w'"):
        unpack({"~tensor": "w"}, {})
