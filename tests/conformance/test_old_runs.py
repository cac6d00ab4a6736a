"""Runs that an older version has begun go on, verify and fork: moving or renaming our code strands nobody."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from gauntlet_trainers import build, write_pictures

import treadle
from treadle.config.files import load
from treadle.engine.trainer import Trainer
from treadle.gans.pix2pix import Pix2PixTrainer
from treadle.images.texture import FIGURES
from treadle.runs.environment import cpu_model, numerics
from treadle.runs.fork import fork_run
from treadle.runs.run import read_environment, read_journal
from treadle.runs.verify import verify_run

OLD = Path(__file__).parents[1] / "fixtures" / "runs_of_0.1.0"
EXPECTED = json.loads((OLD / "expected.json").read_text())


@pytest.fixture(params=sorted(EXPECTED))
def old(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A copy of an old run, with the data it was trained on beside it: its name and directory.

    Validations measure more by now. The digest is over what was measured, too, so here they measure what they did.
    """
    name = request.param
    run = tmp_path / name / "v001"
    shutil.copytree(OLD / name / "v001", run)
    if name in ("image", "pix2pix"):
        write_pictures(name, run.parent / f"{name}-data")
    if name == "pix2pix":
        measure = Pix2PixTrainer.validation_step
        of_then = ("l1", "psnr", "ssim")
        monkeypatch.setattr(
            Pix2PixTrainer,
            "validation_step",
            lambda self, batch: {key: value for key, value in measure(self, batch).items() if key in of_then},
        )
    return name, run


SUMMED_OTHERWISE = {"image": {"psnr": 13.577715, "loss": 0.043876145}}
"""Runs whose kernels now add up in another order, so that their last bits differ from the first step on; with what
0.1.0 measured at their end. Of `image` the layers of the field: block by block of points, no longer by MKL."""


MEASURED_NOW = {"pix2pix": frozenset(FIGURES)}
"""What a validation measures now and 0.1.0 did not: it is part of the state, and of nothing that follows."""


def assert_ended_as_then(name: str, trainer: Trainer, exact: bool) -> None:
    """To the last bit on the machine that the run was begun on, or where sums have another order, nearly."""
    if name in SUMMED_OTHERWISE:
        assert trainer.validation_metrics == pytest.approx(SUMMED_OTHERWISE[name], rel=1e-4)
        return
    known = [trainer.loop.validation_metrics, (trainer.loop.best or {}).get("metrics", {})]
    for metrics in known:
        for figure in MEASURED_NOW.get(name, frozenset()) & set(metrics):
            del metrics[figure]
    assert trainer.digest() == EXPECTED[name]["digest"] or not exact


def same_machine(run: Path) -> bool:
    """Whether results of the machine that the run was begun on can be had here to the last bit."""
    then = read_environment(run)
    # The libraries choose their ways by the processor's maker, too, not by its instructions alone.
    makers = [str(model).partition(" ")[0] for model in (then["hardware"]["cpu"], cpu_model())]
    return numerics(then) == numerics() and makers[0] == makers[1]


def test_an_old_run_resumes_to_the_digest_that_its_own_version_reached(old: tuple[str, Path]) -> None:
    name, run = old
    exact = same_machine(run)
    trainer = build(name, run_dir=run, resume=True)
    assert trainer.progress.step == EXPECTED[name]["stopped_at"]
    summary = trainer.train()
    assert (summary.status, summary.step) == ("finished", EXPECTED[name]["final_step"])
    assert_ended_as_then(name, trainer, exact)
    resumed = [entry for entry in read_journal(run) if entry["event"] == "resume"]
    assert len(resumed) == 1 and not resumed[0]["changed"]


def test_an_old_run_verifies(old: tuple[str, Path]) -> None:
    name, run = old
    exact = same_machine(run)
    verdict = verify_run(run, lambda where: build(name, run_dir=where))
    assert verdict.compared == [EXPECTED[name]["stopped_at"]]
    if name in SUMMED_OTHERWISE:
        assert not [line for line in verdict.differences if "only in the" in line], (
            "it has what it had, and nothing new"
        )
    else:
        assert verdict.holds or not exact, verdict.differences[:3]


def test_an_old_run_forks(old: tuple[str, Path]) -> None:
    name, run = old
    exact = same_machine(run)
    fork = fork_run(run, EXPECTED[name]["stopped_at"], load(run / "config.yaml"))
    trainer = build(name, run_dir=fork, resume=True)
    assert trainer.train().step == EXPECTED[name]["final_step"]
    assert_ended_as_then(name, trainer, exact)


def test_an_old_run_is_tested_at_its_final_and_at_its_best_model(tmp_path: Path) -> None:
    run = tmp_path / "pix2pix" / "v001"
    shutil.copytree(OLD / "pix2pix" / "v001", run)
    write_pictures("pix2pix", tmp_path / "data")
    found = {at: treadle.test(run, at=at, data=tmp_path / "data") for at in (None, "best", 3)}
    assert [found[at]["model"] for at in found] == [
        "final model, step 7",
        "best model by l1, step 5",
        "model of step 3",
    ]
    assert len({results["l1"] for results in found.values()}) == 3
    assert Pix2PixTrainer.exportable(run)["generator"].metadata["step"] == "7"
