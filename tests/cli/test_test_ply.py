"""`treadle test --ply`: splats of any program against photographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from treadle.cameras.procedural import procedural_capture
from treadle.splats.ply import write_cloud
from treadle.splats.rendering import render
from treadle.splats.settings import SplatsConfig
from treadle.splats.start import start


@pytest.fixture
def garden(treadle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Blender scene whose photographs are what the splats of garden.ply look like over white."""
    monkeypatch.chdir(tmp_path)
    capture = procedural_capture(16, 4, 2, points=200)
    cloud = start(SplatsConfig(strategy="adc", degree=1), capture)
    cloud.rest[:] = torch.rand(200, 3, 3) - 0.5
    write_cloud("garden.ply", cloud)
    for split, views in (("train", capture.train), ("test", capture.test)):
        frames = []
        for number, camera in enumerate(views.cameras):
            with torch.no_grad():
                seen = render(cloud, camera, background=torch.ones(3)).image.clamp(0, 1).mul(255).round().byte()
            file = Path("garden", split, f"{number}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(seen.numpy()).save(file)
            pose = camera.camera_to_world.copy()
            pose[:, 1:3] *= -1
            frames.append({"file_path": f"./{split}/{number}", "transform_matrix": pose.tolist()})
        angle = 2 * torch.atan(torch.tensor(8 / camera.fx, dtype=torch.float64)).item()
        content = {"camera_angle_x": angle, "frames": frames}
        Path("garden", f"transforms_{split}.json").write_text(json.dumps(content))
    return Path("garden")


def test_splats_are_measured_on_what_is_held_out(treadle: Any, garden: Path) -> None:
    assert treadle("test", "--ply", "garden.ply", "--data", "garden", "--set", "background=white") == 0
    results = json.loads(Path("garden-test", "metrics.json").read_text())
    assert float(results["psnr"]) > 55 and results["splats"] == 200
    assert len(json.loads(Path("garden-test", "table.json").read_text())["rows"]) == 2
    assert "garden.ply on garden" in treadle.out and "psnr:" in treadle.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ply", "garden.ply"], "--ply needs the photographs to test on: give --data DIR"),
        (["--ply", "nothing.ply", "--data", "garden"], "--ply nothing.ply: no such file or directory"),
        (["runs/line", "--ply", "garden.ply"], "expected either RUN or --ply FILE"),
        (["--ply", "garden/transforms_test.json", "--data", "garden"], "transforms_test.json"),
    ],
)
def test_what_cannot_be_tested_is_refused_in_one_line(treadle: Any, garden: Path, arguments: Any, said: str) -> None:
    assert treadle("test", *arguments) == 2
    assert said in treadle.err and len(treadle.err.splitlines()) == 1
