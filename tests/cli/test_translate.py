"""`treadle translate`, and `treadle test --data` where there is nothing to train on."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import treadle as package
from treadle.errors import UsageError
from treadle.gans.cyclegan import CycleGANTrainer
from treadle.gans.inference import translate
from treadle.gans.pix2pix import Pix2PixTrainer
from treadle.recipes.registry import recipe_of
from treadle.testing import Line, line_data

SMALL = {
    "size": 16, "features": 4, "d_features": 4, "patch": 1, "max_steps": 2, "examples_every": None, "device": "cpu",
    "validate_every": None, "save_every": "1 steps", "downs": 2,
}  # fmt: skip

PROGRAM = """
import time
import torch
from treadle.gans.translator import Translator
from treadle.testing import Line

class Negative(torch.nn.Module):
    def forward(self, x):
        time.sleep({pause})
        return -x

class Line(Line):
    @classmethod
    def translators(cls, run, *, at=None):
        return {{"there": Translator(model=Negative(), name=f"model {{at}}"), "back": Translator(model=Negative())}}
"""
"""A trainer of somebody's own, whose model makes negatives."""


def pictures(folder: Path, *names: str, width: int = 24, height: int = 16) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        pixels = np.random.default_rng(len(name)).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of pix2pix and CycleGAN that were trained on folders, one of no kind that translates, and a program."""
    root = tmp_path_factory.mktemp("translate")
    for name in ("train", "test"):
        pictures(root / "pairs" / name, "1.png", "2.png", width=32)
        pictures(root / "apart" / f"{name}A", "1.png", "2.png")
        pictures(root / "apart" / f"{name}B", "3.png", "4.png", "5.png")
    for kind, data, more in (
        (Pix2PixTrainer, "pairs", {"direction": "BtoA"}),
        (CycleGANTrainer, "apart", {"blocks": 1, "generator": "resnet"}),
    ):
        recipe = recipe_of(kind).for_given_data(root / data).with_settings(SMALL | {"max_epochs": None} | more)
        recipe.build(run_dir=root / data / "run").train()
    Line(data=line_data(), run_dir=root / "line", max_steps=1).train()
    for name, pause in (("own", 0), ("slow", 0.05)):
        (root / f"{name}.py").write_text(PROGRAM.format(pause=pause))
    return root


@pytest.fixture(autouse=True)
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pictures(tmp_path / "photos" / "more", "b.jpg", width=33)
    pictures(tmp_path / "photos" / "others", "a.png")
    (tmp_path / "photos" / "others" / "a.png").rename(tmp_path / "photos" / "a.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def alike(made: np.ndarray, expected: np.ndarray) -> None:
    """Equal, but for a rounding that sums in another order may change."""
    difference = np.abs(made.astype(int) - expected)
    assert made.shape == expected.shape and difference.max() <= 1 and difference.mean() < 0.01
    assert expected.std() > 0


def test_a_folder_is_translated_by_the_runs_final_model(treadle: Any, place: Path) -> None:
    run = str(place / "pairs" / "run" / "v001")
    assert treadle("translate", run, "photos", "--out", "out") == 0
    first, second = treadle.out.splitlines()
    assert first == f"BtoA, final model, step 2 of {run}" and second.startswith("out: 2 translated, ")
    assert not treadle.err
    for name in ("a.png", "more/b.jpg"):
        assert read(f"out/{name}").shape == read(f"photos/{name}").shape
    model = Pix2PixTrainer.load_model(run)
    alike(read("out/a.png"), translate(model, read("photos/a.png")))
    assert treadle("translate", run, "photos", "--out", "out") == 2
    assert treadle.err.startswith("treadle: 2 of 2 results are there already (out/a.png, out/more/b.jpg): keep them")
    assert treadle("translate", run, "photos", "--out", "out", "--existing", "skip") == 0
    assert treadle.out.splitlines()[1] == "out: 0 translated, 2 kept"


def test_at_and_pairs(treadle: Any, place: Path) -> None:
    run = str(place / "pairs" / "run" / "v001")
    assert treadle("translate", run, str(place / "pairs" / "test"), "--pairs", "--out", "out", "--at", "1") == 0
    assert treadle.out.startswith(f"BtoA, model of step 1 of {run}\n")
    model = Pix2PixTrainer.load_model(run, at=1)
    expected = translate(model, read(place / "pairs" / "test" / "1.png")[:, 16:])  # the right half is the input
    alike(read("out/1.png"), expected)
    assert treadle("translate", run, "photos", "--out", "other", "--at", "9") == 2
    assert "keeps no model of step 9" in treadle.err and not Path("other").exists()


def test_both_directions_of_a_cyclegan(treadle: Any, place: Path) -> None:
    run = str(place / "apart" / "run" / "v001")
    for more, name in (([], "AtoB"), (["--direction", "BtoA"], "BtoA")):
        assert treadle("translate", run, "photos/a.png", "--out", f"{name}.png", *more) == 0
        assert treadle.out.startswith(f"{name}, final model, step 2 of {run}\n{name}.png: 1 translated\n")
        model = CycleGANTrainer.load_model(run, name)
        alike(read(f"{name}.png"), translate(model, read("photos/a.png")))
    assert treadle("translate", run, "photos", "--out", "out", "--direction", "BtoB") == 2
    assert treadle.err == f"treadle: direction BtoB: {run} has learnt AtoB and BtoA\n"


def test_bad_pictures_are_named(treadle: Any, place: Path) -> None:
    Path("photos/bad.png").write_bytes(b"no picture")
    run = str(place / "pairs" / "run" / "v001")
    assert treadle("translate", run, "photos", "--out", "out") == 2
    assert "photos/bad.png is no picture" in treadle.err and "on_bad 'skip' leaves" in treadle.err
    assert treadle("translate", run, "photos", "--out", "out", "--on-bad", "skip") == 0
    assert treadle.out.splitlines()[2] == "left out 1 that cannot be used:"
    assert treadle.out.splitlines()[3].endswith(
        "bad.png is no picture that can be read: convert it to PNG or JPEG, or remove it"
    )


def test_a_trainer_of_ones_own(treadle: Any, place: Path) -> None:
    options = ["--trainer", f"{place / 'own.py'}:Line"]
    assert treadle("translate", str(place / "line"), "photos", "--out", "out", "--at", "best", *options) == 0
    assert treadle.out.startswith("there, model best of ")
    np.testing.assert_array_equal(read("out/a.png"), 255 - read("photos/a.png"))
    done = package.translate(
        place / "line", "photos", "again", trainer=type("Line", (Line,), {"translators": negatives}), format="png"
    )
    assert [path.name for path in done.written] == ["a.png", "b.png"]
    np.testing.assert_array_equal(read("again/a.png"), 255 - read("photos/a.png"))


@classmethod
def negatives(cls: type[Line], run: Path, *, at: Any = None) -> dict[str, Any]:
    from treadle.gans.translator import Translator

    class Negative(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -x

    return {"there": Translator(model=Negative())}


def test_runs_that_do_not_translate_say_so(treadle: Any, place: Path) -> None:
    run, program = place / "line" / "v001", Path("plain.py")
    program.write_text("from treadle.testing import Line\n")
    assert treadle("translate", str(run), "photos", "--out", "out", "--trainer", f"{program}:Line") == 2
    assert treadle.err == f"treadle: {run}: Line does not translate pictures\n"
    with pytest.raises(UsageError, match="Line does not translate pictures"):
        package.translate(place / "line", "photos", "out", trainer=Line)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["photos"], "the following arguments are required: --out"),
        (["nowhere", "--out", "out"], "INPUT nowhere: no such file or directory"),
        (["photos", "--out", "out", "--megapixels", "0"], "--megapixels 0: expected a number above 0"),
        (["photos", "--out", "out", "--megapixels", "nan"], "--megapixels nan: expected a number above 0"),
        (["photos", "--out", "out", "--overlap", "-1"], "--overlap -1: expected pixels, 0 or more"),
        (["photos", "--out", "photos"], "photos is the folder of the pictures"),
        (["photos", "--out", "out", "--format", "gif"], "invalid choice: 'gif'"),
        (["photos", "--out", "out", "--dirction", "AtoB"], "did you mean '--direction'?"),
    ],
)
def test_bad_usage_is_one_line(treadle: Any, place: Path, arguments: list[str], said: str) -> None:
    assert treadle("translate", str(place / "pairs" / "run" / "v001"), *arguments) == 2
    assert said in treadle.err and treadle.err.count("\n") == 1 and not Path("out").exists()


def test_a_run_without_a_model(treadle: Any, place: Path) -> None:
    shutil.copytree(
        place / "pairs" / "run" / "v001", "run", ignore=shutil.ignore_patterns("best_model", "checkpoints", "models")
    )
    assert treadle("translate", "run", "photos", "--out", "out") == 2
    assert "has no final model yet" in treadle.err and treadle.err.count("\n") == 1


def test_it_explains_itself(treadle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert treadle("translate", "--help") == 0
    assert "usage: treadle translate RUN INPUT --out DIR" in treadle.out and "examples:" in treadle.out
    assert max(map(len, treadle.out.splitlines())) <= 80


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_one_that_was_killed_goes_on_where_it_was(treadle: Any, place: Path) -> None:
    pictures(Path("many"), *(f"{index}.png" for index in range(200)))
    command = ["translate", str(place / "line"), "many", "--out", "out", "--trainer", f"{place / 'slow.py'}:Line"]
    process = subprocess.Popen([sys.executable, "-m", "treadle.cli", *command, "--megapixels", "0.001"])
    try:
        deadline = time.monotonic() + 60
        while not list(Path("out").glob("*.png")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait(100)
    there = sorted(Path("out").glob("*.png"))
    assert 0 < len(there) < 200
    command[-1] = f"{place / 'own.py'}:Line"
    assert treadle(*command, "--existing", "skip") == 0
    assert f"out: {200 - len(there)} translated" in treadle.out and f"{len(there)} kept" in treadle.out
    assert len(list(Path("out").iterdir())) == 200  # no leftovers of the one that was killed, either
    for path in Path("many").iterdir():
        np.testing.assert_array_equal(read(f"out/{path.name}"), 255 - read(path))


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_terminated_command_leaves_whole_files_alone(treadle: Any, place: Path) -> None:
    pictures(Path("many"), *(f"{index}.png" for index in range(30)))
    Path("ended.py").write_text((place / "own.py").read_text().replace("time.sleep(0)", "end()") + END)
    options = ["--out", "out", "--trainer", "ended.py:Line"]
    assert treadle("translate", str(place / "line"), "many", *options) == 143
    assert 0 < len(list(Path("out").glob("*.png"))) < 30 and not list(Path("out").glob(".*"))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


END = """
import signal

calls = []

def end():
    calls.append(1)
    if len(calls) == 3:
        signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.parametrize(("kind", "names"), [("pairs", ["test"]), ("apart", ["testA", "testB"])])
def test_a_run_is_tested_on_a_folder_with_nothing_to_train_on(
    treadle: Any, place: Path, kind: str, names: list[str]
) -> None:
    for name in names:
        shutil.copytree(place / kind / name, Path("data") / name)
    run = str(place / kind / "run" / "v001")
    assert treadle("test", run, "--data", "data") == 0
    assert treadle.out.startswith(f"final model, step 2 of {run} on {Path('data').absolute()}\n")
    assert treadle("train", "pix2pix" if kind == "pairs" else "cyclegan", "--data", "data") == 2
    assert "with pictures to train on" in treadle.err and treadle.err.count("\n") == 1 and not Path("runs").exists()
    Path("data", names[0]).rename(Path("data") / "tset")
    for path in list(Path("data").iterdir()):
        if path.name in names:
            shutil.rmtree(path)
    assert treadle("test", run, "--data", "data") == 2 and "data has no folder 'train" in treadle.err
