"""Creating and opening a run's directory."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
from pathlib import Path

import pytest

from treadle.errors import RunError, UsageError
from treadle.runs import aside
from treadle.runs import run as run_module
from treadle.runs.aside import create_run
from treadle.runs.run import Run, read_summary, versions


def test_versions_count_numerically(tmp_path: Path) -> None:
    directory = tmp_path / "runs" / "line"
    assert [create_run(directory).path.name for _ in range(11)] == [f"v{n:03d}" for n in range(1, 12)]
    (directory / "v999").mkdir()
    assert create_run(directory).path.name == "v1000"
    assert create_run(directory).path.name == "v1001"
    (directory / "v9-old").mkdir()
    assert [p.name for p in versions(directory)][-3:] == ["v999", "v1000", "v1001"]


def test_a_named_version_is_taken_as_it_is(tmp_path: Path) -> None:
    assert create_run(tmp_path / "line" / "v007").path == tmp_path / "line" / "v007"
    with pytest.raises(UsageError, match="v007 is not empty"):
        create_run(tmp_path / "line" / "v007")
    (tmp_path / "line" / "v008").mkdir()
    assert create_run(tmp_path / "line" / "v008").name == "line/v008"
    assert create_run(tmp_path / "line").name == "line/v009"
    (tmp_path / "large").mkdir()
    (tmp_path / "line" / "v012").symlink_to(tmp_path / "large")
    assert create_run(tmp_path / "line" / "v012").path == tmp_path / "line" / "v012"
    assert (tmp_path / "large" / "environment.json").exists() and (tmp_path / "line" / "v012").is_symlink()


def test_an_empty_directory_has_one_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes have both seen the directory empty: the second one to claim it is refused."""
    create_run(tmp_path / "v001")
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(()))
    with pytest.raises(UsageError, match="is not empty"):
        create_run(tmp_path / "v001")


@pytest.mark.parametrize("target", ["line", "line/v001"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_several_processes_at_once(tmp_path: Path, target: str) -> None:
    """Four processes begin together: each gets versions of its own, and a named version has one owner."""
    count = 8 if target == "line" else 1
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()

    def create() -> None:
        barrier.wait()
        for _ in range(count):
            try:
                results.put(create_run(tmp_path / target).path.name)
            except UsageError:
                results.put("refused")

    processes = [context.Process(target=create) for _ in range(4)]
    for process in processes:
        process.start()
    names = [results.get(timeout=60) for _ in range(4 * count)]
    for process in processes:
        process.join()
    if target == "line":
        assert sorted(names) == sorted(f"v{n:03d}" for n in range(1, 33))
    else:
        assert sorted(names) == ["refused", "refused", "refused", "v001"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "deeper", tmp_path / "file" / "v001"):
        with pytest.raises(UsageError, match="a file is in the way"):
            create_run(path)


def test_a_run_is_not_a_place_for_runs(tmp_path: Path) -> None:
    run = create_run(tmp_path / "line")
    moved = tmp_path / "elsewhere"
    run.path.rename(moved)
    with pytest.raises(UsageError, match="is a run itself"):
        create_run(moved)


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a directory that refuses writing even to root")
def test_a_directory_that_cannot_be_written() -> None:
    with pytest.raises(UsageError, match=r"no run can be made at /sys/kernel/runs: .*can be written") as caught:
        create_run("/sys/kernel/runs")
    assert "\n" not in str(caught.value)


def test_a_full_disk_at_creation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(aside, "write_whole", full)
    with pytest.raises(UsageError, match="No space left on device"):
        create_run(tmp_path / "line")
    assert list((tmp_path / "line").iterdir()) == []
    monkeypatch.undo()
    run = create_run(tmp_path / "line")
    monkeypatch.setattr(run_module, "write_whole", full)
    with pytest.raises(RunError, match=r"cannot write .*summary\.json: No space left"):
        run.write_summary({})


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "..", ".", "", "link/x"])
def test_names_that_escape_are_refused(tmp_path: Path, name: str) -> None:
    run = create_run(tmp_path / "line")
    (run.path / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="is no file of the run"):
        run.write(name, "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["line"]


def test_files_of_a_run(tmp_path: Path) -> None:
    run = create_run(tmp_path / "line")
    run.write("deep/er/file.txt", "text")
    run.write_config({"trainer": "image", "config": {"lr": 1e-3}})
    run.write_summary({"status": "finished", "metrics": {"loss": float("nan")}})
    assert (run.path / "deep/er/file.txt").read_text() == "text"
    assert read_summary(run.path) == {"status": "finished", "metrics": {"loss": "NaN"}}
    assert Run.open(run.path).path == run.path
    with pytest.raises(UsageError, match="is no run"):
        Run.open(tmp_path)


def test_environment_says_where_it_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "work"
    repository.mkdir()
    monkeypatch.chdir(repository)
    environment = json.loads((create_run(tmp_path / "a").path / "environment.json").read_text())
    assert environment["git"] is None
    assert {"torch", "numpy"} <= set(environment["packages"])
    assert environment["hardware"]["cores"] == os.cpu_count() and environment["hardware"]["cpu"]
    assert environment["threads"]["torch"] >= 1 and "python" in environment["command"]

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)

    git("init", "-q", "-b", "trunk")
    (repository / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "one")
    clean = json.loads((create_run(tmp_path / "a").path / "environment.json").read_text())["git"]
    (repository / "file").write_text("2")
    dirty = json.loads((create_run(tmp_path / "a").path / "environment.json").read_text())["git"]
    assert clean["dirty"] is False and dirty["dirty"] is True
    assert clean["commit"] == dirty["commit"] and len(clean["commit"]) == 40 and clean["branch"] == "trunk"


def test_the_config_is_on_the_disk_before_training_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create_run(tmp_path / "line")
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)
    run.write_config({"trainer": "line"})
    assert len(synced) == 1
