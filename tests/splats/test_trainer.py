from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from PIL import Image

from treadle.cameras.background import BLACK, WHITE
from treadle.cameras.capture import Capture, Photograph
from treadle.cameras.procedural import procedural_capture
from treadle.engine.edits import Change
from treadle.errors import UsageError
from treadle.runs.verify import verify_run
from treadle.splats.model import FIELDS
from treadle.splats.ply import read_cloud
from treadle.splats.rendering import render
from treadle.splats.trainer import SplatsTrainer
from treadle.testing import check_resume

SMALL = {"max_steps": 60, "cap": 150, "random": 80, "device": "cpu", "examples_every": None, "log_every": "10 steps",
         "validate_every": None, "seed": 3}  # fmt: skip


@lru_cache
def capture(size: int = 24) -> Capture:
    return procedural_capture(size, 7, 3, points=60)


def make(data: Capture | None = None, **settings) -> SplatsTrainer:
    return SplatsTrainer(data=data or capture(), **SMALL | settings)


class Changed:
    """Photographs that are changed as they are taken out."""

    def __init__(self, photographs, change):
        self.photographs, self.change = photographs, change
        self.cameras = [change(photographs[i]).camera for i in range(len(photographs))]

    def __len__(self):
        return len(self.photographs)

    def __getitem__(self, index: int) -> Photograph:
        return self.change(self.photographs[index])

    def fingerprint(self) -> str:
        return self.photographs.fingerprint()


def changed(data: Capture, change, held_out=None) -> Capture:
    train, held = Changed(data.train, change), Changed(data.test, held_out or change)
    return replace(data, train=train, validation=held, test=held)


def opaque(photograph: Photograph) -> Photograph:
    return replace(photograph, pixels=np.ascontiguousarray(photograph.pixels[..., :3]))


@pytest.mark.parametrize("strategy", ["mcmc", "adc", "none"])
def test_it_learns_the_scene(strategy: str) -> None:
    trainer = make(strategy=strategy, max_steps=150)
    before = trainer.validate()
    summary = trainer.train()
    assert summary.status == "finished"
    assert summary.validation_metrics["psnr"] > before["psnr"] + 1.5
    assert summary.validation_metrics["psnr_object"] > before["psnr_object"] + 0.5
    assert summary.validation_metrics["ssim"] > before["ssim"]
    assert len(trainer.model) in {"mcmc": [150], "adc": range(60, 151), "none": [140]}[strategy]
    assert trainer.metrics["splats"] == pytest.approx(len(trainer.model), abs=3)


EXACT = {
    "mcmc": {"strategy": "mcmc", "coarse": 4, "background": "random"},
    "adc": {"strategy": "adc", "pull": 1e-5, "reset_every": "20%", "antialiased": True},
    "poses": {"strategy": "mcmc", "pose_rate": "log 1e-3 to 1e-4", "exposure_rate": 1e-2, "weights":
              {"needles": 0.01, "depth": "linear 0.1 to 0", "normals": 0.01, "points": 0.1}},
}  # fmt: skip


@pytest.mark.parametrize("case", EXACT)
def test_a_resumed_run_ends_as_one_that_was_not_stopped(case: str, tmp_path) -> None:
    settings = EXACT[case] | {"max_steps": 30, "grow_every": "4 steps", "grow_from": None, "workers": 2}
    # Just before an edit, just after it, and in the middle of an epoch and of what a strategy adds up.
    check_resume(lambda **where: make(**settings, **where), tmp_path, stops=[7, 8, 17])


MANY = {
    # So many rows that torch shares them out between its threads, and not a number that divides evenly.
    "many mcmc": {"strategy": "mcmc", "random": 40_001, "cap": 60_000, "growth": 0.01},
    "many adc": {"strategy": "adc", "pull": 1e-6, "random": 40_001, "cap": 60_000},
}


@pytest.mark.parametrize("case", [*EXACT, *MANY])
def test_threads_change_no_bit(case: str) -> None:
    before, digests = torch.get_num_threads(), set()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            steps, every = (25, "4 steps") if case in EXACT else (5, "2 steps")
            trainer = make(**(EXACT | MANY)[case] | {"max_steps": steps, "grow_every": every, "grow_from": None})
            trainer.train()
            digests.add(trainer.digest())
    finally:
        torch.set_num_threads(before)
    assert len(digests) == 1


def test_the_photographs_become_larger_and_the_colours_richer_on_schedule() -> None:
    trainer, seen = make(coarse=4, sharpen_every="25%", degree_every="20%"), []
    render_training = trainer.render_training

    def watched(view, target, background):
        rendered = render_training(view, target, background)
        seen.append((rendered.image.shape[0], trainer.config.degree_at(trainer.progress)))
        return rendered

    trainer.render_training = watched
    trainer.train()
    assert [size for size, _ in seen] == [6] * 15 + [12] * 15 + [24] * 30
    assert [degree for _, degree in seen] == [0] * 12 + [1] * 12 + [2] * 12 + [3] * 24


