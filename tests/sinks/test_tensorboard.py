"""TensorBoard events, read back."""

from __future__ import annotations

import importlib.util
import io
import os
import signal
import subprocess
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.metadata import (
    parse_session_end_info_plugin_data,
    parse_session_start_info_plugin_data,
)

from tests.warm.python import python
from treadle import testing
from treadle.config.files import loads
from treadle.errors import RunError, UsageError
from treadle.runs.fork import fork_run
from treadle.runs.metrics import all_series, series
from treadle.runs.run import read_config, read_environment, read_journal, read_summary
from treadle.sinks.tensorboard import TensorBoard
from treadle.sinks.tensorboard_events import EventFile, event_files


def read(directory: Path) -> Any:
    accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def test_everything_can_be_read_back(line: Callable[..., Any], tmp_path: Path) -> None:
    trainer = line(run_dir=tmp_path / "line", hooks=[TensorBoard()])
    trainer.iterate()
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    trainer.log_image("probe", picture)
    trainer.log_image("grey", torch.full((2, 2), 0.5))
    trainer.log_text("note", "hello *there*")
    trainer.train()
    events = read(trainer.run.path / "tensorboard")
    assert {"train/loss", "train/psnr", "train/lr", "epoch/loss", "validation/loss"} <= set(events.Tags()["scalars"])
    for split in ("train", "validation"):
        steps, values = series(trainer.run.path, "loss", split)
        written = events.Scalars(f"{split}/loss")
        assert [event.step for event in written] == steps.tolist()
        np.testing.assert_allclose([event.value for event in written], values, rtol=1e-6)
    (image,) = events.Images("probe")
    assert image.step == 1
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image.encoded_image_string))), picture)
    grey = np.asarray(Image.open(io.BytesIO(events.Images("grey")[0].encoded_image_string)))
    assert (grey == 128).all()
    assert texts(events, "note") == {1: "hello *there*"}


def texts(events: Any, name: str) -> dict[int, str]:
    """The texts of that name, by step."""
    return {event.step: event.tensor_proto.string_val[0].decode() for event in events.Tensors(f"{name}/text_summary")}


def plain(text: str) -> Any:
    """The data in a text that shows it as YAML."""
    return loads(textwrap.dedent(text), source="a text")


def test_settings_environment_events_and_summary_are_there(line: Callable[..., Any], tmp_path: Path) -> None:
    trainer = line(run_dir=tmp_path / "line", hooks=[TensorBoard()], save_every="4 steps")
    trainer.train()
    trainer.test(trainer.validation_feed)
    run = trainer.run.path
    events = read(run / "tensorboard")
    (config,), (environment,) = texts(events, "config").values(), texts(events, "environment").values()
    assert plain(config) == read_config(run) and plain(environment) == read_environment(run)
    assert plain(texts(events, "summary")[12]) | {"seconds": 0} == read_summary(run) | {"seconds": 0}
    journal = read_journal(run)
    for name in {entry["event"] for entry in journal}:
        entries = [entry for entry in journal if entry["event"] == name]
        told = events.Tensors(f"events/{name}/text_summary")
        for entry, text in zip(entries, told, strict=True):
            head, _, details = text.tensor_proto.string_val[0].decode().partition("\n\n")
            assert text.step == entry["step"] and head == f"**{name}** after {entry['step']} steps"
            expected = {key: value for key, value in entry.items() if key not in ("event", "step", "epoch", "time")}
            assert (plain(details) if details else {}) == expected
    shown = {tag.split("/")[1] for tag in events.Tags()["tensors"] if tag.startswith("events/")}
    assert shown == {entry["event"] for entry in journal} >= {"start", "checkpoint", "finish"}
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    hyperparameters = parse_session_start_info_plugin_data(content).hparams
    assert hyperparameters["seed"].number_value == trainer.config.seed
    assert hyperparameters["log_every"].string_value == "2 steps"
    assert hyperparameters["deterministic"].bool_value is trainer.config.deterministic
    end = events.summary_metadata["_hparams_/session_end_info"].plugin_data.content
    assert parse_session_end_info_plugin_data(end).status == Status.STATUS_SUCCESS


def agrees(run: Path, directory: Path | None = None) -> None:
    """The scalars that TensorBoard reads are those of metrics.jsonl: each step once, nothing else."""
    events = read(directory or run / "tensorboard")
    logged = all_series(run)
    assert set(events.Tags()["scalars"]) == set(logged)
    for tag, (steps, values) in logged.items():
        assert [event.step for event in events.Scalars(tag)] == steps.tolist(), tag
        np.testing.assert_array_equal([event.value for event in events.Scalars(tag)], values.astype(np.float32))
    shown = of_the_page(directory or run / "tensorboard")
    assert all([event.step for event in shown.Tensors(tag)] == steps.tolist() for tag, (steps, _) in logged.items())


def of_the_page(directory: Path) -> Any:
    """What TensorBoard's page reads: by other rules than `EventAccumulator`."""
    accumulator = plugin_event_accumulator.EventAccumulator(str(directory), size_guidance={"tensors": 0})
    accumulator.Reload()
    return accumulator


def test_steps_that_are_taken_again_replace_the_old_events(line: Callable[..., Any], tmp_path: Path) -> None:
    first = line(run_dir=tmp_path / "line", hooks=[TensorBoard()], save_every="3 steps")
    for _ in range(8):
        first.iterate()
    first.close()
    resumed = line(run_dir=first.run.path, resume=True, hooks=[TensorBoard()], save_every="3 steps")
    resumed.train()
    agrees(first.run.path)
    assert [event.step for event in read(first.run.path / "tensorboard").Scalars("train/loss")] == [2, 4, 6, 8, 10, 12]


