"""Edits: together or not at all, with what was before, in force in the state, taken back, and made again by verify."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from treadle import EMA, LearningRate, Objective, RunError, StateError, Trainer, UsageError
from treadle.checkpoint.store import list_checkpoints, read_checkpoint
from treadle.config.settings import setting
from treadle.engine.commands import Change, Edit, Freeze, SetLimit
from treadle.engine.schedule import Every
from treadle.engine.settings import TrainerConfig
from treadle.hooks.examples import Examples
from treadle.runs.fork import fork_run
from treadle.runs.run import read_config, read_journal, read_summary
from treadle.runs.verify import verify_run
from treadle.testing import Line, kill


@dataclass(kw_only=True)
class TwoConfig(TrainerConfig):
    """With a threshold that is read in each step, one that setup makes something of, and one that stays."""

    threshold: float = setting(0.0, least=0, below=1, live=True)
    """Added to the loss."""
    period: str = setting("2 steps", parse=Every, live=True)
    """When something happens."""
    width: int = setting(4, least=1)
    """Of the hidden layer."""
    mode: str = setting("mild", choices=("mild", "wild"), live=True)


class Two(Trainer):
    """An encoder and a head with an optimizer of two groups, and a lone parameter with one of its own."""

    Config = TwoConfig
    transient = ("happened", "settled")

    def setup(self) -> None:
        self.model = torch.nn.Sequential(torch.nn.Linear(1, self.config.width), torch.nn.Tanh(), torch.nn.Linear(4, 1))
        self.shift = torch.nn.Parameter(torch.zeros(1))
        groups = [
            {"params": list(self.model[0].parameters()), "name": "encoder"},
            {"params": list(self.model[2].parameters()), "name": "head", "lr": 0.02},
        ]
        self.optimizer = torch.optim.Adam(groups, lr=0.05)
        self.shifting = torch.optim.SGD([self.shift], lr=0.1, momentum=0.9)
        self.rate = LearningRate(self.optimizer, "linear 0.05 to 0.01", group="encoder")
        self.objective = Objective()
        self.objective.add("fit", weight="linear 1 to 2")
        self.objective.add("flat", weight=0.1)
        self.ema = EMA(self.model, decay=0.5)
        self.happened: list[int] = []
        self.settled = 0
        self.on_settings()

    def on_settings(self) -> None:
        self.every = str(self.config.period)
        self.settled += 1

    def step(self, batch: Any) -> Any:
        x, y = batch
        if Every(self.every).due_after_step(self.progress):
            self.happened.append(self.progress.step)
        found = self.model(x) + self.shift
        losses = self.objective(
            fit=torch.nn.functional.mse_loss(found, y), flat=found.square().mean() + self.config.threshold
        )
        self.minimize(losses, [self.optimizer, self.shifting])
        return {"loss": losses.total}

    def validation_step(self, batch: Any) -> Any:
        return {"loss": torch.nn.functional.mse_loss(self.model(batch[0]) + self.shift, batch[1])}


@pytest.fixture
def two(line_data):
    def make(**settings: Any) -> Two:
        usual = {"data": line_data, "validation_data": line_data, "batch_size": 10, "max_steps": 12, "seed": 0}
        return Two(**(usual | settings))

    return make


def edits(trainer):
    return [entry for entry in trainer.journal if entry["event"] == "edit"]


def weights(trainer, part="model"):
    return [p.detach().clone() for p in getattr(trainer, part).parameters()]


# Freezing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.0", "optimizer/encoder"])
def test_what_is_frozen_stays_and_keeps_its_moments_the_rest_goes_on(two, name):
    trainer = two(clip_norm=1.0)
    trainer.iterate(), trainer.iterate()
    before = weights(trainer)
    moments = trainer.optimizer.state[trainer.model[0].weight]["exp_avg"].clone()
    answer = trainer.commands.freeze(name)
    trainer.iterate(), trainer.iterate()
    assert answer.result(timeout=0) == [{"what": "frozen", "target": name, "before": False, "after": True}]
    now = weights(trainer)
    assert [torch.equal(a, b) for a, b in zip(before, now, strict=True)] == [True, True, False, False]
    assert torch.equal(trainer.optimizer.state[trainer.model[0].weight]["exp_avg"], moments)
    assert trainer.optimizer.state[trainer.model[0].weight]["step"] == 2
    assert trainer.optimizer.state[trainer.model[2].weight]["step"] == 4
    trainer.commands.freeze(name, False)
    trainer.iterate()
    assert not any(torch.equal(a, b) for a, b in zip(before, weights(trainer), strict=True))
    assert trainer.optimizer.state[trainer.model[0].weight]["step"] == 3
    assert [(e["what"], e["target"], e["before"], e["after"]) for e in edits(trainer)] == [
        ("frozen", name, False, True),
        ("frozen", name, True, False),
    ]


@pytest.mark.parametrize("name", ["model", "optimizer"])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_all_of_an_optimizer_may_be_frozen(two, name, clip):
    trainer = two(clip_norm=clip)
    trainer.iterate()
    before, shift = weights(trainer), trainer.shift.item()
    trainer.commands.put(Freeze(name))
    trainer.iterate()
    assert all(map(torch.equal, before, weights(trainer))) and trainer.shift.item() != shift


def test_a_lone_parameter_is_frozen_by_its_name(two):
    trainer = two()
    trainer.iterate()
    before = trainer.shift.item()
    trainer.commands.freeze("shift")
    trainer.iterate(), trainer.iterate()
    assert trainer.shift.item() == before
    assert set(trainer.minimizer.frozen.choices()) == {
        *("model", "model.0", "model.2", "shift", "optimizer", "shifting", "optimizer/encoder", "optimizer/head")
    }


def test_what_takes_the_place_of_something_frozen_is_frozen(two):
    trainer = two()
    trainer.commands.freeze("shift")
    trainer.iterate()
    trainer.shift = torch.nn.Parameter(torch.ones(1))
    trainer.shifting = torch.optim.SGD([trainer.shift], lr=0.1)
    trainer.iterate()
    assert trainer.shift.item() == 1.0
    trainer.commands.freeze("shift", False)
    trainer.iterate()
    assert trainer.shift.item() != 1.0


def test_what_cannot_be_frozen_is_refused_in_a_line(two, line):
    trainer = two()
    wrong = trainer.commands.freeze("modle")
    trainer.iterate()
    assert str(wrong.exception(timeout=0)) == "nothing to freeze is called 'modle'; did you mean 'model'?"

    class Closed(Line):
        def setup(self):
            super().setup()
            self.optimizer = torch.optim.LBFGS(self.model.parameters())

        def step(self, batch):
            x, y = batch
            self.minimize(lambda: torch.nn.functional.mse_loss(self.model(x), y))
            return {}

    closed = line(Closed)
    wrong = closed.commands.freeze("model")
    closed.iterate()
    assert "moves all of its parameters together" in str(wrong.exception(timeout=0))
    assert not [entry for entry in closed.editable() if entry["what"] == "frozen"]


def test_accumulation_goes_on_while_something_is_frozen(two):
    trainer = two(accumulate=2)
    trainer.iterate()
    before = weights(trainer)
    trainer.commands.freeze("model.0")
    trainer.iterate()
    now = weights(trainer)
    assert [torch.equal(a, b) for a, b in zip(before, now, strict=True)] == [True, True, False, False]


# Settings ----------------------------------------------------------------------------------------------------------


def test_a_live_setting_is_heeded_and_who_made_something_of_it_makes_it_anew(two):
    trainer = two()
    trainer.iterate()
    settled = trainer.settled
    trainer.commands.change_setting("period", "1 step")
    trainer.commands.change_setting("threshold", 0.5)
    for _ in range(4):
        trainer.iterate()
    assert trainer.config.threshold == 0.5 and trainer.every == "1 step"
    assert trainer.settled == settled + 2 and trainer.happened == [1, 2, 3, 4]
    assert [(e["target"], e["before"], e["after"]) for e in edits(trainer)] == [
        ("period", "2 steps", "1 step"),
        ("threshold", 0.0, 0.5),
    ]


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("threshold", 1.0, "threshold is 1.0: expected 0 or more and below 1"),
        ("threshold", "much", "threshold is 'much': expected a number"),
        ("threshold", float("nan"), "threshold is nan: expected 0 or more and below 1"),
        ("treshold", 0.5, "'treshold' is no setting of TwoConfig; did you mean 'threshold'?"),
        ("width", 5, "width cannot be changed while the run goes on"),
        ("mode", "tame", "mode is 'tame': expected one of 'mild', 'wild'"),
        ("period", "2 stepz", "period: schedule '2 stepz': unknown unit 'stepz'"),
        ("validate_every", "3 parsecs", "validate_every: schedule '3 parsecs': unknown unit 'parsecs'"),
        ("patience", 0, "patience is 0: expected at least 1, or null"),
        ("clip_norm", {"optimizr": 1.0}, "clip_norm.optimizr: the trainer has no optimizer 'optimizr'; did you mean"),
        ("clip_norm.optimizer", 1.0, "clip_norm is None, and has no entry 'optimizer': set clip_norm itself"),
        ("max_steps", 3, "max_steps is a limit of the run: change it as such"),
        ("__class__", 3, "'__class__' is no setting of TwoConfig"),
    ],
)
def test_what_the_field_does_not_allow_is_refused_in_a_line_and_changes_nothing(two, name, value, error):
    trainer = two()
    wrong = trainer.commands.change_setting(name, value)
    trainer.iterate()
    said = str(wrong.exception(timeout=0))
    assert said.startswith(error) and "\n" not in said
    assert not edits(trainer) and trainer.loop.edits.in_force() == []
    with pytest.raises(UsageError):
        trainer.config.threshold = 0.5


def test_a_percentage_needs_the_length_of_the_run(line, line_class):
    trainer = line(line_class, max_epochs=None, max_time=1e6)
    wrong = trainer.commands.change_setting("validate_every", "10%")
    trainer.iterate()
    assert "validate_every: '10%' needs the length of the run" in str(wrong.exception(timeout=0))


def test_an_entry_of_a_mapping_is_changed_by_its_dotted_name_and_taken_back(two):
    trainer = two(clip_norm={"optimizer": 1.0})
    trainer.commands.change_setting("clip_norm.shifting", 2.0)
    trainer.commands.change_setting("clip_norm.optimizer", 3.0)
    trainer.iterate()
    assert trainer.config.clip_norm == {"optimizer": 3.0, "shifting": 2.0}
    assert {name: updater.clip_norm for name, updater in trainer.minimizer.updaters.items()} == {
        "optimizer": 3.0,
        "shifting": 2.0,
    }
    trainer.commands.undo(), trainer.commands.undo()
    trainer.iterate()
    assert trainer.config.clip_norm == {"optimizer": 1.0} and trainer.loop.edits.in_force() == []


def logged(trainer, split):
    return [record for record in trainer.seen if record[0] == split]


class Seen:
    """Remembers what was logged, and each step's gradient norm; mixed into `Two`."""

    def setup(self):
        self.seen: list[Any] = []
        super().setup()

    transient = (*Two.transient, "seen")

    def on_log(self, record):
        self.seen.append((record.name, record.step, dict(record.value) if record.kind == "scalars" else None))