def test_the_learning_rates_are_those_of_the_settings_and_the_centres_go_with_the_scene() -> None:
    trainer = make(max_steps=10)
    while trainer.iterate():
        rates = {group["name"]: group["lr"] for group in trainer.optimizer.param_groups}
        assert set(rates) == set(FIELDS)
        assert rates["logits"] == 5e-2 and rates["rest"] == 1.25e-4
        if trainer.progress.step == 1:
            assert rates["means"] == pytest.approx(1.6e-4 * trainer.extent)
    assert rates["means"] == pytest.approx(trainer.extent * 1.6e-4 * 0.01**0.9)
    centers = np.stack([camera.center for camera in trainer.capture.train.cameras])
    assert trainer.extent == pytest.approx(1.1 * np.linalg.norm(centers - centers.mean(0), axis=1).max())


def test_transparent_photographs_are_seen_over_any_background_and_tested_over_white() -> None:
    trainer = make(max_steps=4, examples_every=None)
    assert (trainer.background.trained, trainer.background.tested) == (None, WHITE)
    backgrounds = []
    trainer.replace("step", lambda trainer, view: backgrounds.append(
        trainer.background.in_training(trainer.generator("background"), trainer.device)) or {})  # fmt: skip
    trainer.train()
    assert len({tuple(color.tolist()) for color in backgrounds}) == 4
    over_black = make(background="black")
    assert over_black.background.trained == over_black.background.tested == BLACK
    plain = make(changed(capture(), opaque))
    assert plain.background.trained == plain.background.tested == BLACK


def test_what_is_masked_is_ignored_in_losses_and_figures() -> None:
    def spoiled(photograph: Photograph) -> Photograph:
        pixels, mask = opaque(photograph).pixels.copy(), np.ones((24, 24), np.bool_)
        pixels[:, :12], mask[:, :12] = np.random.default_rng(0).integers(0, 256, (24, 12, 3)), False
        return replace(photograph, pixels=pixels, mask=mask)

    def halved(photograph: Photograph) -> Photograph:
        pixels, mask = opaque(photograph).pixels.copy(), np.ones((24, 24), np.bool_)
        pixels[:, :12], mask[:, :12] = 0, False
        return replace(photograph, pixels=pixels, mask=mask)

    results = []
    for change in (spoiled, halved):
        trainer = make(changed(capture(), change), max_steps=12)
        trainer.train()
        results.append((trainer.model.means.detach().clone(), trainer.validate()))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_known_depth_pulls_the_splats_onto_the_surface() -> None:
    def error(weights: dict[str, float]) -> float:
        trainer = make(max_steps=150, weights=weights, strategy="none", init="random", random=150, position_rate=3e-3)
        trainer.train()
        view = trainer.capture.test[0]
        with torch.no_grad():
            found = render(trainer.model.cloud(), view.camera, depth=True).depth.numpy()
        known = view.depth > 0
        return float(np.abs(1 / np.maximum(found[known], 0.1) - 1 / view.depth[known]).mean())

    assert error({"depth": 10.0}) < 0.7 * error({})


def test_terms_without_a_weight_are_not_computed_and_unknown_ones_are_refused() -> None:
    assert list(make().objective.terms) == ["l1", "ssim", "opacity", "scale"]
    assert list(make(strategy="adc").objective.terms) == ["l1", "ssim"]
    assert list(make(weights={"ssim": 0, "needles": 0.1}).objective.terms) == ["l1", "opacity", "scale", "needles"]
    with pytest.raises(UsageError, match=r"weights\.needle: there is no such loss term; did you mean 'needles'"):
        make(weights={"needle": 1})


def test_poses_that_are_off_are_mended_and_held_out_views_never_are() -> None:
    rng = np.random.default_rng(0)

    def moved(photograph: Photograph) -> Photograph:
        pose = photograph.camera.world_to_camera.copy()
        pose[:3, 3] += rng.normal(size=3) * 0.06
        return replace(photograph, camera=replace(photograph.camera, world_to_camera=pose))

    views = [moved(capture().train[i]) for i in range(7)]

    class Views(Changed):
        def __getitem__(self, index: int) -> Photograph:
            return views[index]

    train = Views(capture().train, lambda photograph: photograph)
    train.cameras = [view.camera for view in views]
    data = replace(capture(), train=train)
    figures = {}
    for rate in (None, "log 3e-3 to 1e-3"):
        trainer = make(data, max_steps=300, strategy="none", init="points", pose_rate=rate, degree=0)
        trainer.train()
        figures[rate] = trainer.metrics["l1"]
    assert figures["log 3e-3 to 1e-3"] < 0.9 * figures[None]
    assert trainer.poses.translations.abs().max() > 0.01
    held_out = trainer.validate()
    with torch.no_grad():
        trainer.poses.translations += 10
    assert trainer.validate() == held_out
    assert "psnr_corrected" in held_out


