"""The mark of what has been sent: it knows the same, the new and the other, within bounds, also from its file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from treadle.sinks.services.marks import GAPS, KNOWN, Mark, checksum, checksum_of_summary, identity, read_mark


def again(mark: Mark) -> Mark:
    """What the next session reads from the file."""
    found = read_mark(json.dumps(mark.to_dict()).encode())
    assert found is not None
    found.begin()
    return found


def test_what_a_continued_run_repeats_is_the_same() -> None:
    mark = Mark("id")
    for step in (2, 4, 6):
        mark.add("scalars", "train", step, 10 + step)
    mark.add("scalars", "train", 6, 99)  # logged after the last step, once more
    mark = again(mark)
    assert mark.judge("scalars", "train", 4, 14) == "same"
    assert mark.judge("scalars", "train", 6, 16) == "same"
    assert mark.judge("scalars", "train", 6, 99) == "same"
    assert mark.judge("scalars", "train", 6, 5) == "new"  # a third
    assert mark.judge("scalars", "train", 8, 18) == "new"
    assert mark.judge("scalars", "validation", 4, 14) == "new"


def test_other_numbers_in_their_place_are_another_future() -> None:
    mark = Mark("id")
    for step in (2, 4, 6):
        mark.add("scalars", "train", step, 10 + step)
        mark.add("picture", "probe", step, 20 + step)
    mark = again(mark)
    assert mark.judge("scalars", "train", 4, 15) == "other"
    mark.cut(3)
    assert mark.judge("scalars", "train", 4, 15) == "new" and mark.judge("scalars", "train", 2, 12) == "same"
    assert again(mark).judge("picture", "probe", 2, 5) == "new"  # a newer one of its name
    assert again(mark).judge("picture", "probe", 6, 26) == "new"


def test_of_a_long_run_it_knows_how_far_that_went() -> None:
    mark = Mark("id")
    for step in range(3 * KNOWN):
        mark.add("scalars", "train", step, step + 1)
    mark.lack("scalars", 5, 7)
    mark.lack("scalars", 6, 9)
    mark = again(mark)
    assert len(json.dumps(mark.to_dict())) < 60 * KNOWN
    assert mark.judge("scalars", "train", 4, 12345) == "same" and not mark.may_lack("scalars", 4)
    assert all(mark.judge("scalars", "train", step, 1) == "new" for step in (5, 7, 9)) and mark.may_lack("scalars", 9)
    assert mark.judge("scalars", "train", 10, 1) == "same"
    assert mark.judge("scalars", "train", 3 * KNOWN - 1, 3 * KNOWN) == "same"
    mark.filled()
    assert mark.judge("scalars", "train", 5, 1) == "same"
    mark.cut(100)
    assert mark.judge("scalars", "train", 100, 1) == "same" and mark.judge("scalars", "train", 101, 1) == "new"


def test_gaps_are_bounded_and_none_is_forgotten() -> None:
    mark = Mark("id")
    mark.through["scalars"] = 1e9
    for step in range(0, 5000, 10):
        mark.lack("scalars", step, step)
    assert len(mark.gaps["scalars"]) == GAPS
    assert all(mark.may_lack("scalars", step) for step in range(0, 5000, 10))


def test_events_are_known_by_what_they_say() -> None:
    mark = Mark("id")
    entries = [{"event": "note", "step": 3, "time": 10.5 + n, "text": str(n)} for n in range(2)]
    name, at, sum_ = identity("event", {"entry": entries[0]})
    mark.add("event", name, at, sum_)
    mark = again(mark)
    assert mark.judge("event", *identity("event", {"entry": entries[0]})) == "same"
    assert mark.judge("event", *identity("event", {"entry": entries[1]})) == "new"
    mark.cut(0)  # the journal is not cut
    assert mark.judge("event", name, at, sum_) == "same"
    mark.through["event"] = 100.0
    assert mark.judge("event", "edit", 50.0, 1, source="files") == "same"
    assert mark.judge("event", "edit", 50.0, 1) == "new"  # a clock that was set back


def test_what_a_killed_process_may_have_sent_is_compared_with_all() -> None:
    mark = Mark("id")
    mark.add("scalars", "train", 4, 14)
    assert mark.judge("scalars", "train", 4, 14, source="again") == "same"
    assert mark.judge("scalars", "train", 4, 14) == "new"  # in the same session: another one


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"id": 3}', b"\xff", b"[" * 100_000])
def test_a_damaged_file_is_no_mark(content: bytes) -> None:
    assert read_mark(content) is None


def test_a_thing_has_the_identity_of_its_file() -> None:
    picture = np.arange(6, dtype=np.uint8).tobytes()
    live = identity("picture", {"name": "a/b", "step": 3, "shape": [2, 3, 1]}, picture)
    assert live == identity("picture", {"name": "a-b", "step": 3, "shape": [2, 3, 1]}, picture)
    assert identity("text", {"name": "x", "step": 1, "text": "a\n"}) == identity(
        "text", {"name": "x", "step": 1, "text": "a"}
    )
    assert checksum_of_summary({"step": 1, "seconds": 2.0}) == checksum_of_summary({"step": 1, "seconds": 3.0})
    assert checksum() == 1