class SeenTwo(Seen, Two):
    pass


@pytest.fixture
def seen(line_data):
    def make(**settings: Any) -> SeenTwo:
        usual = {"data": line_data, "validation_data": line_data, "batch_size": 10, "max_steps": 20, "seed": 0}
        return SeenTwo(**(usual | {"log_every": None, "validate_every": None} | settings))

    return make


def test_clipping_is_heeded(seen):
    trainer = seen(log_every="1 step", clip_norm=1e9)
    trainer.iterate()
    trainer.commands.change_setting("clip_norm", 1e-3)
    trainer.iterate()
    norms = [values["optimizer.grad_norm_clipped"] for _, _, values in logged(trainer, "train")]
    assert norms[0] > 0.01 and norms[1] == pytest.approx(1e-3, rel=1e-2)
    trainer.commands.change_setting("clip_norm", None)
    trainer.commands.change_setting("clip_value", 1e-6)
    trainer.iterate()
    assert logged(trainer, "train")[-1][2]["optimizer.grad_norm_clipped"] < 1e-5


@pytest.mark.parametrize(("name", "split"), [("log_every", "train"), ("validate_every", "validation")])
def test_periods_of_logging_and_validation_are_heeded(seen, name, split):
    trainer = seen(limit_validation_batches=1)
    trainer.iterate()
    trainer.commands.change_setting(name, "2 steps")
    for _ in range(4):
        trainer.iterate()
    trainer.commands.change_setting(name, None)
    for _ in range(4):
        trainer.iterate()
    assert [step for _, step, _ in logged(trainer, split)] == [2, 4]


