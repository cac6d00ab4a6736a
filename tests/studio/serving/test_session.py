"""One client over cuts and reloads: each command once, no event lost, nothing held for who does not read."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import time
from concurrent.futures import Future

import msgspec
import pytest
from websockets.frames import Close

from treadle.errors import RunError, UsageError
from treadle.studio.client import StudioClient
from treadle.studio.protocol import (
    Curves,
    Frame,
    Hello,
    Notice,
    Pause,
    Play,
    Release,
    Runs,
    Save,
    Stop,
    TakeControl,
    Timing,
    Unwatch,
    Validate,
    Watch,
)
from treadle.studio.serving import hub as hub_module
from treadle.studio.serving import server as server_module
from treadle.studio.serving import session as session_module
from treadle.studio.serving.session import ANSWERS_KEPT, Connection, Session
from treadle.studio.topics import Topic, later
from treadle.studio.wire import encode, pack, unpack


def hello(client="0" * 32, **fields):
    return encode(Hello(version=1, client=client, **fields))


class Wire:
    """A WebSocket without a client's help, to say what one pleases: `say`, and `heard` for what came back."""

    asked = 10**9

    def __init__(self, raw, *first):
        from websockets.sync.client import connect

        headers = {"Authorization": f"Bearer {raw.server.tokens.control}"}
        address = raw.origin.replace("http", "ws") + "/socket"
        self._open = connect(address, additional_headers=headers, max_size=None, max_queue=None)
        self.socket = self._open.__enter__()
        self.say(*first)

    def say(self, *messages):
        for message in messages:
            self.socket.send(message if isinstance(message, str | bytes) else encode(message))

    def next(self, timeout=60.0):
        told = self.socket.recv(timeout)
        return unpack(told) if isinstance(told, bytes) else msgspec.json.decode(told)

    def heard(self):
        """All that comes before the answer to one more question, which changes nothing."""
        self.asked += 1
        self.say(Unwatch(id=self.asked, pane=0))
        found = []
        while True:
            told = self.next()
            if isinstance(told, dict) and told.get("id") == self.asked:
                return found
            found.append(told)

    def silent(self, seconds=0.3):
        """Whether nothing comes for so long."""
        try:
            self.next(seconds)
        except TimeoutError:
            return True
        return False

    def cut(self):
        """End it without a word, as a network does."""
        self.socket.socket.shutdown(socket.SHUT_RDWR)

    def closed(self):
        """The code that the studio closes it with."""
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                self.next()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._open.__exit__(*error)


def gone(raw, client="0" * 32):
    """Wait until the studio knows that a client has been cut off."""
    end = time.monotonic() + 60
    while any(each.id == client and each.connected for each in raw.server.hub.sessions.values()):
        assert time.monotonic() < end, "it is still there"
        time.sleep(0.005)


@pytest.fixture
def wire(serve):
    raw, counting = serve()
    counting.instead[Unwatch] = lambda request, client: None
    wires = []

    def make(*first, **fields):
        wires.append(Wire(raw, hello(**fields), *first))
        return wires[-1]

    yield make, raw, counting
    for each in wires:
        each.__exit__(None, None, None)


def test_a_command_that_is_sent_again_after_a_cut_is_obeyed_once_and_answered_alike(wire):
    make, _, counting = wire
    first = make(Pause(id=7), Save(id=8))
    answers = [each for each in first.heard() if each["type"] == "answer"]
    assert [(each["id"], each["value"]) for each in answers] == [(7, 1), (8, 2)]
    first.cut()
    again = make(Pause(id=7), Pause(id=7), Save(id=8), Play(id=9))
    assert [each for each in again.heard() if each["type"] == "answer"] == [
        answers[0], answers[0], answers[1], {"type": "answer", "id": 9, "value": 3},
    ]  # fmt: skip
    assert [type(each) for each in counting.obeyed] == [Pause, Save, Play]


def test_an_answer_that_came_while_the_client_was_away_waits_for_it(wire):
    make, raw, counting = wire
    slow: Future[str] = Future()
    counting.instead[Validate] = lambda request, client: slow
    first = make(Validate(id=1))
    first.heard()
    first.cut()
    gone(raw)
    slow.set_result("done")
    assert {"type": "answer", "id": 1, "value": "done"} in make(Validate(id=1)).heard()


