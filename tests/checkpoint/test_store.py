"""Checkpoints on disk: which stay, which is resumed from, and what damage or an interruption leaves."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle import RunError, StateError
from treadle.checkpoint import store
from treadle.checkpoint.state import State
from treadle.checkpoint.store import (
    LATEST,
    MANIFEST,
    PINS,
    TENSORS,
    VALUES,
    Retention,
    checkpoint_name,
    forget_after,
    list_checkpoints,
    newest_good,
    pin,
    read_checkpoint,
    step_of,
    write_checkpoint,
)


def state(step, size=4):
    values = {"progress": {"step": step, "epoch": step // 10, "batch": 0}, "text": "ä"}
    return State(values, {"model/w": torch.full((size,), float(step)), "n": torch.tensor(step)}, {"seconds": 1.5})


def write(directory, *steps, **retention):
    for step in steps:
        write_checkpoint(directory, state(step), Retention(**retention) if retention else Retention(1000))


def steps(directory):
    return [step_of(path) for path in list_checkpoints(directory)]


def latest(directory):
    return json.loads((directory / LATEST).read_text())


def resumed(directory, before=None):
    """The step that a resume goes on from, and the damaged ones it met before."""
    found = list(newest_good(directory, before))
    good = [step_of(path) for path, what in found if isinstance(what, State)]
    assert len(good) <= 1
    return (good or [None])[0], [step_of(path) for path, what in found if isinstance(what, StateError)]


# What is written


def test_what_was_written_is_read(tmp_path):
    written = state(7)
    path, digest = write_checkpoint(tmp_path, written)
    read = read_checkpoint(path)
    assert path == tmp_path / "step-00000007" and digest == written.digest == read.digest
    assert (read.values, read.clock, read.step, read.epoch) == (written.values, written.clock, 7, 0)
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in written.tensors.items())
    assert latest(tmp_path) == {"checkpoint": path.name, "step": 7, "digest": digest}
    assert sorted(os.listdir(path)) == sorted([TENSORS, VALUES, MANIFEST])
    assert sorted(os.listdir(tmp_path)) == sorted([LATEST, path.name])


def test_the_digest_is_not_of_the_clock_but_of_everything_else(tmp_path):
    def change(**other):
        changed = state(7)
        for name, value in other.items():
            setattr(changed, name, value)
        return changed.digest

    assert change(clock={"seconds": 9.0}) == state(7).digest
    assert change(values={**state(7).values, "text": "b"}) != state(7).digest
    assert change(tensors={**state(7).tensors, "n": torch.tensor(8)}) != state(7).digest


def test_writing_a_step_again_replaces_it(tmp_path):
    write(tmp_path, 5)
    changed = state(5, size=9)
    path, _ = write_checkpoint(tmp_path, changed)
    assert read_checkpoint(path).tensors["model/w"].shape == (9,)
    assert sorted(os.listdir(tmp_path)) == sorted([LATEST, path.name])


@pytest.mark.parametrize("call", ["fsync", "replace", "rename", "write", "mkdir"])
def test_a_disk_that_refuses_leaves_the_previous_checkpoint_as_it_was(tmp_path, monkeypatch, call):
    write(tmp_path, 3)

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(RunError, match=r"step-00000004: No space left on device; free some space"):
        write(tmp_path, 4)
    monkeypatch.undo()
    assert resumed(tmp_path) == (3, [])
    write(tmp_path, 5)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".step")]


def test_what_an_interrupted_write_left_is_cleared_by_the_next(tmp_path):
    write(tmp_path, 1)
    left = tmp_path / ".step-00000002-abc"
    left.mkdir()
    (left / TENSORS).write_bytes(b"half")
    assert resumed(tmp_path) == (1, [])
    write(tmp_path, 2)
    assert not left.exists()


# Damage


@pytest.mark.parametrize("name", [TENSORS, VALUES, MANIFEST])
@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "empty", "garbage"])
def test_a_damaged_file_is_noticed_and_the_checkpoint_before_it_used(tmp_path, name, damage):
    write(tmp_path, 1, 2)
    file = tmp_path / checkpoint_name(2) / name
    content = bytearray(file.read_bytes())
    if damage == "delete":
        file.unlink()
    else:
        middle = len(content) // 2
        flipped = bytes([*content[:middle], content[middle] ^ 1, *content[middle + 1 :]])
        other = {"truncate": content[:-1], "flip": flipped, "empty": b"", "garbage": b"\xff" * 100}[damage]
        file.write_bytes(other)
    with pytest.raises(StateError, match="step-00000002") as caught:
        read_checkpoint(tmp_path / checkpoint_name(2))
    assert "\n" not in str(caught.value)
    assert resumed(tmp_path) == (1, [2])


def test_every_bit_of_the_manifest_that_counts_is_checked(tmp_path):
    write(tmp_path, 2)
    file = tmp_path / checkpoint_name(2) / MANIFEST
    manifest = json.loads(file.read_text())
    for change in ({"digest": "0" * 64}, {"files": {}}, {"files": {**manifest["files"], "more": {}}}):
        file.write_text(json.dumps(manifest | change))
        with pytest.raises(StateError, match="damaged"):
            read_checkpoint(file.parent)
    file.write_text(json.dumps(manifest))
    assert read_checkpoint(file.parent).step == 2


def test_all_damaged_there_is_none_to_resume_from(tmp_path):
    write(tmp_path, 1, 2)
    for path in list_checkpoints(tmp_path):
        (path / TENSORS).write_bytes(b"")
    assert resumed(tmp_path) == (None, [2, 1])


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"step": null}', b"\xff"])
def test_without_a_readable_latest_json_the_newest_counts(tmp_path, content):
    write(tmp_path, 1, 2)
    if content is None:
        (tmp_path / LATEST).unlink()
    else:
        (tmp_path / LATEST).write_bytes(content)
    assert resumed(tmp_path) == (2, [])


def test_a_checkpoint_that_latest_json_does_not_know_yet_is_not_resumed_from(tmp_path):
    write(tmp_path, 1)
    known = (tmp_path / LATEST).read_bytes()
    write(tmp_path, 2)
    (tmp_path / LATEST).write_bytes(known)
    assert resumed(tmp_path) == (1, [])


def test_newest_good_before_a_step(tmp_path):
    write(tmp_path, 1, 5, 9)
    assert [resumed(tmp_path, before)[0] for before in (9, 8, 5, 4, 0)] == [9, 5, 5, 1, None]


def test_other_things_in_the_directory_are_no_checkpoints(tmp_path):
    write(tmp_path, 3)
    (tmp_path / "step-notes").mkdir()
    (tmp_path / "step-00000009").write_text("a file")
    assert steps(tmp_path) == [3] and resumed(tmp_path) == (3, [])


def test_there_may_be_no_directory_yet(tmp_path):
    assert resumed(tmp_path / "none") == (None, []) and steps(tmp_path / "none") == []
    forget_after(tmp_path / "none", 3)
    assert not (tmp_path / "none").exists()


# Retention

some_steps = st.sets(st.integers(0, 60), min_size=1, max_size=12)
few = st.sets(st.integers(0, 60), max_size=3)


@given(some_steps, st.integers(1, 5), st.none() | st.integers(1, 20), few, st.sets(st.integers(0, 60)), st.data())
@settings(max_examples=300, deadline=None)
def test_retention_keeps_what_it_says_and_nothing_else(there, last, every, best, pinned, data):
    newest = data.draw(st.sampled_from(sorted(there)))
    kept = Retention(last, every, best).keeps(there, pinned, newest)
    past = sorted(step for step in there if step <= newest)
    assert newest in kept and kept <= there
    assert pinned & there <= kept
    assert set(past[-last:]) <= kept
    assert best & set(past) <= kept
    firsts = set()
    if every is not None:
        for interval in range(1, 60 // every + 1):
            of_it = [step for step in past if step // every == interval]
            firsts |= set(of_it[:1])
    assert firsts <= kept
    assert kept - pinned - best - firsts <= set(past[-last:])


@given(st.lists(st.tuples(st.sampled_from(["write", "rewind", "pin"]), st.integers(1, 12)), max_size=20), st.data())
@settings(max_examples=25, deadline=None)
def test_whatever_happens_the_newest_write_can_be_resumed_and_pins_stay(tmp_path_factory, events, data):
    directory = tmp_path_factory.mktemp("store")
    retention = Retention(data.draw(st.integers(1, 3)), data.draw(st.none() | st.integers(2, 6)))
    now, pinned = 0, set()
    try:
        for kind, amount in events:
            if kind == "write":
                now += amount
                write_checkpoint(directory, state(now), retention)
                assert resumed(directory) == (now, [])
            elif kind == "rewind" and directory.exists():
                now = max(0, now - amount)
                forget_after(directory, now)
                found, _ = resumed(directory)
                assert found is None or found <= now
                now = found or 0
            elif kind == "pin" and now in steps(directory):
                pin(directory / checkpoint_name(now), "a fork")
                pinned.add(now)
            assert pinned <= set(steps(directory))
    finally:
        shutil.rmtree(directory)


def test_retention_on_disk(tmp_path):
    write(tmp_path, *range(1, 13), last=2, every=5, best={3})
    assert steps(tmp_path) == [3, 5, 10, 11, 12]


def test_after_a_rewind_the_newest_is_kept_although_pinned_ones_are_later(tmp_path):
    write(tmp_path, 10, 20, 30)
    for step in (20, 30):
        pin(tmp_path / checkpoint_name(step), "runs/fork/v001")
    forget_after(tmp_path, 10)
    assert steps(tmp_path) == [10, 20, 30] and resumed(tmp_path) == (10, [])
    write(tmp_path, 12, last=1)
    assert steps(tmp_path) == [12, 20, 30]
    assert resumed(tmp_path) == (12, [])


def test_a_damaged_one_that_was_passed_over_does_not_push_out_a_good_one(tmp_path):
    write(tmp_path, 10, 20)
    (tmp_path / checkpoint_name(20) / VALUES).write_bytes(b"")
    assert resumed(tmp_path) == (10, [20])
    write(tmp_path, 11, last=1)
    assert steps(tmp_path) == [11] and resumed(tmp_path) == (11, [])


def test_a_rewind_gives_up_what_came_later(tmp_path):
    write(tmp_path, 1, 2, 3, 4)
    forget_after(tmp_path, 2)
    assert steps(tmp_path) == [1, 2] and latest(tmp_path)["step"] == 2
    forget_after(tmp_path, 0)
    assert steps(tmp_path) == [] and resumed(tmp_path) == (None, [])


def test_a_rewind_moves_latest_json_before_it_deletes(tmp_path, monkeypatch):
    write(tmp_path, 1, 2)

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(store.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        forget_after(tmp_path, 1)
    assert resumed(tmp_path) == (1, [])


@pytest.mark.parametrize("rewinds", [False, True])
def test_a_kill_in_a_deletion_leaves_no_checkpoint_of_which_a_part_is_missing(tmp_path, monkeypatch, rewinds):
    class Killed(BaseException):
        pass

    def killed(path, **_):
        if os.path.exists(path):
            os.remove(os.path.join(path, "manifest.json"))
            raise Killed

    write(tmp_path, 1, 2, last=9)
    monkeypatch.setattr(store.shutil, "rmtree", killed)
    with pytest.raises(Killed):
        if rewinds:
            forget_after(tmp_path, 1)
        else:
            write(tmp_path, 3, last=1)
    monkeypatch.undo()
    for path in list_checkpoints(tmp_path):
        read_checkpoint(path)
    write(tmp_path, 4, last=1)
    assert steps(tmp_path) == [4] and not list(tmp_path.glob(".step-*"))


def test_a_pin_says_who_needs_it_once(tmp_path):
    write(tmp_path, 1)
    for why in ("a", "b", "a"):
        pin(tmp_path / checkpoint_name(1), why)
    assert json.loads((tmp_path / PINS).read_text()) == {"step-00000001": ["a", "b"]}
    write(tmp_path, 2, 3, last=1)
    assert steps(tmp_path) == [1, 3]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff", b'{"step-00000001": 3}'])
def test_while_pins_json_is_damaged_nothing_is_deleted(tmp_path, content):
    write(tmp_path, 1, 2)
    (tmp_path / PINS).write_bytes(content)
    write(tmp_path, 3, last=1)
    assert steps(tmp_path) == [1, 2, 3]
    forget_after(tmp_path, 1)
    assert steps(tmp_path) == [1, 2, 3] and resumed(tmp_path) == (1, [])


def test_pins_of_things_that_are_no_checkpoints_do_no_harm(tmp_path):
    write(tmp_path, 1)
    (tmp_path / PINS).write_text('{"notes": ["?"], "step-00000001": ["a"]}')
    write(tmp_path, 2, 3, last=1)
    assert steps(tmp_path) == [1, 3]
