"""docs/reference and the table of events say what the docstrings say, about every public name."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import treadle
from treadle.engine.events import EVENTS, Events, Hook

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_reference", ROOT / "docs" / "generate_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_those_of_the_docstrings(generator: ModuleType) -> None:
    for path, text in generator.pages().items():
        written = path.read_text(encoding="utf-8")
        assert written == text, f"{path.name} is out of date: run python docs/generate_reference.py"


def test_no_page_is_left_over(generator: ModuleType) -> None:
    assert set((ROOT / "docs" / "reference").iterdir()) <= set(generator.pages())


def test_every_public_name_has_its_place(generator: ModuleType) -> None:
    listed = [name for page in generator.PAGES for name in page.names]
    assert len(listed) == len(set(listed))
    assert {name for name in listed if ":" not in name} == set(treadle.__all__) - {"__version__"}


def test_everything_listed_is_explained(generator: ModuleType) -> None:
    for page in generator.PAGES:
        for name in page.names:
            item = generator.thing(name)
            assert inspect.getdoc(item), name
            if inspect.isclass(item):
                for text in generator.members(item):
                    assert text.rstrip().rpartition("```")[2].strip(), f"{name}: {text.splitlines()[0]}"


def test_the_sections_of_a_docstring_become_lists_and_code(generator: ModuleType) -> None:
    docstring = "Do it.\n\nArgs:\n    x: what,\n        and more: this.\n    y, z: others.\n\nExample:\n    do(1)\n"
    assert generator.markdown(docstring) == (
        "Do it.\n\nArgs:\n\n- `x`: what, and more: this.\n- `y, z`: others.\n\nExample:\n\n```py\ndo(1)\n```"
    )


def test_a_hook_and_a_trainer_have_the_same_events_in_the_same_words() -> None:
    for event in EVENTS:
        of_hook = list(inspect.signature(getattr(Hook, event)).parameters)
        of_trainer = list(inspect.signature(getattr(Events, event)).parameters)
        assert of_hook == ["self", "trainer", *of_trainer[1:]], event
        assert inspect.getdoc(getattr(Hook, event)) and inspect.getdoc(getattr(Events, event))
    for kind in (Hook, Events):
        public = {name for name, value in vars(kind).items() if inspect.isfunction(value) and not name.startswith("_")}
        assert public == set(EVENTS)
