"""The trainer of directions: what a step learns, what determines a run, when it tracks, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_tracts import SMALL, SPACE, TURNED, arcs, data, subject

from treadle.engine.events import Hook
from treadle.errors import UsageError
from treadle.tracts import trainer as module
from treadle.tracts.files import read_streamlines
from treadle.tracts.prepared import open_prepared
from treadle.tracts.prepared_writer import write_prepared
from treadle.tracts.settings import TractsConfig
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import MemorySubject, TractData
from treadle.tracts.trainer import TractsTrainer


def trainer_of(given: TractData | None = None, **settings: Any) -> TractsTrainer:
    return TractsTrainer(data=given or data(), **SMALL | {"max_epochs": 2} | settings)


class Seen(Hook):
    """What happened, in order."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.metrics: list[dict[str, float]] = []
        self.lines: list[list[int]] = []

    def post_step(self, trainer: Any, batch: Any, outputs: Any) -> None:
        self.rates.append(trainer.optimizer.param_groups[0]["lr"])
        self.lines.append(batch.lines.tolist())

    def post_validation(self, trainer: Any, metrics: dict[str, float]) -> None:
        self.metrics.append(dict(metrics))


def metric_lines(run: Path, name: str) -> list[float]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["values"][name] for line in found if line["split"] == "train"]


# What is learnt ----------------------------------------------------------------------------------------------------


def test_a_few_epochs_teach_where_lines_go_on() -> None:
    seen = Seen()
    trainer = TractsTrainer(data=data(), max_epochs=12, hooks=[seen], **SMALL)
    trainer.train()
    losses = [metrics["loss"] for metrics in seen.metrics]
    assert len(losses) == 12 and losses[-1] < losses[0] / 10
    assert seen.metrics[-1]["angle"] < 0.05  # 18 degrees


@pytest.mark.parametrize(
    ("name", "kind", "rate"), [("adam", "Adam", 2e-2), ("radam", "RAdam", 0.2), ("sgd", "SGD", 0.1)]
)
def test_each_optimizer_is_what_it_says_and_learns(name: str, kind: str, rate: float) -> None:
    trainer = trainer_of(optimizer=name, learning_rate=rate, weight_decay=1e-3, momentum=0.8, max_epochs=4)
    before = trainer.validate()["loss"]
    trainer.train()
    assert type(trainer.optimizer).__name__ == kind
    group = trainer.optimizer.param_groups[0]
    assert group["weight_decay"] == 1e-3
    if name == "sgd":
        assert (group["momentum"], group["nesterov"]) == (0.8, True)
    assert trainer.validation_metrics["loss"] < 0.7 * before


def test_first_directions_count_in_either_sense_and_others_do_not() -> None:
    for rule in ("axis", "as_is"):
        trainer = trainer_of(first_direction=rule)
        assert trainer.validation_feed is not None
        batch = next(trainer.validation_feed.iterate(0))
        first = batch.offsets[:-1]
        told = trainer.targets(-batch.targets, batch)
        expected = batch.targets.clone()
        if rule == "axis":
            expected[first] *= -1
        assert torch.equal(told, expected)
        assert torch.equal(trainer.targets(batch.targets, batch), batch.targets)


def test_ends_have_a_loss_of_their_own() -> None:
    seen = Seen()
    trainer = trainer_of(ends=True, max_epochs=6, hooks=[seen])
    trainer.train()
    first, last = seen.metrics[0], seen.metrics[-1]
    assert last["loss"] == pytest.approx(last["direction"] + last["end"], rel=1e-5)
    assert last["end"] < first["end"] and last["direction"] < first["direction"]
    assert trainer.elements(next(trainer.feed.iterate(0))) == len(next(trainer.feed.iterate(0)).points)


