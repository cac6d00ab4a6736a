"""Sweeps from their beginning to their end, in this process: what is tried, resumed, pruned, ranked and refused."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import treadle
from treadle import RunError, UsageError
from treadle.recipes.registry import load_recipe, recipe_of
from treadle.runs.run import is_run, read_config, read_environment, read_journal, read_summary
from treadle.sinks.history import opening_of
from treadle.sweeps.beginning import How, begin, go_on
from treadle.sweeps.plan import read_plan
from treadle.sweeps.sweep import Lines, carry_out, conclude
from treadle.sweeps.trials import Sweep, read_sweep
from treadle.testing import line_data

from .conftest import held, wait_for

optuna = pytest.importorskip("optuna")

LR = {"lr": "log:1e-3..1"}


def run(slope: Any, path: Path, search: Any = LR, **given: Any) -> Sweep:
    given = {"trials": 4, "sampler": "random", "told": lambda line: None} | given
    return treadle.sweep(slope, search, run_dir=path, **given)


def digests(path: Path) -> dict[str, str]:
    """The digest of each run of a sweep, by its place in it."""
    return {str(each.parent.relative_to(path)): read_summary(each.parent)["digest"] for each in summaries(path)}


def summaries(path: Path) -> list[Path]:
    return sorted(path.glob("trial-*/v*/summary.json"))


def drawn(found: Sweep) -> list[Any]:
    return [trial.drawn for trial in sorted(found.trials, key=lambda trial: trial.number)]


def test_each_trial_is_a_run_and_the_best_trains_again(slope: Any, tmp_path: Path) -> None:
    lines: list[str] = []
    found = run(slope, tmp_path / "s", told=lines.append)
    assert [trial.state for trial in found.trials] == ["finished"] * 4 and found.best is found.trials[0]
    values = [trial.value for trial in found.trials]
    assert values == sorted(values) and len(set(values)) == 4
    for trial in found.trials:
        summary = read_summary(trial.path / "v001")
        assert summary["best"]["value"] == trial.value and summary["step"] == trial.steps == 20
        assert read_config(trial.path / "v001")["config"]["lr"] == trial.drawn["lr"]
    assert len(lines) == 4 and all(f"trial {number}: loss" in line for number, line in enumerate(lines, 1))
    assert any("(the best so far)" in line for line in lines)
    recipe = load_recipe(tmp_path / "s" / "config.yaml", slope)
    with recipe.build(run_dir=tmp_path / "again") as trainer:
        trainer.train()
    assert trainer.summary().digest == read_summary(found.best.path / "v001")["digest"]


def test_called_again_it_goes_on_and_does_nothing_twice(slope: Any, tmp_path: Path) -> None:
    before = run(slope, tmp_path / "s", trials=3)
    told: list[str] = []
    assert drawn(run(slope, tmp_path / "s", trials=3, told=told.append)) == drawn(before) and not told
    more = run(slope, tmp_path / "s", trials=5, told=told.append)
    assert drawn(more)[:3] == drawn(before) and len(told) == 2
    assert read_plan(tmp_path / "s").plan.trials == 5


def test_the_best_so_far_is_that_of_all_workers(slope: Any, tmp_path: Path) -> None:
    lines: list[str] = []
    planned = begin(recipe_of(slope), LR, tmp_path / "s", How(trials=3, sampler="random"))[0]
    told = Lines(planned, lines.append)  # of a worker that has seen none of the others' trials end
    for trial in reversed(run(slope, tmp_path / "s", trials=3).trials):
        told.tell(trial)
    assert ["(the best so far)" in line for line in lines] == [False, False, True]


def test_nested_settings_are_searched(slope: Any, tmp_path: Path) -> None:
    found = run(slope, tmp_path / "s", {"optim.momentum": "0..0.9"}, trials=2)
    assert found.best is not None
    assert read_config(found.best.path / "v001")["config"]["optim"] == {"momentum": found.best.drawn["optim.momentum"]}


def test_repeated_with_other_seeds_it_is_ranked_by_the_mean(slope: Any, tmp_path: Path) -> None:
    found = run(slope, tmp_path / "s", trials=2, repeat=3, settings={"seed": 5})
    for trial in found.trials:
        runs = [trial.path / f"v00{number}" for number in (1, 2, 3)]
        assert [read_config(each)["config"]["seed"] for each in runs] == [5, 6, 7]
        values = [read_summary(each)["best"]["value"] for each in runs]
        assert list(trial.values) == values and len(set(values)) == 3
        mean = sum(values) / 3
        assert trial.value == pytest.approx(mean)
        assert trial.spread == pytest.approx((sum((value - mean) ** 2 for value in values) / 2) ** 0.5)
        assert trial.steps == 60


def test_failed_trials_are_kept_named_and_counted_and_it_goes_on(slope: Any, tmp_path: Path) -> None:
    lines: list[str] = []
    found = run(slope, tmp_path / "s", {"width": "1|3|2|4"}, sampler="grid", told=lines.append)
    states = {trial.drawn["width"]: trial.state for trial in found.trials}
    assert states == {"1": "finished", "3": "failed", "2": "finished", "4": "failed"}
    errors = {trial.drawn["width"]: trial.error for trial in found.trials}
    assert errors["3"] == "ValueError: three is too wide" and errors["4"] == "its loss is NaN"
    assert "failed: ValueError: three is too wide; width=3" in lines[1]
    (three,) = (trial for trial in found.trials if trial.drawn["width"] == "3")
    assert "raise ValueError" in (three.path / "output.txt").read_text()
    assert read_summary(three.path / "v001")["status"] == "failed"


def test_too_many_failures_one_after_the_other_end_it(slope: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^5 trials failed one after the other, the last with: ValueError: three is"):
        run(slope, tmp_path / "s", LR, trials=9, settings={"width": 3})
    assert read_sweep(tmp_path / "s").count("failed") == 5
    # What was wrong has been mended meanwhile: the rest is tried.
    assert len(summaries(tmp_path / "s")) == 5


@pytest.mark.parametrize("workers", [1, 2])
def test_every_trial_is_logged_where_that_is_asked_for(
    slope: Any, program: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    path = tmp_path / "s"
    run(slope, tmp_path / "plain", trials=2)
    log = ["csv", f"csv={tmp_path / 'tables'}", f"tensorboard={tmp_path / 'board'}"]
    run(slope, path, trials=2, workers=workers, log=log)
    assert opening_of(path / "trial-002" / "v001", 0, {})["project"] == "s"  # a service has them side by side
    for trial in ("trial-001", "trial-002"):
        tables = [path / trial / "v001" / "csv", tmp_path / "tables" / "s" / trial / "v001"]
        assert all((table / "train.csv").is_file() for table in tables)
        assert list((tmp_path / "board" / trial / "v001").glob("events.*"))  # one directory shows one run
    assert digests(path) == digests(tmp_path / "plain")


def test_without_validation_the_last_value_in_training_counts(slope: Any, tmp_path: Path) -> None:
    found = run(slope, tmp_path / "s", trials=2, settings={"validate": False, "log_every": "1 step"})
    assert found.best is not None and found.best.value == read_summary(found.best.path / "v001")["metrics"]["loss"]
    with pytest.raises(RunError, match="there are no validation data to compare trials by"):
        run(slope, tmp_path / "p", trials=9, settings={"validate": False}, prune="median")
    lost = run(slope, tmp_path / "l", trials=1, metric="los", settings={"validate": False})
    assert lost.trials[0].error.startswith("there is no metric 'los'; did you mean 'loss'?")


def test_the_direction_says_which_is_best(slope: Any, tmp_path: Path) -> None:
    found = run(slope, tmp_path / "s", direction="max", trials=2)
    values = [trial.value for trial in found.trials]
    assert values == sorted(values, reverse=True)
    assert read_config(tmp_path / "s" / "trial-001" / "v001")["config"]["monitor_mode"] == "max"


# Pruning ------------------------------------------------------------------------------------------------------------

# Four that learn, and then one that hardly does.
PRUNED: dict[str, Any] = {
    "sampler": "grid",
    "prune": "median",
    "search": {"lr": [0.5, 0.4, 0.3, 0.2, 1e-4]},
    "settings": {"save_every": "1 step"},
    "trials": 5,
}


def test_a_trial_that_is_worse_than_the_median_is_ended_and_says_so(slope: Any, tmp_path: Path) -> None:
    found = run(slope, tmp_path / "s", **PRUNED)
    by_lr = {float(trial.drawn["lr"]): trial for trial in found.trials}
    assert by_lr[1e-4].state == "pruned" and by_lr[1e-4].steps < 20
    assert [by_lr[lr].state for lr in (0.5, 0.4, 0.3, 0.2)] == ["finished"] * 4
    summary = read_summary(by_lr[1e-4].path / "v001")
    assert (summary["status"], summary["reason"]) == ("finished", "pruned")
    assert found.trials[-1] is by_lr[1e-4]


def test_a_run_that_is_watched_for_pruning_has_the_digest_of_one_that_is_not(slope: Any, tmp_path: Path) -> None:
    plain = run(slope, tmp_path / "plain", trials=2)
    watched = run(slope, tmp_path / "watched", trials=2, prune="median")
    assert drawn(plain) == drawn(watched)
    assert digests(tmp_path / "plain") == digests(tmp_path / "watched")


def test_a_resumed_trial_is_still_pruned(
    slope: Any, tmp_path: Path, forked: Callable[[Callable[[], None]], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    slowly = PRUNED | {"settings": {"save_every": "1 step", "validate_every": "8 steps"}}
    run(slope, path, **slowly | {"trials": 4})
    # In a process that is killed in the fifth trial, before its first validation.
    monkeypatch.setenv("SLOPE_HOLD", "trial-005")
    child = forked(lambda: run(slope, path, **slowly))
    wait_for(lambda: held(path / "trial-005"))
    monkeypatch.delenv("SLOPE_HOLD")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert read_sweep(path).count("unfinished") == 1
    found = run(slope, path, **slowly)
    (fifth,) = (trial for trial in found.trials if trial.number == 5)
    assert fifth.state == "pruned" and [entry["event"] for entry in read_journal(fifth.path / "v001")].count("resume")


# Kills and stops ----------------------------------------------------------------------------------------------------


def test_killed_twice_no_trial_is_there_twice_and_none_is_lost(
    slope: Any, tmp_path: Path, forked: Callable[[Callable[[], None]], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, killed together, twice; what is left goes on to the digests of a sweep that nobody disturbed."""
    given = {"trials": 8, "settings": {"save_every": "1 step", "keep_checkpoints": 1}}
    run(slope, tmp_path / "undisturbed", **given)
    path = tmp_path / "s"

    left = []
    for names in (["trial-003", "trial-004"], ["trial-005", "trial-006"]):
        monkeypatch.setenv("SLOPE_HOLD", " ".join(names))
        workers = [forked(lambda: run(slope, path, **given)) for _ in range(2)]
        wait_for(lambda names=names: held(*(path / name for name in names)))
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        for worker in workers:
            os.waitpid(worker, 0)
        left += [trial for trial in read_sweep(path).trials if trial.state == "unfinished"]
    monkeypatch.delenv("SLOPE_HOLD")
    assert len(left) == 4 and len({trial.number for trial in left}) == 4
    found = run(slope, path, **given)
    assert sorted(trial.number for trial in found.trials) == list(range(1, 9)) and found.count("finished") == 8
    assert digests(path) == digests(tmp_path / "undisturbed") and len(digests(path)) == 8
    resumed = [entry for each in left for entry in read_journal(each.path / "v001") if entry["event"] == "resume"]
    assert len(resumed) == 4 and all(entry["step"] > 0 for entry in resumed)
    told = [json.loads(line) for line in (path / "optuna.journal").read_text().splitlines()]
    assert sum(entry["op_code"] == 4 for entry in told) == 8  # trials created
    assert drawn(found) == drawn(read_sweep(tmp_path / "undisturbed"))


