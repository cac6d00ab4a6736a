"""`treadle train`: from a recipe, `--set` and flags to a finished run, and all that can be wrong before it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.warm.python import python
from treadle.cli.train import seldom_seen
from treadle.config.files import dumps, load
from treadle.recipes.registry import list_recipes, load_recipe

RUN = Path("runs/line/v001")
FACADES = Path(__file__).parents[3] / "shared" / "data" / "pairs_facades"


def summary(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return result


def with_site(site: Path) -> dict[str, str]:
    """The environment of a process that finds the pack."""
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def test_a_recipe_becomes_a_run_and_says_what_comes_next(treadle: Any, line: None) -> None:
    assert treadle("train", "line") == 0
    assert summary(RUN)["status"] == "finished" and summary(RUN)["step"] == 20
    assert "slope: " in treadle.out and "picture: " in treadle.out
    run = next(text.split()[-1] for text in treadle.out.splitlines() if "run:" in text)
    assert Path(run).samefile(RUN)
    assert treadle.out.splitlines()[-1] == f"next: treadle test {run}"
    assert (RUN / "report" / "slope.txt").exists()


def test_precedence_is_recipe_then_set_then_flags(treadle: Any, line: None) -> None:
    settings = {"max_steps": 3, "seed": 1, "rate": 0.01, "slope": 2.0}
    Path("mine.yaml").write_text(dumps({"trainer": "line", "config": settings}))
    assert treadle("train", "mine.yaml", "--set", "seed=2", "rate=0.02", "--max-steps", "4", "--rate=0.03") == 0
    written = load("runs/mine/v001/config.yaml")
    assert written["trainer"] == "line"
    chosen = {name: written["config"][name] for name in settings}
    assert chosen == {"max_steps": 4, "seed": 2, "rate": 0.03, "slope": 2.0}
    assert written["config"]["batch_size"] == 32  # the resolved config: defaults are written out
    assert summary(Path("runs/mine/v001"))["step"] == 4


def test_given_data_are_trained_on_as_the_recipe_says_for_them(treadle: Any, line: None) -> None:
    Path("recipe.yaml").write_text("trainer: line\nwith_data: {max_steps: null, max_epochs: 3}\n")
    Path("factor.txt").write_text("2")
    assert treadle("train", "recipe.yaml") == 0 and "finished: step 20" in treadle.out
    assert treadle("train", "recipe.yaml", "--data", "factor.txt") == 0
    assert "finished: step 6" in treadle.out and "sees" not in treadle.err
    settings = load(Path("runs/recipe/v002/config.yaml"))["config"]
    assert (settings["max_steps"], settings["max_epochs"]) == (None, 3)
    assert treadle("train", "recipe.yaml", "--data", "factor.txt", "--set", "max_epochs=2") == 0
    assert "finished: step 4" in treadle.out
    assert treadle("train", "recipe.yaml", "--data", "factor.txt", "--max-steps", "5") == 0
    assert "finished: step 5" in treadle.out
    assert treadle("train", "recipe.yaml", "--help") == 0
    assert "\nWith --data: max_steps=null max_epochs=3\n" in treadle.out
    assert treadle("train", "recipe.yaml", "--help", "all") == 0
    assert "\nWith --data: max_steps=null max_epochs=3\n" in treadle.out


def test_given_data_that_are_seen_too_seldom_are_told(
    treadle: Any, line: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches of 32 an epoch: 20 steps see the data 10 times."""
    import line_pack

    Path("factor.txt").write_text("2")
    monkeypatch.setattr(line_pack.LineTrainer, "least_epochs", 11)
    assert treadle("train", "line", "--data", "factor.txt") == 0
    (said,) = [text for text in treadle.err.splitlines() if "sees" in text]
    assert said == (
        "treadle: the run sees its 64 samples 10 times (max_steps=20): LineTrainer needs 11 or more, and its peers "
        "take 200: --set max_steps=null max_epochs=200"
    )
    assert treadle("train", "line") == 0 and "sees" not in treadle.err, "a recipe's own data are its own business"
    monkeypatch.setattr(line_pack.LineTrainer, "least_epochs", 10)
    assert treadle("train", "line", "--data", "factor.txt") == 0 and "sees" not in treadle.err


@pytest.mark.skipif(not FACADES.is_dir(), reason="no pictures here")
def test_pix2pix_trains_on_pairs_by_epochs_and_says_where_it_does_not() -> None:
    recipe = load_recipe("pix2pix").for_given_data(FACADES).with_overrides(["features=1", "d_features=1"])
    with recipe.build() as trainer:
        assert trainer.progress.total_steps == 200 * trainer.feed.samples and seldom_seen(trainer) == ""
    with recipe.with_overrides(["max_steps=800"]).build() as trainer:
        assert f"sees its {trainer.feed.samples} samples {800 / trainer.feed.samples:.3g} times" in seldom_seen(trainer)


