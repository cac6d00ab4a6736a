"""The example of a field and a tracer of one's own: short, learning, and going together with the pack's."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from treadle.cameras.procedural import procedural_capture
from treadle.data.views import ViewFeed
from treadle.fields.field import Field
from treadle.fields.pipeline import Pipeline
from treadle.fields.rays import Rays
from treadle.fields.structures.occupancy import OccupancyGrid
from treadle.testing import check_resume


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / "own_field.py"
    spec = importlib.util.spec_from_file_location("example_own_field", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines_of(module: ModuleType, name: str) -> int:
    """How long a class is."""
    text = Path(str(module.__file__)).read_text()
    (found,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == name)
    return len((ast.get_source_segment(text, found) or "").splitlines())


def test_they_are_short(example: ModuleType) -> None:
    assert lines_of(example, "Balls") <= 30 and lines_of(example, "XRay") <= 60


def test_the_balls_learn_and_their_run_resumes_exactly(example: ModuleType, tmp_path: Path) -> None:
    views = procedural_capture(12, train=4, test=0).train
    losses: list[float] = []

    class Watched(example.BallsTrainer):  # type: ignore[name-defined,misc]
        def step(self, view: object) -> dict[str, object]:
            values = dict(super().step(view))
            losses.append(float(values["loss"].detach()))
            return values

    Watched(data=ViewFeed(views), max_steps=60, device="cpu").train()
    assert sum(losses[-8:]) < 0.6 * sum(losses[:8])
    check_resume(
        lambda **where: example.BallsTrainer(data=ViewFeed(views), max_steps=26, device="cpu", **where),
        tmp_path, stops=[7, 22],
    )  # fmt: skip


def test_an_x_ray_is_the_integral_of_the_density(example: ModuleType) -> None:
    class Fog(Field):
        channels = {"density": 1, "height": 1}

        def forward(self, points, directions=None, channels=None, lod=None):  # type: ignore[no-untyped-def]
            return {"density": torch.full((len(points), 1), 0.7), "height": points[:, 2:]}

    rays = Rays(torch.tensor([[-3.0, 0.1, 0.2], [0.0, 0.0, -5.0], [0.0, 4.0, 0.0]]),
                torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))  # fmt: skip
    seen = Pipeline(Fog(), example.XRay(OccupancyGrid(8)))(rays, ["height"])
    torch.testing.assert_close(seen.opacity, 1 - torch.tensor([-1.4, -1.4, 0.0]).exp(), atol=1e-3, rtol=0)
    torch.testing.assert_close(seen.channels["height"][:, 0], torch.tensor([0.2, 0.0, 0.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(seen.distance, torch.tensor([3.0, 5.0, 0.0]), atol=1e-2, rtol=0)