def test_interrupted_it_stops_resumable_and_goes_on(
    slope: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    monkeypatch.setenv("SLOPE_HOLD", "trial-002")

    def interrupt() -> None:
        wait_for(lambda: held(path / "trial-002"))
        os.kill(os.getpid(), signal.SIGINT)
        wait_for(lambda: signal.getsignal(signal.SIGINT) is signal.SIG_DFL)  # it was heard
        (path / "trial-002" / "go").touch()

    thread = threading.Thread(target=interrupt)
    thread.start()
    given: dict[str, Any] = {"trials": 3, "settings": {"save_every": "1 step"}}
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(slope, path, **given)
    finally:
        torch.set_num_threads(1)
    thread.join()
    monkeypatch.delenv("SLOPE_HOLD")
    (stopped,) = (trial for trial in read_sweep(path).trials if trial.state == "unfinished")
    assert read_summary(stopped.path / "v001")["status"] == "stopped" and 6 < stopped.steps < 20
    assert run(slope, path, **given).count("finished") == 3
    # With as many threads as it had begun with, and the last one with as many as there are now.
    assert [each["event"] for each in read_journal(stopped.path / "v001")].count("environment changed") == 0
    threads = [read_environment(path / f"trial-00{number}" / "v001")["threads"]["torch"] for number in (1, 2, 3)]
    assert threads == [2, 2, 1]
    run(slope, tmp_path / "undisturbed", **given)
    assert digests(path) == digests(tmp_path / "undisturbed")


def test_a_kill_between_the_two_records_of_an_end_is_made_up_for(
    slope: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from treadle.sweeps.study import Study

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Study, "conclude", killed)
        with pytest.raises(KeyboardInterrupt):
            run(slope, tmp_path / "s", trials=2)
    before = summaries(tmp_path / "s")[0].stat().st_mtime_ns
    assert run(slope, tmp_path / "s", trials=2).count("finished") == 2
    assert summaries(tmp_path / "s")[0].stat().st_mtime_ns == before  # it was not trained again


def test_a_trial_that_somebody_resumes_by_hand_is_left_to_them(slope: Any, tmp_path: Path) -> None:
    path = tmp_path / "s"
    found = run(slope, path, trials=1)
    folder = found.trials[0].path
    begun = json.loads((folder / "trial.json").read_text())
    (folder / "trial.json").write_text(json.dumps(begun | {"state": "unfinished", "values": []}))
    journal = (path / "optuna.journal").read_text().splitlines(keepends=True)
    (path / "optuna.journal").write_text("".join(line for line in journal if '"op_code":6' not in line))
    with treadle.resume(folder / "v001", trainer=slope, max_epochs=5):
        assert run(slope, path, trials=1).count("unfinished") == 1
    assert run(slope, path, trials=1).count("finished") == 1


def test_a_disk_that_fills_ends_it_in_a_line_and_nothing_is_lost(slope: Any, tmp_path: Path) -> None:
    path = tmp_path / "s"
    given: dict[str, Any] = {"trials": 2, "settings": {"save_every": "1 step", "log_every": "1 step"}}
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    class Full(slope):  # type: ignore[misc]
        def step(self, batch: Any) -> Any:
            if self.progress.step == 7 and self.config.lr == lr:
                full = (self.run.path / "metrics.jsonl").stat().st_size + 7
                resource.setrlimit(resource.RLIMIT_FSIZE, (full, limits[1]))
            return super().step(batch)

    Full.__name__, Full.__qualname__, Full.__module__ = slope.__name__, slope.__qualname__, slope.__module__
    calm = run(slope, tmp_path / "calm", **given)
    lr = drawn(calm)[1]["lr"]
    try:
        with pytest.raises(UsageError, match=r"^trial 2 was stopped, and goes on when the sweep is started again: "):
            run(Full, path, **given)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [trial.state for trial in read_sweep(path).trials] == ["finished", "unfinished"]
    assert run(slope, path, **given).count("finished") == 2
    assert digests(path) == digests(tmp_path / "calm")
    assert "resume" in [entry["event"] for entry in read_journal(path / "trial-002" / "v001")]


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"search": {}}, "nothing is searched"),
        ({"search": {"lrr": "1..2"}}, "did you mean 'lr'?"),
        ({"search": {"momentum": "0..0.5"}}, "did you mean 'optim.momentum'?"),
        ({"search": {"seed": "1..2"}, "repeat": 2}, "seed cannot be searched, it is what repeat= changes"),
        ({"search": {"monitor": "a|b"}}, "monitor cannot be searched"),
        ({"trials": 0}, "trials is 0: expected a whole number, at least 1"),
        ({"repeat": 0}, "repeat is 0"),
        ({"workers": 0}, "workers is 0"),
        ({"workers": 2, "data": line_data()}, "data given as objects cannot be had in other processes"),
        ({"sampler": "grd"}, "did you mean 'grid'?"),
        ({"sampler": "grid"}, "search lr: a grid needs a factor"),
        ({"prune": "medium"}, "did you mean 'median'?"),
        ({"direction": "down"}, "expected 'min' or 'max'"),
        ({"settings": {"monitor": None}}, "the recipe monitors nothing"),
        ({"log": ["tensorbord"]}, "unknown sink 'tensorbord'; did you mean 'tensorboard'?"),
        ({"storage": "trials.db"}, "expected a database's URL"),
        ({"storage": "postgresql://me:secret@host/db"}, "TREADLE_SWEEP_STORAGE"),
        ({"storage": "nosuch://host/db"}, "cannot be used"),
        ({"storage": "postgresql://host/db"}, "cannot be used: it needs the Python module psycopg"),
        ({"storage": "sqlite://"}, "it would end with its process; name a file"),
        ({"storage": "sqlite:///:memory:"}, "it would end with its process; name a file"),
    ],
)
def test_what_is_wrong_is_said_before_there_is_anything(
    slope: Any, tmp_path: Path, given: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for driver in ("psycopg", "psycopg2"):  # whichever is the default
        monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(UsageError) as caught:
        run(slope, tmp_path / "s", **{"search": LR} | given)
    assert words in str(caught.value) and "\n" not in str(caught.value) and "secret" not in str(caught.value)
    assert not (tmp_path / "s").exists()  # which another search, or another database, would not be let into


def test_another_sweep_in_the_same_directory_is_refused_and_nothing_changes(slope: Any, tmp_path: Path) -> None:
    path = tmp_path / "s"
    run(slope, path, trials=1)
    before = {each: each.read_bytes() for each in path.glob("*.*")}
    for given, words in (
        ({"search": {"lr": "log:1e-3..10"}}, "search lr is 'log:1e-3..1' there, and 'log:1e-3..10' here"),
        ({"search": {"width": "1|2"}}, "is another sweep: it searches lr, and not width; give"),
        ({"sampler": "tpe"}, "sampler is 'random' there, and 'tpe' here"),
        ({"settings": {"batch_size": 5}}, "batch_size is 10 there, and 5 here"),
        ({"repeat": 2}, "repeat is 1 there, and 2 here"),
        ({"prune": "median"}, "prune is None there, and 'median' here"),
    ):
        with pytest.raises(UsageError) as caught:
            run(slope, path, **{"search": LR, "trials": 1} | given)
        assert words in str(caught.value) and "--run" in str(caught.value)
    with pytest.raises(UsageError, match="is a sweep of the trainer 'slope:Slope', not of 'image'"):
        run("image", path, {"seed": "1..5"})
    assert {each: each.read_bytes() for each in path.glob("*.*")} == before


def test_directories_that_hold_something_else_are_refused(slope: Any, tmp_path: Path) -> None:
    found = run(slope, tmp_path / "s", trials=1)
    with pytest.raises(UsageError, match="it is a run; give another directory"):
        run(slope, found.trials[0].path / "v001")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"thesis.tex is there already; give a new directory"):
        run(slope, tmp_path / "other")
    with pytest.raises(UsageError, match="it is a file"):
        run(slope, tmp_path / "other" / "thesis.tex")
    assert is_run(found.trials[0].path / "v001")


