"""`treadle pairs`: what it writes, says and refuses."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.warm.python import python
from treadle.gans.facades import facade


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pictures(directory: str, *names: str, size: tuple[int, int] = (16, 16)) -> None:
    Path(directory).mkdir(exist_ok=True)
    for name in names:
        pixels = np.random.default_rng(len(name)).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(Path(directory) / name)


def test_facades(treadle: Any) -> None:
    assert treadle("pairs", "facades", "--out", "data/f", "--count", "10", "--size", "32", "--seed", "3") == 0
    assert treadle.out == "data/f: 8 train, 1 val, 1 test\ntrain on it: treadle train pix2pix --data data/f\n"
    assert not treadle.err
    written = np.asarray(Image.open("data/f/test/0009.png"))
    assert np.array_equal(written, np.concatenate(facade(3, 9, 32), axis=1))
    assert treadle("pairs", "facades", "--out", "data/f", "--count", "10", "--size", "32") == 2
    assert treadle.err == "treadle: data/f is not empty: choose a new folder for --out, or remove this one first\n"


def test_join_names_what_it_leaves_out(treadle: Any) -> None:
    pictures("a", "1.png", "2.png", "3.png")
    pictures("b", "1.png", "3.png")
    Path("b/3.png").write_bytes(b"no picture")
    command = ("pairs", "join", "a", "b", "--out", "out", "--size", "8", "--split", "1/0/0", "--seed", "1")
    assert treadle(*command) == 2 and "1 of 5 pictures have no partner" in treadle.err
    assert treadle(*command, "--skip-unmatched") == 2 and "b/3.png is no picture" in treadle.err
    assert treadle(*command, "--skip-unmatched", "--skip-bad") == 0
    first, _, *rest = treadle.out.splitlines()
    assert first == "out: 1 train"
    assert rest[0] == "left out 1 that cannot be used:" and rest[1].startswith("  b/3.png is no picture")
    assert rest[2:] == ["left out 1 without a partner:", "  a/2.png"]
    assert Image.open("out/train/1.png").size == (16, 8)


def test_join_honours_its_options(treadle: Any) -> None:
    pictures("a", "1.png", size=(16, 24))
    pictures("b", "1.png", size=(20, 20))
    command = ("pairs", "join", "a", "b", "--out", "out", "--size", "8", "--split", "1/0/0")
    assert treadle(*command) == 2 and "--fit stretch" in treadle.err
    assert treadle(*command, "--fit", "stretch", "--labels", "A") == 0
    given, made = np.asarray(Image.open("a/1.png")), np.asarray(Image.open("out/train/1.png"))
    assert np.array_equal(made[:, :8], np.asarray(Image.fromarray(given).resize((8, 8), Image.Resampling.NEAREST)))
    assert treadle("pairs", "join", "a", "a", "--out", "other", "--split", "1/0/0", "--seed", "4") == 0
    assert Image.open("other/train/1.png").size == (512, 256)


def test_split(treadle: Any) -> None:
    pictures("joined", *(f"{index}.png" for index in range(12)), size=(8, 16))
    command = ("pairs", "split", "joined", "--out", "out", "--split", "2/1/1")
    assert treadle(*command) == 0
    counts = {part: len(list(Path("out", part).iterdir())) for part in ("train", "val", "test")}
    assert treadle.out.splitlines() == [
        "out: " + ", ".join(f"{count} {part}" for part, count in counts.items()),
        "train on it: treadle train pix2pix --data out",
    ]
    assert Path("out/train/0.png").read_bytes() == Path("joined/0.png").read_bytes()
    assert treadle(*command) == 2 and "out is not empty: choose a new folder for --out" in treadle.err
    pictures("b", "0.png", "1.png", "other.png")
    two = ("pairs", "split", "joined", "b", "--out", "two", "--split", "1/0/0", "--link")
    assert treadle(*two) == 2 and "11 of 15 pictures have no partner of their name" in treadle.err
    assert treadle(*two, "--skip-unmatched") == 0
    assert treadle.out.splitlines()[2] == "left out 11 without a partner:"
    assert Path("two/A/train/1.png").is_symlink() and Path("two/B/train/1.png").resolve() == Path("b/1.png").resolve()


def test_edges(treadle: Any) -> None:
    Path("photos").mkdir()
    Image.fromarray(facade(0, 0, 64)[1]).save("photos/1.png")
    command = ("pairs", "edges", "photos", "--size", "64", "--split", "1/0/0")
    assert treadle(*command, "--out", "fine") == treadle(*command, "--out", "coarse", "--sigma", "4") == 0
    fine, coarse = (np.asarray(Image.open(f"{name}/train/1.png"))[:, :64] for name in ("fine", "coarse"))
    assert 0 < (coarse == 0).sum() < (fine == 0).sum()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("jion", "a", "b"), "treadle pairs: unknown kind 'jion'; did you mean 'join'?"),
        (("--jion",), "unknown argument '--jion'"),
        (("facades",), "treadle pairs facades: the following arguments are required: --out"),
        (("facades", "--out", "x", "--size", "16"), "facades of size 16"),
        (("facades", "--out", "x", "--count", "0"), "count is 0"),
        (("facades", "--out", "x", "--count", "2"), "none of the 2 pairs goes to val: give it a larger share"),
        (("facades", "--out", "x", "--split", "all"), "split 'all': expected the shares"),
        (("join", "nowhere", "b", "--out", "x"), "nowhere: no such folder"),
        (("edges", "nowhere", "--out", "x"), "nowhere: no such folder"),
        (("split", "nowhere", "--out", "x"), "nowhere: no such folder"),
        (("split", "nowhere"), "treadle pairs split: the following arguments are required: --out"),
        (("edges", ".", "--out", "x", "--sigma", "0"), "sigma is 0.0"),
    ],
)
def test_bad_usage_is_one_clear_line(treadle: Any, here: Path, arguments: tuple[str, ...], said: str) -> None:
    assert treadle("pairs", *arguments) == 2
    assert said in treadle.err and len(treadle.err.splitlines()) == 1
    assert not list(here.iterdir())


def test_without_a_kind_it_explains_itself_and_fails(treadle: Any) -> None:
    assert treadle("pairs") == 2 and "examples:" in treadle.out


@pytest.mark.parametrize("kind", ["join", "split", "edges", "facades"])
def test_every_kind_explains_itself_with_examples(treadle: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert treadle("pairs", kind, "--help") == 0
    assert f"usage: treadle pairs {kind}" in treadle.out and f"  treadle pairs {kind}" in treadle.out
    assert max(map(len, treadle.out.splitlines())) <= 80


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_terminated_command_leaves_nothing_behind(here: Path) -> None:
    process = subprocess.Popen(
        [python(), "-m", "treadle.cli", "pairs", "facades", "--out", "out", "--count", "200000", "--size", "64"]
    )
    try:
        deadline = time.monotonic() + 60
        while not list(here.glob(".out.*/root/train/*.png")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(100) == 143
    finally:
        process.kill()
    assert not list(here.iterdir())