def test_the_memory_of_answers_is_bounded_and_what_is_forgotten_is_not_obeyed_again(wire):
    make, _, counting = wire
    most = ANSWERS_KEPT + 20
    client = make(*(Pause(id=n) for n in range(1, most + 1)))
    client.heard()
    client.say(Pause(id=3))
    (told,) = client.heard()
    assert told["type"] == "refusal" and "long ago" in told["error"]
    assert len(counting.obeyed) == most


def test_looking_may_be_asked_again(wire):
    make, _, _ = wire
    client = make(Runs(id=1), Runs(id=1), Timing(id=1))
    assert [each["value"] for each in client.heard() if each["type"] == "answer"] == [1, 2, 3]


def test_one_holds_control_the_others_see_who_and_take_it_over(wire):
    make, raw, counting = wire
    one = make(Pause(id=1), label="Firefox on tower")
    assert one.heard()[-1]["type"] == "answer"
    two = make(Play(id=1), client="1" * 32, label="phone")
    assert two.heard()[-1]["error"] == "Firefox on tower holds control: take it over first"
    two.say(TakeControl(id=2), Play(id=3))
    said = [each.get("text") for each in two.heard() + one.heard()]  # that one's question comes after it
    assert said.count("phone has taken control from Firefox on tower") == 2
    one.say(Play(id=2), Release(id=3))
    assert [each["type"] for each in one.heard() if "id" in each] == ["refusal", "refusal"]
    two.say(Release(id=4))
    two.heard()
    one.say(Play(id=4))  # nobody has it: who commands takes it
    assert one.heard()[-1]["type"] == "answer"
    one.cut()
    gone(raw)
    two.say(Play(id=5))  # who had it is gone
    assert two.heard()[-1]["type"] == "answer"
    assert [type(each) for each in counting.obeyed] == [Pause, Play, Play, Play]


def test_clients_of_one_name_are_told_apart(wire):
    make, _, _ = wire
    make(Pause(id=1), label="Firefox\non tower").heard()
    other = make(Pause(id=1), client="1" * 32, label="Firefox on tower")
    assert "Firefox on tower holds control" in other.heard()[-1]["error"]
    other.say(TakeControl(id=2))
    assert "Firefox on tower 2 has taken control from Firefox on tower" in [each.get("text") for each in other.heard()]


def test_who_comes_back_is_told_what_it_missed_and_who_was_away_too_long_begins_anew(wire, monkeypatch):
    monkeypatch.setattr(hub_module, "EVENTS_KEPT", 10)
    make, raw, _ = wire
    hub = raw.server.hub
    first = make()
    assert first.next()["fresh"]
    for n in range(3):
        hub.publish(Notice(text=str(n)))
    seen = [first.next()["seq"] for _ in range(3)]
    assert seen == list(range(seen[0], seen[0] + 3))
    first.cut()
    for n in range(3, 8):
        hub.publish(Notice(text=str(n)))
    welcome, *missed = make(seen=seen[-1]).heard()
    assert not welcome["fresh"] and [each["text"] for each in missed] == list("34567")
    assert [each["seq"] for each in missed] == list(range(seen[-1] + 1, seen[-1] + 6)) and missed[-1]["seq"] == welcome[
        "seq"
    ]
    for n in range(20):
        hub.publish(Notice(text=str(n)))
    for too_old in (seen[-1], 0, 2**53 - 1):
        welcome, *missed = make(seen=too_old, client=secrets.token_hex(16)).heard()
        assert welcome["fresh"] and missed == []


def test_the_same_client_at_two_places_is_the_newer_one(wire):
    make, _, _ = wire
    first = make()
    make().heard()
    assert first.closed() == session_module.REPLACED


