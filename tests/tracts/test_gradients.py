"""Tables of gradients: FSL's and MRtrix's say the same of the same scan, and what cannot be used is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from treadle.errors import UsageError
from treadle.tracts.gradients import read_gradients
from treadle.tracts.space import Space

COUNT = 7


def world() -> tuple[np.ndarray, np.ndarray]:
    """b-values and directions along the scanner's axes; two volumes without a gradient."""
    generator = np.random.default_rng(0)
    directions = generator.normal(size=(COUNT, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    b = np.array([0.0, 1000, 1000, 5, 2000, 1000, 2000])
    directions[b < 50] = 0
    return b, directions


def grid(signs: tuple[int, int, int] = (1, 1, 1)) -> tuple[Space, np.ndarray]:
    """A turned grid whose axes run as asked, and the axes themselves, (3, 3), columns of length 1."""
    turn = np.linalg.qr(np.array([[1, 0.2, -0.1], [-0.25, 1, 0.15], [0.1, -0.2, 1]]))[0]
    axes = turn * np.sign(np.diag(turn)) * signs
    affine = np.eye(4)
    affine[:3, :3] = axes * (2.0, 1.5, 3.0)
    return Space(affine, (4, 5, 6)), axes


def write_fsl(folder: Path, b: np.ndarray, directions: np.ndarray, axes: np.ndarray, columns: bool) -> None:
    """What FSL says of the same gradients: its table of directions is along the axes of a left-handed grid."""
    vectors = directions @ axes
    if np.linalg.det(axes) > 0:
        vectors[:, 0] *= -1
    np.savetxt(folder / "bval", b[:, None] if columns else b[None])
    np.savetxt(folder / "bvec", vectors if columns else vectors.T)


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_both_frames_give_the_same_directions(tmp_path: Path, signs: tuple[int, int, int], columns: bool) -> None:
    b, directions = world()
    space, axes = grid(signs)
    write_fsl(tmp_path, b, 0.98 * directions, axes, columns)
    np.savetxt(tmp_path / "table.b", np.column_stack([directions * 1.01, b]), header="made by hand")
    fsl = read_gradients(tmp_path / "bval", tmp_path / "bvec", space)
    mrtrix = read_gradients(tmp_path / "table.b", None, space)
    for found in (fsl, mrtrix):
        np.testing.assert_array_equal(found.bvalues, [0, 1000, 1000, 0, 2000, 1000, 2000])
        np.testing.assert_allclose(found.directions, directions @ axes, atol=1e-12)


def test_nan_where_there_is_no_gradient_is_no_direction(tmp_path: Path) -> None:
    b, directions = world()
    directions[0] = np.nan
    write_fsl(tmp_path, b, directions, np.eye(3), True)
    found = read_gradients(tmp_path / "bval", tmp_path / "bvec", grid()[0])
    np.testing.assert_array_equal(found.directions[0], 0)


@pytest.mark.parametrize(
    ("bval", "bvec", "said"),
    [
        ("bvec", "bval", "bvec holds directions and .*bval b-values: the two files are the other way round"),
        ("bval", "bval", "bval has 1 rows and 7 columns: expected directions in three rows or three columns"),
        ("bvec", "bvec", "bvec has 3 rows and 7 columns: expected b-values in one row or one column"),
        ("short", "bvec", "short has 6 b-values, but .*bvec has 7 directions"),
        ("bval", "nan", r"nan has the direction nan .* for volume 2, whose b-value is 1000: expected a direction"),
        ("bval", "zero", r"zero has the direction -?0 0 0 for volume 1, whose b-value is 1000: expected a direction"),
        ("bnan", "bvec", "bnan has the b-value nan for volume 1"),
        ("negative", "bvec", "negative has the b-value -1000 for volume 1"),
        ("units", "bvec", r"units has no b-value above 50 s/mm\^2 \(the largest is 2\): in other units"),
        ("table", "bvec", "table has four columns: it is MRtrix's table of gradients, which is given alone"),
        ("bval", "table", "table has four columns"),
        ("bval", None, "bval has 1 rows and 7 columns, where MRtrix's table .*: FSL's b-values and directions are two"),
        ("words", "bvec", "words is no text file of numbers: could not convert string to float: 'b'"),
        ("binary", "bvec", "binary is no text file of numbers"),
        ("empty", "bvec", "empty is empty"),
        ("ragged", "bvec", "ragged has lines of 2 and of 3 numbers"),
        ("absent", "bvec", "absent: no such file"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, bval: str, bvec: str | None, said: str) -> None:
    b, directions = world()
    write_fsl(tmp_path, b, directions, np.eye(3), False)
    np.savetxt(tmp_path / "short", b[None, :6])
    np.savetxt(tmp_path / "negative", -b[None])
    np.savetxt(tmp_path / "units", b[None] / 1000)
    np.savetxt(tmp_path / "table", np.column_stack([directions, b]))
    bad = directions.copy()
    bad[2] = np.nan
    np.savetxt(tmp_path / "nan", bad.T)
    bad[1:3] = 0, 0, 0
    np.savetxt(tmp_path / "zero", bad.T)
    (tmp_path / "bnan").write_text("0 nan 1 1 1 1 1")
    (tmp_path / "words").write_text("# a table\nb values")
    (tmp_path / "binary").write_bytes(b"\x1f\x8b\xff\xfe")
    (tmp_path / "empty").write_text("# nothing\n\n")
    (tmp_path / "ragged").write_text("1 2\n1 2 3")
    with pytest.raises(UsageError, match=said) as caught:
        read_gradients(tmp_path / bval, tmp_path / bvec if bvec else None, grid()[0])
    assert "\n" not in str(caught.value)