def test_the_mean_step_is_that_of_the_lines_as_they_are_trained_on() -> None:
    lines = Streamlines.of([np.float32([[1, 1, 1], [2, 1, 1], [4, 1, 1]]), np.float32([[1, 1, 1], [1, 4, 1]])])
    tracts = TractData((MemorySubject("a", SPACE, {"input": (np.ones((12, 12, 5, 2), np.float32), "")}, {"f": lines}),))
    assert trainer_of(tracts, step_size=None).mean_step() == pytest.approx((2 + 4 + 6) / 3)
    assert trainer_of(tracts, step_size=None, nb_points=4).mean_step() == pytest.approx(12 / 6)
    trainer = trainer_of(tracts, step_size=0.5)
    assert trainer.mean_step() == 0.5 and float(trainer.facts.step) == 0.5
    assert trainer.tracking().step == 0.5
    assert trainer_of(tracts, track_step=0.7, track_theta=50.0, track_shortest=3.0).tracking().step == 0.7


# What determines a run ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prepared") / "small.h5"
    write_prepared(path, data())
    return path


def test_a_run_is_the_same_in_memory_lazily_and_with_a_worker(prepared: Path) -> None:
    digests = {}
    for name, tracts, more in (
        ("in memory", data(), {}),
        ("lazily", open_prepared(prepared), {"lazy": True}),
        ("lazily, one volume", open_prepared(prepared), {"lazy": True, "cache_mb": 0, "workers": 1}),
        ("another seed", data(), {"seed": 1}),
    ):
        with trainer_of(tracts, **TURNED, dropout=0.2, generate_every="1 epoch", subjects_per_batch=1, **more) as made:
            made.train()
            digests[name] = made.digest()
    assert digests["in memory"] == digests["lazily"] == digests["lazily, one volume"] != digests["another seed"]


def test_the_journal_says_how_often_a_volume_was_still_there(prepared: Path) -> None:
    def hits(**settings: Any) -> list[float]:
        with trainer_of(open_prepared(prepared), **settings) as trainer:
            trainer.train()
            return [entry["hits"] for entry in trainer.journal if entry["event"] == "volume cache"]

    kept = hits(lazy=True)
    assert len(kept) == 2 and 0.5 < kept[0] < kept[1] < 1
    assert hits(lazy=True, cache_mb=0) == [0.0, 0.0]
    assert hits() == []  # nothing is asked of the cache


def test_an_epoch_has_every_line_once_in_an_order_that_shuffle_draws() -> None:
    for shuffle in (True, False):
        seen = Seen()
        trainer_of(hooks=[seen], shuffle=shuffle).train()
        assert len(seen.lines) == 8
        for epoch in (seen.lines[:4], seen.lines[4:]):
            assert sorted(line for batch in epoch for line in batch) == list(range(48))
        assert (seen.lines[:4] == seen.lines[4:]) is not shuffle


def test_rates_may_be_a_list_with_a_value_per_epoch() -> None:
    seen = Seen()
    trainer_of(learning_rate="0.001*3 0.0001", max_epochs=5, max_batches=2, hooks=[seen]).train()
    assert seen.rates == [0.001] * 6 + [0.0001] * 4


def test_epochs_may_be_cut_after_some_batches() -> None:
    trainer = trainer_of(max_batches=3, max_validation_batches=1, validation_batch_size=5)
    trainer.train()
    assert trainer.progress.step == 6
    assert trainer.validation_feed is not None and len(list(trainer.validation_feed.iterate(0))) == 1
    assert len(next(trainer.validation_feed.iterate(0)).lines) == 5


def test_norms_of_gradients_are_logged_before_and_after_clipping(tmp_path: Path) -> None:
    with trainer_of(clip_norm=0.01, run_dir=tmp_path / "run") as trainer:
        trainer.train()
    before, after = (metric_lines(tmp_path / "run" / "v001", name) for name in ("grad_norm", "grad_norm_clipped"))
    assert len(before) == 8 and min(before) > 0.02
    assert after == pytest.approx([0.01] * 8, rel=1e-3)


