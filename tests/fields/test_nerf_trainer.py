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
from treadle.errors import UsageError
from treadle.fields.nerf_trainer import NeRFTrainer
from treadle.runs.fork import fork_run
from treadle.runs.run import read_config
from treadle.testing import check_resume

SMALL = {"max_steps": 60, "samples": 4096, "prune_from": 0, "first_rays": 64, "batch_size": 2048, "occupancy": 16,
         "steps": 64, "learning_rate": "log 5e-2 to 3e-3", "grid_rate": 1.0, "levels": 4, "features": 2,
         "log2_size": 12, "n_min": 4, "n_max": 32, "hidden": 16, "device": "cpu", "examples_every": None,
         "log_every": "10 steps", "validate_every": None, "seed": 3}  # fmt: skip


@lru_cache
def capture(size: int = 24) -> Capture:
    return procedural_capture(size, 7, 3, points=60)


def make(data: Capture | None = None, **settings) -> NeRFTrainer:
    return NeRFTrainer(data=data or capture(), **SMALL | settings)


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


def changed(data: Capture, change) -> Capture:
    train, held = Changed(data.train, change), Changed(data.test, change)
    return replace(data, train=train, validation=held, test=held)


def opaque(photograph: Photograph) -> Photograph:
    return replace(photograph, pixels=np.ascontiguousarray(photograph.pixels[..., :3]))


GRIDS = {
    "hash": {},
    "dense": {"log2_size": None, "levels": 2},
    "triplane": {"log2_size": None, "n_min": None, "n_max": None, "base": 3, "levels": 3},
    "octree": {"log2_size": None, "n_min": None, "n_max": None, "base": 2, "levels": 3},
}


@pytest.mark.parametrize("grid", GRIDS)
def test_it_learns_the_scene(grid: str) -> None:
    own = GRIDS[grid]
    trainer = make(grid=grid, max_steps=100, **own)
    before = trainer.validate()
    summary = trainer.train()
    assert summary.status == "finished"
    assert summary.validation_metrics["psnr"] > before["psnr"] + 4
    assert summary.validation_metrics["psnr_object"] > before["psnr_object"] + 1
    assert summary.validation_metrics["ssim"] > before["ssim"]
    assert trainer.model.occupancy.share < 0.7


NO_TABLES = {"log2_size": None, "n_min": None, "n_max": None}
EXACT = {
    "plain": {},
    "adaptive": {"prune_after": 8, "random_lod": True, "weights": {"distortion": 1e-2}, "ema": None},
    "unbounded": {"prune_from": 3, "bound": 4, "occupancy": 8, "contracted": True, "background": "black", "near": 0.2},
    "octree": {"grid": "octree", "base": 2, "levels": 3, **NO_TABLES, "prune_every": "2 steps", "prune_below": 0.5,
               "shrink_every": "4 steps"},
    "photographs": {"pose_rate": "log 1e-3 to 1e-4", "exposure_rate": 1e-2, "loss": "huber",
                    "weights": {"depth": "linear 0.1 to 0", "opacity": 0.01}, "opacity_until": "50%"},
}  # fmt: skip


@pytest.mark.parametrize("case", EXACT)
def test_a_resumed_run_ends_as_one_that_was_not_stopped(case: str, tmp_path) -> None:
    settings = {"max_steps": 14, "prune_every": "4 steps"} | EXACT[case]
    # Just before a pruning, just after one; an epoch has two batches, so that each is in the middle of one.
    check_resume(lambda **where: make(**settings, **where), tmp_path, stops=[3, 9])


def test_what_is_empty_leaves_an_octree_and_a_run_with_it_can_be_loaded(tmp_path) -> None:
    run = tmp_path / "run" / "v001"
    settings = EXACT["octree"] | {"max_steps": 24, "prune_below": 2.0, "run_dir": run}
    with make(**settings) as trainer:
        before = len(trainer.model.field.grid.cells)
        trainer.train()
        cells = trainer.model.field.grid.cells
        assert 0 < len(cells) < 0.9 * before
        assert any(entry["event"] == "shrunk" and entry["rows"] > 0 for entry in trainer.journal)
    model = NeRFTrainer.load_model(run)
    assert torch.equal(model.field.grid.cells, cells)
    camera, white = trainer.capture.test.cameras[0], torch.ones(3)
    with trainer.evaluating():
        assert torch.equal(model.look(camera, white).image, trainer.model.look(camera, white).image)


def test_the_rays_of_a_step_follow_the_samples_of_the_last() -> None:
    trainer = make(max_steps=60, prune_every="4 steps", samples=8192)
    counts = {}
    while trainer.iterate():
        counts[trainer.progress.step] = trainer.rate.rays
    assert trainer.metrics["samples"] * trainer.metrics["rays"] == pytest.approx(8192, rel=0.3)
    assert counts[60] > 1.5 * counts[5], "as space is found empty, there are more"


