"""Resume: what a run that was killed goes on with, what may change meanwhile, and what is refused."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from relied_on import DATA, At, Diary, Fit, X, after, asserted_by, end, fit, killed, resumed, resumes_exactly, trained
from safetensors.torch import load_file
from torch import nn

import treadle
from treadle import RunError, StateError, UsageError, load_weights
from treadle.hooks import load_best
from treadle.runs.best import read_best
from treadle.testing import kill


class Draws(Fit):
    """Has moments, and draws from every generator there is."""

    def setup(self) -> None:
        super().setup()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)

    def loss(self, batch: Any) -> Any:
        noise = random.random() + np.random.randn() + float(torch.rand(()))
        return super().loss(batch) + noise * self.model.bias.square().sum() * 0.01


def checkpoints(path: Path) -> list[int]:
    """The steps of the checkpoints of a run."""
    return sorted(int(folder.name[5:]) for folder in (path / "checkpoints").glob("step-*"))


@asserted_by(
    "Lightning test_restarting_mid_epoch_raises_warning",
    "Lightning test_restart_parity",
    "Ignite test_strict_resume_from_iter",
)
def test_in_the_middle_of_an_epoch_it_is_exact(tmp_path: Path) -> None:
    """Killed in the middle of an epoch a run goes on with the next batch of that epoch, to the same digest."""
    assert resumes_exactly(2, tmp_path, Draws).progress.step == 6


@asserted_by("Ignite test_strict_resume_from_epoch", "Composer test_resumption")
def test_at_an_epochs_end_it_is_exact(tmp_path: Path) -> None:
    """Killed at an epoch's end it begins the next one, to the same digest."""
    resumes_exactly(3, tmp_path, Draws)


def test_before_the_first_step_it_is_exact(tmp_path: Path) -> None:
    """Killed before its first step it begins, to the same digest."""
    resumes_exactly(0, tmp_path, Draws)


def test_without_any_checkpoint_it_begins_anew(tmp_path: Path) -> None:
    """Killed before its first checkpoint it begins anew, in the same directory."""
    trainer = after(2, fit(run_dir=tmp_path / "run"))
    kill(trainer)
    again = fit(run_dir=trainer.run.path, resume=True)
    assert again.progress.step == 0 and end(again) == end(fit())


