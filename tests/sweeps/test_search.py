"""The notation of a search: what it means, and that it is checked against the settings."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as some
import pytest
from hypothesis import given

from treadle import TrainerConfig, UsageError, setting
from treadle.config.fields import from_dict, to_dict
from treadle.config.files import changed
from treadle.engine.curves import parse_curve
from treadle.sweeps.search import Choices, Range, dimensions, grid, parse_dimension, parse_search


@dataclass(kw_only=True)
class Grid:
    levels: int = setting(8, least=1, most=64)


@dataclass(kw_only=True)
class Config(TrainerConfig):
    learning_rate: float | str = setting(1e-3, parse=parse_curve)
    rate: float = setting(0.1, above=0)
    depth: int | None = setting(4, least=1)
    name: str = "a"
    grid: Grid = field(default_factory=Grid)
    sizes: tuple[int, ...] = (1,)


class Recipe:
    """What the notation is checked against."""

    def with_settings(self, settings: Any) -> Any:
        return from_dict(Config, changed(to_dict(Config()), settings), source="")


def fitted(name: str, values: Any) -> Any:
    (dim,) = dimensions({name: values}, Recipe())
    return dim


def draws(dim: Any, count: int = 200) -> list[Any]:
    return [dim.value(dim.domain.draw(random.Random(seed))) for seed in range(count)]


numbers = some.floats(min_value=1e-12, max_value=1e12, allow_nan=False, allow_infinity=False)


@given(low=numbers, factor=some.floats(1.0001, 1e6), log=some.booleans(), seed=some.integers(0, 2**32))
def test_a_range_gives_numbers_within_it(low: float, factor: float, log: bool, seed: int) -> None:
    high = low * factor
    dim = parse_dimension("rate", f"{'log:' * log}{low!r}..{high!r}")
    assert dim.domain == Range(low, high, log=log)
    value = dim.domain.draw(random.Random(seed))
    assert isinstance(value, float) and low <= value <= high


@given(low=some.integers(-1000, 1000), count=some.integers(1, 500), step=some.integers(1, 50), seed=some.integers(0))
def test_whole_numbers_with_a_step_are_those_of_range(low: int, count: int, step: int, seed: int) -> None:
    high = low + count * step
    dim = parse_dimension("depth", f"{low}..{high}..{step}")
    assert dim.domain.points() == list(range(low, high + 1, step))
    assert dim.domain.draw(random.Random(seed)) in dim.domain.points()
    assert dim.domain.ends == (low, high)


@given(low=some.integers(1, 1000), high=some.integers(1, 10**6), log=some.booleans(), seed=some.integers(0))
def test_whole_ranges_give_whole_numbers_or_are_refused(low: int, high: int, log: bool, seed: int) -> None:
    text = f"{'log:' * log}{low}..{high}"
    if low >= high:
        with pytest.raises(UsageError, match="the range is empty"):
            parse_dimension("depth", text)
        return
    value = parse_dimension("depth", text).domain.draw(random.Random(seed))
    assert type(value) is int and low <= value <= high


plain = some.one_of(some.integers(), some.booleans(), some.none(), some.text("abcxyz_-", min_size=1, max_size=9))


@given(values=some.lists(plain, min_size=2, max_size=6, unique_by=lambda value: (type(value), value)))
def test_choices_given_from_python_come_back_as_they_are(values: list[Any]) -> None:
    dim = parse_dimension("anything", values)
    assert isinstance(dim.domain, Choices)
    assert [dim.value(drawn) for drawn in dim.domain.points()] == values


@given(text=some.text("0123456789.|:logcsine -{}[]'\"eE+,", max_size=24))
def test_whatever_is_written_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        dim = parse_dimension("rate", text)
    except UsageError as error:
        assert "\n" not in str(error) and str(error).startswith("search rate=")
    else:
        assert dim.value(dim.domain.draw(random.Random(0))) is not NotImplemented


def test_a_logarithmic_range_is_even_in_the_logarithm() -> None:
    values = draws(fitted("rate", "log:1e-4..1e-1"), 3000)
    counts = [sum(10**power <= value < 10 ** (power + 1) for value in values) for power in (-4, -3, -2)]
    assert sum(counts) == 3000 and min(counts) > 900


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("depth", "2..4", {2, 3, 4}),
        ("depth", "log:2..16..2", {2, 4, 8, 16}),
        ("depth", "8|12|null", {8, 12, None}),
        ("rate", "0.5..1.5..0.25", {0.5, 0.75, 1.0, 1.25, 1.5}),
        ("rate", "log:0.01..1..10", {0.01, 0.1, 1.0}),
        ("name", "a|'b|c'|'1'|x..y", {"a", "b|c", "1", "x..y"}),
        ("name", "1..2", {"1", "2"}),
        ("grid.levels", "1..3", {1, 2, 3}),
        ("learning_rate", "cosine 1e-2 to 0|linear 1e-2 to 0", {"cosine 1e-2 to 0", "linear 1e-2 to 0"}),
        ("validate_every", "{1..3} epochs", {"1 epochs", "2 epochs", "3 epochs"}),
        ("validate_every", "{log:10..1000..10} steps", {"10 steps", "100 steps", "1000 steps"}),
        ("sizes", "[1, 2]|[3]", {(1, 2), (3,)}),
    ],
)
def test_what_the_notation_means(name: str, values: str, expected: Any) -> None:
    found = draws(fitted(name, values))
    assert {tuple(value) if isinstance(value, list) else value for value in found} == expected


def test_a_range_between_whole_numbers_is_whole_only_where_the_setting_is() -> None:
    assert all(type(value) is int for value in draws(fitted("depth", "1..4")))
    values = draws(fitted("rate", "1..4"))
    assert all(type(value) is float for value in values) and len(set(values)) > 100
    assert len(set(draws(fitted("learning_rate", "1..4")))) > 100


def test_a_number_within_text_is_what_schedules_need() -> None:
    values = draws(fitted("learning_rate", "cosine {log:1e-4..1e-1} to 0"))
    assert len(set(values)) == 200
    starts = [float(value.split()[1]) for value in values]
    assert all(value.split()[0] == "cosine" and value.endswith(" to 0") for value in values)
    assert min(starts) >= 1e-4 and max(starts) <= 1e-1


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("learing_rate", "1..2", "did you mean 'learning_rate'?"),
        ("levels", "1..2", "did you mean 'grid.levels'?"),
        ("depth", "0..4", "depth is 0: expected at least 1"),
        ("grid.levels", "8..128", "levels is 128: expected between 1 and 64"),
        ("rate", "-1..1", "rate is -1.0: expected above 0"),
        ("rate", "1..1", "the range is empty"),
        ("rate", "2..1", "the range is empty"),
        ("rate", "log:0..1", "a logarithm needs numbers above 0"),
        ("rate", "log:-1..1", "a logarithm needs numbers above 0"),
        ("rate", "1..2..0", "the step is 0"),
        ("rate", "1..2..5", "the step is 5"),
        ("rate", "log:1..8..1", "the factor is 1"),
        ("rate", "1e999..2", "expected finite numbers"),
        ("rate", "0.1", "one value is no search"),
        ("rate", "0.1|", "a choice is missing"),
        ("rate", "0.1|0.1", "a choice is given twice"),
        ("rate", [0.1], "expected two choices or more"),
        ("rate", "0.1|abc", "rate is 'abc': expected a number"),
        ("rate", "0.1..", "expected a range such as"),
        ("rate", "0.1|[", "cannot be read"),
        ("learning_rate", "cosine 1e-2 to 0|lnear 1e-2 to 0", "did you mean 'linear'?"),
        ("learning_rate", "cosin {1..2} to 0", "did you mean 'cosine'?"),
        ("name", "a|1", "name is 1: expected text"),
    ],
)
def test_what_is_refused_says_so_in_one_line(name: str, values: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        fitted(name, values)
    assert words in str(caught.value) and "\n" not in str(caught.value) and "search" in str(caught.value)


def test_the_command_lines_words_are_names_and_values() -> None:
    assert parse_search(["a=1..2", "b = x|y "]) == {"a": "1..2", "b": "x|y"}
    for text in ("a", "a=", "=1"):
        with pytest.raises(UsageError, match="expected NAME=VALUES"):
            parse_search([text])
    with pytest.raises(UsageError, match="a is searched twice"):
        parse_search(["a=1..2", "a=3..4"])


def test_a_grid_is_the_product_in_order() -> None:
    dims = [parse_dimension("a", "1..2"), parse_dimension("b", "x|y|z")]
    points = grid(dims)
    assert [(point["a"], point["b"]) for point in points] == [(a, b) for a in (1, 2) for b in "xyz"]
    for text, words in (("0..0.5", "a step"), ("log:1e-3..1", "a factor")):
        with pytest.raises(UsageError, match=f"search b: a grid needs {words}"):
            grid([parse_dimension("b", text)])
    with pytest.raises(UsageError, match="at most"):
        grid([parse_dimension("a", "1..1000"), parse_dimension("b", "1..1000")])


def test_logarithmic_whole_numbers_reach_both_ends() -> None:
    values = draws(fitted("depth", "log:1..8"), 500)
    assert set(values) == set(range(1, 9)) and values.count(1) > values.count(8)
    assert math.isclose(sum(value <= 2 for value in values) / 500, 0.55, abs_tol=0.12)
