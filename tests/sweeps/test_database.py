"""Databases by their URLs: what of one is written into files."""

from __future__ import annotations

import pytest

from treadle.sweeps.database import without_password


@pytest.mark.parametrize(
    ("url", "known"),
    [
        ("postgresql://ada:secret@db:5432/trials", "postgresql://ada@db:5432/trials"),
        ("postgresql+psycopg://:secret@db/trials", "postgresql+psycopg://db/trials"),
        ("mysql://ada:se/cret@db/trials", "mysql://ada@db/trials"),
        ("mysql://ada:sec@ret@db/trials?charset=utf8", "mysql://ada@db/trials?charset=utf8"),
        ("postgresql://ada@db/trials", "postgresql://ada@db/trials"),
        ("postgresql://db:5432/trials", "postgresql://db:5432/trials"),
        ("sqlite:////data/trials.db", "sqlite:////data/trials.db"),
    ],
)
def test_what_is_written_of_a_url_has_no_password(url: str, known: str) -> None:
    assert without_password(url) == known
