"""What waits for a service is bounded in bytes, and scalars are kept longest."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

from treadle.sinks.outbox import Message, Outbox

VALUES = {"loss": 0.123456789, "psnr": 30.0, "lr": 0.001}


def scalars(step: int) -> Message:
    return Message("scalars", step, {"step": step, "epoch": 0, "split": "train", "values": VALUES, "time": 1.0})


def picture(step: int, name: str, size: int = 1000) -> Message:
    return Message("picture", step, {"step": step, "name": name, "shape": [size, 1, 1]}, bytes(size), name=name)


def drained(box: Outbox) -> list[tuple[str, int]]:
    found = []
    while (message := box.take()) is not None:
        found.append((message.kind, message.step))
    return found


def test_everything_comes_out_in_its_order() -> None:
    box = Outbox()
    for message in (scalars(1), picture(1, "a"), scalars(2), Message("cut", 1, {"step": 1}), picture(3, "a")):
        box.put(message)
    assert drained(box) == [("scalars", 1), ("picture", 1), ("scalars", 2), ("cut", 1), ("picture", 3)]
    assert not box.dropped and box.held > 0
    box.done(4)
    assert [message.step for message in box.unanswered] == [3]
    box.done(1)
    assert box.held == 0


def test_so_many_bytes_are_on_their_way_at_once() -> None:
    box = Outbox()
    size = picture(1, "a").size
    sent = [box.on_its_way(picture(0, "a"))]
    for step in (1, 2, 3):
        box.put(picture(step, "a"))
        sent.append(box.take())
    assert box.may_send(5, 4 * size + 1) and not box.may_send(5, 4 * size) and not box.may_send(4, 9 * size)
    box.done(1)
    assert box.may_send(5, 3 * size + 1) and not box.may_send(5, 3 * size)
    box.forget(sent[2])
    assert box.may_send(5, 2 * size + 1) and not box.may_send(5, 2 * size)
    box.drop_all()
    assert box.may_send(1, 0)  # a single one may be of any size
    box.put(picture(4, "a"))
    box.take()
    assert box.may_send(2, size + 1)


def test_older_pictures_of_a_name_go_first_then_others_and_scalars_last() -> None:
    box = Outbox(most=6 * 1500)
    box.put(scalars(0))
    for step in range(1, 5):
        box.put(picture(step, "a"))
    box.put(picture(5, "b"))
    box.put(picture(6, "a"))
    assert box.dropped == {"picture": 1}  # of "a", the oldest
    for step in range(7, 12):
        box.put(Message("text", step, {"step": step, "name": f"t{step}", "text": "x" * 1000}, name=f"t{step}"))
    left = drained(box)
    assert ("scalars", 0) in left and box.held <= 6 * 1500
    assert [step for kind, step in left if kind == "text"] == [7, 8, 9, 10, 11]
    assert [step for kind, step in left if kind == "picture"] == [] and box.dropped == {"picture": 6}
    gaps = box.take_gaps()
    assert (gaps["picture"].first, gaps["picture"].last) == (1, 6) and not box.take_gaps()


def test_what_is_too_large_is_dropped_by_itself() -> None:
    box = Outbox(most=5000)
    box.put(scalars(1))
    box.put(picture(1, "a", 10000))
    assert drained(box) == [("scalars", 1)] and box.dropped == {"picture": 1}


def test_a_cut_leaves_out_what_came_after_it() -> None:
    box = Outbox()
    for step in range(6):
        box.put(scalars(step))
    box.put(picture(5, "a"))
    box.put(Message("event", 5, {"entry": {"event": "edit", "step": 5}}, at=1.5))
    box.cut(2)
    assert drained(box) == [("scalars", 0), ("scalars", 1), ("scalars", 2), ("event", 5)]
    assert not box.dropped


def held_bytes(box: Outbox) -> int:
    """The bytes of all objects that a box holds on to."""
    seen: set[int] = set()
    waiting: list[Any] = [box]
    total = 0
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, type):
            continue
        seen.add(id(found))
        total += sys.getsizeof(found)
        if isinstance(found, dict):
            waiting += [*found.keys(), *found.values()]
        elif isinstance(found, memoryview):
            waiting.append(found.obj)
        elif hasattr(found, "__iter__") and not isinstance(found, str | bytes):
            waiting += list(found)
        waiting += list(getattr(found, "__dict__", {}).values())
        waiting += [getattr(found, name) for name in getattr(found, "__slots__", ()) if hasattr(found, name)]
    return total


def test_a_hundred_thousand_records_are_held_within_the_bound() -> None:
    most = 1 << 20
    box = Outbox(most)
    put: Counter[str] = Counter()
    for step in range(100_000):
        box.put(scalars(step))
        put["scalars"] += 1
        if step % 100 == 0:
            box.put(picture(step, "a", 3000))
            put["picture"] += 1
        if step < 50:
            box.take()  # and never done
    assert box.held <= most and held_bytes(box) < 1.2 * most
    assert box.dropped + box.left == put
    newest = drained(box)
    assert newest[-1] == ("scalars", 99_999) and len(newest) > 1000
