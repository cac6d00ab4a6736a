from __future__ import annotations

import numpy as np
import pytest

from treadle.errors import UsageError
from treadle.tracts.getters.sphere import is_sphere, sphere


@pytest.mark.parametrize(("classes", "widest"), [(12, 64), (42, 38), (362, 13), (642, 9.7), (812, 8.7)])
def test_directions_are_even_and_come_with_their_opposites(classes: int, widest: float) -> None:
    found = sphere(classes)
    assert found.shape == (classes, 3) and np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-15)
    angles = np.degrees(np.arccos(np.clip(found @ found.T, -1, 1)))
    assert np.allclose(angles.max(1), 180, atol=1e-4)
    nearest = np.sort(angles, axis=1)[:, 1]
    assert nearest.max() < widest and nearest.min() > 0.6 * nearest.max()


def test_every_direction_is_near_one_of_them() -> None:
    anywhere = np.random.default_rng(0).normal(size=(5000, 3))
    anywhere /= np.linalg.norm(anywhere, axis=1, keepdims=True)
    assert np.degrees(np.arccos((anywhere @ sphere(642).T).max(1))).max() < 5.6


@pytest.mark.parametrize("classes", [0, 2, 11, 43, 724])
def test_there_is_no_sphere_of_any_number(classes: int) -> None:
    assert not is_sphere(classes)
    with pytest.raises(UsageError, match=rf"no sphere of {classes} directions: expected 10 f\^2 \+ 2"):
        sphere(classes)
