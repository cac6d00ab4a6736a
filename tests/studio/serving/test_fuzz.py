"""Ten thousand messages, right, nearly right and nonsense: each is answered or ends its connection; none harms."""

from __future__ import annotations

import json
import random
import threading
import time
from typing import Any

import msgspec

from treadle.studio import protocol
from treadle.studio.hook import Studio
from treadle.studio.protocol import Hello, Requests
from treadle.studio.serving import server as server_module
from treadle.studio.wire import encode
from treadle.testing import Line, line_data

MESSAGES = 10_000
HARMLESS = frozenset({"pause", "takecontrol", "propose", "watch", "unwatch", "share", "overlay", "inspect", "compare",
                      "curves", "table", "timing", "unbreak", "details", "difference", "pictureof"})  # fmt: skip
"""What leaves a paused run as it is: these are also sent as they should be."""
NASTY: list[Any] = [
    None, True, -1, 2**53, 2**64, -(2**70), 1e308, -0.0, "", "\0", "../../etc/passwd", "<img src=x>", "\ud7ff",
    "x" * 5000, [], {}, [[]], {"a": {"b": []}}, [1] * 100, "__class__", "9" * 400, 0.1, "NaN",
]  # fmt: skip


def proper(kind: type[protocol.Request], id: int, draw: random.Random) -> dict[str, Any]:
    """A message of this kind as it should be."""
    fields: dict[str, Any] = {"type": kind.__struct_config__.tag, "id": id}
    values = {
        "steps": 1, "until": "step 5", "step": draw.randrange(5), "text": "note", "number": 1, "share": 0.5,
        "changes": [{"what": "lr_multiplier", "target": "optimizer", "value": 0.5}], "view": "x", "x": 1, "y": 1,
        "key": "train/loss", "keys": ["train/loss"], "runs": ["a", "b"], "run": "a", "picture": "b", "settings": {},
    }  # fmt: skip
    for field in msgspec.structs.fields(kind):
        if field.name != "id" and (field.required or draw.random() < 0.2) and field.encode_name in values:
            fields[field.encode_name] = values[field.encode_name]
    return fields


def mutated(message: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """The same with something wrong in it."""
    message = dict(message)
    match draw.randrange(5):
        case 0:
            message[draw.choice([*message, "extra"])] = draw.choice(NASTY)
        case 1:
            message.pop(draw.choice(list(message)))
        case 2:
            message["type"] = draw.choice(["hello", "answer", "Pause", "call", "eval", "__init__", "state", ""])
        case 3:
            message |= {name: draw.choice(NASTY) for name in list(message)[1:]}
        case 4:
            message |= {f"field{n}": draw.choice(NASTY) for n in range(draw.randrange(1, 20))}
    return message


def broken(text: str, draw: random.Random) -> str | bytes:
    """The text with characters gone, doubled or foreign; or bytes of any kind."""
    at = draw.randrange(len(text))
    return draw.choice([
        text[:at], text[at:], text[:at] + draw.choice('{}[]",:\\\0\u00fc') + text[at:], text * 2,
        "[" * draw.randrange(1, 3000),
        draw.randbytes(draw.randrange(1, 300)), text.encode(), "", "null", "1e999", '{"type":"pause","id":1e999}',
    ])  # fmt: skip


def messages(draw: random.Random) -> list[str | bytes]:
    kinds = list(Requests.__args__)
    found: list[str | bytes] = []
    for id in range(1, MESSAGES + 1):
        kind = draw.choice(kinds)
        right = proper(kind, id, draw)
        way = draw.random()
        if way < 0.3 and right["type"] in HARMLESS:
            found.append(json.dumps(right))
        elif way < 0.8:
            found.append(json.dumps(spoilt(right, draw)))
        else:
            found.append(broken(json.dumps(right | {"type": draw.choice(sorted(HARMLESS))}), draw))
    return found


def spoilt(message: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """A mutated message that is really wrong, unless it is of the harmless ones."""
    while True:
        wrong = mutated(message, draw)
        try:
            msgspec.convert(wrong, protocol.FromClient)
        except msgspec.ValidationError:
            return wrong
        if wrong["type"] in HARMLESS | {"hello"}:
            return wrong


def test_ten_thousand_messages_crash_nothing_and_change_nothing(monkeypatch, capsys):
    monkeypatch.setattr(server_module, "MESSAGES_PER_SECOND", 1e9)
    monkeypatch.setattr(server_module, "BURST", 1e9)
    monkeypatch.setattr(server_module, "NONSENSE", 10**9)
    trainer = Line(data=line_data(), batch_size=32, max_steps=20, seed=0)
    for _ in range(3):
        trainer.iterate()
    digest = trainer.digest()
    with Studio(trainer, quiet=True, paused=True) as studio:
        thread = threading.Thread(target=trainer.train)
        thread.start()
        answered, slowest = speak(studio.url, messages(random.Random(20261122)))
        with_counts = trainer.loop.counts
        trainer.commands.stop()
        thread.join(60)
    assert answered >= MESSAGES * 0.95 and slowest < 1.0, (answered, slowest)
    assert with_counts[1] == 3 and trainer.digest() == digest
    assert "internal error" not in capsys.readouterr().err


def speak(url: str, said: list[str | bytes]) -> tuple[int, float]:
    """Say all of it, in order, over as many connections as it takes; how many were answered, and the slowest answers.

    Slow in seconds of work, by whatever thread of this process: others may have the processor for any time.
    After every 50 messages it waits until all of them are answered, which a last one that is right tells.
    """
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    address, _, token = url.partition("#token=")
    headers = {"Authorization": f"Bearer {token}"}
    answered, slowest, mark = 0, 0.0, 10**9
    rest = list(said)
    while rest:
        with connect(address.replace("http", "ws") + "socket", additional_headers=headers, max_size=None) as socket:
            socket.send(encode(Hello(version=1, client="0" * 32)))
            try:
                while rest:
                    batch, rest = rest[:50], rest[50:]
                    mark += 1
                    began = time.process_time()
                    for message in batch:
                        socket.send(message)
                    socket.send(encode(protocol.TakeControl(id=mark)))
                    while True:
                        told = socket.recv(60)
                        header = json.loads(told.partition(b"\n")[0] if isinstance(told, bytes) else told)
                        if header.get("id") == mark and header["type"] == "answer":
                            break
                        answered += header["type"] in ("answer", "refusal", "series", "shapes", "picture")
                    slowest = max(slowest, time.process_time() - began)
            except ConnectionClosed:
                answered += 1
    return answered, slowest