def test_how_much_is_validated_is_heeded(seen):
    counts = []
    trainer = seen()
    trainer.replace("step", lambda trainer, batch: {"loss": 0.0})
    evaluate = trainer.validation_step
    trainer.validation_step = lambda batch: (counts.append(trainer.progress.step), evaluate(batch))[1]
    trainer.commands.validate(), trainer.commands.change_setting("limit_validation_batches", 2)
    trainer.commands.validate()
    trainer.iterate()
    assert len(counts) == 5 + 2


def test_saving_snapshots_and_what_is_kept_are_heeded(seen, tmp_path):
    trainer = seen(run_dir=tmp_path / "run", save_every=None, keep_checkpoints=9)
    trainer.iterate()
    trainer.commands.change_setting("save_every", "2 steps")
    trainer.commands.change_setting("snapshot_every", "3 steps")
    for _ in range(9):
        trainer.iterate()
    trainer.loop.archive.finish()
    assert trainer.loop.archive.steps() == [1, 2, 4, 6, 8, 10], "the first is that before the first edit"
    assert trainer.loop.snapshots.steps == [3, 6, 9]
    trainer.commands.change_setting("keep_checkpoints", 1)
    trainer.commands.change_setting("keep_every", "4 steps")
    for _ in range(2):
        trainer.iterate()
    trainer.loop.archive.finish()
    assert trainer.loop.archive.steps() == [4, 8, 12]
    trainer.close()


