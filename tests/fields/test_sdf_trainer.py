from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from treadle.errors import UsageError
from treadle.export.mesh import read_mesh
from treadle.fields.sdf.paint import Paint
from treadle.fields.sdf.reading import Surface
from treadle.fields.sdf.shapes import knot
from treadle.fields.sdf.solid import Solid, enclose
from treadle.fields.sdf_trainer import SDFConfig, SDFTrainer
from treadle.runs.fork import fork_run
from treadle.testing import check_resume

pytest.importorskip("igl")

SMALL = {
    "levels": 4, "log2_size": 12, "n_min": 8, "n_max": 64, "hidden": 16, "layers": 1, "loss": "l1",
    "pool": 4000, "batch_size": 1000, "pool_epochs": 2, "learning_rate": "cosine 1e-2 to 1e-4",
    "validation_points": 4000, "test_points": 20_000, "resolution": 48, "picture": 48,
    "device": "cpu", "examples_every": None, "validate_every": None, "log_every": "5 steps",
}  # fmt: skip
"""Quick, and still able to learn."""


def torus(paint: bool = True) -> Solid:
    """A fat ring, of genus 1, orange on one side and blue on the other."""
    faces = knot(48, 12).faces[:, ::-1]
    angle = 2 * np.pi * np.repeat(np.arange(48), 12) / 48
    around = 2 * np.pi * np.tile(np.arange(12), 48) / 12
    radius = 1 + 0.45 * np.cos(around)
    vertices = np.stack([radius * np.cos(angle), 0.45 * np.sin(around), radius * np.sin(angle)], 1)
    shades = np.where(vertices[:, :1] > 0, [0.9, 0.5, 0.1], [0.1, 0.4, 0.8])
    return enclose(Surface(5 * vertices + 7, faces, Paint.plain(shades[faces]) if paint else None), "the ring")


def make(data: Solid | None = None, **settings) -> SDFTrainer:
    return SDFTrainer(data=data or torus(), **SMALL | settings)


def other(grid: str, **settings):
    """Settings for another grid than the hash grid."""
    return {**dict.fromkeys(("levels", "log2_size", "n_min", "n_max")), "grid": grid, **settings}


GRIDS = {
    "hash": {},
    "dense": other("dense", n_max=32),
    "octree": other("octree", levels=3, base=3),
    "triplane": other("triplane", levels=2, base=4),
    "siren": other("none", decoder="siren", hidden=48, layers=2, omega=10.0, learning_rate="cosine 1e-3 to 1e-4"),
}


@pytest.mark.parametrize("grid", GRIDS)
def test_every_grid_learns_the_solid(grid):
    trainer = make(torus(paint=False), max_steps=100, **GRIDS[grid])
    before = trainer.validate()
    summary = trainer.train()
    assert summary.status == "finished"
    assert summary.validation_metrics["iou"] > (0.85 if grid == "triplane" else 0.93)
    assert summary.validation_metrics["near"] < before["near"] / 2
    assert trainer.model.channels == {"sdf": 1, "density": 1}


EXACT = {
    "hash": {"random_lod": True, "ema": 0.9, "weights": {"eikonal": 0.1}, "eikonal_points": 64},
    "octree": other("octree", levels=3, base=3)
    | {"prune_every": "3 steps", "prune_from": "4 steps", "prune_beyond": 0.3, "random_lod": True},
}


@pytest.mark.parametrize("case", EXACT)
def test_a_resumed_run_ends_as_one_that_was_not_stopped(case, tmp_path):
    # In the middle of an epoch; before a pruning, after one; after the pool was drawn anew.
    check_resume(lambda **where: make(**EXACT[case] | {"max_steps": 14}, **where), tmp_path, stops=[5, 7, 10])


@pytest.mark.parametrize("case", EXACT)
def test_threads_change_no_bit(case):
    before, digests = torch.get_num_threads(), set()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            trainer = make(**EXACT[case] | {"max_steps": 8, "pool": 40_000, "batch_size": 10_000})
            trainer.train()
            digests.add(trainer.digest())
    finally:
        torch.set_num_threads(before)
    assert len(digests) == 1


def test_pruning_takes_cells_away_and_leaves_what_matters():
    trainer = make(
        max_steps=60,
        **EXACT["octree"] | {"prune_every": "20 steps", "prune_from": "50%", "prune_beyond": 2.0, "random_lod": False},
    )
    before = len(trainer.model.grid.cells)
    trainer.train()
    notes = [entry for entry in trainer.journal if entry["event"] == "prune"]
    assert notes and notes[0]["step"] >= 30
    assert len(trainer.model.grid.cells) == notes[-1]["cells"] < before
    assert trainer.validation_metrics["iou"] > 0.85