def test_rewinds_one_after_the_other_leave_each_step_once(line: Callable[..., Any], tmp_path: Path) -> None:
    """More than ten, within one second: TensorBoard reads its files in the order of their names."""
    trainer = line(run_dir=tmp_path / "line", hooks=[TensorBoard()], snapshot_every="1 steps")
    for _ in range(8):
        trainer.iterate()
    for _ in range(12):
        trainer.rewind(4)
        trainer.iterate()
        trainer.log_image("again", torch.zeros(2, 2))
        trainer.log_text("note", "again")
    trainer.train()
    trainer.test(trainer.validation_feed)
    agrees(trainer.run.path)
    assert [event.step for event in read(trainer.run.path / "tensorboard").Images("again")] == [5]
    shown = of_the_page(trainer.run.path / "tensorboard")
    assert [event.step for event in shown.Tensors("again")] == [5]
    assert [event.step for event in shown.Tensors("note/text_summary")] == [5]


KILLED = """
import os, signal, sys
from treadle import testing
from treadle.sinks.tensorboard import TensorBoard
for every in "3 steps", "100 steps":
    trainer = testing.Line(data=testing.line_data(40), batch_size=10, log_every="2 steps", max_epochs=3,
                           run_dir=sys.argv[1] + "/" + every, hooks=[TensorBoard()], save_every=every)
    for _ in range(8):
        trainer.iterate()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of two runs, one with checkpoints every 3 steps and one without any, killed at step 8."""
    runs = tmp_path_factory.mktemp("killed")
    assert subprocess.run([python(), "-c", KILLED, str(runs)]).returncode == -signal.SIGKILL
    return runs


@pytest.mark.parametrize("every", ["3 steps", "100 steps"])
def test_a_killed_run_goes_on_and_a_fork_has_its_past(killed: Path, every: str) -> None:
    run = killed / every / "v001"
    files = event_files(run / "tensorboard")
    assert [event.step for event in read(run / "tensorboard").Scalars("train/loss")] == [2, 4, 6, 8], "at once"
    with open(files[-1], "ab") as file:
        file.write(b"\x40\0\0\0\0\0\0\0torn")
    settings = {"data": testing.line_data(40), "batch_size": 10, "log_every": "2 steps", "max_epochs": 3}
    resumed = testing.Line(**settings, run_dir=run, resume=True, hooks=[TensorBoard()], save_every=every)
    assert resumed.progress.step in (3, 6) if every == "3 steps" else resumed.progress.step == 0  # it begins anew
    resumed.train()
    agrees(run)
    journal = Counter(entry["event"] for entry in read_journal(run))
    told = {name: len(read(run / "tensorboard").Tensors(f"events/{name}/text_summary")) for name in journal}
    assert told == journal and journal["resume"] == 1
    if every == "3 steps":
        fork = fork_run(run, 9, read_config(run))
        testing.Line(**settings, run_dir=fork, resume=True, hooks=[TensorBoard()], save_every=every).train()
        agrees(fork)
        events = read(fork / "tensorboard")
        assert events.Scalars("train/loss")[0].step == 2, "with its parent's past"
        assert f"parent: {run}" in texts(events, "events/fork")[9]


def test_what_the_files_lack_of_a_run_that_goes_on_is_written(line: Callable[..., Any], tmp_path: Path) -> None:
    """A session without TensorBoard between two with it; a disk that lost the end of a file."""
    first = line(run_dir=tmp_path / "line", hooks=[TensorBoard()], save_every="2 steps")
    first.iterate(), first.iterate()
    first.close()
    second = line(run_dir=first.run.path, resume=True, save_every="2 steps")
    for _ in range(4):
        second.iterate()
    second.close()
    third = line(run_dir=first.run.path, resume=True, hooks=[TensorBoard()], save_every="2 steps")
    third.iterate(), third.iterate()
    third.close()
    agrees(first.run.path)
    newest = event_files(first.run.path / "tensorboard")[-1]
    os.truncate(newest, newest.stat().st_size // 2)
    line(run_dir=first.run.path, resume=True, hooks=[TensorBoard()], save_every="2 steps").train()
    agrees(first.run.path)
    times = [event.wall_time for event in read(first.run.path / "tensorboard").Scalars("train/loss")]
    assert times == sorted(times)


def test_one_directory_shows_one_run(line: Callable[..., Any], tmp_path: Path) -> None:
    for epochs in (3, 2):
        trainer = line(run_dir=tmp_path / "line", hooks=[TensorBoard(tmp_path / "shown")], max_epochs=epochs)
        trainer.train()
    agrees(trainer.run.path, tmp_path / "shown")


@pytest.mark.parametrize("size", [0, 100, 16384, 70_001])
def test_checksums_are_the_packages_own(tmp_path: Path, size: int) -> None:
    text = np.random.default_rng(size).integers(32, 127, size, dtype=np.uint8).tobytes()
    file = EventFile(tmp_path)
    file.add(Event(step=3, file_version=text.decode()))
    file.close()
    assert [event.file_version for event in EventFileLoader(str(file.path)).Load()][-1] == text.decode()


def test_a_full_disk_is_reported_and_leaves_whole_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = EventFile(tmp_path)
    size = file.path.stat().st_size
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:20]))
        with pytest.raises(RunError, match=r"cannot write .*No space left"):
            file.add(Event(step=1, file_version="x" * 100))
    assert file.path.stat().st_size == size
    file.close()


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else real(name))
    with pytest.raises(UsageError, match=r"pip install 'treadle\[tensorboard\]'"):
        TensorBoard()


def test_without_a_place_to_write_it_is_reported(line: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert line(hooks=[TensorBoard()]).train().status == "finished"
    assert "TensorBoard has nowhere to write" in capfd.readouterr().err
