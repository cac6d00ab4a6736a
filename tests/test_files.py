"""Whole lines, whole files, whole directories."""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import os
import resource
import signal
import socket
import stat
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from treadle import files
from treadle.errors import RunError, UsageError
from treadle.files import (
    LineFile,
    copy_regular,
    file_name,
    hash_file,
    make_directory,
    number,
    open_regular,
    read_lines,
    read_regular,
    refuse_foreign,
    replace_directory,
    settled,
    sync_tree,
    to_json,
    write_json,
    write_synced,
    write_whole,
)

FORK = multiprocessing.get_context("fork")


def test_json_is_strict_and_reads_back() -> None:
    text = to_json(
        {"a": math.nan, "b": math.inf, "c": -math.inf, "d": np.float32(0.5), "e": torch.tensor(2), "f": (1, Path("x"))}
    )
    loaded = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert loaded == {"a": "NaN", "b": "Infinity", "c": "-Infinity", "d": 0.5, "e": 2, "f": [1, "x"]}
    assert math.isnan(number(loaded["a"])) and number(loaded["b"]) == math.inf and number(loaded["c"]) == -math.inf
    assert "\n" not in to_json({"text": "two\nlines"})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("loss/l1", "loss-l1"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ("/abs", "abs"),
        ("a\x00b\nc", "a-b-c"),
        ("größe", "größe"),
        ("x" * 300, "x" * 100),
        (".hidden", "hidden"),
    ],
)
def test_file_name_stays_in_its_folder(name: str, expected: str) -> None:
    assert file_name(name) == expected


def test_write_whole_leaves_nothing_behind_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "a.txt", "old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(OSError):
        write_whole(tmp_path / "a.txt", "new", sync=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_lines_are_appended_whole_and_survive_a_torn_tail(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = LineFile(path)
    log.append({"n": 1})
    log.append({"n": 2})
    log.close()
    with path.open("ab") as file:
        file.write(b'{"n": 3, "half')
    assert list(read_lines(path)) == [{"n": 1}, {"n": 2}]
    again = LineFile(path)
    again.append({"n": 4})
    assert list(read_lines(path)) == [{"n": 1}, {"n": 2}, {"n": 4}]
    assert path.read_bytes().count(b"\n") == 3


def test_a_torn_tail_longer_than_a_block_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"n": 1}\n' + b"x" * 200_000)
    LineFile(path).append({"n": 2})
    assert list(read_lines(path)) == [{"n": 1}, {"n": 2}]
    path.write_bytes(b"x" * 200_000)
    LineFile(path).append({"n": 3})
    assert list(read_lines(path)) == [{"n": 3}]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"n": 1}\n garbage\n{"n": 3}\n')
    with pytest.raises(RunError, match=r"log\.jsonl, line 2 is damaged"):
        list(read_lines(path))
    assert list(read_lines(tmp_path / "none.jsonl")) == []


def full(*_: object) -> int:
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "write", full)
    with pytest.raises(RunError, match=r"cannot write .*log\.jsonl: No space left on device") as caught:
        LineFile(tmp_path / "log.jsonl").append({"n": 1})
    assert "\n" not in str(caught.value)


def test_a_disk_that_takes_half_a_line_keeps_the_file_whole(tmp_path: Path) -> None:
    """A file size limit cuts a write short just as a full disk does."""
    path = tmp_path / "log.jsonl"

    def write_until_refused() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        log = LineFile(path)
        with pytest.raises(RunError, match="cannot write"):
            for n in range(1000):
                log.append({"n": n, "padding": "x" * 20})

    process = FORK.Process(target=write_until_refused)
    process.start()
    process.join()
    assert process.exitcode == 0
    data = path.read_bytes()
    assert data.endswith(b"\n") and 0 < len(data) <= 1000
    assert [line["n"] for line in read_lines(path)] == list(range(data.count(b"\n")))


