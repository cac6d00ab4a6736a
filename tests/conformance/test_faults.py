"""Disks that fill, files that rot, files that attack, clocks that go back: reported in one line, or without effect."""

from __future__ import annotations

import ast
import contextlib
import itertools
import json
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gauntlet import Child, compare, outcome, reference_of
from gauntlet_trainers import SHORT, build

from treadle import RunError, StateError, Trainer, TreadleError, UsageError
from treadle.checkpoint.store import LATEST, MANIFEST, TENSORS, VALUES, list_checkpoints, pin
from treadle.checkpoint.store import read_checkpoint as read
from treadle.files import hash_file
from treadle.recipes.registry import load_recipe
from treadle.runs.aside import create_run
from treadle.runs.best import read_best
from treadle.runs.compare import find_runs
from treadle.runs.fork import fork_run
from treadle.runs.lock import RunLock
from treadle.runs.run import read_config, read_journal, read_summary, versions
from treadle.sinks.console import Console
from treadle.sinks.tensorboard import TensorBoard
from treadle.testing import kill

NAME = "line"


@pytest.fixture(scope="module")
def reference(child: Child, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome of the run that nothing happens to."""
    return reference_of(child, NAME, tmp_path_factory.mktemp("reference"))[0]


def killed(directory: Path, steps: int = 16) -> Path:
    """A run that was killed after so many steps."""
    trainer = build(NAME, run_dir=directory / "v001")
    for _ in range(steps):
        trainer.iterate()
    kill(trainer)
    return trainer.run.path


def finish(run: Path) -> dict[str, Any]:
    build(NAME, run_dir=run, resume=True).train()
    return outcome(run)


# Files that rot --------------------------------------------------------------------------------------------------


def damages(path: Path, rng: random.Random) -> Iterator[str]:
    """Cut the file at 50 places, then flip one bit at 50 places; it is whole again after each."""
    whole = path.read_bytes()
    size = len(whole)
    try:
        for cut in sorted({size * part // 50 for part in range(50)} - {size}):
            path.write_bytes(whole[:cut])
            yield f"{path.name} cut to {cut} of {size} bytes"
        for _ in range(50):
            place, bit = rng.randrange(size), rng.randrange(8)
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            yield f"{path.name}, bit {bit} of byte {place} flipped"
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", [TENSORS, VALUES, MANIFEST, LATEST, "pins.json"])
def test_a_checkpoints_files_cut_or_flipped_anywhere_are_noticed_or_harmless(tmp_path: Path, name: str) -> None:
    run = killed(tmp_path)
    checkpoints = list_checkpoints(run / "checkpoints")
    digests = {read(path).step: read(path).digest for path in checkpoints}
    pin(checkpoints[0], "a fork")
    newest = checkpoints[-1] / name if name in (TENSORS, VALUES, MANIFEST) else run / "checkpoints" / name
    found = []
    for what in damages(newest, random.Random(name)):
        trainer = build(NAME, run_dir=run, resume=True)
        assert digests.get(trainer.progress.step) == trainer.digest(), what
        found.append(trainer.progress.step)
        kill(trainer)
    assert len(found) >= 50 + min(50, newest.stat().st_size)
    if name in (TENSORS, VALUES):
        assert set(found) == {sorted(digests)[-2]}, "every one of these was noticed"


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "journal.jsonl", "metrics.jsonl", "summary.json"])
def test_a_runs_other_files_cut_or_flipped_give_one_line_or_nothing(tmp_path: Path, name: str) -> None:
    run = killed(tmp_path)
    if name == "summary.json":
        (run / name).write_text('{"status": "stopped"}')
    digest = read(list_checkpoints(run / "checkpoints")[-1]).digest
    kept = {path: path.read_bytes() for path in run.glob("*.*")}
    for what in damages(run / name, random.Random(name)):
        try:
            trainer = build(NAME, run_dir=run, resume=True)
        except TreadleError as error:
            assert ("\n" not in str(error) and name in str(error)) or "cannot change" in str(error), what
        else:
            assert trainer.digest() == digest, what
            kill(trainer)
        for path, content in kept.items():
            if path.name != name:
                path.write_bytes(content)


def test_damage_in_the_newest_checkpoint_costs_steps_and_nothing_else(
    tmp_path: Path, reference: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = killed(tmp_path)
    *_, before, newest = list_checkpoints(run / "checkpoints")
    (newest / TENSORS).unlink()
    (before / MANIFEST).write_text("{}")
    assert compare(reference, finish(run)) == []
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and newest.name in said[0] and before.name in said[1]
    assert [e["event"] for e in read_journal(run)].count("checkpoint damaged") == 2


# Files that attack -----------------------------------------------------------------------------------------------


class Bomb:
    """Unpickling one makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("name", [TENSORS, VALUES, MANIFEST])
def test_a_pickle_in_a_checkpoint_does_not_run(tmp_path: Path, name: str) -> None:
    run, marker = killed(tmp_path), tmp_path / "it ran"
    newest = list_checkpoints(run / "checkpoints")[-1]
    for content in (pickle.dumps(Bomb(marker)), _torch_save(Bomb(marker), tmp_path / "bomb.pt")):
        (newest / name).write_bytes(content)
        if name != MANIFEST:  # the attacker can also make the manifest fit
            manifest = json.loads((newest / MANIFEST).read_text())
            manifest["files"][name]["sha256"] = hash_file(newest / name)
            (newest / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(StateError):
            read(newest)
        trainer = build(NAME, run_dir=run, resume=True)
        assert trainer.progress.step < int(newest.name[5:])
        kill(trainer)
    (run / "best_model").mkdir()
    (run / "best_model" / "weights.safetensors").write_bytes(pickle.dumps(Bomb(marker)))
    info = {"monitor": None, "mode": "min", "value": None, "step": 1, "epoch": 0, "metrics": {}}
    (run / "best_model" / "metrics.json").write_text(json.dumps(info))
    with pytest.raises(UsageError, match=r"weights\.safetensors cannot be read"):
        read_best(run)
    assert not marker.exists()


def _torch_save(value: Any, path: Path) -> bytes:
    torch.save(value, path)
    return path.read_bytes()


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/object/new:os.system", "!!python/name:"])
def test_code_in_a_config_does_not_run(tmp_path: Path, tag: str) -> None:
    run, marker = killed(tmp_path), tmp_path / "it ran"
    text = f"trainer: line\nconfig: {tag} ['touch {marker}']\n".replace("name: [", "name:os.system [")
    (run / "config.yaml").write_text(text)
    for load in (load_recipe, lambda path: read_config(path.parent)):
        with pytest.raises(UsageError) as error:
            load(run / "config.yaml")
        assert "\n" not in str(error.value)
    kill(build(NAME, run_dir=run, resume=True))  # built from code, it has no need of the file
    assert not marker.exists()


def test_a_config_cannot_name_code(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("trainer: os:system\n")
    with pytest.raises(UsageError, match="a file cannot name code"):
        load_recipe(tmp_path / "recipe.yaml")


def test_nothing_that_reads_a_run_can_run_code() -> None:
    """No pickle, no eval, no unsafe YAML in the packages that read files of a run; a message may name them."""
    source = Path(build.__code__.co_filename).parents[2] / "src" / "treadle"
    banned = {"torch.load", "eval", "exec", "marshal.load", "marshal.loads", "pickle.load", "pickle.loads"}
    for package in ("checkpoint", "config", "engine", "hooks", "runs", "sinks", "cli", "recipes"):
        for path in (source / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    assert not {"pickle", "marshal", "shelve"} & {name.name for name in node.names}, path
                if isinstance(node, ast.ImportFrom):
                    assert node.module not in ("pickle", "marshal", "shelve"), path
                if isinstance(node, ast.Call):
                    called = ast.unparse(node.func)
                    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                    assert called not in banned, f"{path} calls {called}"
                    assert called != "yaml.load" or "SafeLoader" in path.read_text(), path
                    assert given.get("allow_pickle") != "True", path


# Disks that fill, or refuse --------------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(directory: Path, *options: str) -> Iterator[Path]:
    """A small filesystem of its own."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(directory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no mount here: {error}")
    if done.returncode:
        pytest.skip(f"may not mount a filesystem here: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def test_a_full_disk_fails_the_run_in_one_line_and_it_resumes_when_there_is_room(
    tmp_path: Path, reference: dict[str, Any]
) -> None:
    with mounted(tmp_path / "disk", "size=4m") as disk:
        trainer = build(NAME, run_dir=disk / "line" / "v001")
        for _ in range(10):
            trainer.iterate()
        trainer.loop.archive.finish()
        ballast = disk / "ballast"
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(1024))
        with pytest.raises(RunError, match="No space left on device") as error:
            trainer.train()
        assert "\n" not in str(error.value)
        assert trainer.status == "failed" and trainer.ended
        run = trainer.run.path
        good = [read(path).step for path in list_checkpoints(run / "checkpoints")]
        assert good[-1] == 9 and len(good) == 3
        ballast.unlink()
        assert compare(reference, finish(run)) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own thread
def test_a_disk_of_logs_that_is_full_takes_the_logs_and_nothing_else(tmp_path: Path) -> None:
    """TensorBoard's files and what the console says go to a disk without room, the run to another one."""
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    whole = build(NAME, run_dir=tmp_path / "whole")
    digest = whole.train().digest
    with mounted(tmp_path / "disk", "size=64k") as disk:
        (disk / "ballast").write_bytes(bytes(60_000))
        with open(disk / "log", "w") as log:
            trainer = build(NAME, run_dir=tmp_path / "line")
            for sink in (TensorBoard(disk / "tensorboard"), Console(log)):
                trainer.add_hook(sink)
            with open(disk / "rest", "wb", buffering=0) as rest, contextlib.suppress(OSError):
                while True:
                    rest.write(bytes(512))
            assert trainer.train().digest == digest
            with contextlib.suppress(OSError):
                log.close()
    failures = [entry for entry in trainer.journal if entry["event"] == "observer failed"]
    assert 1 <= len(failures) <= 5 and {entry["observer"] for entry in failures} == {"TensorBoard"}


def test_room_for_lines_but_not_for_checkpoints_is_put_up_with(tmp_path: Path) -> None:
    class Wide(Trainer):
        def setup(self) -> None:
            self.model = torch.nn.Linear(1, 20_000)
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)

        def step(self, batch: Any) -> Any:
            loss = self.model(batch).square().mean()
            self.minimize(loss)
            if self.progress.step == 8:
                with contextlib.suppress(RunError):
                    self.loop.archive.finish()
                ballast.unlink(missing_ok=True)
            return loss

    def make(**where: Any) -> Wide:
        return Wide(data=torch.ones(36, 1), batch_size=3, max_epochs=1, **SHORT, **where)

    with mounted(tmp_path / "disk", "size=1m") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(790_000))
        trainer = make(run_dir=disk / "line", keep_checkpoints=1)
        assert trainer.train().status == "finished"
        failed = [entry for entry in trainer.journal if entry["event"] == "checkpoint failed"]
        assert failed and "No space left on device" in failed[0]["error"]
        assert not list((trainer.run.path / "checkpoints").glob(".step*")), "half-written ones are gone"
        whole = make(run_dir=tmp_path / "line", keep_checkpoints=1)
        whole.train()
        assert trainer.summary().digest == whole.summary().digest


def test_a_file_size_limit_is_a_full_disk_to_it(tmp_path: Path, child: Child) -> None:
    """The same without a filesystem of its own, where mounting is not allowed."""
    import resource

    trainer = build(NAME, run_dir=tmp_path / "v001")
    for _ in range(5):
        trainer.iterate()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        with pytest.raises(RunError, match=r"File too large|No space left"):
            trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert finish(tmp_path / "v001")["status"] == "finished"


def test_a_read_only_directory_is_refused_in_one_line(tmp_path: Path, reference: dict[str, Any]) -> None:
    with mounted(tmp_path / "disk", "size=4m") as disk:
        run = killed(disk)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        try:
            for where in ({"run_dir": run, "resume": True}, {"run_dir": disk / "new"}):
                with pytest.raises(UsageError, match="Read-only file system") as error:
                    build(NAME, **where)
                assert "\n" not in str(error.value)
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert compare(reference, finish(run)) == []


def test_a_disk_that_becomes_read_only_fails_the_run_and_it_resumes(tmp_path: Path, reference: dict[str, Any]) -> None:
    with mounted(tmp_path / "disk", "size=4m") as disk:
        trainer = build(NAME, run_dir=disk / "v001")
        for _ in range(10):
            trainer.iterate()
        trainer.loop.archive.finish()
        trainer.run.close()  # a file that is open for writing keeps a filesystem from becoming read-only
        trainer.loop.archive.release()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(RunError, match="Read-only file system"):
            trainer.train()
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert compare(reference, finish(disk / "v001")) == []


# Forks that are killed -------------------------------------------------------------------------------------------

CALLS = ("mkdir", "write", "fsync", "ftruncate", "truncate", "chmod", "rename", "replace", "unlink", "rmdir")
"""The system's calls by which a fork comes into being, besides those that open a file and those that copy one."""


def forked(parent: Path, target: Path, nth: int | None = None) -> int:
    """Fork `parent` at step 9 in a process of its own, killed before the n-th such call; returns how it ended."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    calls = itertools.count(1)

    def dying(call: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return counted

    def hear(event: str, _: Any) -> None:
        if event == "open" and next(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    def half(old: Any, new: Any, length: int) -> None:
        """Copy a file's first half before the copying itself."""
        content = old.read()
        new.write(content[: len(content) // 2])
        new.flush()
        if next(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        new.write(content[len(content) // 2 :])

    try:
        for name in CALLS:
            setattr(os, name, dying(getattr(os, name)))
        shutil.copyfileobj = half  # type: ignore[assignment]
        sys.addaudithook(hear)
        fork_run(parent, 9, read_config(parent), target)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def content(run: Path) -> dict[str, Any]:
    """All files of a run, without what tells when and where it was made."""
    files: dict[str, Any] = {}
    for path in run.rglob("*"):
        name = str(path.relative_to(run))
        if path.is_file() and name not in ("environment.json", ".lock"):
            files[name] = path.read_bytes()
    files["journal.jsonl"] = [{**entry, "time": None} for entry in read_journal(run)]
    assert json.loads((run / "environment.json").read_text())["packages"]
    return files


def test_a_fork_that_is_killed_anywhere_leaves_no_run_or_the_whole_one(
    tmp_path: Path, reference: dict[str, Any]
) -> None:
    parent = killed(tmp_path)
    assert forked(parent, tmp_path / "whole") == 0
    whole = content(tmp_path / "whole" / "v001")
    assert {"config.yaml", "metrics.jsonl", "checkpoints/step-00000009/tensors.safetensors"} <= whole.keys()
    kills, found = 0, 0
    for nth in itertools.count(1):
        code = forked(parent, tmp_path / "forks", nth)
        there = find_runs(tmp_path / "forks") if (tmp_path / "forks").exists() else []
        assert [path.name for path in there] == [f"v{number + 1:03d}" for number in range(len(there))]
        assert len(there) in (found, found + 1), f"killed before call {nth}"
        for run in there[found:]:
            assert content(run) == whole, f"killed before call {nth}"
        found = len(there)
        left = len(list((tmp_path / "forks").glob(".*")))
        assert left <= 1, "what the one before it had left is gone"
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert kills > 40 and left == 0 and 1 < found < kills / 2
    assert compare(reference, finish(there[0])) == [], "the fork that was killed when it was there"


def test_forks_made_at_once_are_all_there(tmp_path: Path) -> None:
    """Four processes fork, and one begins new runs, in one directory: each gets versions of its own, and all of it."""
    parent = killed(tmp_path)
    context = multiprocessing.get_context("fork")
    barrier, config = context.Barrier(5), read_config(parent)

    def fork() -> None:
        barrier.wait()
        for _ in range(5):
            fork_run(parent, 9, config, tmp_path / "forks")

    def create() -> None:
        barrier.wait()
        for _ in range(20):
            create_run(tmp_path / "forks")

    processes = [context.Process(target=target) for target in (*[fork] * 4, create)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    runs = versions(tmp_path / "forks")
    assert [run.name for run in runs] == [f"v{number:03d}" for number in range(1, 41)]
    assert len([run for run in runs if (run / "config.yaml").exists()]) == 20
    for run in runs:
        if (run / "config.yaml").exists():
            assert read(run / "checkpoints" / "step-00000009").step == 9 and len(read_journal(run)) == 1
    assert not list((tmp_path / "forks").glob(".*"))


# Processes, clocks, places ---------------------------------------------------------------------------------------


def test_a_second_process_is_refused_and_changes_nothing(tmp_path: Path, child: Child) -> None:
    trainer = build(NAME, run_dir=tmp_path / "v001")
    for _ in range(10):
        trainer.iterate()
    trainer.loop.archive.finish()
    before = {path: path.read_bytes() for path in sorted(trainer.run.path.rglob("*")) if path.is_file()}
    log = tmp_path / "log"
    task = {"name": NAME, "run": str(tmp_path / "v001"), "workers": 0, "log": str(log), "kill": None}
    assert child.run(task)["code"] == 1
    assert f"is being trained by process {os.getpid()} on " in log.read_text().splitlines()[-1]
    assert {path: path.read_bytes() for path in sorted(trainer.run.path.rglob("*")) if path.is_file()} == before
    assert trainer.train().status == "finished"
    assert child.run(task)["code"] == 0


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(theirs, b"!")
        time.sleep(600)
        os._exit(0)
    try:
        os.read(ours, 1)  # it runs
        lock.release()
        RunLock(tmp_path).release()
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_a_clock_that_goes_backwards_changes_nothing(
    tmp_path: Path, reference: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: 1.8e9 - 3600 * next(hours))
    run = killed(tmp_path)
    assert compare(reference, finish(run)) == []
    assert read_summary(run)["seconds"] > 0


def test_a_run_moved_to_another_place_goes_on_there(tmp_path: Path, reference: dict[str, Any]) -> None:
    run = killed(tmp_path)
    copy = tmp_path / "another" / "place" / "v007"
    shutil.copytree(run, copy)
    shutil.rmtree(run)
    assert compare(reference, finish(copy)) == []
    assert not run.exists()
