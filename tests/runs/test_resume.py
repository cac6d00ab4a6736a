"""Resuming a run on disk: what it goes on from, what may change, who may do it."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
from pathlib import Path

import pytest
import torch

from tests.warm.python import python
from treadle import Hook, UsageError
from treadle.checkpoint.compare import differences
from treadle.checkpoint.store import list_checkpoints
from treadle.errors import DataChanged
from treadle.runs.metrics import read_metrics
from treadle.runs.run import read_config, read_journal, read_summary
from treadle.testing import capture, kill


@pytest.fixture
def killed(line, tmp_path):
    """A run that was killed after `steps` steps, with a checkpoint after every second."""

    def make(steps=5, **settings):
        trainer = line(run_dir=tmp_path / "line", save_every="2 steps", log_every="1 step", **settings)
        for _ in range(steps):
            trainer.iterate()
        kill(trainer)
        return trainer.run.path

    return make


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_a_killed_run_goes_on_to_the_same_digest_and_the_same_metric_lines(killed, line, tmp_path, steps):
    path = killed(steps)
    resumed = line(run_dir=path, resume=True, save_every="2 steps", log_every="1 step")
    assert resumed.progress.step == steps // 2 * 2
    resumed.train()
    whole = line(run_dir=tmp_path / "whole", save_every="2 steps", log_every="1 step")
    whole.train()
    assert resumed.summary().digest == whole.summary().digest is not None
    lines = [[entry | {"time": 0} for entry in read_metrics(run)] for run in (path, whole.run.path)]
    assert lines[0] == lines[1]
    assert read_summary(path)["status"] == "finished"


def test_resuming_a_finished_run_does_nothing_unless_a_limit_is_raised(line, tmp_path, diary):
    first = line(run_dir=tmp_path / "line")
    first.train()
    again = line(run_dir=first.run.path, resume=True, hooks=[diary])
    assert again.ended and again.train().status == "finished"
    assert diary.lines == []
    more = line(run_dir=first.run.path, resume=True, max_epochs=3)
    assert more.train().epoch == 3
    whole = line(max_epochs=3)
    whole.train()
    assert torch.equal(more.model.weight, whole.model.weight)
    assert read_config(first.run.path)["config"]["max_epochs"] == 3
    entry = next(entry for entry in read_journal(first.run.path) if entry["event"] == "resume")
    assert entry["changed"] == {"max_epochs": [2, 3]}


def test_a_setting_that_an_older_version_did_not_have_counts_as_its_default(killed, line):
    path = killed(3)
    journal = path / "journal.jsonl"
    entries = [json.loads(text) for text in journal.read_text().splitlines()]
    for entry in entries:
        if isinstance(entry.get("settings"), dict):
            del entry["settings"]["drop_last"]
    journal.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    with pytest.raises(UsageError, match="drop_last"):
        line(run_dir=path, resume=True, save_every="2 steps", log_every="1 step", drop_last=True)
    resumed = line(run_dir=path, resume=True, save_every="2 steps", log_every="1 step")
    assert resumed.train().status == "finished"
    assert not read_journal(path)[-2].get("changed")


def assert_same_end(line, resumed):
    """`resumed` is where a run that was never interrupted ends."""
    whole = line(log_every="1 step")
    whole.train()
    assert list(differences(capture(whole), capture(resumed))) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 3}, r"cannot change seed \(0 -> 3\)"),
        ({"batch_size": 10, "clip_norm": 1.0}, r"batch_size \(20 -> 10\), clip_norm \(None -> 1.0\)"),
    ],
)
def test_what_determines_the_past_cannot_change(killed, line, settings, message):
    path = killed()
    with pytest.raises(UsageError, match=message):
        line(run_dir=path, resume=True, save_every="2 steps", log_every="1 step", **settings)
    line(run_dir=path, resume=True, save_every="2 steps", log_every="1 step").close()  # the lock was released


def test_changed_data_is_noticed(killed, line, line_data):
    path = killed()
    x, y = line_data
    y = y.clone()
    y[17] += 1e-6
    with pytest.raises(DataChanged, match="the data of 'feed' is not what it was") as caught:
        line(run_dir=path, resume=True, save_every="2 steps", log_every="1 step", data=(x, y))
    assert caught.value.exit_code == 2


def test_a_second_process_is_refused(line, tmp_path):
    trainer = line(run_dir=tmp_path / "line", save_every="1 step")
    trainer.iterate()
    code = f"""
        from treadle.runs.lock import RunLock
        from treadle import UsageError
        from pathlib import Path
        try:
            RunLock(Path({str(trainer.run.path)!r}))
        except UsageError as error:
            print(error)
    """
    done = subprocess.run([python(), "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert "is being trained by process" in done.stdout
    trainer.close()


def test_a_damaged_checkpoint_is_reported_and_the_one_before_used(killed, line, capsys):
    path = killed(5)
    newest = list_checkpoints(path / "checkpoints")[-1]
    with open(newest / "tensors.safetensors", "r+b") as file:
        file.seek(200)
        file.write(b"\xff\xff")
    resumed = line(run_dir=path, resume=True, save_every="2 steps", log_every="1 step")
    assert resumed.progress.step == 2
    assert "tensors.safetensors is damaged" in capsys.readouterr().err
    resumed.train()
    assert_same_end(line, resumed)


def test_a_run_killed_before_its_first_checkpoint_starts_anew(killed, line):
    path = killed(1)
    resumed = line(run_dir=path, resume=True, save_every="2 steps", log_every="1 step")
    assert resumed.progress.step == 0
    resumed.train()
    assert_same_end(line, resumed)
    assert [entry["step"] for entry in read_metrics(path) if entry["split"] == "train"] == [1, 2, 3, 4, 5, 6]


def test_a_run_copied_elsewhere_resumes_there(killed, line, tmp_path):
    import shutil

    path = killed(5)
    copy = tmp_path / "elsewhere" / "v003"
    shutil.copytree(path, copy)
    resumed = line(run_dir=copy, resume=True, save_every="2 steps", log_every="1 step")
    resumed.train()
    assert_same_end(line, resumed)


def test_patience_is_not_forgotten(line, line_class, line_data, tmp_path):
    class Flat(line_class):
        def validation_step(self, batch):
            return {"loss": 1.0}

    settings = {"validation_data": line_data, "patience": 4, "max_epochs": 50, "save_every": "1 epoch"}
    whole = line(Flat, run_dir=tmp_path / "whole", **settings)
    assert whole.train().epoch == 5
    part = line(Flat, run_dir=tmp_path / "line", **settings)
    for _ in range(9):
        part.iterate()
    kill(part)
    resumed = line(Flat, run_dir=part.run.path, resume=True, **settings)
    assert resumed.train().epoch == 5
    assert list(differences(capture(whole), capture(resumed))) == []


def test_failing_writes_are_reported_and_fail_the_run_only_when_the_last_good_one_is_old(line, tmp_path, monkeypatch):
    from treadle.checkpoint import store

    real, broken = store.pieces, []

    def pieces(tensors):
        if broken:
            raise OSError(28, "No space left on device")
        return real(tensors)

    monkeypatch.setattr(store, "pieces", pieces)

    class Breaks(Hook):
        def post_step(self, trainer, batch, outputs):
            broken[:] = [1] if trainer.progress.step in (2, 3) else []
            trainer.loop.archive.finish() if trainer.progress.step < 2 else None

    trainer = line(run_dir=tmp_path / "patient", save_every="1 step", hooks=[Breaks()])
    assert trainer.train().status == "finished"
    events = [entry["event"] for entry in trainer.journal]
    assert "checkpoint failed" in events and events.count("checkpoint") >= 3

    broken[:] = [1]
    trainer = line(run_dir=tmp_path / "impatient", save_every="1 step", save_patience=1e-3, max_epochs=50)
    with pytest.raises(Exception, match="No space left on device; free some space"):
        trainer.train()
    assert json.loads((trainer.run.path / "summary.json").read_text())["status"] == "failed"


def test_resume_needs_a_run(line, tmp_path):
    with pytest.raises(UsageError, match="resume needs the run"):
        line(resume=True)
    with pytest.raises(UsageError, match="is no run"):
        line(run_dir=tmp_path / "nothing", resume=True)
    with pytest.raises(UsageError, match="resume is 'atuo': expected True, False or 'auto'"):
        line(run_dir=tmp_path / "nothing", resume="atuo")
    assert not (tmp_path / "nothing").exists()


def test_the_newest_version_is_resumed(line, killed):
    first, second = killed(2), killed(4)
    assert (first.name, second.name) == ("v001", "v002")
    settings = {"save_every": "2 steps", "log_every": "1 step"}
    resumed = line(run_dir=first.parent, resume=True, **settings)
    assert resumed.run.path == second and resumed.progress.step == 4
    resumed.close()
    first.rename(first.with_name("v010"))  # versions are numbers
    resumed = line(run_dir=str(first.parent), resume=True, **settings)
    assert resumed.run.path == first.with_name("v010") and resumed.progress.step == 2


def test_auto_starts_or_resumes_in_one_call(line, tmp_path):
    def call(where="line", **settings):
        return line(run_dir=tmp_path / where, resume="auto", save_every="2 steps", log_every="1 step", **settings)

    first = call()
    for _ in range(3):
        first.iterate()
    kill(first)
    again = call()
    assert again.run.path == first.run.path == tmp_path / "line" / "v001" and again.progress.step == 2
    with pytest.raises(UsageError, match=r"is being trained.*\(resume='auto' found .*v001; resume=False begins a new"):
        call()
    again.train()
    assert_same_end(line, again)
    following = call()
    assert following.run.path.name == "v002" and following.progress.step == 0, "the newest has finished"
    following.iterate()
    following.close()
    with pytest.raises(UsageError, match=r"cannot change seed .*\(resume='auto' found .*v002; resume=False begins"):
        call(seed=5)
    assert call().run.path.name == "v002", "what was stopped goes on"


def test_auto_on_a_version_is_about_that_one(line, tmp_path):
    path = tmp_path / "line" / "v003"
    first = line(run_dir=path, resume="auto")
    assert first.run.path == path
    step = first.train().step
    done = line(run_dir=path, resume="auto")
    assert done.ended and done.train().step == step and not path.with_name("v004").exists()
    more = line(run_dir=path, resume="auto", max_epochs=3)
    assert more.run.path == path and more.train().step > step


def test_a_run_killed_before_its_summary_gets_it(line, tmp_path):
    first = line(run_dir=tmp_path / "line")
    first.train()
    written = (first.run.path / "summary.json").read_bytes()
    (first.run.path / "summary.json").unlink()
    again = line(run_dir=first.run.path, resume=True)
    assert again.ended
    again = json.loads((first.run.path / "summary.json").read_text())
    assert again | {"seconds": 0} == json.loads(written) | {"seconds": 0}


@pytest.mark.parametrize("noted", [True, False])
def test_a_run_that_patience_has_ended_stays_ended_until_patience_is_raised(
    line, line_class, line_data, tmp_path, noted
):
    class Flat(line_class):
        def validation_step(self, batch):
            return {"loss": 1.0}

    settings = {"validation_data": line_data, "max_epochs": 50}
    first = line(Flat, run_dir=tmp_path / "line", patience=2, **settings)
    assert first.train().epoch == 3
    if not noted:  # killed between the last checkpoint and the end
        journal = first.run.path / "journal.jsonl"
        kept = [text for text in journal.read_text().splitlines() if '"finish"' not in text]
        journal.write_text("\n".join(kept) + "\n")
    again = line(Flat, run_dir=first.run.path, resume=True, patience=2, **settings)
    assert again.ended == noted
    assert (again.train().epoch, again.summary().reason) == (3, first.summary().reason)
    assert again.summary().digest == first.summary().digest
    more = line(Flat, run_dir=first.run.path, resume=True, patience=5, **settings)
    assert more.train().epoch == 6


@pytest.mark.parametrize(("before", "after"), [(None, 2), (2, None)])
def test_patience_may_be_set_or_lifted(line, line_data, tmp_path, before, after):
    settings = {"validation_data": line_data, "save_every": "1 step"}
    first = line(run_dir=tmp_path / "line", patience=before, **settings)
    first.iterate()
    first.close()
    resumed = line(run_dir=first.run.path, resume=True, patience=after, **settings)
    assert resumed.progress.step == 1 and resumed.train().status == "finished"


def test_another_thread_count_is_warned_about_and_refused_where_determinism_was_asked_for(line, tmp_path, capsys):
    first = line(run_dir=tmp_path / "line", save_every="1 step")
    first.iterate()
    first.close()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 3)
        resumed = line(run_dir=first.run.path, resume=True, save_every="1 step")
        resumed.close()
        said = capsys.readouterr().err
        assert f"torch threads {threads} -> {threads + 3}" in said and said.count("\n") == 1
        noted = [entry for entry in read_journal(first.run.path) if entry["event"] == "environment changed"]
        assert [entry["changed"] for entry in noted] == [{"torch threads": [threads, threads + 3]}]
        with pytest.raises(UsageError, match="not the environment of the run"):
            line(run_dir=first.run.path, resume=True, save_every="1 step", deterministic=True)
    finally:
        torch.set_num_threads(threads)
    line(run_dir=first.run.path, resume=True, save_every="1 step").close()
    assert capsys.readouterr().err == ""


def test_another_library_version_is_warned_about(line, tmp_path, capsys):
    first = line(run_dir=tmp_path / "line", save_every="1 step")
    first.iterate()
    first.close()
    path = first.run.path / "environment.json"
    environment = json.loads(path.read_text())
    environment["packages"]["numpy"] = "1.0"
    path.write_text(json.dumps(environment))
    line(run_dir=first.run.path, resume=True, save_every="1 step").close()
    assert "numpy 1.0 -> " in capsys.readouterr().err


def test_a_run_killed_while_it_wrote_its_environment_gets_one(line, tmp_path):
    first = line(run_dir=tmp_path / "line", save_every="1 step")
    first.iterate()
    first.close()
    (first.run.path / "environment.json").write_text("")
    line(run_dir=first.run.path, resume=True, save_every="1 step").close()
    assert json.loads((first.run.path / "environment.json").read_text())["threads"]["torch"] == torch.get_num_threads()


def test_a_save_that_was_asked_for_and_fails_is_reported_and_training_goes_on(line, tmp_path, monkeypatch):
    from treadle.checkpoint import store

    def full(tensors):
        raise OSError(28, "No space left on device")

    trainer = line(run_dir=tmp_path / "line", save_every=None)
    trainer.iterate()
    with monkeypatch.context() as patch:
        patch.setattr(store, "pieces", full)
        asked = trainer.commands.save()
        trainer.iterate()
    assert "No space left" in str(asked.exception(timeout=0))
    assert trainer.train().status == "finished"
    assert {"checkpoint failed", "refused"} <= {entry["event"] for entry in trainer.journal}


def test_a_config_that_was_edited_by_hand_changes_no_past(line, tmp_path):
    """What `treadle resume` does: the trainer is built from the run's config.yaml, whatever it says by now."""
    from treadle.config.files import dumps

    first = line(run_dir=tmp_path / "line", save_every="1 step")
    first.iterate()
    first.close()
    path = first.run.path
    config = read_config(path)
    (path / "config.yaml").write_text(dumps(config | {"config": config["config"] | {"seed": 7}}))
    with pytest.raises(UsageError, match=r"cannot change seed \(0 -> 7\)"):
        line(run_dir=path, resume=True, save_every="1 step", seed=7)
    (path / "config.yaml").write_text(dumps(config | {"config": config["config"] | {"max_epochs": 4}}))
    resumed = line(run_dir=path, resume=True, save_every="1 step", max_epochs=4)
    assert resumed.journal[-1]["changed"] == {"max_epochs": [2, 4]}
    resumed.close()
    line(run_dir=path, resume=True, save_every="1 step", max_epochs=4).close()


def test_the_lines_that_lead_to_a_checkpoint_are_synced_before_it(line, tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def fsync(descriptor):
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    trainer = line(run_dir=tmp_path / "line", save_every=None, log_every="1 step")
    trainer.iterate()
    synced.clear()
    trainer.save()
    trainer.close()
    assert synced[:2] == ["metrics.jsonl", "journal.jsonl"] and "manifest.json" in synced