def test_patience_is_heeded(seen):
    trainer = seen(validate_every="1 step", patience=9, monitor="flat")
    trainer.validation_step = lambda batch: {"flat": 1.0}
    for _ in range(4):
        trainer.iterate()
    trainer.commands.change_setting("patience", 4)
    trainer.iterate()
    trainer.iterate()
    assert trainer.status == "finished" and trainer.reason.startswith("early stopping") and trainer.progress.step == 5
    for name, value in (("min_improvement", 0.5), ("patience_warm_up", "15 steps")):
        falling = seen(validate_every="1 step", patience=3, monitor="flat")
        falling.validation_step = lambda batch, of=falling: {"flat": 9.0 - 0.1 * of.progress.step}
        falling.commands.change_setting("min_improvement", 0.5)
        falling.commands.change_setting(name, value)
        falling.train()
        assert falling.progress.step == (17 if name == "patience_warm_up" else 4), name


def test_a_hook_of_a_period_that_is_a_setting_heeds_it(line, line_class):
    made = []

    class Shown(line_class):
        @dataclass(kw_only=True)
        class Config(TrainerConfig):
            examples_every: str | None = setting("5 steps", live="unless null")

        def setup(self):
            super().setup()
            self.add_hook(Examples(self.config.examples_every, setting="examples_every"))

        def examples(self):
            made.append(self.progress.step)
            return {}

    trainer = line(Shown, max_epochs=4)
    trainer.commands.change_setting("examples_every", "2 steps")
    for _ in range(5):
        trainer.iterate()
    assert made == [2, 4]


# Limits ------------------------------------------------------------------------------------------------------------


def test_a_limit_is_raised_lowered_and_taken_back(two):
    trainer = two()
    trainer.iterate(), trainer.iterate()
    lowered, wrong = trainer.commands.set_limit("max_steps", 4), trainer.commands.set_limit("max_steps", 2)
    trainer.iterate()
    assert lowered.result(timeout=0) == [{"what": "limit", "target": "max_steps", "before": 12, "after": 4}]
    assert "would be at its end with max_steps=2: give more, or stop it" in str(wrong.exception(timeout=0))
    trainer.train()
    assert trainer.status == "finished" and trainer.progress.step == 4
    late = trainer.commands.set_limit("max_steps", 6)
    assert late.result(timeout=0)[0]["after"] == 6 and not trainer.ended
    trainer.iterate()
    back = trainer.commands.undo()
    trainer.iterate()
    assert "5 steps the run would be at its end with max_steps=4" in str(back.exception(timeout=0))
    assert (trainer.progress.max_steps, trainer.progress.step, trainer.status) == (6, 6, "finished")


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("max_step", 5, "'max_step' is no limit of the run; did you mean 'max_steps'?"),
        ("max_steps", None, "nothing would say when the run ends: leave it max_epochs or max_steps"),
    ],
)
def test_limits_that_cannot_be_are_refused(two, name, value, error):
    trainer = two()
    wrong = trainer.commands.set_limit(name, value)
    trainer.iterate()
    assert str(wrong.exception(timeout=0)) == error


