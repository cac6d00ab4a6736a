"""The diffs of CONTRIBUTING.md are of real files: each line stands there, and nothing else has to be touched."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIFFS = re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)


def added(diff: str) -> dict[str, list[str]]:
    """The lines that a diff adds, by file."""
    files: dict[str, list[str]] = {}
    for line in diff.splitlines():
        if line.startswith("+++ "):
            lines = files[line.removeprefix("+++ ")] = []
        else:
            lines.append(line.removeprefix("+"))
    return files


@pytest.mark.parametrize("diff", DIFFS, ids=["hook", "sink", "pack"])
def test_each_line_stands_in_its_file(diff: str) -> None:
    for name, lines in added(diff).items():
        there = (ROOT / name).read_text().splitlines()
        assert lines and [line for line in lines if line not in there] == [], name


@pytest.mark.parametrize(
    ("diff", "word", "places"),
    [(DIFFS[0], r"hooks\.timing", 1), (DIFFS[1], r"sinks\.tensorboard", 1), (DIFFS[2], r"treadle\.fields", 0)],
    ids=["hook", "sink", "pack"],
)
def test_no_other_file_of_the_product_knows_it(diff: str, word: str, places: int) -> None:
    named = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "src").rglob("*.py")
        if re.search(rf"{word}\b", path.read_text())
        and path.relative_to(ROOT).parts[2] not in ("fields", "gans", "splats", "tracts")
    }
    assert len(named) == places and named <= set(added(diff))
