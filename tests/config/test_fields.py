"""Strict conversion between dataclasses and plain data."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from treadle.config.fields import convert, describe, dotted_names, from_dict, to_dict
from treadle.config.files import dumps, loads
from treadle.errors import UsageError


class Color(enum.Enum):
    RED = 1
    DARK_BLUE = "blue"


@dataclass
class Grid:
    levels: int = 16
    growth: float = 1.5


@dataclass
class Everything:
    name: str = "a"
    count: int = 1
    rate: float = 0.1
    flag: bool = False
    limit: int | None = None
    rate_or_text: float | str = "cosine 1e-2 to 0"
    number: float | int = 1
    mode: Literal["min", "max", 1] = "min"
    color: Color = Color.RED
    path: Path | None = None
    sizes: tuple[int, ...] = ()
    pair: tuple[int, float] = (1, 1.0)
    names: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    by_step: dict[int, bool] = field(default_factory=dict)
    grid: Grid = field(default_factory=Grid)
    other_grid: Grid | None = None
    anything: Any = None

    def __post_init__(self) -> None:
        if self.count < 0:
            raise UsageError(f"count is {self.count}: expected 0 or more")


@dataclass
class Needs:
    path: Path


def message(mapping: Any, kind: type = Everything, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        from_dict(kind, mapping, source="a.yaml", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


floats = st.floats(allow_nan=False)
texts = st.text(max_size=20)
everything = st.builds(
    Everything,
    name=texts,
    count=st.integers(min_value=0),
    rate=floats,
    flag=st.booleans(),
    limit=st.none() | st.integers(),
    rate_or_text=floats | texts,
    number=floats | st.integers(),
    mode=st.sampled_from(["min", "max", 1]),
    color=st.sampled_from(Color),
    path=st.none() | texts.filter(lambda text: text and "\0" not in text).map(Path),
    sizes=st.lists(st.integers(), max_size=4).map(tuple),
    pair=st.tuples(st.integers(), floats),
    names=st.lists(texts, max_size=4),
    weights=st.dictionaries(texts, floats, max_size=4),
    by_step=st.dictionaries(st.integers(), st.booleans(), max_size=4),
    grid=st.builds(Grid, st.integers(), floats),
    other_grid=st.none() | st.builds(Grid, st.integers(), floats),
    anything=st.recursive(
        st.none() | st.booleans() | st.integers() | floats | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=6,
    ),
)


@settings(max_examples=100, deadline=None)
@given(everything)
@example(
    Everything(names=["\x85", "\u2028", "\r\n", " a ", "a\n\n b", "\ufeff", "\t", "#", "\0", "0x1F", "1_0", "1e3"])
)
def test_a_config_round_trips_through_yaml_exactly(config: Everything) -> None:
    again = from_dict(Everything, loads(dumps(to_dict(config)), source="a.yaml"))
    assert again == config
    assert repr(again) == repr(config)  # 1 and 1.0 and True are equal, but not the same


def test_the_order_of_fields_is_kept_in_the_file() -> None:
    lines = [line.partition(":")[0] for line in dumps(to_dict(Everything())).splitlines()]
    assert [name for name in lines if not name.startswith(" ")] == list(Everything.__dataclass_fields__)


def test_numpy_values_become_plain_ones() -> None:
    plain = to_dict(Everything(rate=np.float64(0.25)))
    assert type(plain["rate"]) is float and plain["rate"] == 0.25


def test_what_no_file_can_hold_is_refused() -> None:
    with pytest.raises(UsageError, match=r"weights\.a is a object: expected plain data"):
        to_dict(Everything(weights={"a": object()}))  # type: ignore[dict-item]


def test_defaults_stay_where_keys_are_left_out() -> None:
    assert from_dict(Everything, {}) == Everything()
    assert from_dict(Everything, {"grid": {"levels": 3}}).grid == Grid(levels=3)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [(1, 1.0), ("1e-3", 1e-3), ("-2.5E+4", -2.5e4), ("1_000.0", 1000.0), (".inf", math.inf), ("-.inf", -math.inf)],
)
def test_numbers_become_floats(given_: Any, expected: float) -> None:
    value = from_dict(Everything, {"rate": given_}).rate
    assert type(value) is float and value == expected


def test_nan_is_a_number() -> None:
    assert math.isnan(from_dict(Everything, {"rate": ".nan"}).rate)


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"count": True}, "a.yaml: count is True: expected a whole number"),
        ({"count": 1.0}, "a.yaml: count is 1.0: expected a whole number"),
        ({"count": "1"}, "a.yaml: count is '1': expected a whole number"),
        ({"count": None}, "a.yaml: count is empty: expected a whole number"),
        ({"rate": True}, "a.yaml: rate is True: expected a number"),
        ({"rate": "fast"}, "a.yaml: rate is 'fast': expected a number"),
        ({"rate": 10**400}, "expected a number"),
        ({"rate": "nan"}, "a.yaml: rate is 'nan': expected a number"),
        ({"flag": 1}, "a.yaml: flag is 1: expected true or false"),
        ({"flag": "yes"}, "a.yaml: flag is 'yes': expected true or false"),
        ({"name": 3}, "a.yaml: name is 3: expected text"),
        ({"limit": "x"}, "a.yaml: limit is 'x': expected a whole number, or null"),
        ({"rate_or_text": [1]}, "a.yaml: rate_or_text is [1]: expected a number or text"),
        ({"mode": "mim"}, "a.yaml: mode is 'mim': expected one of 'min', 'max', 1; did you mean 'min'?"),
        ({"mode": True}, "a.yaml: mode is True: expected one of 'min', 'max', 1"),
        ({"color": "REED"}, "a.yaml: color is 'REED': expected one of RED, DARK_BLUE; did you mean 'RED'?"),
        ({"color": 1}, "a.yaml: color is 1: expected one of RED, DARK_BLUE"),
        ({"path": 3}, "a.yaml: path is 3: expected a path, or null"),
        ({"path": ""}, "a.yaml: path is '': expected a path, or null"),
        ({"sizes": [1, "b"]}, "a.yaml: sizes[1] is 'b': expected a whole number"),
        ({"sizes": 3}, "a.yaml: sizes is 3: expected a list (a whole number each)"),
        ({"pair": [1]}, "a.yaml: pair is [1]: expected a list of 2 (a whole number, a number)"),
        ({"names": "abc"}, "a.yaml: names is 'abc': expected a list (text each)"),
        ({"weights": [1]}, "a.yaml: weights is [1]: expected a group of settings"),
        ({"weights": {"a": "b"}}, "a.yaml: weights.a is 'b': expected a number"),
        ({"weights": {1: 2.0}}, "a.yaml: weights.1 is 1: expected text"),
        ({"grid": 3}, "a.yaml: grid is 3: expected a group of settings"),
        ({"grid": {"levels": None}}, "a.yaml: grid.levels is empty: expected a whole number"),
        ({"other_grid": {"levels": "x"}}, "a.yaml: other_grid.levels is 'x': expected a whole number"),
        ({"grid": {"level": 3}}, "a.yaml: grid.level is not a setting of Grid; did you mean 'levels'?"),
        ({"nmae": "x"}, "a.yaml: nmae is not a setting of Everything; did you mean 'name'?"),
        ({"levels": 3}, "a.yaml: levels is not a setting of Everything; did you mean 'grid.levels'?"),
        ({3: 3}, "a.yaml: 3 is not a setting of Everything; known: anything, by_step"),
        ({"count": -1}, "a.yaml: count is -1: expected 0 or more"),
        ([1], "a.yaml: the document is [1]: expected a group of settings"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(mapping: Any, expected: str) -> None:
    assert expected in message(mapping)


def test_the_key_is_dotted_from_where_the_group_stands() -> None:
    assert message({"grid": {"levels": True}}, at="config").startswith("a.yaml: config.grid.levels is True")
    assert message({"count": -1}, at="config") == "a.yaml: config.count is -1: expected 0 or more"


def test_a_missing_field_without_default_is_named() -> None:
    assert message({}, kind=Needs) == "a.yaml: path is missing: expected a path"


def test_long_values_are_cut() -> None:
    assert len(message({"count": "x" * 1000})) < 120


def test_an_unsupported_field_type_is_the_authors_error() -> None:
    with pytest.raises(TypeError, match="complex"):
        convert(1, complex, source="a", at="b")


def test_names_of_nested_settings_are_listed() -> None:
    names = dict(dotted_names(Everything))
    assert names["grid.levels"] is int and names["other_grid.growth"] is float


def test_types_are_described_in_words() -> None:
    assert describe(int | None) == "a whole number, or null"
    assert describe(dict[str, float]) == "a group of settings"
    assert describe(list) == "a list"
    assert describe(Any) == "any value"
