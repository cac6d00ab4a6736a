"""Files of a run that are damaged, or forged with hashes that fit: named in one line, or gone around."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from treadle import Hook, StateError, TreadleError, UsageError
from treadle.checkpoint.state import digest_of
from treadle.checkpoint.store import LATEST, MANIFEST, PINS, VALUES, list_checkpoints, pin
from treadle.checkpoint.store import read_checkpoint as read
from treadle.files import hash_file
from treadle.runs.best import best_config, read_best
from treadle.runs.compare import compare, describe, table
from treadle.runs.fork import fork_run
from treadle.runs.run import BEST, INFO, JOURNAL, read_config, read_journal
from treadle.runs.verify import verify_run
from treadle.testing import Line, kill, line_data

DATA = line_data(24)


def make(run_dir: Path, **settings: Any) -> Line:
    settings = {"batch_size": 8, "max_epochs": 3, "save_every": "2 steps", "log_every": "1 step"} | settings
    return Line(data=DATA, validation_data=DATA, run_dir=run_dir, **settings)


def killed(run_dir: Path, steps: int = 7, **settings: Any) -> Path:
    trainer = make(run_dir, **settings)
    for _ in range(steps):
        trainer.iterate()
    kill(trainer)
    path: Path = trainer.run.path
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed after 7 steps, once resumed, and edited by hand."""
    run = killed(tmp_path_factory.mktemp("runs") / "line", 5)
    trainer = make(run, resume=True, max_epochs=4)
    trainer.commands.lr_multiplier(0.5)
    for _ in range(2):
        trainer.iterate()
    kill(trainer)
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "line" / "v001")
    return tmp_path / "line" / "v001"


# Whatever is in them ----------------------------------------------------------------------------------------------

ODD: list[Any] = [None, -1, True, 10**30, 1e300, "", "x", "../x", "\udcff", [], [1], {}, {"x": {}}]


def forgeries(value: Any, rng: random.Random, number: int) -> Iterator[Any]:
    """`value` with one thing in it gone, of another kind, or said twice, each time another."""
    places: list[tuple[Any, ...]] = []

    def walk(item: Any, at: tuple[Any, ...]) -> None:
        places.append(at)
        for key, inner in (
            item.items() if isinstance(item, dict) else enumerate(item[:3] if isinstance(item, list) else [])
        ):
            walk(inner, (*at, key))

    walk(value, ())
    for at in rng.sample(places, min(number, len(places))):
        copy = json.loads(json.dumps(value))
        if not at:
            yield rng.choice(ODD)
            continue
        holder = copy
        for key in at[:-1]:
            holder = holder[key]
        if isinstance(holder, dict) and rng.random() < 0.3:
            del holder[at[-1]]
        else:
            holder[at[-1]] = rng.choice(ODD)
        yield copy


def look(run: Path, other: Path) -> None:
    table([describe(run)])
    compare([run, other])


def resume(run: Path, other: Path) -> None:
    trainer = make(run, resume=True, max_epochs=4)
    trainer.iterate()
    kill(trainer)


READERS: dict[str, tuple[Callable[[Path, Path], object], ...]] = {
    "environment.json": (look, resume),
    "summary.json": (look,),
    "config.yaml": (look, resume, lambda run, other: best_config(run, Line.Config)),
    f"{BEST}/{INFO}": (look, lambda run, other: read_best(run)),
    f"checkpoints/{LATEST}": (resume,),
    f"checkpoints/{PINS}": (resume, lambda run, other: pin(list_checkpoints(run / "checkpoints")[0], "me")),
    JOURNAL: (resume, lambda run, other: verify_run(run, lambda path: make(path, max_epochs=4))),
    "metrics.jsonl": (look, resume),
}