def test_pruning_heeds_what_is_edited(monkeypatch):
    trainer = make(max_steps=30, **EXACT["octree"] | {"prune_every": None, "prune_from": "90%", "prune_beyond": 1e9})
    reach = 3**0.5 / 2**trainer.model.grid.finest

    def distances(self, points):  # half of the cells are just beyond one reach
        return torch.where(torch.arange(len(points)) % 2 == 0, 0.9 * reach, 1.1 * reach)[:, None]

    monkeypatch.setattr(type(trainer.model), "evaluate", distances)
    trainer.iterate()
    for name, value in {"prune_every": "4 steps", "prune_from": "2 steps", "prune_beyond": 1.0}.items():
        trainer.commands.change_setting(name, value)
    for _ in range(6):
        trainer.iterate()
    (noted,) = (entry for entry in trainer.journal if entry["event"] == "prune")
    assert noted["step"] == 3 and noted["cells"] == (noted["of"] + 1) // 2
    refused = make(max_steps=9)
    wrong = refused.commands.change_setting("prune_every", "4 steps")
    refused.iterate()
    assert "prune_every is '4 steps': expected null: a grid 'hash' has no cells" in str(wrong.exception(timeout=0))


def test_a_field_that_is_nowhere_near_zero_keeps_its_cells():
    trainer = make(max_steps=4, **EXACT["octree"])
    with torch.no_grad():
        trainer.model.decoder.layers[-1].bias.fill_(9.0)
    before = len(trainer.model.grid.cells)
    trainer.prune()
    assert len(trainer.model.grid.cells) == before


@pytest.mark.parametrize("loss", ["l1", "l2", "huber", "mape"])
def test_every_loss_learns(loss):
    trainer = make(loss=loss, max_steps=60)
    assert list(trainer.objective.terms) == [loss, "color"]
    before = trainer.validate()
    # The relative one begins with what is near the surface: of these points there are most.
    name = "near" if loss == "mape" else "error"
    assert trainer.train().validation_metrics[name] < 0.5 * before[name]


def test_weights_name_their_terms_and_terms_without_weight_are_not_computed():
    assert list(make(weights={"l2": 1, "l1": 0, "color": 0}).objective.terms) == ["l2"]
    assert list(make(torus(paint=False)).objective.terms) == ["l1"]
    with pytest.raises(UsageError, match=r"weights\.eikonla: there is no such loss term; did you mean 'eikonal'"):
        make(weights={"eikonla": 1})
    with pytest.raises(UsageError, match="batch_size is 5000: expected at most 4000"):
        make(batch_size=5000)
    with pytest.raises(UsageError, match="prune_every is '3 steps': expected null"):
        make(prune_every="3 steps")
    with pytest.raises(UsageError, match="surface is 0"):
        make(uniform=0, near=0, surface=0)


def test_the_eikonal_term_brings_gradients_to_length_one():
    def off(weights):
        trainer = make(torus(paint=False), max_steps=60, weights=weights, eikonal_points=500)
        trainer.train()
        points = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
        with torch.no_grad():
            return float((trainer.model.gradients(points, 0.01).norm(dim=1) - 1).abs().mean())

    assert off({"eikonal": 0.01}) < 0.8 * off({})


def test_levels_of_detail_are_drawn_with_finer_ones_more_often_and_show_the_surface():
    trainer = make(max_steps=120, random_lod=True)
    drawn = []
    lod = trainer.lod
    trainer.lod = lambda: drawn.append(lod()) or drawn[-1]
    trainer.train()
    counts = np.bincount(drawn, minlength=4)
    assert len(set(drawn)) == 4 and (np.diff(counts) > 0).all()
    points = trainer.held_out("test", 4000).pool(0)
    errors = []
    for level in range(4):
        found = trainer.model.evaluate(points.points, lod=level)
        errors.append(float((found - points.distances).abs().mean()))
    assert errors[1] < 0.03 and errors[3] < 0.03 and errors[3] < errors[0] < 0.1
    assert make(max_steps=1).lod() is None


def test_colours_of_the_surface_are_learnt():
    trainer = make(max_steps=120, weights={"color": 2})
    trainer.train()
    places, faces = trainer.solid.surface(np.random.default_rng(0).random((3000, 3)))
    found = trainer.model.evaluate(torch.from_numpy(places).float(), "color").numpy()
    wanted = trainer.solid.colors(places, faces)
    assert np.abs(found - wanted).mean() < 0.5 * np.abs(wanted - wanted.mean(0)).mean()