@pytest.mark.parametrize("value", [0, -1, 1.5, "9", True])
def test_limits_are_checked_in_the_callers_thread(two, value):
    with pytest.raises(UsageError, match=r"max_steps is .*: expected a whole number of at least 1, or null"):
        two().commands.put(SetLimit("max_steps", value))


# Together ----------------------------------------------------------------------------------------------------------


def several():
    return [
        Change("lr_multiplier", "optimizer", 0.5),
        Change("loss_weight", "fit", 3.0),
        Change("frozen", "shift", True),
        Change("setting", "clip_norm", 1.0),
        Change("limit", "max_steps", 15),
    ]


def test_an_edit_is_one_transaction_with_one_entry(two):
    trainer = two()
    answer = trainer.commands.edit(several())
    trainer.iterate()
    told = [(each["what"], each["target"], each["before"], each["after"]) for each in answer.result(timeout=0)]
    assert told == [
        ("lr_multiplier", "optimizer", 1.0, 0.5),
        ("loss_weight", "fit", 1.0, 3.0),
        ("frozen", "shift", False, True),
        ("setting", "clip_norm", None, 1.0),
        ("limit", "max_steps", 12, 15),
    ]
    (entry,) = edits(trainer)
    assert entry["what"] == "several" and [each["what"] for each in entry["changes"]] == [each[0] for each in told]
    assert {(each["what"], each["target"]): each["after"] for each in trainer.loop.edits.in_force()} == {
        (what, target): after for what, target, _, after in told
    }


@pytest.mark.parametrize("bad", [Change("setting", "clip_norm", -1), Change("frozen", "nothing", True)])
def test_where_one_change_cannot_be_none_is_made(two, bad):
    expected, trainer = two(), two()
    expected.train()
    wrong = trainer.commands.edit([*[each for each in several() if each.target != "clip_norm"], bad])
    trainer.train()
    assert isinstance(wrong.exception(timeout=0), UsageError) and not edits(trainer)
    assert trainer.digest() == expected.digest()


def test_what_heeds_a_setting_may_refuse_it_and_then_none_is_made(two):
    expected = two()

    class Strict(Two):
        def on_settings(self):
            if self.config.threshold == 0.25:
                raise UsageError("a quarter is not for me")
            super().on_settings()

    trainer = Strict(data=expected.feed, validation_data=expected.validation_feed, max_steps=12, seed=0)
    wrong = trainer.commands.edit([Change("frozen", "model", True), Change("setting", "threshold", 0.25)])
    trainer.iterate()
    assert "a quarter is not for me" in str(wrong.exception(timeout=0))
    assert trainer.loop.edits.in_force() == [] and trainer.loop.edits.history == []


def test_an_edit_says_each_thing_once(two):
    trainer = two()
    wrong = trainer.commands.edit([Change("frozen", "model", True), Change("frozen", "model", False)])
    trainer.iterate()
    assert "the edit changes 'model' (frozen) twice" in str(wrong.exception(timeout=0))
    with pytest.raises(UsageError, match="an edit of 0 changes"):
        trainer.commands.edit([])
    with pytest.raises(UsageError, match="no edit changes 'weights'"):
        Change("weights", "model", 1)
    with pytest.raises(UsageError, match=r"treadle\.engine\.edits\.Change objects"):
        Edit(["model"])


