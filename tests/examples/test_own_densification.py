"""The example of a strategy of one's own: short, better than none, exact."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from treadle.cameras.procedural import procedural_capture
from treadle.testing import check_resume


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / "own_densification.py"
    spec = importlib.util.spec_from_file_location("example_own_densification", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def source(module: ModuleType, name: str) -> str:
    """The source of a class."""
    text = Path(str(module.__file__)).read_text()
    (found,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == name)
    return ast.get_source_segment(text, found) or ""


def test_it_is_short_and_helps(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(source(example, "SplitTheBusiest").splitlines()) <= 40
    example.main(steps=250, size=32)
    (few, without), (many, grown) = re.findall(r"(\d+) splats, ([\d.]+) dB", capsys.readouterr().out)
    assert int(few) == 500 < int(many)
    assert float(grown) > float(without) + 0.3


def test_it_resumes_exactly(example: ModuleType, tmp_path: Path) -> None:
    settings = {"max_steps": 20, "random": 50, "strategy": "none", "examples_every": None, "device": "cpu"}
    capture = procedural_capture(16, 5, 0)
    check_resume(lambda **where: example.Busiest(data=capture, **settings, **where), tmp_path, stops=[3, 4, 13])
