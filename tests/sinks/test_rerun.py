"""`--log rerun`: what is sent and when, and whole runs read back where its SDK is (make test-loggers)."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recording import told
from small_tracts import data

from tests.warm.python import python
from treadle import testing
from treadle.cameras.procedural import procedural_capture
from treadle.cli.main import main
from treadle.errors import UsageError
from treadle.fields import sdf_trainer
from treadle.fields.sdf.shapes import knot
from treadle.hooks import Examples
from treadle.reports import scene
from treadle.reports.scene import Scene
from treadle.runs.fork import fork_run
from treadle.runs.metrics import read_metrics
from treadle.runs.run import read_config
from treadle.sinks.rerun import Rerun
from treadle.sinks.table import make
from treadle.tracts.trainer import TractsTrainer

READER = Path(__file__).parent / "services" / "read_rerun.py"


# What is sent, and when -----------------------------------------------------------------------------------------------


class Told(Rerun):
    """Tells a service that writes down what it is told."""

    service, package = "recording_service:Recording", None

    def __init__(self, file: Path) -> None:
        super().__init__(file.with_suffix(".rrd"))
        self.options["file"] = str(file)


@pytest.fixture
def spatial(line: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Make a trainer that has a scene: as many points as it has taken steps."""
    monkeypatch.delenv("TREADLE_RERUN_PYTHON", raising=False)

    def points(trainer: Any) -> dict[str, Any]:
        return {"cloud": Scene(points=np.zeros((trainer.progress.step, 3), np.float32))}

    def make(**more: Any) -> Any:
        trainer = line(**more)
        monkeypatch.setattr(type(trainer), "scenes", points)
        return trainer

    return make


def test_scenes_are_made_at_validations_where_no_hook_makes_examples(
    spatial: Callable[..., Any], tmp_path: Path
) -> None:
    files = [tmp_path / "one", tmp_path / "two"]
    trainer = spatial(hooks=[Told(file) for file in files], max_epochs=2)
    trainer.train()
    for file in files:
        assert [(entry["step"], len(entry["arrays"]["points"][1])) for entry in told(file, "scene")] == [(4, 4), (8, 8)]
    alone = spatial(max_epochs=2)
    alone.train()
    assert trainer.digest() == alone.digest()
    pictured = spatial(hooks=[Told(tmp_path / "three"), Examples("3 steps", lambda trainer: {})], max_epochs=2)
    pictured.train()
    assert [entry["step"] for entry in told(tmp_path / "three", "scene")] == [3, 6]


def test_of_a_huge_scene_some_is_sent_and_that_is_said_once(
    spatial: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scene, "MOST_POINTS", 5)
    trainer = spatial(hooks=[Told(tmp_path / "told")], max_epochs=3)
    assert trainer.train().status == "finished"
    assert [len(entry["arrays"]["points"][1]) for entry in told(tmp_path / "told", "scene")] == [4, 5, 5]
    assert capfd.readouterr().err.count("treadle: Rerun: the scene 'cloud' is sent with 5 of 8 points") == 1


def test_places_that_make_no_sense_are_refused(monkeypatch: pytest.MonkeyPatch, line: Callable[..., Any]) -> None:
    monkeypatch.setenv("TREADLE_RERUN_PYTHON", sys.executable)
    for where in ("http://localhost:9876", "rerun+http://localhost:9876", "rerun+http://me:secret@host/proxy"):
        with pytest.raises(UsageError, match=r"--log rerun=.* is no address of a Rerun viewer: expected one such as"):
            make("rerun", where)
    assert make("rerun", "rerun://host:9876/proxy").options == {"where": "rerun://host:9876/proxy"}  # type: ignore[attr-defined]
    assert make("rerun", "a.rrd").options == {"where": str(Path("a.rrd").absolute())}  # type: ignore[attr-defined]