def test_edits_are_taken_back_one_after_the_other_to_the_schedule_and_the_same_run(two):
    expected, trainer = two(), two()
    expected.train()
    trainer.commands.edit(several())
    trainer.commands.loss_weight("flat", 0.5)
    undone = [trainer.commands.undo() for _ in range(3)]
    trainer.train()
    assert [len(each.result(timeout=0)) for each in undone[:2]] == [1, 5]
    assert str(undone[2].exception(timeout=0)) == "there is nothing to undo: no edit is in force"
    assert [entry.get("undo") for entry in edits(trainer)] == [None, None, True, True]
    assert trainer.loop.edits.in_force() == [] and trainer.objective.weight("fit") == expected.objective.weight("fit")
    names = set(trainer.loop.state.capture().values)
    assert "edits" not in names
    assert all(map(torch.equal, weights(trainer), weights(expected)))


def test_proposing_changes_nothing(two):
    expected, trainer = two(), two()
    expected.train()
    trainer.iterate()
    proposed = trainer.loop.edits.propose(several())
    assert [each["after"] for each in proposed] == [0.5, 3.0, True, 1.0, 15]
    assert [each["label"] for each in proposed] == [
        *("learning rate of optimizer", "weight of fit", "shift frozen", "clip norm", "max steps")
    ]
    with pytest.raises(UsageError, match="no loss term 'fitt'"):
        trainer.loop.edits.propose([Change("loss_weight", "fitt", 1.0)])
    trainer.train()
    assert trainer.digest() == expected.digest()


def test_what_can_be_edited_is_listed_with_value_and_range(two):
    trainer = two(clip_norm={"optimizer": 1.0}, validate_every="3 steps")
    trainer.iterate()
    found = {(each["what"], each["target"]): each for each in trainer.editable()}
    assert found["lr_multiplier", "optimizer"] == {
        "what": "lr_multiplier",
        "target": "optimizer",
        "label": "learning rate of optimizer",
        "value": 1.0,
        "low": 0.0,
        "high": 1000.0,
        "unit": "x",
        "kind": "number",
    }
    assert found["loss_weight", "flat"]["value"] == 0.1 and found["loss_weight", "fit"]["value"] > 1.0
    assert (found["limit", "max_steps"]["value"], found["limit", "max_steps"]["low"]) == (12, 2)
    assert found["limit", "max_epochs"]["value"] is None and found["limit", "max_epochs"]["unit"] == "epochs"
    assert (found["setting", "threshold"]["low"], found["setting", "threshold"]["high"]) == (0, 1)
    assert found["setting", "clip_norm.optimizer"]["value"] == 1.0
    assert found["setting", "validate_every"]["kind"] == "text" and found["setting", "clip_value"]["kind"] == "number"
    assert found["setting", "mode"]["choices"] == ["mild", "wild"]
    assert found["frozen", "model.2"]["kind"] == "switch" and found["frozen", "model.2"]["value"] is False
    patience = found["setting", "patience"]
    assert (patience["value"], patience["kind"], patience["low"]) == (None, "number", 1)
    assert ("setting", "width") not in found
    assert not any("before" in each for each in found.values())
    for entry in found.values():
        if entry["kind"] != "text" and entry["value"] is not None:
            trainer.loop.edits.propose([Change(entry["what"], entry["target"], entry["value"])])
    trainer.commands.change_setting("threshold", 0.5)
    trainer.iterate()
    found = {(each["what"], each["target"]): each for each in trainer.editable()}
    assert (found["setting", "threshold"]["value"], found["setting", "threshold"]["before"]) == (0.5, 0.0)


# In the state ------------------------------------------------------------------------------------------------------


def stepped(trainer, edit_at=3, edit=None):
    while trainer.progress.step < edit_at:
        trainer.iterate()
    trainer.commands.edit(edit or several())
    return trainer


def test_a_rewind_to_before_an_edit_is_without_it_and_to_after_it_with_it(two):
    expected = two()
    expected.train()
    trainer = stepped(two(snapshot_every="1 step", keep_snapshots=20))
    for _ in range(4):
        trainer.iterate()
    trainer.rewind(5)
    assert trainer.config.clip_norm == 1.0 and trainer.progress.max_steps == 15
    assert trainer.minimizer.frozen.names == ["shift"] and len(trainer.loop.edits.history) == 1
    trainer.rewind(2)
    assert trainer.loop.edits.in_force() == [] and trainer.loop.edits.history == []
    assert trainer.config.clip_norm is None and trainer.progress.max_steps == 12
    trainer.train()
    assert trainer.digest() == expected.digest()