@pytest.mark.parametrize("name", READERS)
def test_odd_values_in_a_runs_files_are_errors_in_one_line_or_do_no_harm(
    run: Path, whole: Path, tmp_path: Path, name: str
) -> None:
    path, rng = run / name, random.Random(name)
    pin(list_checkpoints(run / "checkpoints")[0], "a fork")
    (run / "summary.json").write_text(json.dumps(make(tmp_path / "other").train().to_dict(), default=str))
    kept = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    if path.suffix == ".jsonl":
        lines = path.read_text().splitlines()
        texts = []
        for _ in range(12):
            at = rng.randrange(len(lines))
            changed = json.dumps(next(forgeries(json.loads(lines[at]), rng, 1)))
            texts.append("\n".join([*lines[:at], changed, *lines[at + 1 :]]) + "\n")
    else:
        content = read_config(run) if path.suffix == ".yaml" else json.loads(path.read_text())
        texts = [json.dumps(forged) for forged in forgeries(content, rng, 8)] + ["{", ""]
        texts += ["[" * 5000] * (path.suffix == ".json")
    for text in texts:
        for reader in READERS[name]:
            path.write_text(text)
            try:
                reader(run, whole)
            except TreadleError as error:
                assert "\n" not in str(error), text
                assert path.name in str(error) or "cannot change" in str(error) or "has no checkpoint" in str(error), (
                    text
                )
            for there in [there for there in run.rglob("*") if there.is_file() and there not in kept]:
                there.unlink()
            for file, before in kept.items():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(before)


def forge(checkpoint: Path, content: Any) -> None:
    """Give a checkpoint other values, and the hashes and the digest that they should have."""
    (checkpoint / VALUES).write_text(json.dumps(content))
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    manifest["files"][VALUES]["sha256"] = hash_file(checkpoint / VALUES)
    if isinstance(content, dict) and "values" in content:
        manifest["digest"] = digest_of(content["values"], manifest["files"]["tensors.safetensors"]["sha256"])
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))


def test_a_state_forged_with_right_hashes_is_gone_around_or_refused(run: Path, tmp_path: Path) -> None:
    *_, before, newest = [path.relative_to(run) for path in list_checkpoints(run / "checkpoints")]
    good = json.loads((run / newest / VALUES).read_text())
    steps = set()
    for number, forged in enumerate(forgeries(good, random.Random(5), 60)):
        copy = tmp_path / str(number) / "v001"
        shutil.copytree(run, copy)
        forge(copy / newest, forged)
        try:
            trainer = make(copy, resume=True, max_epochs=4)
        except TreadleError as error:
            assert "\n" not in str(error)
            continue
        steps.add(trainer.progress.step)
        if trainer.progress.step == int(before.name[5:]):
            assert trainer.digest() == read(copy / before).digest
        kill(trainer)
    assert int(before.name[5:]) in steps


def test_a_fork_of_what_is_forged_is_whole_or_refused_by_the_files_name(run: Path, tmp_path: Path) -> None:
    checkpoint, config = list_checkpoints(run / "checkpoints")[-1], read_config(run)
    best, metrics = run / BEST / INFO, run / "metrics.jsonl"
    files = [checkpoint / VALUES, best, metrics]
    kept = {path: path.read_bytes() for path in [*files, checkpoint / MANIFEST]}
    lines, refused = metrics.read_text().splitlines(), set()
    for path in files:
        content = json.loads(lines[0] if path == metrics else path.read_text())
        for forged in forgeries(content, random.Random(path.name), 30):
            if path == metrics:
                path.write_text("\n".join([json.dumps(forged), *lines[1:]]) + "\n")
            elif path == best:
                path.write_text(json.dumps(forged))
            else:
                forge(checkpoint, forged)
            try:
                fork = fork_run(run, int(checkpoint.name[5:]), config, tmp_path / "forks")
            except TreadleError as error:
                assert str(path) in str(error) or (path.parent == checkpoint and str(checkpoint) in str(error))
                assert "\n" not in str(error) and ".treadle-new" not in str(error)
                refused.add(path)
            else:
                assert read(fork / "checkpoints" / checkpoint.name).digest == read(checkpoint).digest
            for file, before in kept.items():
                file.write_bytes(before)
    assert refused == {checkpoint / VALUES, metrics}, "a best model that is damaged is left out"
    assert not list((tmp_path / "forks").glob(".*"))