def test_a_directory_in_which_the_sweep_is_just_being_begun_is_not_refused(slope: Any, tmp_path: Path) -> None:
    """By another process that has been started at the same time, or was killed at that."""
    path = tmp_path / "s"
    path.mkdir()
    for name in (".lock", "recipe.yaml", ".recipe.yaml.0123abcd.part", ".sweep.yaml.0123abcd.part"):
        (path / name).touch()
    assert begin(recipe_of(slope), LR, path, How())[0].plan.trials == 20
    assert sorted(each.name for each in path.iterdir()) == [".lock", "recipe.yaml", "sweep.yaml"]


def test_a_journal_that_was_lost_is_noticed(slope: Any, tmp_path: Path) -> None:
    run(slope, tmp_path / "s", trials=2)
    (tmp_path / "s" / "optuna.journal").unlink()
    with pytest.raises(UsageError, match="knows 0 of the trials that are here: restore it"):
        run(slope, tmp_path / "s", trials=3)


# Databases ----------------------------------------------------------------------------------------------------------


def test_a_password_stays_in_the_environment(slope: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREADLE_SWEEP_STORAGE", "postgresql://me:hunter2@nowhere.invalid/db")
    asked = []

    class Connected(optuna.storages.RDBStorage):  # type: ignore[misc]
        def __init__(self, url: str, **_: Any) -> None:
            asked.append(url)
            if len(asked) == 1:
                raise OSError(f"no way to {url}")
            super().__init__(f"sqlite:///{tmp_path}/trials.db")

    monkeypatch.setattr(optuna.storages, "RDBStorage", Connected)
    with pytest.raises(UsageError, match=r"no way to postgresql://me@nowhere\.invalid/db$"):
        run(slope, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    run(slope, tmp_path / "s", trials=1)
    assert set(asked) == {"postgresql://me:hunter2@nowhere.invalid/db"}
    assert "storage: postgresql://me@nowhere.invalid/db" in (tmp_path / "s" / "sweep.yaml").read_text()
    files = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert not [each for each in files if b"hunter2" in each.read_bytes()]


def test_a_database_in_a_file_is_found_from_elsewhere_and_missed_where_it_was_lost(
    slope: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(slope, tmp_path / "s", trials=1, storage="sqlite:///trials.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    planned, recipe, url = go_on(tmp_path / "s", 2, slope)
    assert carry_out(planned, recipe, 1, url, print) == 0 and conclude(planned, url).count("finished") == 2
    assert not list(Path().iterdir())
    (tmp_path / "trials.db").unlink()
    with pytest.raises(UsageError, match=r"the database sqlite:///.*trials.db knows 0 of the trials that are here"):
        run(slope, tmp_path / "s", trials=3, storage=f"sqlite:///{tmp_path}/trials.db")
