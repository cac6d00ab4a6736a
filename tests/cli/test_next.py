"""The `next:` line: whatever was trained on whatever data, the command it names can be given as it stands."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SMALL = (
    *("--max-steps", "2", "--size", "16", "--features", "4", "--d-features", "4", "--patch", "16"),
    *("--set", "downs=2", "blocks=1", "device=cpu", "examples_every=1 step"),
)


def follow(treadle: Any) -> list[str]:
    """Give the command of the last `next:` line; returns its words."""
    (line,) = (line for line in treadle.out.splitlines() if line.startswith("next: "))
    program, *words = shlex.split(line.removeprefix("next: "))
    assert program == "treadle"
    assert treadle(*words) == 0, (line, treadle.err)
    return words


@pytest.mark.parametrize("where", ["runs/line", "my runs/it's mine"])
def test_a_run_is_tested_next_and_one_that_has_finished_goes_on_twice_as_far(
    treadle: Any, line: None, where: str
) -> None:
    assert treadle("train", "line", "--run", where) == 0
    assert follow(treadle) == ["test", f"{where}/v001"]
    assert treadle("resume", where) == 0 and "nothing to do" in treadle.out
    assert follow(treadle) == ["resume", f"{where}/v001", "--set", "max_steps=40"]
    assert "finished: step 40" in treadle.out
    assert follow(treadle)[0] == "test"


def test_epochs_are_raised_where_they_were_the_limit(treadle: Any, line: None) -> None:
    assert treadle("train", "line", "--set", "max_steps=null", "max_epochs=2") == 0
    assert treadle("resume", "runs/line") == 0
    assert follow(treadle)[2:] == ["--set", "max_epochs=4"]


def test_a_run_that_stopped_for_want_of_progress_is_tested_next(treadle: Any, line: None) -> None:
    patient = ("patience=1", "rate=0", "validate_every=1 step", "max_steps=50")
    assert treadle("train", "line", "--set", *patient) == 0 and "early stopping" in treadle.out
    assert treadle("resume", "runs/line") == 0 and "nothing to do" in treadle.out
    assert follow(treadle)[0] == "test"


def picture(path: Path, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(len(str(path))).integers(0, 256, (16, width, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)


@pytest.mark.parametrize("splits", [("train",), ("train", "test"), ("train", "val")])
@pytest.mark.parametrize("recipe", ["pix2pix", "cyclegan"])
def test_without_validation_or_test_data_there_are_pictures_all_the_same_and_a_next_step(
    treadle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, splits: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    for split in splits:
        for index in range(2):
            if recipe == "pix2pix":
                picture(Path("data", split, f"{index}.png"), 32)
            else:
                for side in "AB":
                    picture(Path("data", f"{split}{side}", f"{index}.png"), 16)
    assert treadle("train", recipe, "--data", "data", *SMALL) == 0, treadle.err
    run = Path("runs", recipe, "v001")
    made = {"pix2pix": ["translations.png"], "cyclegan": ["A_to_B.png", "B_to_A.png"]}[recipe]
    assert {path.name for path in (run / "report").glob("*.png")} >= set(made)
    assert len(list((run / "examples").glob("step-*.png"))) == 2 * len(made)
    assert "failed" not in treadle.err
    assert ("neither test nor validation data" in treadle.out) == (len(splits) == 1)
    words = follow(treadle)
    assert words == ["test" if len(splits) == 2 else "runs", str(run)]
    if words[0] == "test":
        titles = {"pix2pix": ["input", "output", "target"], "cyclegan": ["input", "output", "back"]}[recipe]
        names = sorted(path.name for path in (run / "test" / "pictures").glob("000[12345678]-*"))
        assert len(names) == 2 * len(made) * 3
        assert {name.rpartition("-")[2].removesuffix(".png") for name in names} == set(titles)