def test_a_state_that_cannot_be_restored_is_named_and_the_one_before_it_taken(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = list_checkpoints(run / "checkpoints")
    for checkpoint in reversed(checkpoints):
        content = json.loads((checkpoint / VALUES).read_text())
        content["values"]["minimizer"] = {"x": 1}
        forge(checkpoint, content)
        assert read(checkpoint).step == int(checkpoint.name[5:]), "the hashes do not tell"
        if checkpoint != checkpoints[0]:
            trainer = make(run, resume=True, max_epochs=4)
            assert trainer.progress.step < int(checkpoint.name[5:])
            kill(trainer)
            said = capsys.readouterr().err
            assert f"{checkpoint}: {VALUES} cannot be restored (" in said and "trying the one before it" in said
    with pytest.raises(StateError, match=r"step-0000000\d: state\.json cannot be restored"):
        make(run, resume=True, max_epochs=4)
    assert len(list_checkpoints(run / "checkpoints")) == len(checkpoints) and (run / "metrics.jsonl").stat().st_size


def test_a_fork_whose_checkpoint_is_lost_does_not_begin_as_another_run(run: Path, tmp_path: Path) -> None:
    fork = fork_run(run, 4, read_config(run), tmp_path / "forks")
    (checkpoint,) = list_checkpoints(fork / "checkpoints")
    (checkpoint / VALUES).write_text("{}")
    for _ in range(2):
        with pytest.raises(UsageError, match=r"has no checkpoint that can be read, and a fork has no other beginning"):
            make(fork, resume=True, max_epochs=4)
        shutil.rmtree(fork / "checkpoints", ignore_errors=True)


# Logs that lost lines ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["metrics.jsonl", JOURNAL])
@pytest.mark.parametrize("way", ["deleted", "emptied", "cut"])
def test_a_log_that_is_shorter_than_its_checkpoint_knows_is_noticed(
    run: Path, name: str, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = read(list_checkpoints(run / "checkpoints")[-1]).digest
    lines = (run / name).read_text().splitlines(keepends=True)
    if way == "deleted":
        (run / name).unlink()
    else:
        (run / name).write_text("".join(lines[: len(lines) // 2]) if way == "cut" else "")
    size = (run / name).stat().st_size if way != "deleted" else 0
    trainer = make(run, resume=True, max_epochs=4)
    assert trainer.digest() == digest
    assert f"{name} has {size} of the " in capsys.readouterr().err
    lost = [entry for entry in read_journal(run) if entry["event"] == "lines lost"]
    assert [(entry["log"], entry["bytes"]) for entry in lost] == [(name, size)]
    trainer.train()
    again = make(run, resume=True, max_epochs=5)
    assert f"{name} has" not in capsys.readouterr().err, "it is said once"
    kill(again)


def test_logs_that_have_all_their_lines_are_not_talked_about(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fork = fork_run(run, 4, read_config(run))
    for path in (run, fork, run):
        trainer = make(path, resume=True, max_epochs=4)
        trainer.iterate(), trainer.rewind(4), trainer.iterate(), trainer.iterate()
        trainer.test(DATA)
        kill(trainer)
    assert "lines are lost" not in capsys.readouterr().err


# Names that no text can say ---------------------------------------------------------------------------------------


def test_names_that_are_not_utf_8_are_names_like_others(tmp_path: Path) -> None:
    """Of a run's directory, a metric, a picture, a text, and what is noted."""
    directory = Path(os.fsdecode(os.fsencode(tmp_path) + b"/runs \xff\xfe"))
    trainer = make(directory / "v001")
    for _ in range(7):
        trainer.iterate()
        trainer.log("odd \udcff", 1.0)
    trainer.note("odd", name="\udcff\n\0")
    trainer.log_text("text \udcff", "\udcff")
    kill(trainer)
    resumed = make(directory / "v001", resume=True)
    assert resumed.progress.step == 6 and resumed.train().status == "finished"
    run = resumed.run.path
    assert "train/odd \udcff" in describe(run).values
    assert [entry["name"] for entry in read_journal(run) if entry["event"] == "odd"] == ["\udcff\n\0"]
    fork = fork_run(run, 6, read_config(run))
    assert read_journal(fork)[0]["parent"] == str(run)
    assert read_best(run).info["step"] == read(list_checkpoints(run / "checkpoints")[-1]).values["validated_step"]
    assert compare([run, fork]).names == ["v001", "v002"]


# What stays behind ------------------------------------------------------------------------------------------------


def test_a_trainer_that_is_dropped_lets_go_of_its_run(tmp_path: Path) -> None:
    class Watcher(Hook):
        observer = True

        def post_step(self, trainer: Any, batch: Any, outputs: Any) -> None: ...

    def drop() -> Path:
        trainer = make(tmp_path / "line", hooks=[Watcher()])
        for _ in range(5):
            trainer.iterate()
        trainer.save()  # no write is under way
        path: Path = trainer.run.path
        return path

    def descriptors() -> set[str]:
        return {
            name for name in os.listdir("/proc/self/fd") if "/line/v001" in os.path.realpath(f"/proc/self/fd/{name}")
        }

    gc.collect()
    gc.disable()
    try:
        run = drop()
        assert descriptors()
        with make(run, resume=True) as trainer:  # it looks for what has been dropped
            assert trainer.progress.step == 5 and trainer.train().status == "finished"
        trainer = None
        gc.collect()
        assert descriptors() == set()
    finally:
        gc.enable()


def test_what_a_killed_process_was_writing_goes_with_the_resume(run: Path) -> None:
    planted = [
        *(run / ".summary.json.0123abcd.part", run / "logs" / ".epoch.loss.npy.01234567.part"),
        *(run / "examples" / ".x.png.01234567.part", run / "checkpoints" / ".latest.json.01234567.part"),
    ]
    folders = [run / "checkpoints" / ".step-00000009-0123abcd", run / f".{BEST}.new"]
    mine = [run / ".notes", run / "notes.part", run / "logs" / ".part"]
    for path in [*planted, *mine]:
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    for folder in folders:
        folder.mkdir()
        (folder / VALUES).write_text("half")
    kill(make(run, resume=True, max_epochs=4))
    assert [path for path in [*planted, *folders] if path.exists()] == []
    assert all(path.exists() for path in mine), "what is somebody else's stays"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_of_a_run_may_be_read_by_whom_the_umask_lets(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        run = make(tmp_path / "line").train() and tmp_path / "line" / "v001"
        fork = fork_run(run, 6, read_config(run))
    finally:
        os.umask(before)
    for path in [*run.rglob("*"), *fork.rglob("*")]:
        wanted = (0o777 if path.is_dir() else 0o666) & ~mask
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
    assert (run / BEST / "weights.safetensors").exists()


def test_pins_set_at_once_are_all_there(run: Path) -> None:
    first, second = list_checkpoints(run / "checkpoints")[:2]
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)

    def several(process: int) -> None:
        barrier.wait()
        for number in range(10):
            pin((first, second)[process % 2], f"{process}-{number}")

    processes = [context.Process(target=several, args=(number,)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    pins = json.loads((run / "checkpoints" / PINS).read_text())
    assert sum(len(why) for why in pins.values()) == 40 and len(pins) == 2


def test_a_pin_beside_damaged_ones_keeps_what_they_may_have_kept(run: Path) -> None:
    checkpoints = list_checkpoints(run / "checkpoints")
    (run / "checkpoints" / PINS).write_text('{"step-0000')
    pin(checkpoints[-1], "me")
    assert json.loads((run / "checkpoints" / PINS).read_text()).keys() == {path.name for path in checkpoints}


def test_a_checkpoint_whose_name_has_no_number_is_none(run: Path) -> None:
    (run / "checkpoints" / "step-²").mkdir()
    (run / "checkpoints" / "step-").mkdir()
    assert read(list_checkpoints(run / "checkpoints")[-1]).step >= 6
    kill(make(run, resume=True, max_epochs=4))