def test_a_runs_config_alone_reproduces_it(treadle: Any, line: None) -> None:
    Path("factor").write_text("2")
    assert treadle("train", "line", "--data", "factor", "--max-steps", "7", "--seed", "5") == 0
    os.chdir("runs")  # the data is found from anywhere
    assert treadle("train", "line/v001/config.yaml", "--run", "again") == 0
    assert summary(Path("line/v001"))["digest"] == summary(Path("again/v001"))["digest"]
    assert load("line/v001/config.yaml") == load("again/v001/config.yaml")


def test_set_may_be_repeated(treadle: Any, line: None) -> None:
    assert treadle("train", "line", "--set", "max_steps=2", "--set", "seed=4") == 0
    assert load(RUN / "config.yaml")["config"]["seed"] == 4 and summary(RUN)["step"] == 2


def test_help_of_a_recipe_shows_its_settings(treadle: Any, line: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert treadle("train", "line", "--help") == 0
    for words in (
        "usage: treadle train",
        "Fits a line.",
        "--slope ",
        "The slope to find",
        "--set",
        " more settings: treadle train line --help all",
    ):
        assert words in treadle.out
    assert max(map(len, treadle.out.splitlines())) <= 80
    assert treadle("train", "line", "--help", "all") == 0
    for words in ("--slope FLOAT", "The slope to find. [default: 3.0]", "--keep-checkpoints INT", "--set"):
        assert words in treadle.out


@pytest.mark.parametrize("recipe", [each.name for each in list_recipes()])
def test_help_of_a_shipped_recipe_fits_two_screens(treadle: Any, recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert treadle("train", recipe, "--help") == 0
    lines = treadle.out.splitlines()
    assert len(lines) <= 48 and max(map(len, lines)) <= 80
    assert sum(line.startswith("  --") for line in lines) >= 25
    assert f"treadle train {recipe} --help all" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lin"], "unknown recipe 'lin'; did you mean 'line'?"),
        (["lin.yaml"], "lin.yaml: no such file"),
        (["--max-steps", "3", "line"], "treadle train: the recipe comes first: treadle train RECIPE --max-steps ..."),
        (["line", "--max-step", "3"], "treadle train line: unknown flag --max-step; did you mean '--max-steps'?"),
        (["line", "--max-steps", "x"], "--max-steps is 'x': expected a whole number, or None"),
        (["line", "--batch-size", "0"], "flags: batch_size is 0: expected at least 1, or null"),
        (["line", "--log-every", "5 stepz"], "log_every"),
        (["line", "--set", "slop=3"], "--set: slop is not a setting of LineConfig; did you mean 'slope'?"),
        (["line", "--set", "slope"], "--set slope: expected KEY=VALUE"),
        (["line", "--set", "slope=x"], "--set: slope is 'x': expected a number"),
        (["line", "--set"], "treadle train: argument --set: expected at least one argument"),
        (["line", "--data", "factr"], "--data factr: no such file or directory; did you mean 'factor'?"),
        (["line", "--data", "factor"], "factor holds no number"),
        (["line", "--max-steps", "None"], "nothing says when to end: give max_epochs, max_steps or max_time"),
        (["line", "--batch-size", "100", "--drop-last"], "100"),
        (["line", "--run", "factor/x"], "a file is in the way"),
        (["line", "extra"], "treadle train line: 'extra' belongs to no flag"),
        (["line", "--device", "cuda:9"], "cuda"),
        (["line", "--visdom", "ftp://x"], "'ftp://x' is no address of a Visdom server: expected one such as http://"),
        (["line", "--log", "visdom=ftp://x"], "--log visdom=ftp://x: 'ftp://x' is no address of a Visdom server"),
        (["line", "--log", "visdm"], "unknown sink 'visdm'; did you mean 'visdom'?"),
        (["line", "--log"], "treadle train: argument --log: expected at least one argument"),
        (["line", "--log", "console=x"], "--log console=x: it writes to standard error and takes no place"),
    ],
)
def test_bad_usage_is_one_line_and_2_and_writes_nothing(
    treadle: Any, line: None, arguments: list[str], said: str
) -> None:
    Path("factor").write_text("many")
    assert treadle("train", *arguments) == 2
    assert said in treadle.err and treadle.err.startswith("treadle: ") and treadle.err.count("\n") == 1
    assert os.listdir() == ["factor"]