def test_another_version_no_hello_and_nonsense_are_sent_away(wire, serve):
    make, raw, counting = wire
    assert Wire(raw, encode(Hello(version=2, client="0" * 32))).closed() == session_module.OTHER_VERSION
    assert Wire(raw, Pause(id=1)).closed() == session_module.UNINTELLIGIBLE
    assert Wire(raw, "{").closed() == session_module.UNINTELLIGIBLE
    assert Wire(raw, hello(client="0" * 31)).closed() == session_module.UNINTELLIGIBLE
    client = make()
    client.say(*["nonsense"] * hub_module.NONSENSE)
    assert client.closed() == session_module.UNINTELLIGIBLE
    assert Wire(raw, b"x" * 70_000).closed() == 1009
    assert counting.obeyed == []


def test_who_says_no_hello_in_time_is_sent_away(serve, monkeypatch):
    monkeypatch.setattr(server_module, "HELLO_SECONDS", 0.1)
    raw, _ = serve()
    with Wire(raw) as silent:
        assert silent.closed() == session_module.UNINTELLIGIBLE


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_connection_ends_although_a_forked_process_has_it_too(serve):
    raw, _ = serve()
    with raw.mute(hello()) as connection:
        connection.settimeout(60)
        assert connection.recv(100)
        child = os.fork()
        if not child:
            time.sleep(100)
            os._exit(0)
        try:
            raw.server.revoke()
            raw.server.close()
            while connection.recv(65536):
                pass
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_a_client_whose_connection_ends_as_it_asks_is_told_why(serve, monkeypatch):
    from websockets.exceptions import ConnectionClosedError
    from websockets.sync.client import ClientConnection

    raw, _ = serve()
    with StudioClient(raw.server.url) as client:
        ended = ConnectionClosedError(Close(session_module.BEGUN_ANEW, "something else is shown now"), None)
        monkeypatch.setattr(ClientConnection, "send", lambda *_: (_ for _ in ()).throw(ended))
        with pytest.raises(RunError, match=r"the connection to the studio has ended \(.*something else is shown now"):
            client.take_control()
        monkeypatch.undo()


def test_what_goes_wrong_in_a_topic_is_a_refusal_and_a_line_and_no_more(wire, capsys):
    make, _, counting = wire
    handlers = counting.instead

    def fail(request, client):
        raise ZeroDivisionError("secret")

    handlers[Timing] = fail
    handlers[Runs] = lambda request, client: later(lambda: fail(request, client))
    handlers[Curves] = lambda request, client: object()
    handlers[Watch] = lambda request, client: later(lambda: (_ for _ in ()).throw(RunError("no such view")))
    client = make(Timing(id=1), Runs(id=2), Curves(id=3, key="x"), Watch(id=4, view="x"), Stop(id=5))
    told = {}
    while len(told) < 5:  # those of `later` come when they are done
        each = client.next()
        told |= {each["id"]: each.get("error")} if "id" in each else {}
    assert told[4] == "no such view" and told[5] is None
    assert all("internal error" in told[n] and "secret" not in told[n] for n in (1, 2)) and told[3]
    said = capsys.readouterr().err
    assert said.count("treadle: studio: Timing failed: ZeroDivisionError: secret at ") == 1


def test_a_topic_says_which_request_is_answered_twice(wire):
    _, raw, _ = wire

    class Other(Topic):
        def handlers(self):
            return {Runs: lambda request, client: None}

    with pytest.raises(UsageError, match="two topics of the studio answer Runs"):
        raw.server.hub.add(Other())


def test_too_many_requests_at_once_are_refused(wire, monkeypatch):
    make, _, counting = wire
    forever: Future[None] = Future()
    counting.instead[Runs] = lambda request, client: forever
    client = make(*(Runs(id=n) for n in range(session_module.UNANSWERED + 5)))
    refused = [each for each in client.heard() if each["type"] == "refusal"]
    assert len(refused) == 5 and "wait for some of them" in refused[0]["error"]
    forever.set_result(None)


