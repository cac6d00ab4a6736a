"""The comparison of trainers: what of it does not depend on time, and that its measuring is right."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def trainers() -> Any:
    """The benchmark's module, as a script imports it."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import trainers
    finally:
        sys.path.remove(str(BENCHMARKS))
    return trainers


def test_lines_with_code_are_counted(trainers: Any) -> None:
    source = '''"""What it is
    about."""

import os  # a comment


# another
def f(x):
    """Doubles."""
    text = """one
    two"""
    return (
        2 * x
    )
'''
    assert trainers.code_lines(source) == 7


def test_the_programs_are_as_long_as_they_look(trainers: Any) -> None:
    for program in trainers.FRAMEWORKS:
        text = (trainers.PROGRAMS / f"with_{program}.py").read_text()
        filled = [line for line in text.splitlines() if line.strip()]
        assert len(filled) - 12 < trainers.code_lines(text) < len(filled)
    assert trainers.lines_of_growing("treadle") == 4
    assert 8 <= trainers.lines_of_growing("fabric") <= 14


def test_a_resume_is_told_by_its_digest(trainers: Any) -> None:
    assert trainers.verdict("a", trainers.Ended(0, "a", "")) == "yes"
    assert trainers.verdict("a", trainers.Ended(0, "b", "")) == "no: other weights"
    assert trainers.verdict("a", trainers.Ended(1, None, "size mismatch")) == "no: the resume fails"


def test_treadles_program_resumes_exactly_after_its_parameter_has_grown(trainers: Any, tmp_path: Path) -> None:
    wanted = trainers.whole("treadle_growing", tmp_path, "whole", grow="1")
    assert trainers.verdict(wanted, trainers.resumed("treadle_growing", tmp_path, "killed", grow="1")) == "yes"
