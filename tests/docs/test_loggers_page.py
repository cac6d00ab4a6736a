"""The service of docs/loggers.md, in files of its names, tells a server on loopback; the page names each logger."""

from __future__ import annotations

import importlib
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from treadle import testing
from treadle.sinks.table import SINKS

PAGE = (Path(__file__).parents[2] / "docs" / "loggers.md").read_text()
FILES = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE, re.DOTALL))


def test_a_service_of_ones_own_is_told_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []

    class Pager(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append((json.loads(body)["text"], self.headers["X-Token"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Pager)
    Thread(target=server.serve_forever, daemon=True).start()
    for name, code in FILES.items():
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PAGING_TOKEN", "0123")
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "60")
    paging = importlib.import_module("paging").Paging(f"http://127.0.0.1:{server.server_port}/room")
    data, directory = testing.line_data(40), tmp_path / "line"
    testing.Line(data=data, batch_size=10, max_epochs=1, run_dir=directory, hooks=[paging]).train()
    server.shutdown()
    server.server_close()
    assert heard == [("line/v001: finished at step 4", "0123")]
    assert "0123" not in "".join(path.read_text() for path in directory.rglob("*.json*"))


def test_sinks_of_ones_own_are_short() -> None:
    sizes = [len(code.strip().splitlines()) for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)]
    assert sizes[0] <= 30 and sum(len(code.strip().splitlines()) for code in FILES.values()) <= 30


def test_each_logger_is_in_each_table() -> None:
    for heading in ("What each shows", "Where they are", "After a kill"):
        section = PAGE[PAGE.index(f"## {heading}") :].split("\n## ")[0]
        assert set(re.findall(r"^\| `(\w+)` \|", section, re.M)) >= set(SINKS) - {"console"}
