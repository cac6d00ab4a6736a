"""The page's types of the protocol are those of protocol.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "web"


def test_the_pages_types_are_what_the_protocol_says() -> None:
    pytest.importorskip("msgspec")
    done = subprocess.run([sys.executable, WEB / "protocol_types.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