def test_a_resume_may_have_other_patience_and_more_epochs_and_ends_as_one_run(tmp_path: Path) -> None:
    settings = TURNED | {"generate_every": "2 epochs"}
    with trainer_of(run_dir=tmp_path / "whole", max_epochs=4, patience=50, **settings) as whole:
        whole.train()
    with trainer_of(run_dir=tmp_path / "cut", max_epochs=2, **settings) as cut:
        cut.train()
    with trainer_of(run_dir=tmp_path / "cut" / "v001", resume=True, max_epochs=4, patience=50, **settings) as again:
        assert again.epoch == 2
        again.train()
        assert again.epoch == 4
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])
    assert whole.validation_metrics == again.validation_metrics
    with pytest.raises(UsageError, match=r"a resume cannot change noise \(0.3 -> 0.4\)"):
        trainer_of(run_dir=tmp_path / "cut" / "v001", resume=True, max_epochs=4, **settings | {"noise": 0.4})


def test_another_data_set_is_refused_by_name(tmp_path: Path) -> None:
    with trainer_of(run_dir=tmp_path / "run") as trainer:
        trainer.train()
    held = data()
    moved = TractData(held.training, (subject("three", 12, seed=99),), held.testing)
    with pytest.raises(UsageError, match="the data of 'validation_feed' is not what it was"):
        trainer_of(moved, run_dir=tmp_path / "run" / "v001", resume=True, max_epochs=3)


# Generation-validation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("units", [{}, {"batch_units": "length_mm", "batch_size": 250}])
def test_validations_track_where_it_is_due_and_at_the_end(units: dict[str, Any]) -> None:
    """Where batches have a length, nobody knows beforehand how many steps there will be."""
    seen = Seen()
    trainer = trainer_of(generate_every="2 epochs", max_epochs=5, hooks=[seen], **units)
    assert (trainer.progress.total_steps is None) is bool(units)
    trainer.train()
    assert ["connectivity" in metrics for metrics in seen.metrics] == [False, True, False, True, True]
    last = seen.metrics[-1]
    assert 0 <= last["connectivity"] <= 1 and 0 < last["endpoint_distance"] < 30


def test_the_final_state_is_tracked_where_its_validation_comes_before_the_epochs_end() -> None:
    seen = Seen()
    trainer_of(generate_every="7 epochs", validate_every="4 steps", max_epochs=2, hooks=[seen]).train()
    assert ["connectivity" in metrics for metrics in seen.metrics] == [False, True]


def play(monkeypatch: pytest.MonkeyPatch, values: Iterable[float]) -> None:
    """Let generation-validation find these, one after the other."""
    left = iter(values)
    monkeypatch.setattr(module, "generate", lambda *_, **__: {"connectivity": next(left), "endpoint_distance": 1.0})


def test_it_may_choose_the_best_model_and_a_skipped_epoch_is_not_a_bad_one(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, [0.2, 0.9, 0.5, 0.95])
    chosen = {"monitor": "connectivity", "generate_every": "2 epochs", "patience": 1}
    trainer = trainer_of(max_epochs=9, **chosen)
    weights = {}

    class Keep(Hook):
        def post_epoch(self, trainer: Any) -> None:
            weights[trainer.epoch] = {name: value.clone() for name, value in trainer.model.state_dict().items()}

    trainer.add_hook(Keep())
    summary = trainer.train()
    # Epochs 1, 3 and 5 measure nothing, so patience of 1 ends it at the 6th, where it got worse.
    assert trainer.epoch == 6 and "early stopping: connectivity" in str(summary.reason)
    assert trainer.best is not None
    assert (trainer.best["epoch"], trainer.best["value"], trainer.best["monitor"]) == (4, 0.9, "connectivity")
    from treadle.hooks.best_model import load_best

    load_best(trainer)
    found = trainer.model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in weights[4].items())
    assert not all(torch.equal(found[name], value) for name, value in weights[6].items())


# What it shows -----------------------------------------------------------------------------------------------------


