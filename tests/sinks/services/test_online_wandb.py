"""W&B online: a server on this machine that speaks as much of its protocol as a run without artifacts needs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

SERVICE = "treadle.sinks.services.wandb:WandbService"
ID = "0123456789abcdef"
KEY = "1234567890abcdef1234567890abcdef12345678"
END = [("close", {"status": "finished"}), ("lost", {})]


class Server(ThreadingHTTPServer):
    """Keeps one run.

    Attributes:
        rows: the lines of its history; described: what each `upsertBucket` has said of the run; mute: whether history
            that is sent to it gets no answer, until it is told to go on by `answer`.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.rows: list[dict[str, Any]] = []
        self.offsets: list[int] = []
        self.described: list[dict[str, Any]] = []
        self.mute = False
        self.answer = threading.Event()

    @property
    def url(self) -> str:
        """What WANDB_BASE_URL is to be."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news."""

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The answer to a query; artifacts are refused."""
        project = {"id": "UDE=", "name": "line", "entity": {"id": "RTE=", "name": "me"}}
        if "upsertBucket" in query:
            self.described.append(variables)
            bucket = {"id": "UnVuOjE=", "name": variables["name"], "displayName": "line/v001", "description": "",
                      "config": "{}", "project": project, "historyLineCount": len(self.rows)}  # fmt: skip
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": not self.rows}}}
        if "RunResumeStatus" in query and self.rows:
            tail = json.dumps([json.dumps(self.rows[-1])])
            bucket = {"id": "UnVuOjE=", "name": variables["name"], "summaryMetrics": "{}", "displayName": "line/v001",
                      "logLineCount": 0, "historyLineCount": len(self.rows), "eventsLineCount": 0, "historyTail": tail,
                      "eventsTail": "[]", "config": "{}", "tags": [], "notes": "", "wandbConfig": "{}"}  # fmt: skip
            return {"data": {"model": project | {"bucket": bucket}}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/up/{name}"} for name in variables["files"]]
            return {"data": {"createRunFiles": {"runID": "UnVuOjE=", "uploadHeaders": [], "files": files}}}
        if "viewer" in query:
            viewer = {"id": "VTE=", "entity": "me", "username": "me", "email": "", "flags": "{}"}
            return {"data": {"viewer": viewer | {"teams": {"edges": []}}}}
        return {"errors": [{"message": "no artifacts here"}]} if "rtifact" in query else {"data": {}}


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        """A query, rows of history, or a file."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer: dict[str, Any] = {}
        if self.path == "/graphql":
            asked = json.loads(body)
            answer = self.server.graphql(asked["query"], asked.get("variables") or {})
        elif self.path.endswith("/file_stream"):
            if self.server.mute:
                self.server.answer.wait(60)
            history = json.loads(body).get("files", {}).get("wandb-history.jsonl")
            if history:
                self.server.offsets.append(history["offset"])
                self.server.rows += [json.loads(line) for line in history["content"]]
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_PUT = do_GET = do_POST

    def log_message(self, *words: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    """A server for runs without artifacts."""
    with Server() as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.answer.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def called(driven: Callable[..., Any], wandb_python: str) -> Callable[..., list[dict[str, Any]]]:
    """Call the service, online."""
    return lambda calls, **variables: driven(wandb_python, SERVICE, calls, {"WANDB_MODE": "online"} | variables)


def test_a_host_that_is_away_is_told_and_leaves_nothing_behind(
    called: Callable[..., Any], opening: Callable[..., Any], tmp_path: Path
) -> None:
    away = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_INIT_TIMEOUT": "0.5"}
    began = time.monotonic()
    opened, closed, lost = called([opening(), ("close", {"status": "failed"}), ("lost", {})], **away, WANDB_API_KEY=KEY)
    assert time.monotonic() - began < 15  # the user's variable said half a second, not our 20
    assert "connection refused" in opened["raised"]
    assert closed == {"returned": None} and lost == {"returned": {}}
    assert list((tmp_path / "line" / "v001" / "wandb").glob("*run-2*")) == []
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_without_a_key_it_says_what_to_do(called: Callable[..., Any], opening: Callable[..., Any]) -> None:
    (opened,) = called([opening()])
    assert opened["raised"] == "RuntimeError: nobody is logged in: wandb login, or WANDB_MODE=offline to send it later"


def test_a_server_gets_every_row_once_over_a_resume_and_what_it_refuses_costs_nothing_else(
    called: Callable[..., Any], opening: Callable[..., Any], scalars: Callable[..., Any], server: Any, tmp_path: Path
) -> None:
    online = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
    start = ("event", {"entry": {"event": "start", "step": 0, "epoch": 0, "time": 1.0}})
    model = tmp_path / "weights.bin"
    model.write_bytes(b"123")
    artifact = ("artifact", {"name": "best_model", "kind": "model", "path": str(model)})
    rows = [scalars(2, loss=2), scalars(4, loss=4)]
    opened, *_, closed, lost = called([opening(), start, rows[0], artifact, rows[1], *END], **online)
    assert opened["returned"] == f"{server.url}/me/line/runs/{ID}"
    assert closed["raised"].startswith(f"RuntimeError: an artifact was refused: best_model-{ID}")
    assert "no artifacts here" in closed["raised"]
    assert lost["returned"] == {"artifact": 1}
    answers = called([opening(goes_on=True, step=4), scalars(6, loss=6), *END], **online)
    assert [answer for answer in answers if "raised" in answer] == []
    assert [row["_step"] for row in server.rows] == list(range(len(server.rows))) and server.offsets[0] == 0
    assert [(row["step"], row["train/loss"]) for row in server.rows if "train/loss" in row] == [(2, 2), (4, 4), (6, 6)]
    named = [described["displayName"] for described in server.described if described.get("displayName")]
    assert named == ["line/v001"]  # once: a name that somebody has given it on its page stays


def test_a_server_that_does_not_answer_is_not_waited_for(
    called: Callable[..., Any], opening: Callable[..., Any], scalars: Callable[..., Any], server: Any
) -> None:
    server.mute = True
    online = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
    began = time.monotonic()
    opened, _, closed = called(
        [opening(), scalars(2, loss=2), ("close", {"status": "finished"})], TREADLE_CLOSING_SECONDS="2", **online
    )
    assert time.monotonic() - began < 30
    assert "returned" in opened
    assert closed["raised"].startswith("TimeoutError: not all is uploaded: wandb sync /")
