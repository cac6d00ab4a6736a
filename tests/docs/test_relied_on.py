"""docs/what_users_rely_on.md is what the tests of tests/conformance/reliance say, a line for each."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))

import generate_relied_on  # noqa: E402


def test_the_page_is_what_the_tests_say() -> None:
    assert generate_relied_on.PAGE.read_text(encoding="utf-8") == generate_relied_on.page(), (
        "run python docs/generate_relied_on.py"
    )


def test_every_file_of_tests_is_a_group_of_the_page() -> None:
    files = {path.stem.removeprefix("test_") for path in generate_relied_on.TESTS.glob("test_*.py")}
    assert files == set(generate_relied_on.ORDER)


def test_there_are_enough_lines_and_no_two_are_alike() -> None:
    lines = [line for group in generate_relied_on.groups() for line in group.lines]
    assert len(lines) >= 300
    assert len({line.promise for line in lines}) == len({line.test for line in lines}) == len(lines)


@pytest.mark.parametrize("group", list(generate_relied_on.groups()), ids=lambda group: group.name)
def test_each_line_is_one_sentence_with_its_refusal(group: generate_relied_on.Group) -> None:
    assert len(group.lines) >= 12 and re.fullmatch(r"[A-Z][^:\n]+: [^\n]+\.", group.about)
    for line in group.lines:
        assert re.fullmatch(r"[^\n]+\.", line.promise), line.test
        assert bool(line.refusal) == line.test.startswith("test_refuses_"), line.test
        for other in line.also:
            assert re.fullmatch(r"(Lightning|torchtnt|Ignite|Composer|Accelerate|Keras) test_\w+", other), line.test