def test_a_checkpoint_is_saved_before_the_first_edit_where_there_is_none(two, tmp_path):
    trainer = stepped(two(run_dir=tmp_path / "run", save_every=None))
    trainer.iterate()
    assert trainer.loop.archive.steps() == [3]
    state = read_checkpoint(list_checkpoints(trainer.run.path / "checkpoints")[0])
    assert "edits" not in state.values and "edits" not in state.clock
    order = [entry["event"] for entry in read_journal(trainer.run.path)]
    assert order == ["start", "checkpoint", "edit"]
    trainer.commands.freeze("model")
    trainer.iterate()
    assert trainer.loop.archive.steps() == [3], "before the first one only"
    trainer.close()


def test_an_edit_before_the_first_step_has_a_checkpoint_of_the_beginning_before_it(two, tmp_path):
    settings = {"save_every": "3 steps", "keep_checkpoints": 9}
    expected = two(run_dir=tmp_path / "whole")
    expected.train()
    trainer = two(run_dir=tmp_path / "run", **settings)
    trainer.commands.freeze("model")
    trainer.iterate()
    kill(trainer)
    resumed = two(run_dir=trainer.run.path, resume=True, **settings)
    assert resumed.progress.step == 0 and resumed.loop.edits.in_force() == []
    resumed.train()
    assert resumed.digest() == expected.digest()
    assert verify_run(resumed.run.path, lambda path: two(run_dir=path, **settings), 0).holds


def test_a_disk_that_refuses_that_checkpoint_refuses_the_edit_and_ends_no_run(two, tmp_path, monkeypatch):
    trainer = two(run_dir=tmp_path / "run", save_every=None)
    trainer.iterate()

    def full(**_):
        raise RunError("the disk is full")

    monkeypatch.setattr(trainer.loop, "save", full)
    wrong = trainer.commands.freeze("model")
    assert trainer.iterate()
    assert "the disk is full: nothing was changed" in str(wrong.exception(timeout=0)) and not edits(trainer)
    monkeypatch.undo()
    trainer.close()


def test_a_resume_after_edits_has_them_in_force_says_so_and_its_config_is_that_of_the_start(two, tmp_path, capsys):
    expected = stepped(two(run_dir=tmp_path / "whole", save_every="2 steps", keep_checkpoints=20))
    expected.train()
    trainer = stepped(two(run_dir=tmp_path / "run", save_every="2 steps", keep_checkpoints=20))
    while trainer.progress.step < 9:
        trainer.iterate()
    config = read_config(trainer.run.path)
    kill(trainer)
    capsys.readouterr()
    resumed = two(run_dir=trainer.run.path, resume=True, save_every="2 steps", keep_checkpoints=20)
    said = capsys.readouterr().err
    assert "the run goes on with what was edited while it ran: learning rate of optimizer 1.0 -> 0.5, " in said
    assert "clip norm null -> 1.0" in said
    (entry,) = (entry for entry in resumed.journal if entry["event"] == "resume")
    assert entry["changed"] == {}
    assert {each["what"] for each in entry["edits"]} == {each.what for each in several()}
    assert resumed.config.clip_norm == 1.0 and resumed.progress.max_steps == 15
    assert len(resumed.loop.edits.history) == 1
    resumed.train()
    assert resumed.progress.step == 15 and resumed.digest() == expected.digest()
    assert read_config(resumed.run.path) == config and config["config"]["max_steps"] == 12
    assert config["config"]["clip_norm"] is None


def test_what_a_resume_is_given_wins_over_an_edit_of_the_same(two, tmp_path):
    trainer = stepped(two(run_dir=tmp_path / "run", save_every="2 steps"))
    for _ in range(4):
        trainer.iterate()
    kill(trainer)
    resumed = two(run_dir=trainer.run.path, resume=True, save_every="2 steps", max_steps=20)
    assert resumed.progress.max_steps == 20 and resumed.config.clip_norm == 1.0
    assert ("limit", "max_steps") not in {(each["what"], each["target"]) for each in resumed.loop.edits.in_force()}
    resumed.train()
    assert resumed.progress.step == 20