def test_at_most_two_frames_are_under_way_and_the_newest_of_a_pane_waits(wire):
    make, raw, counting = wire
    watcher: list = []
    counting.instead[Watch] = lambda request, client: watcher.append(client)
    client = make(Watch(id=1, view="x"))
    client.heard()
    (session,) = watcher

    def show(number, pane=0):
        size = {"width": 1, "height": 1, "format": "jpeg"}
        header = Frame(frame=number, pane=pane, view="x", step=0, still=True, seconds=0, **size)
        raw.server.hub.soon(lambda: session.show(header, b"picture %d" % number))

    assert session.credits == 2
    for number in range(2):
        show(number)
        header, data = client.next()
        assert (header.frame, bytes(data)) == (number, b"picture %d" % number)
    for number in range(2, 6):
        show(number)
    show(6, pane=1)
    assert client.heard() == [] and client.silent()
    assert session.credits == 0
    client.say('{"type":"drawn","frame":0}', '{"type":"drawn","frame":99}')
    assert client.next()[0].frame == 5
    client.say('{"type":"drawn","frame":1}')
    assert client.next()[0].frame == 6 and client.silent()
    client.say('{"type":"drawn","frame":5}', '{"type":"drawn","frame":6}')
    assert client.heard() == [] and session.credits == 2


def test_who_never_reads_is_dropped_with_little_held_for_it(serve, monkeypatch):
    monkeypatch.setattr(session_module, "STUCK_SECONDS", 0.5)
    raw, _ = serve()
    hub = raw.server.hub
    with raw.mute(hello()), StudioClient(raw.server.url) as other:
        other.request(Pause(id=0))
        mute = next(each for each in hub.sessions.values() if each.id == "0" * 32)
        most, began = 0, time.monotonic()
        while mute.connection is not None and time.monotonic() - began < 60:
            for _ in range(20):
                hub.publish(Notice(text="x" * 2000))
            connection = mute.connection
            most = max(most, connection.held if connection is not None else 0)
            time.sleep(0.005)
        assert mute.connection is None and most <= 2_000_000
        other.request(Pause(id=0))  # nobody else waits for it
        other.request(Unwatch(id=0, pane=0))  # what was told before it is there
        told = [event.text for event in other.events(0) if isinstance(event, Notice) and "cut off" in event.text]
        assert len(told) == 1 and "read nothing" in told[0]


def test_who_never_reads_is_dropped_after_30_seconds_and_not_before(serve, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(session_module, "monotonic", lambda: now[0])
    raw, _ = serve()
    hub = raw.server.hub
    with raw.mute(hello()), StudioClient(raw.server.url) as other:
        other.request(Pause(id=0))
        mute = next(each for each in hub.sessions.values() if each.id == "0" * 32)
        while mute.connection is not None and mute.connection.held < 200_000:  # what the sockets take is full
            hub.publish(Notice(text="x" * 20_000))
            put = threading.Event()
            hub.soon(put.set)
            assert put.wait(60)  # however slow the server's thread is, no more than this is on its way
        held = mute.connection
        for seconds in (1.0, 29.0):
            now[0] = seconds
            time.sleep(0.3)  # it is looked at 20 times a second
            assert held is not None and mute.connection is held
        assert held.held < 1_600_000
        now[0] = 30.5
        gone(raw)
        assert other.request(Pause(id=0)) is not None


def test_connection_holds_little_and_lets_go_of_who_is_slow():
    class Deaf:
        async def send_text(self, data): ...

        async def send_bytes(self, data): ...

        async def close(self, code, reason): ...

    connection = Connection(Deaf(), lambda: None)
    session = Session("0" * 32, "control")
    session.connect(connection)
    for _ in range(3000):
        session.tell("x" * 1000)
        assert connection.held <= 2_000_000
    assert connection.closing is not None and connection.closing[0] == session_module.TOO_SLOW
    assert connection.held == 0


def test_binary_messages_are_a_line_and_bytes():
    header, body = unpack(pack(Frame(frame=1, pane=0, view="a\nb", step=2, width=3, height=4, format="png", still=False,
                                     seconds=0.5), b"\n\x00", memoryview(b"yz")))  # fmt: skip
    assert header.view == "a\nb" and bytes(body) == b"\n\x00yz"


def test_slow_work_is_done_one_after_the_other_in_one_thread():
    names = {later(lambda: threading.current_thread().name).result(60) for _ in range(5)}
    assert names == {"treadle-studio-files"}
    with pytest.raises(ZeroDivisionError):
        later(lambda: 1 / 0).result(60)
