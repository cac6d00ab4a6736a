"""What a setting says about itself: it is checked, inherited, sealed, and answers for what a resume may change."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.config.fields import from_dict, to_dict
from treadle.config.settings import (
    Rules,
    Settings,
    check,
    require,
    resumable,
    resumable_with_effect,
    rules_of,
    seal,
    setting,
)
from treadle.errors import UsageError

if TYPE_CHECKING:
    from somewhere import Unknown  # type: ignore[import-not-found]


def word(text: str) -> str:
    if not isinstance(text, str) or " " in text:
        raise UsageError(f"{text!r} is no word")
    return text


@dataclass
class Grid:
    levels: int = setting(4, least=1)
    scale: float = setting(1.0, above=0)


@dataclass(kw_only=True)
class Base(Settings):
    steps: int | None = setting(None, least=1, resumable=True, common=True)
    rate: float = setting(0.1, above=0, below=1)
    share: float = setting(0.0, least=0, most=1, resumable=True, affects_state=False)
    name: str | None = setting("a", parse=word)
    patch: int = setting(16, choices=(16, 34))
    weights: dict[str, float] = setting(default_factory=dict, command="LossWeight")
    plain: int = 3


@dataclass(kw_only=True)
class Child(Base):
    steps: int | None = 8
    rate: float = setting(0.2, below=0.5)
    patch: Any = 16


@dataclass(kw_only=True)
class Foreign(Settings):
    """Fields as a third party may have them."""

    path: Path | None = None
    mode: Literal["min", "max"] = "min"
    loose: float = None  # type: ignore[assignment]
    function: Callable[[], int] | None = None
    anything: Any = object
    grid: Grid = field(default_factory=Grid)


@dataclass(kw_only=True)
class Unresolved(Base):
    other: Unknown = None


FLOATS = st.floats() | st.integers(-3, 3).map(float)


@given(FLOATS, FLOATS, FLOATS)
def test_a_range_allows_what_lies_in_it_and_names_what_does_not(value: float, low: float, high: float) -> None:
    for rules, holds in (
        (Rules(least=low), value >= low),
        (Rules(above=low), value > low),
        (Rules(most=high), value <= high),
        (Rules(below=high), value < high),
        (Rules(least=low, below=high), low <= value < high),
        (Rules(above=low, most=high), low < value <= high),
    ):
        assert rules.allows(value) == (holds and math.isfinite(value))


@given(FLOATS)
def test_a_refused_number_is_one_line_that_says_which_are_allowed(value: float) -> None:
    if 0 < value < 1:
        assert Base(rate=value).rate == value
    else:
        with pytest.raises(UsageError) as caught:
            Base(rate=value)
        assert str(caught.value) == f"rate is {value!r}: expected above 0 and below 1"


@given(st.integers() | st.text(max_size=3) | st.none() | st.booleans() | st.floats())
def test_python_and_files_refuse_the_same(value: Any) -> None:
    for name in ("steps", "rate", "share", "name", "patch", "plain"):
        outcomes = []
        for make in (lambda: Base(**{name: value}), lambda: from_dict(Base, {name: value}, source="x.yaml")):  # noqa: B023
            try:
                outcomes.append(make())
            except UsageError as error:
                assert name in str(error) and "\n" not in str(error)
                outcomes.append(None)
        assert outcomes[0] == outcomes[1]


@given(
    st.none() | st.integers(1, 9),
    st.floats(0, 1, exclude_min=True, exclude_max=True),
    st.sampled_from([16, 34]),
    st.dictionaries(st.text(max_size=3), st.floats(allow_nan=False)),
)
def test_what_is_allowed_goes_to_plain_data_and_back(
    steps: int | None, rate: float, patch: int, weights: dict[str, float]
) -> None:
    made = Base(steps=steps, rate=rate, patch=patch, weights=weights)
    assert from_dict(Base, to_dict(made)) == made


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"steps": 0}, "steps is 0: expected at least 1, or null"),
        ({"steps": True}, "steps is True: expected a whole number, or null"),
        ({"share": 1.5}, "share is 1.5: expected between 0 and 1"),
        ({"share": None}, "share is None: expected a number"),
        ({"name": "a b"}, "name: 'a b' is no word"),
        ({"name": 3}, "name: 3 is no word"),
        ({"patch": 17}, "patch is 17: expected one of 16, 34"),
        ({"plain": "3"}, "plain is '3': expected a whole number"),
        ({"weights": {"a": "x"}}, "weights.a is 'x': expected a number"),
        ({"stepz": 3}, "'stepz' is no setting of Base; did you mean 'steps'?"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(given_: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Base(**given_)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (Rules(least=0), "0 or more"),
        (Rules(least=2), "at least 2"),
        (Rules(above=0), "above 0"),
        (Rules(least=0, below=1), "0 or more and below 1"),
        (Rules(least=0, most=2**63 - 1), "between 0 and 2**63 - 1"),
        (Rules(most=0.5), "at most 0.5"),
        (Rules(), ""),
    ],
)
def test_ranges_are_said_in_words(rules: Rules, words: str) -> None:
    assert rules.expected() == words


def test_what_a_type_accepts_in_another_form_becomes_its_own() -> None:
    made = Foreign(path="a/b", loose=1, grid={"levels": 2})  # type: ignore[arg-type]
    assert (made.path, made.loose, type(made.loose), made.grid) == (Path("a/b"), 1.0, float, Grid(levels=2))


def test_what_is_parsed_stays_as_given_if_its_type_allows_it_or_it_is_an_object() -> None:
    @dataclass(kw_only=True)
    class Parsed(Settings):
        when: str | None = setting("a", parse=lambda value: None)
        rate: float | str = setting(1.0, parse=lambda value: None)

    made = Parsed(when=Grid(), rate=2)  # type: ignore[arg-type]
    assert (made.when, made.rate, type(made.rate)) == (Grid(), 2.0, float)
    assert Parsed(when=None).when is None
    with pytest.raises(UsageError, match="when is 3: expected text, or null"):
        Parsed(when=3)  # type: ignore[arg-type]


def test_a_field_declared_anew_keeps_what_the_classes_above_say() -> None:
    assert Child().steps == 8 and resumable(Child) == {"steps", "share"}
    with pytest.raises(UsageError, match="steps is 0: expected at least 1, or null"):
        Child(steps=0)
    for rate in (0.5, 0.0):
        with pytest.raises(UsageError, match=r"expected above 0 and below 0\.5"):
            Child(rate=rate)
    assert Base(rate=0.5).rate == 0.5, "the class above is as it was"
    with pytest.raises(UsageError, match="patch is 'x': expected one of 16, 34"):
        Child(patch="x")


def test_a_resume_may_change_what_says_so() -> None:
    assert resumable(Base) == {"steps", "share"}
    assert resumable_with_effect(Base) == {"steps"}, "unless it says otherwise, the state depends on a setting"
    assert resumable(Foreign) == frozenset()
    assert rules_of(Base)["steps"].common and not rules_of(Base)["plain"].common


def test_fields_of_a_third_partys_own_kinds_are_left_alone() -> None:
    made = Foreign(function=math.floor, anything=len)
    assert (made.function, made.anything, made.loose) == (math.floor, len, None)
    with pytest.raises(UsageError, match="mode is 'maxi': expected one of 'min', 'max'; did you mean 'max'"):
        Foreign(mode="maxi")  # type: ignore[arg-type]
    unresolved = Unresolved(other=3)
    assert unresolved.other == 3
    with pytest.raises(UsageError, match="steps is 0"):
        Unresolved(steps=0)


def test_a_group_inside_is_checked_with_its_name() -> None:
    with pytest.raises(UsageError, match=r"^grid\.levels is 0: expected at least 1$"):
        Foreign(grid=Grid(levels=0))
    with pytest.raises(UsageError, match=r"^grid\.levls is not a setting of Grid; did you mean 'levels'\?$"):
        Foreign(grid={"levls": 2})  # type: ignore[arg-type]
    grid = Grid(scale=2)
    check(grid)
    assert isinstance(grid.scale, float)


def test_a_setting_without_a_default_must_be_given() -> None:
    @dataclass(kw_only=True)
    class Needs(Settings):
        width: int = setting(least=1)

    assert Needs(width=2).width == 2
    with pytest.raises(UsageError, match="x: width is missing: expected a whole number"):
        from_dict(Needs, {}, source="x")


def test_require_names_setting_and_value() -> None:
    require(Base(), "plain", True, "anything")
    with pytest.raises(UsageError, match=r"^plain is 3: expected a multiple of 2$"):
        require(Base(), "plain", False, "a multiple of 2")


def test_an_init_of_ones_own_takes_what_it_takes() -> None:
    class Own(Base):
        def __init__(self, half: int) -> None:
            super().__init__(plain=2 * half)

    class Open(Base):
        def __init__(self, **more: Any) -> None:
            super().__init__(plain=more["third"] * 3)

    assert Own(half=2).plain == 4 and Open(third=2).plain == 6
    with pytest.raises(UsageError, match="'plian' is no setting of Own; did you mean 'plain'"):
        Own(half=2, plian=3)  # type: ignore[call-arg]


# Sealed -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "steps",
            "steps cannot be assigned, .* give steps= when the trainer is made, .*treadle resume RUN --set steps=",
        ),
        ("rate", "rate cannot be assigned, .* give rate= .*treadle fork RUN --at STEP --set rate="),
        ("weights", "treadle fork .*; the command LossWeight acts on a run that goes on"),
        ("typo", "'typo' is no setting of Base; known: "),
        ("stepz", "'stepz' is no setting of Base; did you mean 'steps'"),
    ],
)
def test_a_sealed_setting_refuses_to_be_assigned_and_says_what_to_do(name: str, words: str) -> None:
    config = Base()
    setattr(config, name, 7)
    seal(config)
    before = dict(vars(config))
    with pytest.raises(UsageError, match=words) as caught:
        setattr(config, name, 8)
    assert "\n" not in str(caught.value) and vars(config) == before


def test_copies_of_sealed_settings_are_free() -> None:
    config = Base(plain=4)
    seal(config)
    for free in (
        dataclasses.replace(config),
        copy.copy(config),
        copy.deepcopy(config),
        from_dict(Base, to_dict(config)),
    ):
        assert free == config
        free.plain = 5
        assert free.plain == 5 and config.plain == 4
    with pytest.raises(UsageError, match="did you mean 'plain'"):
        dataclasses.replace(config, plian=5)  # type: ignore[call-arg]


def test_what_a_sealed_config_keeps_for_itself_is_its_own() -> None:
    @dataclass(kw_only=True)
    class Outer(Settings):
        inner: Base = field(default_factory=Base)

    outer = Outer()
    seal(outer)
    outer._cache = 3  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="plain cannot be assigned"):
        outer.inner.plain = 2