def test_a_run_that_fails_returns_1_and_says_where(treadle: Any, line: None) -> None:
    assert treadle("train", "line", "--fail") == 1
    assert "ZeroDivisionError: as asked in step, at step 1" in treadle.err
    assert summary(RUN)["status"] == "failed"
    assert treadle("train", "line", "--rate", "1e30") == 1
    assert treadle.err.splitlines()[-1].startswith("treadle: ") and "step" in treadle.err


def test_a_time_limit_is_no_failure(treadle: Any, line: None) -> None:
    assert treadle("train", "line", "--pause", "0.05", "--max-time", "0.2", "--max-steps", "200") == 0
    assert 0 < summary(RUN)["step"] < 200


def test_a_visdom_server_that_is_away_stops_nothing(treadle: Any, line: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    assert treadle("train", "line", "--log", f"visdom={url}", "--max-steps", "10") == 0
    assert f"Visdom at {url}: " in treadle.err and "not up to date (Connection refused)" in treadle.err
    assert treadle("resume", "runs/line", "--set", "max_steps=20", "--log", f"visdom={url}") == 0
    assert "not up to date (Connection refused)" in treadle.err
    assert treadle("fork", "runs/line", "--at", "20", "--set", "max_steps=30", "--log", f"visdom={url}") == 0
    assert "not up to date (Connection refused)" in treadle.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_step_with_a_checkpoint(site: Path, tmp_path: Path, number: int, code: int) -> None:
    command = [python(), "-m", "treadle.cli", "train", "line", "--pause", "0.02", "--max-steps", "100000"]
    command += ["--save-every", "None"]  # the only checkpoint is the stop's own
    environment = with_site(site)
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        run = tmp_path / RUN
        deadline = time.monotonic() + 60
        while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(number)
        out, err = (text.decode() for text in process.communicate(timeout=60))
    assert process.returncode == code, err
    assert "stopping after this step" in err and "Traceback" not in err
    assert "stopped: interrupted by" in out and "next: treadle resume runs/line/v001" in out
    done = summary(run)
    assert done["status"] == "stopped"
    checkpoint = json.loads((run / "checkpoints" / "latest.json").read_text())
    assert checkpoint["step"] == done["step"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_stops_at_once(site: Path, tmp_path: Path, number: int, code: int) -> None:
    command = [python(), "-m", "treadle.cli", "train", "line", "--pause", "1000"]
    with subprocess.Popen(command, cwd=tmp_path, env=with_site(site), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        deadline = time.monotonic() + 60
        while not (tmp_path / "stepping").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        said = [process.stderr.readline().decode() for _ in range(2)]
        assert process.poll() is None
        process.send_signal(number)
        rest = process.communicate(timeout=100)[1].decode()
    assert process.returncode in (code, -number)  # killed by the signal's default action: a shell says the same code
    assert said == ["\n", "stopping after this step (once more: at once)\n"] and rest == ""


def test_training_leaves_the_processes_signal_handlers_and_threads_alone(treadle: Any, line: None) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    assert treadle("train", "line") == 0
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), torch.get_num_threads()) == before


def test_a_recipe_is_tried_out(treadle: Any, line: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aside = tmp_path / "aside"
    aside.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(aside))
    assert treadle("train", "line", "--try", "--slope", "2") == 0
    lines = treadle.out.splitlines()
    assert [text.split(":")[0].strip() for text in lines[:-1]] == [
        *("setup", "training", "resume", "validation", "examples", "end", "report", "test")
    ]
    assert lines[-1].startswith("tried: line, two steps of everything in ")
    assert lines[-1].endswith(" s; resumed with equal digests")
    assert treadle("train", "line", "--try", "--fail") == 1
    assert "failed: ZeroDivisionError: as asked in step, at step 1" in treadle.err and "setup:" in treadle.out
    assert "while training was tried out" in treadle.err
    assert treadle("train", "line", "--try", "--batch-size", "0") == 2
    assert not list(aside.glob("treadle*")) and not Path("runs").exists()


def test_a_try_out_that_a_resume_takes_elsewhere_is_told(
    treadle: Any, line: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import line_pack

    steps: list[Any] = []

    def step(self: Any, batch: Any) -> Any:
        steps.append(batch)
        return super(line_pack.LineTrainer, self).step((batch[0] * len(steps), batch[1]))

    monkeypatch.setattr(line_pack.LineTrainer, "step", step)
    assert treadle("train", "line", "--try") == 1
    assert "differs: resumed from its checkpoint after the first step, the run is another one" in treadle.out
    assert "first difference (never stopped and resumed): " in treadle.out
