"""A run's best model, loaded to track: the same lines as the trainer's, by Python and from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_tracts import SMALL, SPACE, data, subject

from treadle.cli.main import main
from treadle.errors import UsageError
from treadle.hooks.best_model import load_best
from treadle.tracts.data import tracking_mask
from treadle.tracts.files import read_streamlines
from treadle.tracts.loaded import TrackingModel
from treadle.tracts.prepared_writer import write_prepared
from treadle.tracts.settings import TractsConfig
from treadle.tracts.space import Space
from treadle.tracts.subject import MemorySubject, TractData
from treadle.tracts.tracking.model_propagator import ModelPropagator
from treadle.tracts.tracking.seeds import place_seeds
from treadle.tracts.tracking.settings import TrackingSettings
from treadle.tracts.tracking.tracker import track
from treadle.tracts.trainer import TractsTrainer
from treadle.tracts.volumes import write_volume

NEIGHBOURS = {"learning_rate": "0.02*5 3.0", "neighbourhood": "axes", "radius": 3.0, "radius_units": "mm"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of some epochs, the last of which are worse than the best; and its data as a file."""
    root = tmp_path_factory.mktemp("loaded")
    write_prepared(root / "small.h5", data())
    with TractsTrainer(data=data(), max_epochs=6, run_dir=root / "run", **SMALL | NEIGHBOURS) as trainer:
        trainer.train()
        assert trainer.best is not None and trainer.best["epoch"] == 5
    write_volume(root / "mask.nii.gz", (data().testing[0].volume("input") != 0).any(axis=3), SPACE)
    return root / "run" / "v001"


def test_it_tracks_the_lines_of_the_trainers_best_state(place: Path) -> None:
    trainer = TractsTrainer(data=data(), run_dir=place, resume=True, max_epochs=6, **SMALL | NEIGHBOURS)
    with trainer:
        one = trainer.shown()
        loaded = TractsTrainer.load_model(place)
        assert loaded.group == "input" and loaded.step == 2.0
        volume = torch.from_numpy(one.volume("input"))
        mask = tracking_mask(one, "input")
        seeds = place_seeds(mask, seed=0, total=40)
        settings = TrackingSettings(step=2.0, theta=60, shortest=0)

        def lines(propagator: ModelPropagator) -> np.ndarray:
            with torch.no_grad():
                return track(propagator, seeds, SPACE, mask, settings, seed=0).lines.points

        final = lines(trainer.propagator(one))
        load_best(trainer)
        best = lines(trainer.propagator(one))
        found = lines(ModelPropagator(loaded.model, volume, loaded.offsets(SPACE)))
    assert np.array_equal(found, best) and not np.array_equal(found, final)


def test_a_neighbourhood_in_millimetres_is_read_in_the_voxels_of_each_grid() -> None:
    config = TractsConfig(**SMALL | NEIGHBOURS)
    loaded = TrackingModel(torch.nn.Module(), config, 1.0)  # type: ignore[arg-type]
    for sizes in ([2.0, 2.0, 2.0], [1.0, 1.5, 3.0]):
        offsets = loaded.offsets(Space(np.diag([*sizes, 1.0]), (4, 4, 4)))
        assert offsets is not None and offsets.shape == (7, 3)
        away = offsets.numpy() * sizes
        assert np.linalg.norm(away, axis=1).tolist() == pytest.approx([0, *[3.0] * 6])
    assert TrackingModel(torch.nn.Module(), TractsConfig(), 1.0).offsets(SPACE) is None  # type: ignore[arg-type]


def test_a_model_trained_on_two_millimetres_tracks_in_a_grid_of_one(place: Path) -> None:
    """The same field in voxels of half the size: what is seen three millimetres away is the same, and so are lines."""
    loaded = TractsTrainer.load_model(place)
    volume = data().testing[0].volume("input")
    fine = np.repeat(np.repeat(np.repeat(volume, 2, 0), 2, 1), 2, 2)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = -0.5
    grid = Space(affine, (24, 24, 10))
    settings = TrackingSettings(step=2.0, theta=60, shortest=0)
    seeds = np.float32([[5.5, 5.5, 2.5], [6.5, 3.5, 2.5]])
    found = []
    for values, space, factor in ((volume, SPACE, 1), (fine, grid, 2)):
        propagator = ModelPropagator(loaded.model, torch.from_numpy(values), loaded.offsets(space))
        mask = np.ones(space.shape, bool)
        with torch.no_grad():
            found.append(track(propagator, factor * seeds, space, mask, settings, seed=0).lines)
    assert len(found[0]) == len(found[1]) == 2
    for coarse, twice in zip(found[0].points[:3], found[1].points[:3] / 2, strict=True):
        assert np.abs(coarse - twice).max() < 0.5
    assert found[0].lengths.max() >= 5


def test_the_command_line_tracks_prepared_data_as_python_does(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = place.parents[1]
    out = tmp_path / "tracks.trk"
    asked = ["track", str(place), str(root / "small.h5"), "--mask", str(root / "mask.nii.gz"), "--out", str(out)]
    how = ["--total", "30", "--theta", "60", "--min-length", "0"]
    assert main([*asked, *how]) == 2
    assert "small.h5 has 4 subjects: choose one with --subject NAME" in capsys.readouterr().err
    assert main([*asked, *how, "--subject", "fuor"]) == 2
    assert "did you mean 'four'?" in capsys.readouterr().err
    assert main([*asked, *how, "--subject", "four"]) == 0
    lines, space = read_streamlines(out)
    assert f"{len(lines)} streamlines" in capsys.readouterr().out and space.same(SPACE)

    loaded = TractsTrainer.load_model(place)
    one = data().testing[0]
    mask = (one.volume("input") != 0).any(axis=3)
    propagator = ModelPropagator(loaded.model, torch.from_numpy(one.volume("input")), loaded.offsets(SPACE))
    settings = TrackingSettings(step=loaded.step, theta=60, shortest=0)
    expected = track(propagator, place_seeds(mask, seed=0, total=30), SPACE, mask, settings, seed=0).lines
    assert np.array_equal(lines.offsets, expected.offsets) and len(lines) > 20
    assert np.allclose(lines.points, expected.points, atol=1e-4)


def test_what_is_no_such_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        TractsTrainer.load_model(tmp_path / "nowhere")


def test_a_volume_with_other_features_is_refused(place: Path) -> None:
    loaded = TractsTrainer.load_model(place)
    with pytest.raises(UsageError, match="the volume gives 28 features for each point, the model was trained on 42"):
        ModelPropagator(loaded.model, torch.ones(4, 4, 4, 4), loaded.offsets(SPACE))


def test_without_validation_the_final_weights_are_loaded(tmp_path: Path) -> None:
    one = subject("one")
    alone = TractData((MemorySubject("one", SPACE, one.given_volumes, one.given_lines),))
    with TractsTrainer(data=alone, max_epochs=2, run_dir=tmp_path / "run", **SMALL) as trainer:
        trainer.train()
    loaded = TractsTrainer.load_model(tmp_path / "run" / "v001")
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value)
