from __future__ import annotations

import numpy as np
import pytest

from treadle.cameras.similarity import UPS, box_around, scaling, upright
from treadle.errors import UsageError


@pytest.mark.parametrize("up", UPS)
def test_up_becomes_y(up: str) -> None:
    matrix = upright(up)
    np.testing.assert_allclose(matrix[:3, :3] @ UPS[up], [0, 1, 0], atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)
    assert up != "y" or (matrix == np.eye(4)).all()


def test_a_box_turned_by_an_eighth_lies_in_a_wider_one() -> None:
    c = np.sqrt(0.5)
    turned = np.array([[2 * c, -2 * c, 0, 1], [2 * c, 2 * c, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]])
    found = box_around((0, -1, -2, 2, 1, 2), turned)
    np.testing.assert_allclose(found, [[-c, -c, -1], [c, c, 1]], atol=1e-12)


def test_bad_choices_are_named() -> None:
    for call, said in [
        (lambda: scaling(0.0), "--scale 0: expected a number above 0"),
        (lambda: scaling(float("inf")), "--scale inf"),
        (lambda: upright("w"), "--up w: expected x, y, z"),
    ]:
        with pytest.raises(UsageError, match=said):
            call()