def test_its_report_tracks_the_subject_of_which_nothing_was_learnt(tmp_path: Path) -> None:
    trainer = trainer_of(
        track_seeds=30, examples_every="1 epoch", max_epochs=3, track_theta=180.0, run_dir=tmp_path / "run"
    )
    with trainer:
        trainer.train()
        (tmp_path / "report").mkdir()
        found = trainer.report(tmp_path / "report")
        view = trainer.examples()["view"]
    assert trainer.shown().name == "four"
    lines, space = read_streamlines(found["tracks"])
    assert space.same(SPACE) and len(lines) == found["lines"] > 20
    assert found["loss"] == trainer.validation_metrics["loss"]
    assert found["picture"].stat().st_size > 1000 and Path(found["growth"]).exists()
    assert view.dtype == np.uint8 and view.shape[2] == 3 and len(np.unique(view)) > 10
    steps = np.linalg.norm(np.diff(lines[0], axis=0) * SPACE.voxel_sizes, axis=1)
    assert np.allclose(steps, 2.0, atol=1e-3)
    turned = TractData(data().training)
    assert trainer_of(turned).shown().name == "one"


def test_without_seeds_nothing_is_tracked(tmp_path: Path) -> None:
    trainer = trainer_of(max_epochs=1)
    trainer.train()
    assert trainer.report(tmp_path) == trainer.validation_metrics and list(tmp_path.iterdir()) == []


# What it refuses ---------------------------------------------------------------------------------------------------


def plain(kind: str = "") -> TractData:
    """A subject with a volume of no kind."""
    one = subject("one")
    return TractData(
        (MemorySubject("one", SPACE, {"fodf": (one.volume("input"), kind)}, {"fibres": one.streamlines("fibres")}),)
    )


@pytest.mark.parametrize(
    ("tracts", "settings", "said"),
    [
        (TractData(()), {}, "the data has no subject to train on: training_subjs is empty"),
        (plain(), {"volume": "fdof"}, "one has no volumes 'fdof'; did you mean 'fodf'?"),
        (plain(), {"lines": "fibre"}, "one has no lines 'fibre'; did you mean 'fibres'?"),
        (
            plain(),
            {"rotate": True},
            "rotate: the volume 'fodf' does not say that it holds tensors or harmonics (its kind is ''): "
            "set rotate=false, or prepare the volume as one of those",
        ),
        (
            None,
            {"monitor": "connectivity", "monitor_mode": "max"},
            "monitor is 'connectivity', which only tracking measures: set generate_every",
        ),
        (
            None,
            {"monitor": "connectivity", "monitor_mode": "min", "generate_every": "1 epoch"},
            "monitor_mode is 'min': expected null or 'max', for 'connectivity'",
        ),
        (
            plain(),
            {"monitor": "endpoint_distance", "generate_every": "1 epoch"},
            "monitor is 'endpoint_distance', and there is no line to validate on: set monitor=loss",
        ),
        (
            None,
            {"drop_last": True},
            "drop_last is True: expected false, every line comes in every epoch (see max_batches)",
        ),
        (None, {"model": "tts", "embedding_size": 30}, "heads"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(tracts: TractData | None, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        trainer_of(tracts, **settings)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_lines_of_another_grid_are_refused(tmp_path: Path) -> None:
    from treadle.tracts.files import write_streamlines
    from treadle.tracts.space import Space

    write_streamlines(tmp_path / "other.trk", subject("x").streamlines("fibres"), Space(np.eye(4), (12, 12, 5)))
    with pytest.raises(UsageError, match=r"other\.trk has another grid"):
        trainer_of().feed_of_lines(tmp_path / "other.trk")


def test_lines_of_any_format_may_be_judged(tmp_path: Path) -> None:
    from treadle.tracts.files import write_streamlines

    lines = arcs(5)
    lines = Streamlines(lines.points, lines.offsets)  # TCK would say that it drops what is known of lines
    trainer = trainer_of()
    for ending in ("trk", "tck", "trx"):
        write_streamlines(tmp_path / f"lines.{ending}", lines, SPACE)
        batch = next(trainer.feed_of_lines(tmp_path / f"lines.{ending}").iterate(0))
        assert len(batch.lines) == 5
        assert np.allclose(batch.points[batch.offsets[:-1]], lines.points[lines.offsets[:-1]], atol=1e-4)


def test_the_defaults_are_a_hundred_epochs_towards_the_axis() -> None:
    config = TractsConfig()
    assert (config.max_epochs, config.first_direction, config.generate_every) == (100, "axis", None)