def test_the_run_can_be_loaded_tested_and_reported(tmp_path) -> None:
    run = tmp_path / "run" / "v001"
    with make(max_steps=12, examples_every="3 steps", degree=1, antialiased=True, turntable=6, run_dir=run) as trainer:
        summary = trainer.train()
        (run / "report").mkdir()
        found = trainer.report(run / "report")
        assert found["splats"].startswith("140, ") and found["splats"].endswith(f", {len(trainer.model)}")
        assert all(
            (run / "report" / name).is_file() for name in ("splats.ply", "strip.png", "growth.gif", "turntable.gif")
        )
        with Image.open(run / "report" / "growth.gif") as picture:
            assert picture.n_frames == 4
        assert found["psnr"] == summary.validation_metrics["psnr"]

        cloud = SplatsTrainer.load_model(run)
        assert cloud.antialiased and cloud.degree == 1 and not cloud.means.requires_grad
        assert all(torch.equal(getattr(cloud, name), getattr(trainer.model, name)) for name in FIELDS)
        written = read_cloud(run / "report" / "splats.ply")
        assert all(torch.equal(getattr(cloud, name), getattr(written, name)) for name in FIELDS)

        tested = trainer.test_report(run / "test", trainer.test_feed)
    assert tested["psnr"] == pytest.approx(found["psnr"]) and tested["psnr_object"] > 0
    rows = json.loads((run / "test" / "table.json").read_text())
    assert rows["metrics"]["psnr_object"]["better"] == rows["metrics"]["ssim"]["better"] == "higher"
    assert [sorted(row["files"]) for row in rows["rows"]] == [["depth", "render", "target", "|error| x 4"]] * 3


def test_a_test_of_the_first_batches_alone_has_so_many_rows(tmp_path) -> None:
    with make(max_steps=1, limit_test_batches=2) as trainer:
        trainer.test_report(tmp_path / "runs" / "v001" / "test", trainer.test_feed)
    assert len(json.loads((tmp_path / "runs" / "v001" / "test" / "table.json").read_text())["rows"]) == 2


def test_a_scene_needs_photographs_from_two_places() -> None:
    one = replace(capture(), train=procedural_capture(24, 1, 1).train)
    with pytest.raises(UsageError, match="there is one photograph to train on"):
        make(one)
    with pytest.raises(UsageError, match="there are no photographs to train on"):
        make(replace(capture(), train=procedural_capture(24, 1, 0).test))


def test_what_multiplies_and_dies_is_in_the_journal_and_heeds_what_is_edited() -> None:
    trainer = make(max_steps=80, growth=0.2, grow_every="5 steps", grow_from="5 steps", noise=0.0)
    while trainer.progress.step < 20:
        trainer.iterate()
    trainer.commands.edit([Change("setting", "cap", 10_000), Change("setting", "grow_every", "4 steps")])
    trainer.commands.change_setting("growth", 0.5)
    while trainer.progress.step < 40:
        trainer.iterate()
    trainer.commands.change_setting("cap", 10)
    trainer.train()
    noted = [entry for entry in trainer.journal if entry["event"] == "densify"]
    assert all(entry["splats"] > entry["before"] for entry in noted)
    rates = {entry["step"] + 1: round(entry["splats"] / entry["before"], 1) for entry in noted}
    assert {step for step in rates if step > 20} == {24, 28, 32, 36, 40}
    assert {rates[step] for step in (24, 28, 32, 36, 40)} == {1.5}


@pytest.mark.parametrize(
    ("name", "value", "has"), [("pull", 1.0, 1.0), ("small", 0.5, 0.5), ("large", 0.7, 0.7), ("cap", 99, 99)]
)
def test_thresholds_of_the_first_paper_are_heeded_and_what_it_adds_up_stays(name, value, has) -> None:
    trainer = make(strategy="adc", max_steps=80)
    for _ in range(3):
        trainer.iterate()
    pulled = trainer.strategy.pulled
    trainer.commands.change_setting(name, value)
    trainer.commands.change_setting("reset_every", "7 steps")
    trainer.commands.change_setting("noise", 1.0)
    trainer.iterate()
    assert getattr(trainer.strategy, name) == has and trainer.strategy.pulled is pulled
    assert str(trainer.strategy.reset.every) == "7 steps" and len(trainer.strategy.pulled.mean()) == len(trainer.model)


def test_a_run_whose_growth_was_edited_resumes_and_verifies(tmp_path) -> None:
    settings = {"max_steps": 24, "grow_every": "3 steps", "grow_from": None, "grow_until": None,
                "save_every": "6 steps"}  # fmt: skip
    trainer = make(run_dir=tmp_path / "run", keep_checkpoints=9, **settings)
    while trainer.progress.step < 8:
        trainer.iterate()
    trainer.commands.edit([Change("setting", "cap", 180), Change("frozen", "optimizer/means", True)])
    trainer.train()
    assert len(trainer.model) == 180
    verdict = verify_run(trainer.run.path, lambda path: make(run_dir=path, keep_checkpoints=9, **settings), 6)
    assert verdict.holds, verdict.differences