def test_an_extension_is_planned_from_then_on_and_edits_stay_edits(two, tmp_path):
    trainer = stepped(two(run_dir=tmp_path / "run"))
    trainer.commands.extend(max_steps=18)
    trainer.train()
    assert trainer.progress.step == 18
    config = read_config(trainer.run.path)["config"]
    assert config["max_steps"] == 18 and config["clip_norm"] is None
    assert read_summary(trainer.run.path)["step"] == 18


KINDS = {
    "lr_multiplier": [Change("lr_multiplier", "optimizer", 0.3)],
    "loss_weight": [Change("loss_weight", "fit", 3.0)],
    "frozen": [Change("frozen", "model.0", True)],
    "setting": [Change("setting", "threshold", 0.5)],
    "clip": [Change("setting", "clip_norm", 0.1)],
    "limit": [Change("limit", "max_steps", 15)],
    "several": several(),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_run_with_edits_of_every_kind_verifies_from_before_and_after(two, tmp_path, kind):
    settings = {"save_every": "2 steps", "keep_checkpoints": 30}
    unedited = two()
    unedited.train()
    trainer = stepped(two(run_dir=tmp_path / "run", **settings), edit=KINDS[kind])
    while trainer.progress.step < 7:
        trainer.iterate()
    trainer.commands.undo(), trainer.commands.edit(KINDS[kind])
    trainer.train()
    assert trainer.digest() != unedited.digest()

    def build(path):
        return two(run_dir=path, **settings)

    for start in (0, 2, 3, 8) if kind == "several" else (0, 3):
        verdict = verify_run(trainer.run.path, build, start)
        assert verdict.holds, (start, verdict.differences)
        assert verdict.compared[-1] == trainer.progress.step


def test_a_limit_that_was_raised_at_the_end_is_raised_again_by_verify(two, tmp_path):
    settings = {"save_every": "2 steps", "keep_checkpoints": 30}
    trainer = two(run_dir=tmp_path / "run", **settings)
    trainer.train()
    trainer.commands.set_limit("max_steps", 16).result(timeout=0)
    assert not read_summary(trainer.run.path)
    trainer.train()
    assert read_summary(trainer.run.path)["step"] == 16

    def build(path):
        return two(run_dir=path, **settings)

    for start in (0, 10, 12, 14):
        verdict = verify_run(trainer.run.path, build, start)
        assert verdict.holds, (start, verdict.differences)
        assert verdict.compared[-1] == 16


def test_a_fork_has_the_edits_of_its_checkpoint_but_for_what_it_is_given(two, tmp_path):
    settings = {"save_every": "2 steps", "keep_checkpoints": 30}
    trainer = stepped(two(run_dir=tmp_path / "run", **settings))
    trainer.train()
    config = read_config(trainer.run.path)
    fork = fork_run(trainer.run.path, 6, config | {"config": config["config"] | {"max_steps": 14}})
    forked = two(run_dir=fork, resume=True, **settings, max_steps=14)
    assert (
        forked.progress.max_steps == 14
        and forked.config.clip_norm == 1.0
        and forked.minimizer.frozen.names == ["shift"]
    )
    forked.train()
    assert forked.progress.step == 14
    assert verify_run(fork, lambda path: two(run_dir=path, **settings, max_steps=14), 6).holds


def test_a_checkpoint_with_the_edit_of_a_setting_that_is_gone_says_so(two, tmp_path):
    trainer = two()
    trainer.commands.change_setting("threshold", 0.5)
    trainer.iterate()
    state = trainer.loop.state.capture()
    state.values["edits"]["settings"]["treshold"] = state.values["edits"]["settings"].pop("threshold")
    with pytest.raises(StateError, match="the run was edited with 'treshold'"):
        two().loop.state.restore(state)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda state: state.clock.update(edits=3), "the edits that can be undone are damaged"),
        (lambda state: state.clock.update(edits=[{"changes": [{}]}]), "the edits that can be undone are damaged"),
        (lambda state: state.values["edits"]["settings"].update(threshold=7), "impossible here: threshold is 7"),
    ],
)
def test_edits_that_a_state_cannot_have_are_named(two, damage, error):
    trainer = two()
    trainer.commands.change_setting("threshold", 0.5)
    trainer.iterate()
    state = trainer.loop.state.capture()
    damage(state)
    with pytest.raises(StateError, match=error):
        two().loop.state.restore(state)
