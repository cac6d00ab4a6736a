"""Which model of an adversarial run is tested, exported and loaded, and what is said about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import treadle
from treadle.cli.main import main
from treadle.gans.cyclegan import CycleGANTrainer
from treadle.gans.pix2pix import Pix2PixTrainer
from treadle.runs.models import find_model

SMALL = (
    *("size=16", "features=4", "d_features=4", "patch=16", "downs=2", "blocks=1", "batch_size=2", "device=cpu"),
    *("precision=fp32", "examples=1", "examples_every=null", "validate_every=2 steps", "save_every=3 steps"),
    *("limit_validation_batches=2", "limit_test_batches=2", "max_steps=6", "keep_checkpoints=1", "load_size=null"),
)
RUN = Path("runs/pix2pix/v001")


def write_data(path: Path) -> str:
    """Pairs, and folders of A and B, of random pictures: `path`/data."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for folder, width in ((split, 32), (f"{split}A", 16), (f"{split}B", 16)):
            (path / "data" / folder).mkdir(parents=True)
            for number in range(4):
                picture = rng.integers(0, 256, (16, width, 3), np.uint8)
                Image.fromarray(picture).save(path / "data" / folder / f"{number}.png")
    return str(path / "data")


def steps() -> tuple[int, int]:
    """The step of the best model, and another that is neither the best nor the last."""
    best: int = json.loads((RUN / "summary.json").read_text())["best"]["step"]
    assert best in (2, 4), "else nothing is told apart here"
    return best, 6 - best


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose last validation is not the best by L1: its rate is far too high, and grows."""
    path = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        rate = "learning_rate=linear 0 to 2 over 6 steps"
        assert main(["train", "pix2pix", "--data", write_data(path), "--set", *SMALL, rate, "ema=0.01"]) == 0
    return path


def test_final_unless_something_else_is_asked_for(work: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(work)
    best, other = steps()
    found = {}
    for arguments, said, step in (
        ((), "final model, step 6", 6),
        (("--at", "best"), f"best model by l1, step {best}", best),
        (("--at", str(other)), f"model of step {other}", other),
    ):
        assert main(["test", str(RUN), *arguments]) == 0
        assert capsys.readouterr().out.startswith(f"{said} of {RUN} on ")
        assert said in (RUN / "test" / "index.html").read_text()
        found[step] = json.loads((RUN / "test" / "metrics.json").read_text())
        assert (found[step]["model"], found[step]["step"]) == (said, step)
    assert len({results["l1"] for results in found.values()}) == 3
    assert main(["test", str(RUN), "--at", "5"]) == 2
    there = ", ".join(f"{step} (best)" if step == best else f"{step}" for step in (2, 4))
    assert f"keeps no model of step 5: there are {there}, 6 (final)" in capsys.readouterr().err


def test_the_same_in_python(work: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(work)
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    best, other = steps()
    made = {at: Pix2PixTrainer.load_model(RUN, at=at)(x) for at in (None, "final", 6, "best", best, other)}
    assert torch.equal(made[None], made["final"]) and torch.equal(made["final"], made[6])
    assert torch.equal(made["best"], made[best]) and not torch.equal(made[best], made[6])
    assert not torch.equal(made[other], made[best]) and not torch.equal(made[other], made[6])
    offered = Pix2PixTrainer.exportable(RUN, at=other)["generator"]
    assert torch.equal(offered.model(x), made[other]) and offered.metadata["step"] == str(other)
    assert treadle.test(RUN, at="best")["step"] == best


def test_the_report_of_a_training_and_its_test_show_the_same_model(work: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(work)
    treadle.test(RUN)
    with treadle.resume(RUN) as trainer:
        assert trainer.shown_model == "final model, step 6"
        with trainer.evaluating():
            now = trainer.generator.state_dict()
            final = Pix2PixTrainer.load_model(RUN).state_dict()
            assert now.keys() == final.keys() and all(torch.equal(now[name], final[name]) for name in now)


def test_a_fork_with_other_weights_of_losses_has_a_best_model_of_its_own(work: Path, tmp_path: Path) -> None:
    parent = work / RUN
    with treadle.fork(parent, 6, run_dir=tmp_path / "fork", max_steps=8, **{"weights.G_L1": 10}) as fork:
        assert fork.best is None
        fork.train()
        path = fork.run.path
    mine, theirs = find_model(path, "best"), find_model(parent, "best")
    assert mine.step == 8 and theirs.step < 6
    assert not torch.equal(mine.of("generator")["encoder.0.0.0.weight"], theirs.of("generator")["encoder.0.0.0.weight"])


def test_without_a_monitor_the_final_model_is_the_best(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        main(["train", "cyclegan", "--data", write_data(tmp_path), "--set", *SMALL, "monitor=null", "max_steps=2"]) == 0
    )
    assert "  model: " in capsys.readouterr().out
    assert main(["test", "runs/cyclegan", "--at", "best"]) == 0
    assert capsys.readouterr().out.startswith("final model, step 2 (nothing says which is best) of runs/cyclegan/v001")
    kept = CycleGANTrainer.load_model("runs/cyclegan/v001", at="best").state_dict()
    final = CycleGANTrainer.load_model("runs/cyclegan/v001").state_dict()
    assert all(torch.equal(kept[name], final[name]) for name in final)