@asserted_by("Accelerate test_skip_first_batches", "Composer test_spin_dataloaders")
def test_no_batch_is_loaded_again(tmp_path: Path) -> None:
    """A resume loads no sample of the batches that were taken before: nothing is replayed."""
    read: list[int] = []

    class Reads(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 1000

        def __getitem__(self, index: int) -> Any:
            read.append(index)
            return X[index % 12], X[index % 12]

        def fingerprint(self) -> str:
            return "reads"

    path = killed(50, tmp_path, data=Reads(), batch_size=10, max_steps=53, max_epochs=None)
    read.clear()
    fit(data=Reads(), batch_size=10, max_steps=53, max_epochs=None, run_dir=path, resume=True).train()
    assert len(read) == 30


@asserted_by("Lightning test_trainer_model_hook_system_fit_no_val_and_resume_max_epochs", "Lightning test_loop_restore")
def test_what_has_fired_does_not_fire_again(tmp_path: Path) -> None:
    """A resume in mid-epoch fires neither `pre_training` nor that epoch's `pre_epoch` again; `on_load` tells."""
    diary = Diary("pre_training", "pre_epoch", "on_load", "pre_step")
    path = killed(4, tmp_path)
    fit(run_dir=path, resume=True, hooks=[diary]).train()
    assert diary.lines == ["on_load 1.4", "pre_step 1.4", "pre_step 1.5"]


@asserted_by("Lightning test_fit_ckpt_path_epoch_restored", "Ignite test_resume_with_higher_max_iters")
def test_a_finished_run_goes_on_when_its_limit_is_raised(tmp_path: Path) -> None:
    """A finished run that is resumed with more epochs trains on, and has the weights of a run of that length."""
    path = trained(Draws, run_dir=tmp_path / "run").run.path
    trainer = fit(Draws, run_dir=path, resume=True, max_epochs=4)
    trainer.train()
    assert trainer.progress.epoch == 4 and torch.equal(trainer.model.weight, trained(Draws, max_epochs=4).model.weight)


@asserted_by("Keras test_training_resumption", "Ignite test_is_done_method_with_max_iters")
def test_a_finished_run_that_is_resumed_stays_finished(tmp_path: Path) -> None:
    """A finished run that is resumed with nothing changed takes no step and fires no event."""
    diary = Diary("pre_step", "post_training", "teardown", "pre_validation")
    path = trained(run_dir=tmp_path / "run").run.path
    summary = fit(run_dir=path, resume=True, hooks=[diary]).train()
    assert (summary.status, summary.step) == ("finished", 6) and diary.lines == []


def test_refuses_another_seed(tmp_path: Path) -> None:
    """A resume with another seed, or batch size, is refused before any step, with what to do instead."""
    path = killed(2, tmp_path)
    with pytest.raises(UsageError, match=r"a resume cannot change seed \(0 -> 1\): .*fork the run instead"):
        fit(run_dir=path, resume=True, seed=1)


@asserted_by(
    "Ignite test_run_resume_raises_on_epoch_length_mismatch",
    "Ignite test_resume_raises_when_data_none_and_epoch_length_none",
)
def test_refuses_other_data(tmp_path: Path) -> None:
    """A resume on data that have changed is refused before any step, naming which."""
    path = killed(2, tmp_path)
    with pytest.raises(UsageError, match="the data of 'feed' is not what it was"):
        fit(run_dir=path, resume=True, data=(X, X))


@asserted_by("Lightning test_try_resume_from_non_existing_checkpoint", "Composer test_load_incorrect_path")
def test_refuses_a_run_that_is_not_there(tmp_path: Path) -> None:
    """A resume of a directory that is no run is refused when the trainer is made; nothing is begun there."""
    with pytest.raises(UsageError, match=r"nothing is no run: it has neither config.yaml nor environment.json"):
        fit(run_dir=tmp_path / "nothing", resume=True)
    assert not (tmp_path / "nothing").exists()


@asserted_by("Composer test_autoresume_fail")
def test_refuses_to_resume_from_nowhere() -> None:
    """`resume=True` without `run_dir=` is refused when the trainer is made."""
    with pytest.raises(UsageError, match=r"resume needs the run to go on with: give run_dir="):
        fit(resume=True)


@asserted_by("Keras test_backup_corrupted", "Ignite test_disk_saver_atomic")
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, capsys: Any) -> None:
    """A newest checkpoint that was cut short is reported, and the one before it used, to the same end."""
    path = killed(5, tmp_path, save_every="2 steps")
    newest = path / "checkpoints" / "step-00000005" / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-7])
    trainer = fit(run_dir=path, resume=True, save_every="2 steps")
    assert trainer.progress.step == 4 and end(trainer) == end(fit())
    assert "trying the one before it" in capsys.readouterr().err


@asserted_by("torchtnt test_keep_last_n_checkpoints_e2e", "Accelerate test_with_save_limit", "Keras test_max_to_keep")
def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    """`keep_checkpoints=2` keeps the newest two."""
    path = trained(run_dir=tmp_path / "run", save_every="1 step", keep_checkpoints=2).run.path
    assert checkpoints(path) == [5, 6]


@asserted_by("Lightning test_model_checkpoint_every_n_epochs", "torchtnt test_save_every_n_train_steps")
def test_some_may_be_kept_for_good(tmp_path: Path) -> None:
    """`keep_every="2 steps"` keeps one for each such part of the run besides."""
    settings = {"save_every": "1 step", "keep_checkpoints": 1, "keep_every": "2 steps"}
    assert checkpoints(trained(run_dir=tmp_path / "run", **settings).run.path) == [2, 4, 6]


@asserted_by("torchtnt test_save_on_train_end", "Lightning test_save_last_saves_correct_last_model_path")
def test_the_end_is_always_saved(tmp_path: Path) -> None:
    """The run's end is saved whatever `save_every` says, None included."""
    assert checkpoints(trained(run_dir=tmp_path / "run", save_every=None).run.path) == [6]