def test_a_run_that_is_not_on_disk_needs_a_place(
    monkeypatch: pytest.MonkeyPatch, line: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TREADLE_RERUN_PYTHON", sys.executable)
    assert line(hooks=[Rerun()], max_epochs=1).train().status == "finished"
    assert (
        "Rerun has nowhere to write: give it a FILE.rrd or a viewer, or the trainer a run_dir" in capfd.readouterr().err
    )


def test_without_the_sdk_it_is_refused_or_the_run_goes_on_without_it(
    monkeypatch: pytest.MonkeyPatch, line: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("rerun") is not None:
        pytest.skip("rerun is installed here")
    monkeypatch.delenv("TREADLE_RERUN_PYTHON", raising=False)
    with pytest.raises(UsageError, match=r"Rerun is not installed: pip install 'treadle\[rerun\]'"):
        make("rerun")
    monkeypatch.setenv("TREADLE_RERUN_PYTHON", sys.executable)  # one that has none either
    trainer, alone = line(hooks=[Rerun()], run_dir=tmp_path / "line"), line(run_dir=tmp_path / "alone")
    assert trainer.train().status == "finished" and alone.train().status == "finished"
    assert trainer.digest() == alone.digest()
    said = [text for text in capfd.readouterr().err.splitlines() if "No module named 'rerun'" in text]
    assert said and all(text.startswith("treadle: Rerun: ") for text in said)


# Whole runs, read back ------------------------------------------------------------------------------------------------


@pytest.fixture
def rerun_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The Python that has Rerun's SDK; it has a home of its own."""
    named = os.environ.get("TREADLE_RERUN_PYTHON")
    if not named and importlib.util.find_spec("rerun") is None:
        pytest.skip("rerun is not installed, and TREADLE_RERUN_PYTHON is not set: make test-loggers runs it")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "60")  # no clock decides a verdict
    return named or sys.executable


@pytest.fixture
def kept(rerun_python: str, tmp_path: Path) -> Callable[[Path], dict[str, Any]]:
    """What is in a run's files, which `rerun rrd merge` has joined and found whole."""

    def read(run: Path) -> dict[str, Any]:
        files, merged = sorted((run / "rerun").glob("*.rrd")), tmp_path / "merged.rrd"
        rerun = Path(rerun_python).with_name("rerun")
        done = subprocess.run([rerun, "rrd", "merge", *files, "-o", merged], capture_output=True, text=True)
        assert done.returncode == 0 and not [line for line in done.stderr.splitlines() if " WARN " in line], done.stderr
        assert subprocess.run([rerun, "rrd", "verify", merged], capture_output=True).returncode == 0
        done = subprocess.run([rerun_python, READER, merged], capture_output=True, text=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return read


def agrees(found: dict[str, Any], run: Path) -> int:
    """Every value of metrics.jsonl is there, each step once, and no other; returns how many there are."""
    wanted = {
        (line["split"], name, line["step"]): value
        for line in read_metrics(run)
        for name, value in line["values"].items()
    }
    there = [
        (*path.replace("\\", "")[1:].split("/", 1), step, value)
        for path, entity in found["entities"].items()
        if path.split("/")[1] in ("train", "epoch", "validation", "test")
        for step, value in zip(entity["step"], entity["values"], strict=True)
    ]
    assert len(there) == len(wanted)
    assert {(split, name, step): value for split, name, step, value in there} == wanted
    return len(wanted)


def small(domain: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Settings, and data, for a training of moments."""
    shared = {"device": "cpu", "log_every": "2 steps"}
    if domain in ("splats", "nerf"):
        module = "treadle.splats.trainer" if domain == "splats" else "treadle.fields.nerf_trainer"
        monkeypatch.setattr(f"{module}.load_capture", lambda config, path: procedural_capture(24, 6, 2, points=60))
    pictures = {"max_steps": 4, "examples_every": "2 steps", "validate_every": "2 steps"}
    settings: dict[str, dict[str, Any]] = {
        "splats": pictures | {"cap": 150, "random": 80, "turntable": 0},
        "nerf": pictures
        | {"samples": 1000, "first_rays": 64, "batch_size": 128, "levels": 2, "log2_size": 8, "n_max": 16, "hidden": 16,
           "occupancy": 16, "turntable": 0},
        "sdf": pictures
        | {"max_steps": 40, "examples_every": "20 steps", "validate_every": "20 steps", "batch_size": 500,
           "pool": 1000, "levels": 2, "log2_size": 10, "n_max": 16, "hidden": 16, "validation_points": 99,
           "test_points": 99, "picture": 16, "resolution": 24},
        "tracts": {"sizes": "[16]", "batch_size": 12, "step_size": 2.0, "track_seeds": 0, "track_shortest": 0.0,
                   "max_epochs": 2, "learning_rate": 0.01, "generate_every": "null", "monitor": "loss"},
    }  # fmt: skip
    if domain == "sdf":
        pytest.importorskip("igl")
        solid = sdf_trainer.enclose(knot(48, 12))
        monkeypatch.setattr(sdf_trainer, "own_solid", lambda: solid)
    if domain == "tracts":
        monkeypatch.setattr(TractsTrainer, "load_data", classmethod(lambda cls, config, path: {"data": data()}))
    chosen = shared | settings[domain]
    return [text for name, value in chosen.items() for text in ("--set", f"{name}={value}")]


PARTS = {
    "splats": ({"splats", "cameras"}, "splats"),
    "nerf": ({"boxes", "points", "cameras"}, "field"),
    "sdf": ({"mesh"}, "surface"),
    "tracts": ({"lines", "boxes"}, "tracts"),
}


@pytest.mark.parametrize("domain", PARTS)
def test_every_domain_has_all_its_values_pictures_and_scenes(
    kept: Callable[..., Any], domain: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = small(domain, monkeypatch)
    assert main(["train", domain, *settings, "--run", str(tmp_path / "logged"), "--log", "rerun"]) == 0
    run = tmp_path / "logged" / "v001"
    found = kept(run)
    assert agrees(found, run) > 8
    steps = sorted(int(path.name.split("-")[1]) for path in (run / "examples").glob("*-view.png"))
    assert found["entities"]["/pictures/view"]["step"] == steps and len(steps) == 2
    wanted, name = PARTS[domain]
    parts = {path.split("/")[3]: entity["step"] for path, entity in found["entities"].items() if "/scenes/" in path}
    assert {path.split("/")[2] for path in found["entities"] if "/scenes/" in path} == {name}
    assert parts == {part: steps[:1] if part == "cameras" else steps for part in wanted}
    assert "finish" in str(found["entities"]["/events"]["values"])
    assert main(["train", domain, *settings, "--run", str(tmp_path / "alone")]) == 0
    summaries = [json.loads((tmp_path / name / "v001" / "summary.json").read_text()) for name in ("logged", "alone")]
    assert summaries[0]["digest"] == summaries[1]["digest"]
    assert not list((tmp_path / "home").glob("[!.]*"))


KILLED = """
import os, signal, sys
from treadle import testing
from treadle.sinks.rerun import Rerun
trainer = testing.Line(data=testing.line_data(40), batch_size=10, log_every="1 step", max_epochs=3,
                       run_dir=sys.argv[1], hooks=[Rerun()], save_every="3 steps")
for _ in range(8):
    trainer.iterate()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_that_is_killed_rewound_and_forked_has_every_value_once(kept: Callable[..., Any], tmp_path: Path) -> None:
    done = subprocess.run([python(), "-c", KILLED, str(tmp_path / "line")])
    assert done.returncode == -signal.SIGKILL
    run = tmp_path / "line" / "v001"
    settings = {"data": testing.line_data(40), "batch_size": 10, "log_every": "1 step", "max_epochs": 3}
    resumed = testing.Line(**settings, run_dir=run, resume=True, hooks=[Rerun()], save_every="3 steps")
    assert resumed.progress.step in (3, 6)
    while resumed.progress.step < 10:
        resumed.iterate()
    resumed.rewind(6)
    resumed.train()
    found = kept(run)
    assert agrees(found, run) >= 12 and len(set(found["ids"])) == 1
    assert {"resume", "rewind"} <= {text.partition(":")[0] for text in found["entities"]["/events"]["values"]}
    fork = fork_run(run, 9, read_config(run))
    testing.Line(**settings, run_dir=fork, resume=True, hooks=[Rerun()], save_every="3 steps").train()
    forked = kept(fork)
    agrees(forked, fork)
    assert forked["ids"] != found["ids"]
    assert forked["static"]["/__properties"]["RecordingInfo:name"] == ["line/v002, from line/v001 at step 9"]


@pytest.mark.parametrize("where", ["/proc/nowhere/a.rrd", "rerun+http://127.0.0.1:9/proxy"])
def test_a_place_that_takes_nothing_changes_nothing_and_is_said(
    rerun_python: str, where: str, line: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "4")
    trainer, alone = line(hooks=[Rerun(where)], run_dir=tmp_path / "line"), line(run_dir=tmp_path / "alone")
    assert trainer.train().status == "finished" and alone.train().status == "finished"
    assert trainer.digest() == alone.digest()
    said = [text for text in capfd.readouterr().err.splitlines() if text.startswith("treadle: Rerun: ")]
    assert any(("nowhere" if "nowhere" in where else "no viewer listens at") in text for text in said), said
    assert len(said) <= 2, said


def test_finished_runs_are_sent_from_their_files_and_once(
    kept: Callable[..., Any], line: Callable[..., Any], tmp_path: Path
) -> None:
    trainer = line(run_dir=tmp_path / "line")
    trainer.iterate()
    trainer.log_image("probe", np.zeros((2, 3), np.uint8))
    trainer.train()
    run = trainer.run.path
    for _ in range(2):
        assert main(["runs", "--to", "rerun", str(run)]) == 0
        assert len(list((run / "rerun").iterdir())) == 1
        found = kept(run)
        assert agrees(found, run) > 10 and found["entities"]["/pictures/probe"]["step"] == [1]
        assert [text.partition(":")[0] for text in found["entities"]["/events"]["values"]] == [
            entry["event"] for entry in trainer.journal
        ]
        assert found["static"]["/__properties/summary"]["status"] == ["finished"]
