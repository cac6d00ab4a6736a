"""The gauntlet's own modules, for its tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from gauntlet import Child


@pytest.fixture(scope="session")
def child() -> Iterator[Child]:
    """The process that forks runs."""
    with Child() as child:
        yield child