@asserted_by("Composer test_checkpoint_intervals", "Lightning test_ckpt_every_n_train_steps")
def test_checkpoints_come_when_they_are_due(tmp_path: Path) -> None:
    """`save_every` in steps counts over the whole run."""
    path = trained(run_dir=tmp_path / "run", save_every="4 steps", max_epochs=3).run.path
    assert checkpoints(path) == [4, 8, 9]


@asserted_by("Accelerate test_log_without_step", "Keras test_TensorBoard_across_invocations")
def test_metric_lines_are_those_of_one_run(tmp_path: Path) -> None:
    """A run that was killed after its newest checkpoint has each metric line once, as one that was not killed."""
    settings = {"log_every": "1 step", "save_every": "2 steps"}
    trainer = after(5, fit(run_dir=tmp_path / "run", **settings))
    kill(trainer)
    fit(run_dir=trainer.run.path, resume=True, **settings).train()
    lines = [json.loads(line) for line in (trainer.run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "train"] == [1, 2, 3, 4, 5, 6]


def test_a_run_may_be_moved_and_resumed_there(tmp_path: Path) -> None:
    """A run's directory may be copied or moved, and goes on there."""
    path = killed(2, tmp_path)
    shutil.move(path, tmp_path / "elsewhere")
    assert end(fit(run_dir=tmp_path / "elsewhere", resume=True)) == end(fit())


@asserted_by("Lightning test_ckpt_version_after_rerun_new_trainer", "Composer test_different_run_names")
def test_a_new_run_takes_the_next_version(tmp_path: Path) -> None:
    """A second run of the same name gets the next version, and the first stays untouched; v10 follows v9."""
    (tmp_path / "run" / "v009").mkdir(parents=True)
    names = [fit(run_dir=tmp_path / "run").run.path.name for _ in range(2)]
    assert names == ["v010", "v011"]


def test_refuses_a_run_that_somebody_is_training(tmp_path: Path) -> None:
    """A run that another trainer is training is refused when a second would resume it, saying by whom."""
    trainer = after(2, fit(run_dir=tmp_path / "run"))
    trainer.save()
    with pytest.raises(UsageError, match=r"is being trained by process \d+"):
        fit(run_dir=trainer.run.path, resume=True)


@asserted_by("Composer test_load_weights", "Keras test_model_checkpoint_loading", "torchtnt test_restore_from_best")
def test_the_best_model_is_a_file_for_anybody(tmp_path: Path) -> None:
    """The best model is kept as plain weights with its metrics, and loads into a module without the trainer."""
    trainer = trained(validation_data=DATA, run_dir=tmp_path / "run")
    best, model = read_best(trainer.run.path), nn.Linear(1, 1)
    model.load_state_dict(best.of("model"))
    assert best.info["value"] == trainer.best["value"] and torch.equal(model.weight, trainer.model.weight)


@asserted_by("Lightning test_model_checkpoint_score_and_ckpt_val_check_interval", "Keras test_save_best_only")
def test_what_was_best_before_a_kill_is_still_the_best(tmp_path: Path) -> None:
    """The best value before a kill stays the one to beat, and its weights can be put back after the resume."""

    class Worsens(Fit):
        def validation_step(self, batch: Any) -> Any:
            return {"loss": float(self.epoch)}

    trainer = resumed(4, tmp_path, Worsens, validation_data=DATA)
    trainer.train()
    assert trainer.best["epoch"] == 1
    load_best(trainer)
    assert torch.equal(trainer.model.weight, after(3, fit()).model.weight)


@asserted_by("Composer test_checkpoint_invalid_compressor")
def test_nothing_in_a_checkpoint_can_run_code(tmp_path: Path) -> None:
    """A checkpoint holds safetensors and JSON alone: no pickle, and nothing that loading would execute."""
    path = killed(2, tmp_path, Draws) / "checkpoints" / "step-00000002"
    assert sorted(file.name for file in path.iterdir()) == ["manifest.json", "state.json", "tensors.safetensors"]
    assert json.loads((path / "state.json").read_text())["values"]["progress"]["step"] == 2
    assert "model/state/weight" in load_file(path / "tensors.safetensors")


def test_two_runs_are_equal_if_their_digests_are(tmp_path: Path) -> None:
    """Two runs of the same settings have the same digest; it is in the summary and with each checkpoint."""
    first, second = trained(Draws, run_dir=tmp_path / "a"), trained(Draws, run_dir=tmp_path / "b")
    assert first.summary().digest == second.summary().digest == first.digest()
    assert json.loads((first.run.path / "summary.json").read_text())["digest"] == first.digest()


def test_it_goes_back_in_time_in_memory() -> None:
    """`rewind(step)` goes back to any step taken, without a disk, and forward to the same end."""
    trainer = after(5, fit(Draws, snapshot_every="2 steps"))
    trainer.rewind(3)
    assert trainer.progress.step == 3 and end(trainer) == end(fit(Draws, snapshot_every="2 steps"))


def test_refuses_to_go_back_to_what_was_not_kept() -> None:
    """A rewind without a snapshot or checkpoint is refused, says what to set, and changes nothing."""
    trainer = after(4, fit())
    with pytest.raises(RunError, match="set snapshot_every, or save_every"):
        trainer.rewind(2)
    assert end(trainer) == end(fit())


class Counts(Diary):
    """With state of its own."""

    def state_dict(self) -> dict[str, Any]:
        return {"lines": self.lines}

    def load_state_dict(self, state: Any) -> None:
        self.lines = state["lines"]


@asserted_by("Lightning test_on_load_checkpoint_missing_callbacks", "Composer test_checkpoint_multiple_callbacks")
def test_refuses_to_go_on_without_a_hook_that_had_state(tmp_path: Path) -> None:
    """A resume without a hook that has state in the checkpoint is refused before any step, by its name."""
    path = killed(2, tmp_path, hooks=[Counts("post_step")])
    with pytest.raises(StateError, match=r"the checkpoint has hook 'Counts.1', the trainer has not: give it again"):
        fit(run_dir=path, resume=True).train()


@asserted_by("Lightning test_callbacks_state_fit_ckpt_path")
def test_a_hook_with_state_may_join_at_a_resume(tmp_path: Path, capsys: Any) -> None:
    """A hook with state that is new at a resume begins there, says a line on stderr, and is saved from then on."""
    path, hook = killed(2, tmp_path), Counts("post_step")
    fit(run_dir=path, resume=True, hooks=[hook]).train()
    assert hook.lines == ["post_step 0.3", "post_step 1.4", "post_step 1.5", "post_step 1.6"]
    assert "no hook Counts so far" in capsys.readouterr().err
    again = Counts("post_step")
    fit(run_dir=path, resume=True, hooks=[again]).train()
    assert again.lines == hook.lines


def test_hooks_without_state_may_come_and_go(tmp_path: Path) -> None:
    """Hooks that keep nothing may be other ones at a resume."""
    path = killed(4, tmp_path, hooks=[Diary()])
    diary = Diary("post_step")
    fit(run_dir=path, resume=True, hooks=[diary, At("post_epoch", lambda trainer: None)]).train()
    assert len(diary.lines) == 2


def test_killed_again_and_again_it_comes_to_the_same_end(tmp_path: Path) -> None:
    """A run that is killed after every single step comes to the same end."""
    path = killed(1, tmp_path, Draws)
    for step in range(2, 6):
        trainer = after(step, fit(Draws, run_dir=path, resume=True))
        trainer.save()
        kill(trainer)
    assert end(fit(Draws, run_dir=path, resume=True)) == end(fit(Draws))


@asserted_by("Accelerate test_can_resume_training_with_folder", "Keras test_best_case_step")
def test_settings_that_change_no_number_may_be_other_ones(tmp_path: Path) -> None:
    """Settings that change no number (what is logged, how often is saved, how much kept) may change at a resume."""
    path = killed(4, tmp_path)
    trainer = fit(run_dir=path, resume=True, save_every="1 step", keep_checkpoints=9, log_every="2 steps")
    trainer.train()
    assert torch.equal(trainer.model.weight, trained().model.weight) and checkpoints(path) == [3, 4, 5, 6]


@asserted_by("Composer test_autoresume", "Lightning test_checkpoint_path_input_last")
def test_one_call_starts_or_goes_on(tmp_path: Path) -> None:
    """`resume="auto"` begins a run where there is none, and goes on with the newest unfinished one where there is."""
    first = after(4, fit(run_dir=tmp_path / "run", resume="auto"))
    first.save()
    kill(first)
    second = fit(run_dir=tmp_path / "run", resume="auto")
    assert second.run.path == first.run.path and second.progress.step == 4 and end(second) == end(fit())
    third = fit(run_dir=tmp_path / "run", resume="auto")
    assert third.run.path != first.run.path and third.progress.step == 0


@asserted_by("Lightning test_checkpoint_find_last", "Composer test_format_load_path")
def test_the_parent_of_the_versions_means_the_newest(tmp_path: Path) -> None:
    """`run_dir="runs/line"` with `resume=True` means its newest version."""
    path = killed(2, tmp_path)
    assert fit(run_dir=path.parent, resume=True).run.path == path


@asserted_by("Composer test_load_weights", "Ignite test_load_checkpoint_with_different_num_classes")
def test_weights_of_elsewhere_may_be_loaded_in_part() -> None:
    """Weights of another training may be loaded under other names, or some of them, with a report of what was not."""
    source = {"backbone.weight": torch.full((1, 1), 7.0), "head.weight": torch.ones(3, 3)}

    class Starts(Fit):
        def setup(self) -> None:
            super().setup()
            mapping = {"backbone.": "", "head.": None}
            self.transient_report = load_weights(self.model, source, mapping=mapping, strict=False).missing

    trainer = fit(Starts)
    assert trainer.model.weight.item() == 7.0 and tuple(trainer.transient_report) == ("bias",)


@asserted_by(
    "Lightning test_strict_model_load", "Accelerate test_save_load_model", "Ignite test_checkpoint_load_objects"
)
def test_refuses_weights_that_do_not_fit() -> None:
    """Weights with other names or shapes are refused in one line that says which, and nothing is changed."""
    model = nn.Linear(1, 1)
    before = model.weight.item()
    with pytest.raises(UsageError, match=r"do not fit together: missing 'bias'; unexpected 'extra'"):
        load_weights(model, {"weight": torch.zeros(1, 1), "extra": torch.zeros(1)})
    assert model.weight.item() == before


def test_refuses_weights_that_could_run_code(tmp_path: Path) -> None:
    """A pickled weights file is refused, with the safe way to read it."""
    torch.save({"weight": torch.zeros(1, 1)}, tmp_path / "weights.pt")
    with pytest.raises(UsageError, match="is a pickled file, which can hold code, so it is not read"):
        load_weights(nn.Linear(1, 1), tmp_path / "weights.pt")


@asserted_by("Keras test_backup_dir_none_error")
def test_a_run_can_be_branched_from_any_checkpoint(tmp_path: Path) -> None:
    """`treadle.fork` begins a new run in an earlier state of another, under other settings; that one stays as it is."""
    parent = trained(run_dir=tmp_path / "run", save_every="1 epoch")
    child = treadle.fork(parent.run.path, 3, trainer=Fit, data=DATA, max_epochs=3)
    assert child.progress.step == 3 and torch.equal(child.model.weight, after(3, fit()).model.weight)
    assert child.train().epoch == 3 and torch.equal(child.model.weight, trained(max_epochs=3).model.weight)
    assert checkpoints(parent.run.path) == [3, 6]


@asserted_by("Composer test_determinism")
def test_a_run_can_be_verified_from_its_checkpoints(tmp_path: Path) -> None:
    """`treadle.verify` takes a run's steps again from a checkpoint and compares digests."""
    trainer = trained(run_dir=tmp_path / "run", save_every="1 epoch")
    assert treadle.verify(trainer.run.path, trainer=Fit, data=DATA).holds
