"""What `treadle export` writes of a scene: in the coordinates of the input, cropped and thinned; and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from treadle.cameras.camera import Camera
from treadle.errors import RunError, UsageError
from treadle.export.exporter import Exporter
from treadle.export.look import Look, View
from treadle.export.mesh import read_mesh
from treadle.export.setting import Setting
from treadle.splats.cloud import Cloud
from treadle.splats.compressed_ply import read_compressed
from treadle.splats.exporters import splat_exporters
from treadle.splats.ply import read_cloud
from treadle.splats.scene import Scene, looking, surfaces
from treadle.splats.spz import read_spz
from treadle.splats.transform import transformed

TO_INPUT = np.array([[1.2, -1.6, 0, 10], [1.6, 1.2, 0, 20], [0, 0, 2.0, 30], [0, 0, 0, 1]])
BALL = 1.0


def camera(eye: Sequence[float], size: int = 60) -> Camera:
    """At `eye`, looking at the origin."""
    forward = -np.array(eye) / np.linalg.norm(eye)
    right = np.cross(forward, [0.1, 0.9, 0.3])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, -rotation @ np.array(eye)
    return Camera(size, size, size * 1.1, size * 1.1, size / 2, size / 2, pose)


EYES = [(4, 0, 0), (-4, 0, 0), (0, 4, 0), (0, -4, 0), (0, 0, 4), (0, 0, -4), (2.3, 2.3, 2.3), (-2.3, -2.3, -2.3)]


def ball(cloud: Cloud, background: torch.Tensor) -> Look:
    """Whatever the splats are, a red ball of radius 1 about the origin is seen, over the background."""
    assert len(cloud)

    def look(view: Camera) -> View:
        columns, rows = np.meshgrid(np.arange(view.width) + 0.5, np.arange(view.height) + 0.5)
        rays = np.stack([(columns - view.cx) / view.fx, (rows - view.cy) / view.fy, np.ones_like(rows)], -1)
        rays = rays @ view.world_to_camera[:3, :3]
        a, b = (rays**2).sum(-1), rays @ view.center
        inner = b * b - a * (view.center @ view.center - BALL**2)
        hit = inner > 0
        image = np.where(hit[..., None], (1.0, 0, 0), background.numpy())
        depth = np.where(hit, (-b - np.sqrt(np.maximum(inner, 0))) / a, 0)
        return View(*(torch.from_numpy(part.astype(np.float32)) for part in (image, depth, hit)))

    return look


@pytest.fixture
def scene(cloud: Cloud) -> Scene:
    def path(kind: str, setting: Setting, frames: int) -> list[Camera]:
        if kind != "orbit":
            raise UsageError(f"--video {kind}: no such path")
        return [setting.cameras[number % len(EYES)] for number in range(frames)]

    setting = Setting([camera(eye) for eye in EYES], torch.tensor([0.0, 0, 1]))
    return Scene(cloud, TO_INPUT, lambda: setting, path, {"step": 7})


def export(scene: Scene, kind: str, path: Path, **values: Any) -> dict[str, Any]:
    """As the command does it: each option has its default."""

    def load(run: Path) -> Scene:
        assert run == Path("a run")
        return scene

    exporter: Exporter = splat_exporters(load, ball, lambda cloud, background, scatter: ball(cloud, background))[kind]
    given = {name.replace("_", "-"): value for name, value in values.items()}
    options = {option.name: option.default if option.metavar else False for option in exporter.options}
    assert given.keys() <= {*options, kind}
    return dict(exporter.write(Path("a run"), path, {kind: True, **options, **given}))


def test_a_ply_is_in_the_inputs_coordinates(tmp_path: Path, scene: Scene) -> None:
    facts = export(scene, "ply", tmp_path / "x.ply")
    found, expected = read_cloud(tmp_path / "x.ply"), transformed(scene.cloud, TO_INPUT)
    assert torch.equal(found.means, expected.means) and torch.equal(found.rest, expected.rest)
    assert float((found.means - torch.tensor([10.0, 20, 30])).abs().max()) < 5.7
    assert facts == {"step": 7, "splats": "300", "degree": 3, "read back": "the same, bit for bit",
                     "bytes": facts["bytes"]}  # fmt: skip
    assert facts["bytes"].startswith(f"{(tmp_path / 'x.ply').stat().st_size} (")


def test_what_is_not_read_back_as_it_was_fails(tmp_path: Path, scene: Scene) -> None:
    scene.cloud.logits[0] = torch.inf
    with pytest.raises(RunError, match="was not read back as it was written"):
        export(scene, "ply", tmp_path / "x.ply")


def test_where_nothing_is_to_be_turned_not_a_bit_changes(tmp_path: Path, scene: Scene) -> None:
    export(replace(scene, to_input=np.eye(4)), "ply", tmp_path / "x.ply")
    assert torch.equal(read_cloud(tmp_path / "x.ply").quaternions, scene.cloud.quaternions)


def test_up_and_scale_come_after_the_input_and_the_crop_last(tmp_path: Path, scene: Scene) -> None:
    facts = export(scene, "ply", tmp_path / "x.ply", up="z", scale=0.5, crop=(4, 14, -11, 6, 16, -9), min_opacity=0.3)
    found = read_cloud(tmp_path / "x.ply")
    turned = (scene.cloud.means.double() @ torch.tensor(TO_INPUT[:3, :3]).T + torch.tensor(TO_INPUT[:3, 3])) / 2
    places = torch.stack([turned[:, 0], turned[:, 2], -turned[:, 1]], 1)  # z has become y
    keep = ((places >= torch.tensor([4.0, 14, -11])) & (places <= torch.tensor([6.0, 16, -9]))).all(1)
    keep &= scene.cloud.logits.sigmoid() >= 0.3
    assert 5 < len(found) == int(keep.sum()) < 290 and facts["splats"] == f"{len(found)} of 300"
    torch.testing.assert_close(found.means.double(), places[keep], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.log_scales, scene.cloud.log_scales[keep], atol=1e-6, rtol=0)  # 2 x .5


def test_compressed_says_what_is_lost(tmp_path: Path, scene: Scene) -> None:
    scene = replace(scene, cloud=replace(scene.cloud, extra={"heat": scene.cloud.logits}))
    for name, read in (("x.compressed.ply", read_compressed), ("x.spz", read_spz)):
        facts = export(scene, "compressed", tmp_path / name)
        assert len(read(tmp_path / name)) == 300 and facts["left out"] == "heat"
        assert facts["lost of rotation"].endswith("at most (degrees)")
        rms, largest = (float(part.split()[0]) for part in facts["lost of position"].split(","))
        assert 0 < rms < largest < 0.02
        assert {f"lost of {what}" for what in ("position", "scale", "opacity", "colour", "harmonics")} < facts.keys()
    assert "% of a plain PLY)" in facts["bytes"]


@pytest.mark.parametrize("ending", ["ply", "obj", "glb"])
def test_a_mesh_is_fused_moved_and_cropped(tmp_path: Path, scene: Scene, ending: str) -> None:
    pytest.importorskip("skimage")
    path = tmp_path / f"x.{ending}"
    facts = export(scene, "mesh", path, resolution=40, largest=True)
    mesh = read_mesh(path)
    radii = np.linalg.norm(mesh.vertices - TO_INPUT[:3, 3], axis=1)
    assert np.abs(radii - 2 * BALL).max() < facts["voxel"] < 0.3
    assert facts["vertices"] == len(mesh.vertices) and facts["faces"] == len(mesh.faces)
    assert mesh.colors is not None and (mesh.colors == (255, 0, 0)).mean() > 0.98
    cut = export(scene, "mesh", path, resolution=40, crop=(10, 17, 27, 13, 23, 33))
    half = read_mesh(path)
    assert (
        half.vertices[:, 0].min() >= 10 and np.abs(np.linalg.norm(half.vertices - [10, 20, 30], axis=1) - 2).max() < 0.2
    )
    assert cut["splats"].endswith(" of 300") and cut["voxel"] < facts["voxel"]


def test_a_video_follows_the_path(tmp_path: Path, scene: Scene) -> None:
    from PIL import Image

    facts = export(scene, "video", tmp_path / "x.gif", video="orbit", frames=3, width=30, fps=10.0, depth="apart")
    assert facts["frames"] == "3 of 30 x 30 pixels" and facts["depth"] == tmp_path / "x-depth.gif"
    with Image.open(tmp_path / "x.gif") as file:
        picture = np.asarray(file.convert("RGB"))
    assert picture[15, 15].tolist() == [255, 0, 0] and picture[0, 0].tolist() == [0, 0, 255]
    with pytest.raises(UsageError, match="--video loop: no such path"):
        export(scene, "video", tmp_path / "y.gif", video="loop")
    with pytest.raises(UsageError, match="--video orbit has no cameras"):
        export(scene, "video", tmp_path / "y.gif", video="orbit", frames=0)


@pytest.mark.parametrize("kind", ["ply", "compressed", "mesh", "video"])
def test_nothing_left_is_said(tmp_path: Path, scene: Scene, kind: str) -> None:
    with pytest.raises(UsageError, match="nothing is left of 300 splats"):
        export(scene, kind, tmp_path / "x.ply", crop=(0, 0, 0, 1, 1, 1), **{kind: "orbit"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "text"),
    [("crop", "1,2,x"), ("min-opacity", "half"), ("scale", "F"), ("resolution", "0"), ("frames", "1.5"),
     ("fps", "-1"), ("fps", "nan"), ("width", "-3"), ("up", "w")],
)  # fmt: skip
def test_options_refuse_what_they_cannot_be(scene: Scene, option: str, text: str) -> None:
    formats = splat_exporters(lambda run: scene).values()
    found = next(entry for exporter in formats for entry in exporter.options if entry.name == option)
    with pytest.raises((ValueError, UsageError)):
        found.read(text)


def test_options_read_what_they_can_be(scene: Scene) -> None:
    options = {
        entry.name: entry for exporter in splat_exporters(lambda run: scene).values() for entry in exporter.options
    }
    texts = {"crop": "-1,0,1e1,2,3,4", "min-opacity": ".05", "up": "-y", "scale": "2", "resolution": "128", "fps": "24"}
    values = {"crop": (-1, 0, 10, 2, 3, 4), "min-opacity": 0.05, "up": "-y", "scale": 2, "resolution": 128, "fps": 24}
    assert {name: options[name].read(text) for name, text in texts.items()} == values


def test_real_splats_are_seen(cloud: Cloud) -> None:
    """Rendered, not imagined: a scene of its own splats has a depth and a colour where they are."""
    view = looking(replace(cloud, logits=cloud.logits + 5, log_scales=cloud.log_scales + 2), torch.zeros(3))(
        camera(EYES[0])
    )
    seen = view.alpha >= 0.9
    assert view.image.shape == (60, 60, 3) and float(seen.float().mean()) > 0.1 and float(view.image.max()) <= 1
    assert float(view.depth[seen].min()) > 1.5 and float(view.depth[seen].max()) < 6.5


def test_depth_of_surfaces_is_nearer_to_them() -> None:
    """A ball of half-transparent splats, on it and behind it: mean depth lies inside, and scatters at the rim."""
    count = 6000
    heights = 1 - (2 * torch.arange(count) + 1) / count
    turns = torch.pi * (3 - 5**0.5) * torch.arange(count)
    flat = (1 - heights**2).sqrt()
    shell = torch.stack([flat * turns.cos(), flat * turns.sin(), heights], 1)
    means = torch.cat([shell, 0.9 * shell, 0.8 * shell])
    ones = torch.ones(len(means))
    splats = Cloud(means, torch.eye(4)[:1].expand(len(means), 4), torch.log(0.02 * ones)[:, None].expand(-1, 3).clone(),
                   -ones, torch.zeros(len(means), 3), torch.zeros(len(means), 0, 3))  # fmt: skip
    view, black = camera((0, 0, 4), 80), torch.zeros(3)
    truth = ball(splats, black)(view)
    plain, sharp, strict = (
        look(view) for look in (looking(splats, black), surfaces(splats, black, 1.0), surfaces(splats, black, 0.04))
    )
    assert torch.equal(plain.image, sharp.image) and torch.equal(plain.alpha, sharp.alpha)
    seen = truth.alpha > 0
    errors = [float((found.depth - truth.depth)[seen].abs().mean()) for found in (plain, sharp)]
    assert errors[1] < 0.6 * errors[0], "the first layer is taken for the surface"
    known = (strict.depth >= 0) & seen
    assert 0.2 < float(known.sum() / seen.sum()) < 0.95, "not where layers are seen side by side"
    assert torch.equal(strict.depth[known], sharp.depth[known]) and (strict.depth[~known & seen] == -1).all()
    assert float((strict.depth - truth.depth)[known].abs().mean()) < errors[1]