def test_a_killed_writer_loses_no_line_it_has_written(tmp_path: Path) -> None:
    """A kill may fall between the pages of a write; such a line was never written, and no reader or writer meets it."""
    path = tmp_path / "log.jsonl"

    def write() -> None:
        log = LineFile(path)
        for n in itertools.count():
            log.append({"n": n, "padding": "x" * 200})

    writer = FORK.Process(target=write)
    writer.start()
    deadline = time.monotonic() + 60
    while (not path.exists() or path.stat().st_size < 50_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    writer.kill()
    writer.join()
    whole = path.read_bytes().count(b"\n")
    assert whole > 100 and [line["n"] for line in read_lines(path)] == list(range(whole))
    LineFile(path).append({"n": whole})
    assert path.read_bytes().endswith(b"\n")
    assert [line["n"] for line in read_lines(path)] == list(range(whole + 1))


def test_appending_does_not_slow_down(tmp_path: Path) -> None:
    """The same number of bytes is read and written for a line of a long file as of a short one."""
    path = tmp_path / "log.jsonl"
    log = LineFile(path)
    log.append({"n": 0})
    calls: list[int] = []
    original = os.write

    def counting(descriptor: int, data: bytes) -> int:
        calls.append(len(data))
        return original(descriptor, data)

    files.os.write = counting  # type: ignore[assignment]
    try:
        for _ in range(500):
            log.append({"n": 1})
    finally:
        files.os.write = original
    assert calls == [len(b'{"n": 1}\n')] * 500


@pytest.mark.parametrize("width", [1, 300, 70_000])
def test_cut_after_drops_the_last_lines_and_reads_no_others(tmp_path: Path, width: int) -> None:
    log, looked = LineFile(tmp_path / "log.jsonl"), []
    for n in range(9):
        log.append({"n": n, "text": "x" * width})
    with open(log.path, "ab") as file:
        file.write(b'{"n": 99, "torn')

    def stays(line: bytes) -> bool:
        looked.append(json.loads(line)["n"])
        return looked[-1] <= 5

    log.cut_after(stays)
    assert looked == [8, 7, 6, 5]
    log.append({"n": 9})
    assert [line["n"] for line in read_lines(log.path)] == [0, 1, 2, 3, 4, 5, 9]
    log.cut_after(lambda line: False)
    assert log.path.read_bytes() == b""
    log.cut_after(stays)
    LineFile(tmp_path / "none.jsonl").cut_after(stays)
    assert not (tmp_path / "none.jsonl").exists()


@pytest.mark.parametrize("exchange", [True, False])
def test_replace_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    target = tmp_path / "best"
    for content in ("one", "two", "three"):
        new = tmp_path / ".new"
        new.mkdir()
        (new / "file").write_text(content)
        replace_directory(new, target)
        assert (target / "file").read_text() == content
        assert [p.name for p in tmp_path.iterdir()] == ["best"]


def test_an_interrupted_replacement_is_found_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    target, new = tmp_path / "best", tmp_path / ".new"
    for path, content in ((target, "old"), (new, "new")):
        path.mkdir()
        (path / "file").write_text(content)
    real, calls = os.rename, []

    def second_fails(a: Path, b: Path) -> None:
        calls.append(a)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(a, b)

    monkeypatch.setattr(files.os, "rename", second_fails)
    with pytest.raises(KeyboardInterrupt):
        replace_directory(new, target)
    monkeypatch.setattr(files.os, "rename", real)
    assert not target.exists() and (settled(target) / "file").read_text() == "old"
    replace_directory(new, target)
    assert (settled(target) / "file").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


@pytest.mark.skipif(sys.platform != "linux", reason="exchanging two names is Linux's")
def test_the_target_is_there_at_every_instant(tmp_path: Path) -> None:
    """A process is killed while it replaces a directory over and over: the target is never missing."""

    def replace_for_ever() -> None:
        for n in itertools.count():
            new = tmp_path / f".new-{n}"
            new.mkdir()
            (new / "file").write_text(str(n))
            replace_directory(new, tmp_path / "best")

    writer = FORK.Process(target=replace_for_ever)
    writer.start()
    target = tmp_path / "best"
    deadline = time.monotonic() + 60
    while not target.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    missing = sum(not target.exists() for _ in range(20_000))
    writer.kill()
    writer.join()
    assert missing == 0 and target.exists()
    assert (target / "file").read_text().isdigit()


# Links and pipes that somebody has put there -------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file of the user's own, outside of everything that is written."""
    path = tmp_path / "mine.txt"
    path.write_text("mine\n" * 10)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def test_no_link_is_followed_for_writing(folder: Path, mine: Path) -> None:
    link = folder / "log.jsonl"
    link.symlink_to(mine)
    for write in (lambda: LineFile(link).append({"n": 1}), lambda: LineFile(link).cut_after(lambda line: True)):
        with pytest.raises(RunError, match=r"cannot write .*log\.jsonl: it is a link: put what it leads to in its pla"):
            write()
    for flags in (os.O_WRONLY, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_TRUNC):
        with pytest.raises(OSError, match="it is a link"):
            open_regular(link, flags)
    with pytest.raises(OSError, match="it is a link"):
        write_synced(link, b"theirs")
    write_whole(link, "new")
    assert not link.is_symlink() and link.read_text() == "new", "a file that is written whole takes the link's place"
    assert mine.read_text() == "mine\n" * 10


def test_no_link_is_followed_by_the_name_of_a_temporary_file(folder: Path, mine: Path) -> None:
    (folder / f".latest.json.{os.getpid()}").symlink_to(mine)
    write_json(folder / "latest.json", {"step": 1})
    assert json.loads((folder / "latest.json").read_text()) == {"step": 1}
    assert mine.read_text() == "mine\n" * 10


def test_a_link_is_followed_for_reading(folder: Path, mine: Path) -> None:
    (folder / "link").symlink_to(mine)
    assert read_regular(folder / "link") == mine.read_bytes() and hash_file(folder / "link") == hash_file(mine)
    copy_regular(folder / "link", folder / "copy")
    assert (folder / "copy").read_bytes() == mine.read_bytes() and not (folder / "copy").is_symlink()
    with pytest.raises(FileExistsError):
        copy_regular(mine, folder / "copy")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "device", "directory"])
