"""The table of sinks, and what a sink says of the place it is given."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treadle.errors import UsageError
from treadle.sinks.base import Sink
from treadle.sinks.table import SINKS, descriptions, make, sink_class


@pytest.mark.parametrize("name", SINKS)
def test_each_name_is_a_sink_with_a_line_about_it(name: str) -> None:
    assert issubclass(sink_class(name), Sink) and sink_class(name) is not Sink
    assert descriptions()[name] == SINKS[name][1] and len(descriptions()[name]) < 60


def test_every_sink_of_ours_has_a_name() -> None:
    """A new sink is two places: its file, and the table."""
    import treadle.sinks

    folder = Path(treadle.sinks.__file__).parent
    named = {target.partition(":")[0].rpartition(".")[2] for target, _ in SINKS.values()}
    with_sinks = {path.stem for path in folder.glob("*.py") if re.search(r"^class .*Sink\):", path.read_text(), re.M)}
    assert named == with_sinks - {"base", "remote"}


def test_naming_them_imports_none() -> None:
    code = (
        "from treadle.sinks.table import descriptions; descriptions(); import sys\n"
        "print(*[name for name in sys.modules if name.startswith('treadle.sinks.') or name in ('torch', 'rich')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["treadle.sinks.table"], "a help page needs no torch"


def test_the_place_is_the_constructors_first_argument_or_what_the_class_makes_of_it() -> None:
    class First(Sink):
        def __init__(self, place: str = "here") -> None:
            self.place = place

    class Parsed(First):
        @classmethod
        def at(cls, where: str | None) -> Parsed:
            return cls(f"<{where}>")

    assert (First.at(None).place, First.at("").place, First.at("there").place) == ("here", "", "there")
    assert (Parsed.at(None).place, Parsed.at("there").place) == ("<None>", "<there>")


def test_it_makes_hooks(line: Callable[..., Any], tmp_path: Path) -> None:
    line(hooks=[make("tensorboard", str(tmp_path / "events"))]).train()
    assert list((tmp_path / "events").iterdir())
    with pytest.raises(UsageError, match="unknown sink 'tensorbord'; did you mean 'tensorboard'"):
        make("tensorbord")
