"""The trials as workers share them, without training any: what is drawn, who gets it, what is told."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from treadle import UsageError
from treadle.recipes.registry import recipe_of
from treadle.runs.lock import is_held
from treadle.sweeps import study as study_module
from treadle.sweeps.beginning import How, begin
from treadle.sweeps.importance import importance_of
from treadle.sweeps.plan import Planned
from treadle.sweeps.search import dimensions
from treadle.sweeps.study import Claim, Study
from treadle.sweeps.trials import Trial, read_sweep, write_trial

from .conftest import wait_for

pytest.importorskip("optuna")

SEARCH = {"lr": "log:1e-3..1", "width": "1|2|4"}


def opened(slope: Any, path: Path, search: Any = SEARCH, **given: Any) -> tuple[Study, Planned]:
    planned, recipe, url = begin(recipe_of(slope), search, path, How(**given))
    return Study(planned, dimensions(planned.plan.search, recipe), url, 1), planned


def end(study: Study, claim: Claim) -> Trial:
    """Let a trial come to something that depends on its learning rate alone."""
    trial = replace(claim.trial, state="finished", values=(float(claim.trial.drawn["lr"]) ** 2,))
    write_trial(trial)
    study.conclude(trial)
    return trial


def play(slope: Any, path: Path, trials: int, search: Any = SEARCH, **given: Any) -> list[Any]:
    """Take all trials that are left, one after the other; what was drawn for all there are."""
    study, _ = opened(slope, path, search, trials=trials, **given)
    while (claim := study.claim()) is not None:
        with claim:
            end(study, claim)
    return [trial.drawn for trial in by_number(path)]


def by_number(path: Path) -> Sequence[Trial]:
    return sorted(read_sweep(path).trials, key=lambda trial: trial.number)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_stopped_in_between_it_draws_the_same(slope: Any, tmp_path: Path, sampler: str) -> None:
    whole = play(slope, tmp_path / "whole", 14, sampler=sampler)
    for trials in (1, 12):
        play(slope, tmp_path / "parts", trials, sampler=sampler)
    assert play(slope, tmp_path / "parts", 14, sampler=sampler) == whole and len(whole) == 14
    assert len({drawn["lr"] for drawn in whole}) == 14 and {drawn["width"] for drawn in whole} == {"1", "2", "4"}


def test_random_depends_on_the_seed_and_the_number_alone(slope: Any, tmp_path: Path) -> None:
    whole = play(slope, tmp_path / "whole", 6, sampler="random")
    study, _ = opened(slope, tmp_path / "crowd", trials=6, sampler="random")
    claims = [study.claim() for _ in range(6)]  # six workers, of which none has come to anything
    assert [claim.trial.drawn for claim in claims if claim is not None] == whole
    other = recipe_of(slope).with_settings({"seed": 1})
    planned, recipe, _ = begin(other, SEARCH, tmp_path / "other", How(sampler="random"))
    claim = Study(planned, dimensions(SEARCH, recipe), None, 1).claim()
    assert claim is not None and claim.trial.drawn != whole[0]


def test_a_grid_is_taken_point_by_point(slope: Any, tmp_path: Path) -> None:
    search = {"lr": "log:0.01..1..10", "width": "1|2"}
    points = [{"lr": lr, "width": width} for lr in ("0.01", "0.1", "1.0") for width in "12"]
    assert play(slope, tmp_path / "s", 99, search, sampler="grid") == points
    _, planned = opened(slope, tmp_path / "t", search, sampler="grid")
    assert planned.plan.trials == 6


def test_tpe_learns(slope: Any, tmp_path: Path) -> None:
    drawn = play(slope, tmp_path / "s", 30, sampler="tpe")
    early, late = ([each["lr"] for each in part] for part in (drawn[:10], drawn[20:]))
    assert sorted(late)[5] < sorted(early)[5] / 3


def test_importance_tells_what_matters(slope: Any, tmp_path: Path) -> None:
    play(slope, tmp_path / "s", 5, sampler="random")
    assert importance_of(read_sweep(tmp_path / "s")) == {}
    play(slope, tmp_path / "s", 16, sampler="random")
    found = importance_of(read_sweep(tmp_path / "s"))
    assert list(found) == ["lr", "width"] and found["lr"] > 0.6 and sum(found.values()) == pytest.approx(1)


def test_a_trial_is_claimed_once_until_its_worker_is_gone(slope: Any, tmp_path: Path) -> None:
    first, _ = opened(slope, tmp_path / "s", trials=2)
    second, _ = opened(slope, tmp_path / "s", trials=2)
    one, two = first.claim(), second.claim()
    assert one is not None and two is not None and {one.trial.number, two.trial.number} == {1, 2}
    assert first.claim() is None and second.claim() is None
    with one:
        pass  # its worker has gone, and has told nothing
    again = second.claim()
    assert again is not None and again.resumed and again.trial == one.trial
    end(second, again)
    end(second, again)  # told twice
    assert first.claim() is None


def test_a_trial_that_ends_while_another_worker_looks_is_not_lost(
    slope: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = opened(slope, tmp_path / "s", trials=2)
    second, _ = opened(slope, tmp_path / "s", trials=2)
    claim = first.claim()
    assert claim is not None

    def slowly(run: Path) -> bool:
        monkeypatch.undo()
        end(first, claim)  # after it was seen to be under way
        claim.release()
        return is_held(run)

    monkeypatch.setattr(study_module, "is_held", slowly)
    taken = second.claim()
    assert taken is not None and not taken.resumed and taken.trial.number == 2


def test_processes_that_claim_at_once_get_each_trial_once(
    slope: Any, tmp_path: Path, forked: Callable[[Callable[[], None]], int]
) -> None:
    path = tmp_path / "s"
    opened(slope, path, trials=12, sampler="random")

    def go() -> None:
        study, _ = opened(slope, path, trials=12, sampler="random")
        while (claim := study.claim()) is not None:
            with claim:
                with open(tmp_path / "claims", "a") as file:
                    file.write(f"{claim.trial.number} ")
                end(study, claim)

    for child in [forked(go) for _ in range(3)]:
        os.waitpid(child, 0)
    assert sorted(map(int, (tmp_path / "claims").read_text().split())) == list(range(1, 13))


def test_killed_between_the_claim_and_its_record_a_trial_is_found(
    slope: Any, tmp_path: Path, forked: Callable[[Callable[[], None]], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    opened(slope, path, trials=2, sampler="random")

    def go() -> None:
        from treadle.sweeps import study

        monkeypatch.setattr(study, "write_trial", lambda trial: os.kill(os.getpid(), signal.SIGKILL))
        opened(slope, path, trials=2, sampler="random")[0].claim()

    os.waitpid(forked(go), 0)
    assert (path / "trial-001").is_dir() and not (path / "trial-001" / "trial.json").exists()
    assert play(slope, path, 2, sampler="random") == play(slope, tmp_path / "calm", 2, sampler="random")


def test_a_torn_journal_goes_on(slope: Any, tmp_path: Path) -> None:
    path = tmp_path / "s"
    play(slope, path, 2, sampler="random")
    with open(path / "optuna.journal", "ab") as file:
        file.write(b'{"op_code":4,"worker_id":"')
    assert len(play(slope, path, 4, sampler="random")) == 4
    assert all(json.loads(line) for line in (path / "optuna.journal").read_text().splitlines())


def test_two_directories_share_a_database_without_a_trial_twice(slope: Any, tmp_path: Path) -> None:
    given: dict[str, Any] = {"storage": f"sqlite:///{tmp_path}/trials.db", "study": "shared", "sampler": "random"}
    play(slope, tmp_path / "a", 2, **given)
    left, _ = opened(slope, tmp_path / "a", trials=3, **given)
    claim = left.claim()  # under way on another machine: not to be taken
    play(slope, tmp_path / "b", 5, **given)
    assert claim is not None and claim.trial.number == 3
    assert [trial.number for trial in by_number(tmp_path / "b")] == [4, 5]
    study, _ = opened(slope, tmp_path / "b", trials=5, **given)
    others = {trial.number: trial for trial in study.elsewhere()}
    assert {number: trial.state for number, trial in others.items()} == {1: "finished", 2: "finished", 3: "running"}
    assert others[1].value == by_number(tmp_path / "a")[0].value
    whole = play(slope, tmp_path / "whole", 5, sampler="random")
    assert [others[number].drawn for number in (1, 2, 3)] + [each.drawn for each in by_number(tmp_path / "b")] == whole
    with pytest.raises(UsageError, match=r"the study 'shared' in .* is another sweep's"):
        opened(slope, tmp_path / "c", {"width": "1|2"}, **given)
    assert not (tmp_path / "c").exists()


def test_a_suspended_holder_of_the_lock_is_said(
    slope: Any, tmp_path: Path, forked: Callable[[Callable[[], None]], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from treadle.sweeps import locking

    path = tmp_path / "s"
    study, _ = opened(slope, path, trials=2)

    def hold() -> None:
        with locking.locked(path / ".lock"):
            (tmp_path / "held").touch()
            os.kill(os.getpid(), signal.SIGSTOP)

    child = forked(hold)
    wait_for((tmp_path / "held").exists)
    monkeypatch.setattr(locking, "PATIENCE", 0.1)
    with pytest.raises(UsageError, match="look for one that is suspended"):
        study.claim()
    monkeypatch.setattr(locking, "PATIENCE", 60.0)
    os.kill(child, signal.SIGKILL)  # which takes its time
    assert study.claim() is not None