def test_a_run_goes_back_over_a_pruning_and_a_fork_begins_before_one(tmp_path) -> None:
    settings = {"max_steps": 24, "prune_every": "6 steps", "save_every": "5 steps", "keep_checkpoints": 9}
    path = tmp_path / "run" / "v001"
    with make(**settings, run_dir=path) as trainer:
        while trainer.progress.step < 14:
            trainer.iterate()
        masks, digest = trainer.model.occupancy.mask.clone(), trainer.digest()
        trainer.rewind(10)
        assert trainer.progress.step == 10
        while trainer.progress.step < 14:
            trainer.iterate()
        assert torch.equal(trainer.model.occupancy.mask, masks) and trainer.digest() == digest
        trainer.train()
        whole = trainer.digest()
    forked = fork_run(path, 10, read_config(path))
    with make(**settings, run_dir=forked, resume=True) as other:
        assert other.progress.step == 10
        other.train()
        assert other.digest() == whole


def test_threads_change_no_bit() -> None:
    before, digests = torch.get_num_threads(), set()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            trainer = make(max_steps=12, prune_every="4 steps", samples=20_000, batch_size=4096)
            trainer.train()
            digests.add(trainer.digest())
    finally:
        torch.set_num_threads(before)
    assert len(digests) == 1


def test_transparent_photographs_are_seen_over_random_backgrounds_and_tested_over_white() -> None:
    trainer = make()
    assert (trainer.background.trained, trainer.background.tested) == (None, WHITE)
    colors = trainer.backgrounds(50)
    assert colors.shape == (50, 3) and len(colors.unique(dim=0)) == 50
    assert torch.equal(trainer.backgrounds(50), colors), "a function of the step"
    over_black = make(background="black")
    assert over_black.background.trained == over_black.background.tested == BLACK
    assert (over_black.backgrounds(4) == 0).all()


def test_what_the_settings_leave_open_is_decided_by_the_photographs_and_recorded() -> None:
    transparent, plain = make().config, make(changed(capture(), opaque)).config
    assert (transparent.bound, transparent.near, transparent.cone) == (1, 0, 0)
    assert (plain.bound, plain.background) == (4, "random") and plain.near > 0 and plain.cone > 0
    assert 0.7 < transparent.box[3] < 1.1, "the scene lies within the unit ball"
    assert plain.box[3] == pytest.approx(1.5)
    given = make(box=(0.0, 0.0, 0.0, 2.0), bound=2.0, contracted=False)
    assert given.config.box == (0, 0, 0, 2) and given.model.occupancy.cascades == 2
    np.testing.assert_allclose(given.model.to_input.numpy(), np.diag([2, 2, 2, 1.0]))
    np.testing.assert_allclose(given.capture.train.cameras[0].center, capture().train.cameras[0].center / 2)


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
        trainer = make(changed(capture(), change), max_steps=10, prune_every="4 steps")
        trainer.train()
        results.append((trainer.model.field.grid.table.detach().clone(), trainer.validate()))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_known_depth_pulls_the_surface_to_where_it_is() -> None:
    def error(weights: dict[str, float]) -> float:
        trainer = make(max_steps=60, weights=weights)
        trainer.train()
        view = trainer.capture.test[0]
        with trainer.evaluating():
            found = trainer.model.look(view.camera, torch.ones(3))
        known = (view.depth > 0) & (found.alpha > 0.5).numpy()
        return float(np.abs(found.depth.numpy()[known] - view.depth[known]).mean())

    assert error({"depth": 0.05}) < 0.85 * error({})


def test_a_level_of_detail_is_drawn_for_each_step_finer_ones_more_often() -> None:
    trainer, levels = make(random_lod=True), []
    forward = trainer.model.forward

    def watched(*arguments, **options):
        levels.append(options["lod"])
        return forward(*arguments, **options)

    trainer.model.forward = watched
    trainer.train()
    counts = [levels.count(level) for level in range(4)]
    assert sum(counts) >= 60 and counts[3] > counts[1] and counts[3] > 20


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
    data, figures = replace(capture(), train=train), {}
    for rate in (None, "log 3e-3 to 1e-3"):
        trainer = make(data, max_steps=150, pose_rate=rate, box=(0.0, 0.0, 0.0, 1.0), log_every="50 steps")
        trainer.train()
        figures[rate] = trainer.metrics["color"]
    assert figures["log 3e-3 to 1e-3"] < 0.9 * figures[None]
    assert trainer.motion.poses.translations.abs().max() > 0.01
    held_out = trainer.validate()
    with torch.no_grad():
        trainer.motion.poses.translations += 10
    assert trainer.validate() == held_out
    assert "psnr_corrected" in held_out