def test_nothing_waits_for_what_is_no_file(folder: Path, kind: str) -> None:
    path = folder / "log.jsonl"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a pipe":
        os.mkfifo(folder / "pipe")
        path.symlink_to(folder / "pipe")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    for read in (read_regular, hash_file, open_regular, lambda path: copy_regular(path, folder / "copy")):
        with pytest.raises(OSError, match="it is no regular file"):
            read(path)
    with pytest.raises(RunError, match=r"log\.jsonl cannot be read: it is no regular file: remove it") as error:
        list(read_lines(path))
    assert "\n" not in str(error.value)
    with pytest.raises(RunError, match=r"it is (no regular file: remove it|a link: put)|Is a directory"):
        LineFile(path).append({"n": 1})
    with pytest.raises(OSError, match=r"it is (no regular file|a link)|Is a directory"):
        write_synced(path, b"")


def test_a_directory_is_made_where_no_link_is(folder: Path, tmp_path: Path) -> None:
    make_directory(folder / "logs")
    make_directory(folder / "logs")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "dangling").symlink_to(tmp_path / "not yet")
    for name in ("linked", "dangling"):
        with pytest.raises(OSError, match="it is a link"):
            make_directory(folder / name)
    assert not (tmp_path / "not yet").exists()


def test_a_link_out_of_a_directory_is_named(folder: Path, tmp_path: Path, mine: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "inside").symlink_to(folder / "deep")
    (folder / "latest").symlink_to("deep")
    (tmp_path / "way").symlink_to(folder)
    refuse_foreign(tmp_path / "way")  # the way there may be a link, and links within are nobody's harm
    for target in (mine, tmp_path, tmp_path / "not there", folder / "deep" / ".." / ".." / "mine.txt"):
        (folder / "deep" / "out").symlink_to(target)
        with pytest.raises(UsageError, match=r"way/deep/out is a link to .*, outside of .*way, .*: put what") as error:
            refuse_foreign(tmp_path / "way")
        assert "\n" not in str(error.value)
        (folder / "deep" / "out").unlink()


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_a_pipe_socket_or_device_in_a_directory_is_named(folder: Path, kind: str) -> None:
    (folder / "deep").mkdir()
    path = folder / "deep" / "odd"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(os.path.relpath(path))
    else:
        try:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        except OSError as error:
            pytest.skip(f"may not make devices here: {error}")
    with pytest.raises(UsageError, match="deep/odd is a pipe, a socket or a device, which no run has: remove it"):
        refuse_foreign(folder)


def test_a_tree_is_synced_file_by_file_and_folder_by_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "deep").mkdir()
    for name in ("a", "deep/b"):
        (folder / name).write_text(name)
    synced: list[str] = []
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    sync_tree(folder)
    assert synced == [str(folder / name) for name in ("deep/b", "deep", "a")] + [str(folder)]