def test_the_report_has_figures_pictures_and_the_mesh_in_its_own_coordinates(tmp_path):
    with make(max_steps=150, run_dir=tmp_path / "ring", examples_every="50%", render_every="50%") as trainer:
        trainer.train()
        found = trainer.report(tmp_path)
        run = trainer.run.path
    assert found["iou"] == pytest.approx(trainer.validation_metrics["iou"], abs=0.02)
    assert found["distance"] < 0.01 and found["normal_error"] < 40
    assert found["shape of the data"] == "1 part, watertight, genus 1"
    assert all(found[name].stat().st_size > 500 for name in ("views", "slices", "mesh", "growth"))
    mesh = read_mesh(found["mesh"])
    assert mesh.colors is not None
    np.testing.assert_allclose((mesh.vertices.max(0) + mesh.vertices.min(0)) / 2, 7, atol=0.5)
    np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), [14.5, 4.5, 14.5], atol=1.0)
    renders = sorted(file.name for file in (run / "renders" / "step-00000150").glob("*.exr"))
    channels = ("sdf", "density", "color", "normal", "depth", "distance", "opacity")
    assert renders == sorted(f"{view}-{name}.exr" for view in ("front", "back") for name in channels)
    assert len(list((run / "examples").glob("*-view.png"))) == 2


@pytest.mark.parametrize("grid", ["hash", "octree", "siren"])
def test_the_best_model_comes_back_from_disk_and_is_tested(grid, tmp_path):
    settings = GRIDS[grid] | ({"prune_every": "5 steps", "prune_from": None} if grid == "octree" else {})
    with make(max_steps=30, run_dir=tmp_path / "ring", **settings) as trainer:
        trainer.train()
        points = torch.rand(100, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
        expected = trainer.model.evaluate(points)
        run = trainer.run.path
        model = SDFTrainer.load_model(run)
        assert torch.equal(model.evaluate(points), expected)
        assert torch.equal(model.to_input, trainer.model.to_input) and model.colored
        found = trainer.test_report(tmp_path / "test", trainer.test_feed)
    assert found["page"].is_file() and {"iou", "distance", "mesh"} <= found.keys()
    table = json.loads(found["table"].read_text())
    assert [row["name"] for row in table["rows"]] == ["front", "back"]


def test_two_runs_of_one_seed_are_equal_and_another_seed_is_not():
    runs = [make(max_steps=5, seed=seed) for seed in (0, 0, 1)]
    digests = []
    for trainer in runs:
        trainer.train()
        digests.append(trainer.digest())
    assert digests[0] == digests[1] != digests[2]


def test_doubts_about_the_mesh_are_warned_of_and_put_into_the_journal(tmp_path):
    solid = torus()
    path = tmp_path / "ring.obj"
    lines = [f"v {x} {y} {z}" for x, y, z in solid.vertices] + [f"f {a + 1} {c + 1} {b + 1}" for a, b, c in solid.faces]
    path.write_text("\n".join(lines[:-1]))
    config = SDFConfig(**SMALL)
    with pytest.warns(UserWarning) as caught:
        data = SDFTrainer.load_data(config, path)
    assert [str(warning.message) for warning in caught] == [f"{path}: {note}" for note in data["data"].notes]
    trainer = SDFTrainer(config, **data, max_steps=1)
    trainer.train()
    said = [entry["said"] for entry in trainer.journal if entry["event"] == "data"]
    assert said[0].startswith("it was inside out") and "not watertight" in said[1]
    assert SDFTrainer.load_data(SDFConfig(), None)["data"].name == "the knot"


def test_a_run_rewinds_across_a_pruning_and_forks_from_before_it(tmp_path):
    settings = EXACT["octree"] | {"max_steps": 12, "save_every": "4 steps", "keep_checkpoints": 5}
    with make(**settings, run_dir=tmp_path / "ring" / "v001") as trainer:
        trainer.train()
        digest, cells = trainer.digest(), len(trainer.model.grid.cells)
        trainer.rewind(4)
        assert len(trainer.model.grid.cells) > cells and trainer.progress.step == 4
        trainer.train()
        assert trainer.digest() == digest and len(trainer.model.grid.cells) == cells
    fork = fork_run(tmp_path / "ring" / "v001", 4, {"trainer": "sdf", "data": None, "config": {}})
    with make(**settings | {"prune_every": None}, run_dir=fork, resume=True) as whole:
        whole.train()
        assert len(whole.model.grid.cells) > cells and whole.progress.step == 12
    with make(**settings, run_dir=fork_run(tmp_path / "ring" / "v001", 4, {}), resume=True) as same:
        same.train()
        assert same.digest() == digest