def test_a_motion_of_cameras_moves_rays_as_it_moves_the_cameras() -> None:
    trainer = make(pose_rate=1e-3)
    seen = trainer.feed.rays(torch.arange(600, 700))
    view = int(seen.views[0])
    with torch.no_grad():
        trainer.motion.poses.quaternions[view] = torch.tensor([1.0, 0.02, -0.03, 0.01])
        trainer.motion.poses.translations[view] = torch.tensor([0.1, -0.2, 0.05])
    camera = trainer.capture.train.cameras[view]
    pose = trainer.motion.poses(view, torch.from_numpy(camera.world_to_camera).float()).detach()
    center = -pose[:3, :3].T @ pose[:3, 3]
    turn = pose[:3, :3].T @ torch.from_numpy(camera.world_to_camera[:3, :3]).float()
    origins, directions = (part.detach() for part in trainer.motion(seen.origins, seen.directions, seen.views))
    assert torch.allclose(origins, center.expand_as(origins), atol=1e-5)
    assert torch.allclose(directions, seen.directions @ turn.T, atol=1e-5)


def test_terms_without_a_weight_are_not_computed_and_unknown_ones_are_refused() -> None:
    assert list(make().objective.terms) == ["color"]
    trainer = make(weights={"distortion": 0.1, "opacity": 0.1}, opacity_until="10 steps", max_steps=20)
    assert list(trainer.objective.terms) == ["color", "opacity", "distortion"]
    trainer.train()
    assert len(trainer.objective.history["opacity"]) == 1 and len(trainer.objective.history["distortion"]) == 2
    with pytest.raises(UsageError, match=r"weights\.distorsion: there is no such loss term; did you mean 'distortion'"):
        make(weights={"distorsion": 1})


def test_prunings_are_in_the_journal_and_all_space_is_kept_where_nothing_is_found() -> None:
    trainer = make(max_steps=40, prune_every="5 steps")
    trainer.train()
    noted = [entry for entry in trainer.journal if entry["event"] == "prune"]
    assert noted and noted[0]["before"] == 1 and noted[-1]["occupied"] < 1
    nothing = make(max_steps=2)
    nothing.model.field.density = lambda points: torch.zeros(len(points))
    nothing.prune()
    assert nothing.model.occupancy.mask.all()


def test_pruning_heeds_what_is_edited(monkeypatch) -> None:
    trainer, told = make(max_steps=60, prune_every="50 steps", prune_from=0), []
    monkeypatch.setattr(
        type(trainer.model.occupancy), "update", lambda self, *_, **how: told.append((trainer.progress.step + 1, how))
    )
    trainer.iterate()
    for name, value in {"prune_every": "3 steps", "prune_below": 7.0, "prune_decay": 0.5, "prune_after": 5}.items():
        trainer.commands.change_setting(name, value)
    for _ in range(8):
        trainer.iterate()
    assert [(step, how["share"]) for step, how in told] == [(3, 1.0), (6, 0.25), (9, 0.25)]
    assert all((how["threshold"], how["decay"]) == (7.0, 0.5) for _, how in told)


def test_a_bounded_number_of_views_is_measured_on_the_way_and_all_in_the_report(tmp_path) -> None:
    trainer = make(max_steps=6, validate_views=1, validate_every="3 steps")
    looked = []
    look = trainer.look
    trainer.look = lambda view: looked.append(view.camera.name) or look(view)
    trainer.train()
    assert looked == ["test_000", "test_000"]
    found = trainer.report(tmp_path)
    assert {"test_001", "test_002"} <= set(looked)
    whole = make(max_steps=6)
    assert whole.train().validation_metrics["psnr"] == pytest.approx(found["psnr"])


def test_the_run_can_be_loaded_tested_and_reported(tmp_path) -> None:
    run = tmp_path / "run" / "v001"
    with make(max_steps=12, examples_every="3 steps", turntable=4, render_every="6 steps", run_dir=run) as trainer:
        summary = trainer.train()
        (run / "report").mkdir()
        found = trainer.report(run / "report")
        assert all((run / "report" / name).is_file() for name in ("strip.png", "growth.gif", "turntable.gif"))
        with Image.open(run / "report" / "growth.gif") as picture:
            assert picture.n_frames == 4
        assert found["psnr"] == summary.validation_metrics["psnr"] and found["rays a step"].startswith("64, ")
        for step in (6, 12):
            files = {file.name for file in (run / "renders" / f"step-{step:08d}").iterdir()}
            for channel in ("color", "density", "depth", "opacity"):
                assert {f"test_000-{channel}.png", f"test_000-{channel}.exr"} <= files
        model = NeRFTrainer.load_model(run)
        camera, white = trainer.capture.test.cameras[0], torch.ones(3)
        with trainer.evaluating():
            seen = trainer.model.look(camera, white)
        assert all(torch.equal(one, two) for one, two in zip(model.look(camera, white), seen, strict=True))
        assert torch.equal(model.to_input, trainer.model.to_input)
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
