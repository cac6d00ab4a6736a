"""Typed flags: what they give, and what is said in one line about wrong ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from treadle.cli.flags import flag_names, parse_flags
from treadle.errors import UsageError


@dataclass
class Grid:
    levels: int = 16
    """Levels of the grid."""


@dataclass
class Settings:
    """What is tested."""

    max_steps: int | None = None
    """Steps to train for."""
    lr: float = 0.1
    shuffle: bool = True
    """Draw in a new order."""
    log_every: str | None = "50 steps"
    precision: Literal["fp32", "bf16"] = "fp32"
    sizes: tuple[int, ...] = (1, 2)
    weights: dict[str, float] = field(default_factory=dict)
    path: Path | None = None
    grid: Grid = field(default_factory=Grid)
    other: Grid | None = None

    def __post_init__(self) -> None:
        if self.lr < 0:
            raise UsageError(f"lr is {self.lr}: expected 0 or more")


def parse(*arguments: str, default: Settings | None = None) -> Settings:
    return parse_flags(default or Settings(), arguments, "treadle train x")


def test_flags_override_only_what_they_name() -> None:
    default = Settings(lr=0.5, sizes=(7,), other=Grid(3))
    assert parse(default=default) is default
    assert parse("--max-steps", "10", default=default) == Settings(max_steps=10, lr=0.5, sizes=(7,), other=Grid(3))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--lr", "1e-3"], Settings(lr=1e-3)),
        (["--lr=2"], Settings(lr=2.0)),
        (["--max_steps=10"], Settings(max_steps=10)),
        (["--max-steps", "None"], Settings()),
        (["--no-shuffle"], Settings(shuffle=False)),
        (["--log-every", "2 epochs"], Settings(log_every="2 epochs")),
        (["--log-every", "None"], Settings(log_every=None)),
        (["--precision", "bf16"], Settings(precision="bf16")),
        (["--sizes", "3", "4", "5"], Settings(sizes=(3, 4, 5))),
        (["--weights", "a", "1.5"], Settings(weights={"a": 1.5})),
        (["--path", "a_b/c"], Settings(path=Path("a_b/c"))),
        (["--path=a_b"], Settings(path=Path("a_b"))),
        (["--grid.levels", "3"], Settings(grid=Grid(3))),
    ],
)
def test_flags_are_typed(arguments: list[str], expected: Settings) -> None:
    assert parse(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--max-step", "10"], "treadle train x: unknown flag --max-step; did you mean '--max-steps'?"),
        (["--zzz"], "treadle train x: unknown flag --zzz (treadle train x --help lists them)"),
        (["--grid", "3"], "treadle train x: unknown flag --grid"),
        (["--max-steps", "many"], "--max-steps is 'many': expected a whole number, or None"),
        (["--max-steps=many"], "--max-steps is 'many': expected a whole number, or None"),
        (["--lr"], "--lr has no value: expected a number"),
        (["--lr", "--shuffle"], "--lr has no value: expected a number"),
        (["--lr", "-1"], "flags: lr is -1.0: expected 0 or more"),
        (["--precision", "fp8"], "--precision is 'fp8': expected one of 'fp32', 'bf16'"),
        (["--sizes", "a"], "--sizes is 'a': expected a list (a whole number each)"),
        (["--grid.levels", "x"], "--grid.levels is 'x': expected a whole number"),
        (["stray"], "treadle train x: 'stray' belongs to no flag"),
        (["--shuffle", "true"], "treadle train x: 'true' belongs to no flag"),
    ],
)
def test_wrong_flags_are_named_in_one_line(
    arguments: list[str], expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*arguments)
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_bool_has_two_flags_and_a_group_none() -> None:
    names = dict(flag_names(Settings))
    assert names["--shuffle"] is bool and names["--no-shuffle"] is bool
    assert "--grid" not in names and "--other" not in names and "--other.levels" in names


def test_what_no_flag_can_say_names_the_way() -> None:
    @dataclass
    class Mixed:
        weights: dict[str, float | str] = field(default_factory=dict)

    with pytest.raises(UsageError, match=r"--weights holds values by name: give one with --set weights\.NAME=VALUE"):
        parse_flags(Mixed(), ["--weights", "l1", "0.5"], "treadle train x")
