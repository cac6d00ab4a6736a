"""A process in the Python of an SDK that answers requests: it takes seconds to start, so many tests share one."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
SOURCES = TESTS.parents[1] / "src"


class Process:
    """A program of tests/sinks/services in another Python, with a home of its own."""

    def __init__(self, python: str, program: str, home: Path) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "LANG") if name in os.environ}
        self._errors = (home / "errors").open("w+")
        self._process = subprocess.Popen(
            [python, "-P", str(TESTS / "services" / program)],
            env=kept | {"HOME": str(home), "PYTHONPATH": str(SOURCES)},
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def ask(self, **request: Any) -> Any:
        """Send a request; gives its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self._errors.seek(0)
        assert answer, self._errors.read()
        return json.loads(answer)

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()
