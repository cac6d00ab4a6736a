"""Pages of help about settings: what is on them, and that they never grow beyond their lines."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle import TrainerConfig, setting
from treadle.cli.settings_page import clause, full_page, short_page
from treadle.config.settings import Settings


class Shape(enum.Enum):
    ROUND = 1
    FLAT = 2


@dataclass
class Grid:
    levels: int = setting(16, least=1)
    """Levels of the grid."""


@dataclass(kw_only=True)
class Inks(Settings):
    """The inks."""

    colour: Literal["red", "blue"] = "red"
    """What to draw with."""
    shape: Shape = Shape.ROUND


@dataclass(kw_only=True)
class Config(Inks, TrainerConfig):
    max_steps: int | None = 20
    rate: float | str = setting("cosine 1e-2 to 1e-4 over 20 steps", resumable=True)
    """How fast."""
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[int, float] = (1, 0.5)
    weights: dict[str, float] = field(default_factory=lambda: {"a": 1.5})
    path: Path | None = None
    flag: bool = False
    text: str = ""
    grid: Grid = field(default_factory=Grid)
    other: Grid | None = None


def wide(count: int, *, common: bool, groups: int = 1) -> type[Any]:
    """A config with `count` fields of its own in each of several groups."""
    bases = [
        make_dataclass(
            f"Group{group}",
            [(f"setting_{group}_{i}_of_a_long_name", int, setting(i, common=common)) for i in range(count)],
            bases=(Settings,),
            kw_only=True,
        )
        for group in range(groups)
    ]
    return make_dataclass("Wide", [], bases=(*bases, TrainerConfig), kw_only=True)


def test_the_full_page_says_type_range_default_and_docstring() -> None:
    page = full_page(Config(max_steps=7))
    joined = " ".join(page.split())
    for words in (
        "--max-steps INT|None Steps to train for; with max_epochs, whichever comes first. "
        "[at least 1; resumable; default: 7]",
        "--colour {red,blue} What to draw with. [default: red]",
        "--shape {ROUND,FLAT} [default: ROUND]",
        "--rate FLOAT|TEXT How fast. [resumable; default: cosine 1e-2 to 1e-4 over 20 steps]",
        "--sizes [INT ...] [default: 1 2]",
        "--pair INT FLOAT [default: 1 0.5]",
        "--weights [TEXT FLOAT ...] [default: a 1.5]",
        "--path PATH|None [default: None]",
        "--flag, --no-flag [default: off]",
        "--text TEXT [default: -]",
        "--grid.levels INT Levels of the grid. [at least 1; default: 16]",
        "--other.levels INT Levels of the grid. [at least 1; default: 16]",
    ):
        assert words in joined
    assert max(map(len, page.splitlines())) <= 80


def test_settings_stand_under_the_class_that_declares_them_first() -> None:
    lines = full_page(Config()).splitlines()
    titles = [line for line in lines if line and not line.startswith(" ")]
    assert titles[:3] == ["The inks:", "Config:", "How long a run goes on:"]
    steps = next(i for i, line in enumerate(lines) if "--max-steps" in line)
    assert steps > lines.index("How long a run goes on:"), "declared anew, it stays where it was"


def test_the_short_page_shows_values_and_choices_on_a_line_each() -> None:
    page, left_out = short_page(Config(), lines=40)
    assert "  --colour          red        What to draw with (red, blue)\n" in page
    assert "--max-steps       20         Steps to train for" in page
    assert "cosine 1e-2 to 1e-4 over 20 steps" in page, "a long value takes the room of the words"
    assert "--keep-snapshots" not in page
    everything = full_page(Config())
    shown, total = (sum(line.startswith("  --") for line in text.splitlines()) for text in (page, everything))
    assert left_out == total - shown > 0


@pytest.mark.parametrize("lines", [3, 10, 33, 45])
@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize(("count", "groups"), [(3, 1), (100, 1), (2, 40)])
def test_the_short_page_never_grows_beyond_its_lines(count: int, groups: int, common: bool, lines: int) -> None:
    page, left_out = short_page(wide(count, common=common, groups=groups)(), lines=lines)
    rows = page.splitlines()
    assert 0 < len(rows) <= lines and max(map(len, rows)) <= 80
    own = [row for row in rows if "--setting-" in row]
    if lines >= 33:
        assert any("--max-steps" in row for row in rows), "the common ones of every trainer have their place"
        assert bool(own) == (common or count == 3)
    everything = count * groups + len(fields(TrainerConfig))
    assert left_out == everything - sum(row.startswith("  --") for row in rows)


@given(st.text("abc ,;.:()", max_size=120), st.integers(10, 80))
def test_a_clause_fits_and_begins_as_the_sentence_does(text: str, room: int) -> None:
    short = clause(text, room)
    assert len(short) <= room
    assert text.startswith(short.removesuffix("..."))


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (60, "Steps to train for; or epochs (of data), as it comes"),
        (45, "Steps to train for; or epochs"),
        (28, "Steps to train for"),
        (16, "Steps to..."),
    ],
)
def test_a_clause_ends_where_a_sentence_can(room: int, expected: str) -> None:
    assert clause("Steps to train for; or epochs (of data), as it comes.", room) == expected


def test_a_clause_does_not_end_inside_parentheses() -> None:
    assert clause("A Visdom server (default: http://localhost:8097)", 30) == "A Visdom server"
