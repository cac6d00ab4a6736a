"""What people are told on a terminal, whatever has become of it."""

from __future__ import annotations

import sys
from contextlib import suppress


def say(line: str) -> None:
    """Print `line` on standard error, if anybody is there to read it: a closed pipe or a full disk is no error."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
