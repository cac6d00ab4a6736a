"""Things in space: what fits together, what is thinned, and what a view in space and cameras come to."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from treadle.cameras.camera import Camera
from treadle.errors import UsageError
from treadle.reports import scene
from treadle.reports.scene import Scene, cameras_in, checked, scene_of, thinned
from treadle.reports.views import LiveView, Option, Shapes, Window


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


def whole() -> dict[str, Any]:
    """One of each."""
    return {
        "points": zeros(5, 3), "colors": zeros(5, 4, dtype=np.uint8), "radii": zeros(5), "scales": zeros(5, 3),
        "rotations": zeros(5, 4), "lines": zeros(7, 3), "line_colors": zeros(7, 3, dtype=np.uint8),
        "offsets": np.array([0, 3, 3, 7]), "vertices": zeros(3, 3), "faces": np.array([[0, 1, 2]], np.int32),
        "vertex_colors": zeros(3, 3, dtype=np.uint8), "boxes": zeros(2, 2, 3), "poses": np.eye(4)[None],
        "intrinsics": zeros(1, 6, dtype=np.float64),
    }  # fmt: skip


def test_what_fits_together_is_taken() -> None:
    for made in (Scene(), Scene(**whole()), Scene(points=zeros(0, 3))):
        assert checked(made) is made
    assert Scene().empty and Scene(points=zeros(0, 3)).empty and not Scene(boxes=zeros(1, 2, 3)).empty


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"points": [[0, 0, 0]]}, "points is a list"),
        ({"points": zeros(5, 2)}, r"points is float32 \(5, 2\)"),
        ({"points": zeros(5, 3, dtype=np.float64)}, "points is float64"),
        ({"colors": zeros(4, 3, dtype=np.uint8)}, "colors has 4 rows, which is not the number of points"),
        ({"points": None, "scales": None, "radii": None, "rotations": None}, "colors has 5 rows"),
        ({"rotations": None}, "only one of scales and rotations"),
        ({"intrinsics": None}, "only one of poses and intrinsics"),
        ({"offsets": np.array([0, 9])}, "offsets do not rise from 0 to the 7 points"),
        ({"offsets": np.array([0, 5, 3, 7])}, "offsets do not rise"),
        ({"faces": np.array([[0, 1, 3]], np.int32)}, "faces name vertices that are not among the 3"),
        ({"faces": np.array([[0, 1, -1]], np.int32)}, "faces name vertices"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=f"scene 'cells'.*{said}"):
        checked(Scene(**whole() | change), "cells")


def test_anything_else_is_no_scene() -> None:
    with pytest.raises(UsageError, match=r"scene 'cells' is a dict: expected a treadle\.reports\.scene\.Scene"):
        checked({"points": zeros(5, 3)}, "cells")


def test_what_is_too_much_is_thinned_evenly_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in {"MOST_POINTS": 3, "MOST_LINES": 2, "MOST_FACES": 0, "MOST_BOXES": 1, "MOST_CAMERAS": 1}.items():
        monkeypatch.setattr(scene, name, most)
    given = whole() | {"points": np.arange(15, dtype=np.float32).reshape(5, 3), "boxes": zeros(2, 2, 3),
                       "lines": np.arange(21, dtype=np.float32).reshape(7, 3)}  # fmt: skip
    few, told = thinned(Scene(**given))
    assert few.points is not None and few.points[:, 0].tolist() == [0, 6, 12]
    assert few.scales is not None and len(few.scales) == len(few.rotations) == len(few.radii) == len(few.colors) == 3  # type: ignore[arg-type]
    assert few.offsets is not None and few.lines is not None and few.line_colors is not None
    assert few.offsets.tolist() == [0, 3, 7] and few.lines[:, 0].tolist() == [0, 3, 6, 9, 12, 15, 18]
    assert len(few.line_colors) == 7 and few.vertices is None and few.faces is None and few.vertex_colors is None
    assert told == {"points": (3, 5), "boxes": (1, 2), "lines": (2, 3), "faces": (0, 1)}
    assert checked(few) is few
    monkeypatch.undo()
    same, told = thinned(Scene(**whole()))
    assert told == {} and all(getattr(same, name) is not None for name in whole())


def test_a_view_is_prepared_and_asked_with_its_defaults() -> None:
    class Grown(LiveView):
        kind = "space"
        pieces = 0

        def options(self) -> list[Option]:
            return [Option("most", "Points", "range", 2.0, low=0.0, high=9.0)]

        def prepare(self, window: Window) -> bool:
            self.pieces += 1
            return self.pieces >= 3

        def shapes(self, window: Window) -> Shapes:
            return Shapes(points=zeros(self.pieces * int(window.options["most"]), 3))

    camera = Camera(8, 6, 5.0, 4.0, 3.0, 2.0, np.diag([1.0, -1, -1, 1]) + np.eye(4, k=3), "one")
    found = scene_of(Grown(), {}, **cameras_in([camera, camera]))
    assert found.points is not None and len(found.points) == 6
    assert checked(found) is found and found.poses is not None and found.intrinsics is not None
    np.testing.assert_array_equal(found.poses[1], camera.camera_to_world)
    assert found.intrinsics[1].tolist() == [5, 4, 3, 2, 8, 6]
    assert checked(Scene(**cameras_in([]))).empty
    assert len(cameras_in([camera] * 1000)["poses"]) == scene.MOST_CAMERAS


def test_it_is_known_without_torch() -> None:
    code = "import treadle.sinks.services.service, sys; print([n for n in ('torch', 'PIL') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
