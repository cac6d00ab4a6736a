"""What a radiance field is trained on may be anything: one line says what is wrong with it, and exit code 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from treadle.cameras.procedural import camera_at
from treadle.cli.main import main
from treadle.errors import UsageError
from treadle.fields.nerf_trainer import NeRFTrainer


def write(folder: Path, views: int = 3, **changes: Any) -> Path:
    """A capture in instant-ngp's format, of so many pictures of 8 x 8."""
    folder.mkdir(exist_ok=True)
    frames = []
    for number in range(views):
        camera = camera_at((np.cos(number), np.sin(number), 0.5), 8)
        pose = camera.camera_to_world @ np.diag([1, -1, -1, 1])
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(folder / f"{number}.png")
        frames.append({"file_path": f"{number}.png", "transform_matrix": pose.tolist()})
    content = {"fl_x": 12.0, "w": 8, "h": 8, "frames": frames} | changes
    text = json.dumps({name: value for name, value in content.items() if value is not None})
    (folder / "transforms.json").write_text(text)
    return folder


def trained(folder: Path) -> NeRFTrainer:
    config = NeRFTrainer.Config(max_steps=2, samples=512, levels=2, log2_size=8, n_min=4, n_max=8, occupancy=8,
                                device="cpu", every=0, examples_every=None)  # fmt: skip
    trainer = NeRFTrainer(config, **NeRFTrainer.load_data(config, folder))
    trainer.train()
    return trainer


def test_such_a_capture_can_be_trained_on(tmp_path: Path) -> None:
    assert trained(write(tmp_path / "good")).progress.step == 2


NAN = {"file_path": "0.png", "transform_matrix": [[float("nan")] * 4] * 4}
SPOILED = {
    "no focal length": (lambda folder: write(folder, fl_x=None), "no focal length"),
    "one view": (lambda folder: write(folder, views=1), "one view|1 view|at least 2"),
    "no frames": (lambda folder: write(folder, views=0), "transforms.json"),
    "a missing picture": (lambda folder: (write(folder) / "1.png").unlink(), "missing"),
    "half a file": (lambda folder: halved(write(folder) / "transforms.json"), "transforms.json"),
    "half a picture": (lambda folder: halved(write(folder) / "1.png"), "1.png"),
    "NaN in a pose": (lambda folder: write(folder, frames=[NAN] * 2), "transform_matrix"),
    "nothing": (lambda folder: folder.mkdir(), "holds no capture"),
}  # fmt: skip


def halved(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("how", SPOILED)
def test_data_that_cannot_be_used_is_refused_by_name(how: str, tmp_path: Path) -> None:
    spoil, said = SPOILED[how]
    spoil(tmp_path / "bad")
    with pytest.raises(UsageError, match=said) as caught:
        trained(tmp_path / "bad")
    assert "\n" not in str(caught.value) and "bad" in str(caught.value)


def test_the_command_says_so_in_a_line_and_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "bad", fl_x=None)
    code = main(["train", "nerf", "--data", str(tmp_path / "bad"), "--run", str(tmp_path / "run")])
    error = capsys.readouterr().err.strip()
    assert code == 2 and "no focal length" in error and len(error.splitlines()) == 1
