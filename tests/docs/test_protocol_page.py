"""docs/studio_protocol.* say what the protocol says."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("msgspec", reason="the studio's packages are not installed: pip install 'treadle[studio]'")

from treadle.studio.protocol import FromClient, FromStudio

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_protocol", DOCS / "generate_protocol.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_those_of_the_protocol(generator: ModuleType) -> None:
    for name, text in generator.FILES.items():
        written = (DOCS / name).read_text(encoding="utf-8")
        assert written == text(), f"{name} is out of date: run python docs/generate_protocol.py"


def test_every_message_has_its_place(generator: ModuleType) -> None:
    page, schema = generator.page(), json.loads(generator.schema())
    for kind in (*FromClient.__args__, *FromStudio.__args__):
        assert f"### `{kind.__struct_config__.tag}`" in page and kind.__name__ in schema["$defs"]
