"""The code in README.md and docs/ runs; its commands, files and links exist."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from treadle.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDS = {"sweeps.md": "optuna"}
"""What a page's blocks import of an extra that an environment may be without."""
REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The code blocks of a language, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```", text, re.S | re.M)
    return [(text.count("\n", 0, match.start(1)) + 1, match[1]) for match in found]


def identifier(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=identifier)
def test_python_blocks_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page are one program; it runs in an empty directory."""
    if page.name in NEEDS:
        pytest.importorskip(NEEDS[page.name])
    monkeypatch.chdir(tmp_path)
    module = ModuleType("page_of_the_docs")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # as for any program: dataclasses look there
    for line, code in blocks(page, "python"):
        # Blank lines in front, so that an error names the line of the page.
        program = compile("\n" * (line - 1) + code, str(page), "exec", dont_inherit=True)
        exec(program, vars(module))


@pytest.mark.parametrize("page", PAGES, ids=identifier)
def test_commands_exist(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for line, block in blocks(page, "sh"):
        for command in block.splitlines():
            words = command.split()
            if words and words[0] == "treadle":
                assert words[1] in COMMANDS, f"{page.name}:{line}: treadle {words[1]}"
            if words and words[0] == "make":
                assert words[1] in targets, f"{page.name}:{line}: make {words[1]}"
            if words and words[0] == "python" and words[1].endswith(".py"):
                assert (ROOT / words[1]).exists(), f"{page.name}:{line}: {words[1]}"


@pytest.mark.parametrize("page", PAGES + REFERENCE, ids=identifier)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.S)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{target} in {page.name}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
