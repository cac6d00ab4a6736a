"""Settings by the class that declares them, and the strings below them."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass

from treadle.config.groups import docstrings, groups


@dataclass(kw_only=True)
class Size:
    """How large.

    In pixels.
    """

    width: int = 1
    """From left to right,
    in pixels."""
    height: int = 2


@dataclass(kw_only=True)
class Colour:
    red: float = 0.0
    """How red."""
    total: float = field(init=False, default=0.0)
    """Made of the others."""


@dataclass(kw_only=True)
class Picture(Colour, Size):
    """All of it."""

    width: int = 3
    """Another width."""
    own: int = 0


def test_a_field_belongs_to_the_class_that_declares_it_first() -> None:
    found = [(group.title, group.owner, group.names) for group in groups(Picture)]
    assert found == [
        ("How large", Size, ("width", "height")),
        ("Colour", Colour, ("red",)),
        ("All of it", Picture, ("own",)),
    ]


def test_the_nearest_docstring_counts() -> None:
    assert docstrings(Picture) == {"width": "Another width.", "red": "How red.", "total": "Made of the others."}
    assert docstrings(Size) == {"width": "From left to right, in pixels."}


def test_a_class_without_source_has_no_docstrings_of_its_own() -> None:
    made = make_dataclass("Made", [("depth", int, 1)], bases=(Size,), kw_only=True)
    assert docstrings(made) == docstrings(Size)
    assert [group.title for group in groups(made)] == ["How large", "Made"]
