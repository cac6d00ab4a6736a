from __future__ import annotations

import numpy as np
import pytest
import torch

from treadle.errors import RunError, UsageError
from treadle.fields.offline import RENDERS, OfflineRenders, for_the_eye, save_channels
from treadle.images.reading import read_array
from treadle.testing import Line, line_data

OpenEXR = pytest.importorskip("OpenEXR")


def test_every_channel_is_written_for_the_eye_and_with_its_numbers(tmp_path):
    rng = np.random.default_rng(0)
    channels = {
        "color": torch.rand(5, 7, 3),
        "depth": rng.normal(5, 3, (5, 7, 1)).astype(np.float32),
        "features": rng.normal(size=(5, 7, 5)).astype(np.float32),
    }
    files = save_channels(tmp_path, 500, channels, "front")
    assert {file.parent.name for file in files} == {"step-00000500"}
    assert sorted(file.name for file in files) == sorted(
        f"front-{name}.{kind}" for name in channels for kind in ("png", "exr")
    )
    for name in ("color", "depth"):
        read = read_array(tmp_path / "step-00000500" / f"front-{name}.exr")
        np.testing.assert_array_equal(read, np.asarray(channels[name]))
    with OpenEXR.File(str(tmp_path / "step-00000500" / "front-features.exr"), separate_channels=True) as file:
        for k in range(5):
            np.testing.assert_array_equal(file.channels()[f"c{k}"].pixels, channels["features"][..., k])
    seen = read_array(tmp_path / "step-00000500" / "front-color.png") / 255
    np.testing.assert_allclose(seen, channels["color"], atol=0.5 / 255 + 1e-6)


def test_signs_are_colours_and_ranges_are_stretched():
    signed = np.array([[-2.0, 0.0, 1.0]], np.float32)[..., None]
    np.testing.assert_allclose(for_the_eye("sdf", signed)[0], [[0, 0, 1], [1, 1, 1], [1, 0.5, 0.5]])
    plain = np.array([[3.0, 5.0, np.inf, np.nan]], np.float32)[..., None]
    np.testing.assert_allclose(for_the_eye("depth", plain)[0, :, 0], [0, 1, 1, 0])
    share = np.array([[0.25, 0.5]], np.float32)[..., None]
    np.testing.assert_allclose(for_the_eye("opacity", share)[0, :, 0], [0.25, 0.5])
    normal = np.array([[[-1.0, 0.0, 1.0]]], np.float32)
    np.testing.assert_allclose(for_the_eye("normal", normal), [[[0, 0.5, 1]]])


def test_what_is_no_picture_is_refused_and_a_disk_that_refuses_is_named(tmp_path):
    with pytest.raises(UsageError, match="channel 'flat' has shape"):
        save_channels(tmp_path, 1, {"flat": np.zeros(3)})
    (tmp_path / "step-00000001").write_text("in the way")
    with pytest.raises(RunError, match="step-00000001"):
        save_channels(tmp_path, 1, {"depth": np.zeros((2, 2))})


def test_renders_come_on_schedule_and_change_nothing(tmp_path):
    def renders(trainer):
        assert not trainer.model.training
        return {"front": {"depth": torch.full((2, 3, 1), float(trainer.progress.step))}, "back": {}}

    def made(name, hooks):
        with Line(data=line_data(), max_steps=6, seed=0, run_dir=tmp_path / name, hooks=hooks) as trainer:
            trainer.train()
            return trainer.run.path, trainer.digest()

    path, digest = made("with", [OfflineRenders("2 steps", renders)])
    assert sorted(folder.name for folder in (path / RENDERS).iterdir()) == [f"step-0000000{k}" for k in (2, 4, 6)]
    assert float(read_array(path / RENDERS / "step-00000004" / "front-depth.exr").max()) == 4
    assert made("without", [])[1] == digest
