"""PLY files: every kind of number and order, lists, and files that are not what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from treadle.cameras.ply import Ply, columns, read_ply, read_points_ply, write_ply
from treadle.errors import UsageError

SPOT = Path(__file__).parents[3] / "shared" / "data" / "nerf_spot"
POINTS = """ply
format {format} 1.0
comment by hand
element vertex 2
property float x
property double y
property float z
property uchar red
property uchar green
property uchar blue
{more}end_header
"""
FACES = "element face 2\nproperty list uchar int vertex_indices\nproperty short group\n"
ROWS = [(1.5, -2.25, 3.0, 10, 20, 30), (-1.0, 0.0, 1e-3, 255, 0, 128)]
FACE_ROWS = [([0, 1, 1], -7), ([1, 0, 0], 300)]


def binary(order: str) -> bytes:
    kinds = ["f4", "f8", "f4", "u1", "u1", "u1"]
    vertex = np.array(ROWS, [(name, order + kind) for name, kind in zip("xyzrgb", kinds, strict=True)])
    faces = np.array([(3, *row) for row in FACE_ROWS], [("n", "u1"), ("v", order + "i4", 3), ("g", order + "i2")])
    return vertex.tobytes() + faces.tobytes()


def contents() -> dict[str, bytes]:
    text = "\n".join(" ".join(map(str, row)) for row in ROWS) + "\n"
    text += "".join(f"3 {' '.join(map(str, corners))} {group}\n" for corners, group in FACE_ROWS)
    bodies = {"ascii": text.encode(), "binary_little_endian": binary("<"), "binary_big_endian": binary(">")}
    return {name: POINTS.format(format=name, more=FACES).encode() + body for name, body in bodies.items()}


@pytest.mark.parametrize("name", contents())
def test_all_three_formats_hold_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / "points.ply"
    path.write_bytes(contents()[name])
    ply = read_ply(path)
    assert list(ply.comments) == ["by hand"] and list(ply.elements) == ["vertex", "face"]
    assert ply.elements["vertex"].dtype.names == ("x", "y", "z", "red", "green", "blue")
    assert ply.elements["vertex"]["y"].dtype == np.float64 and ply.elements["vertex"]["y"].tolist() == [-2.25, 0]
    assert ply.elements["face"]["vertex_indices"].tolist() == [[0, 1, 1], [1, 0, 0]]
    assert ply.elements["face"]["group"].tolist() == [-7, 300]
    points, colors = read_points_ply(path)
    np.testing.assert_allclose(points, [row[:3] for row in ROWS], rtol=1e-7)
    assert colors is not None and colors.tolist() == [[10, 20, 30], [255, 0, 128]]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x.ply"
    faces = np.array([(row,) for row in ([0, 1, 2], [2, 1, 0])], [("vertex_indices", "i4", 3)])
    every = np.array([tuple(range(8))], [(f"p_{k}", k) for k in ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")])
    size = write_ply(path, Ply({"all": every, "face": faces, "none": every[:0]}, ["one", "two words"]))
    found = read_ply(path)
    assert size == path.stat().st_size and found.comments == ["one", "two words"]
    assert found.elements["all"].dtype == every.dtype and found.elements["all"] == every
    assert found.elements["face"]["vertex_indices"].tolist() == [[0, 1, 2], [2, 1, 0]]
    assert len(found.elements["none"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["x.ply"]


def test_columns_are_the_same_of_one_type_and_of_several() -> None:
    one = np.array([(1, 2, 3), (4, 5, 6)], [(name, "f4") for name in "abc"])
    several = one.astype([("a", "f4"), ("b", "f8"), ("c", "i2")])
    assert columns(one, "ca").tolist() == columns(several, "ca").tolist() == [[3, 1], [6, 4]]


def test_colours_of_floats_are_shares(tmp_path: Path) -> None:
    path = tmp_path / "x.ply"
    table = np.array([(0, 0, 0, 0.5, 2.0, np.nan)], [(n, "f4") for n in ("x", "y", "z", "red", "green", "blue")])
    write_ply(path, Ply({"vertex": table}))
    colors = read_points_ply(path)[1]
    assert colors is not None and colors.tolist() == [[128, 255, 0]]
    write_ply(path, Ply({"vertex": table[["x", "y", "z"]]}))
    assert read_points_ply(path)[1] is None


LITTLE = contents()["binary_little_endian"]
BAD = {
    "empty": (b"", "is no PLY file"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(50), "is no PLY file"),
    "header alone": (LITTLE[: LITTLE.index(b"end_header")], "its header has no end_header"),
    "endless header": (b"ply\n" + b"comment x\n" * 200_000, "its header has no end_header"),
    "no format": (LITTLE.replace(b"format binary_little_endian 1.0\n", b""), "does not say which format"),
    "unknown format": (LITTLE.replace(b"binary_little_endian", b"middle"), "'format middle 1.0'"),
    "unknown type": (LITTLE.replace(b"property double y", b"property quad y"), "'property quad y'"),
    "negative count": (LITTLE.replace(b"vertex 2", b"vertex -2"), "'element vertex -2'"),
    "huge count": (LITTLE.replace(b"vertex 2", b"vertex 99999999999"), "is cut off"),
    "huge count of text": (contents()["ascii"].replace(b"vertex 2", b"vertex 99999999999"), "is cut off"),
    "twice": (LITTLE.replace(b"double y", b"double x"), "two of property of vertex 'x'"),
    "cut off": (LITTLE[:-1], "is cut off: its header promises 2 rows of face"),
    "cut off early": (LITTLE[:-40], "is cut off: its header promises 2 rows of vertex"),
    "text cut off": (contents()["ascii"][:-6], "is cut off"),
    "words": (contents()["ascii"].replace(b"1.5", b"one"), "something that is no number"),
    "unequal lists": (contents()["ascii"].replace(b"3 1 0 0 300", b"2 1 0 300 0"), "differ in length"),
    "huge list": (LITTLE[:-30] + b"\xff" + LITTLE[-29:], "is cut off"),
    "unequal binary lists": (LITTLE[:-15] + b"\2" + LITTLE[-14:], "differ in length"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, what: str) -> None:
    content, said = BAD[what]
    path = tmp_path / "bad.ply"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_ply(path)
    assert said in str(caught.value) and "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_points_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ply"
    for rows, names, said in [
        ([], "xyz", "is empty"),
        ([(0, 0, np.inf)], "xyz", "point 0 of 1 has a coordinate that is not finite"),
        ([(0, 0)], "xy", "has no property 'z'"),
    ]:
        write_ply(path, Ply({"vertex": np.array(rows, [(name, "f4") for name in names])}))
        with pytest.raises(UsageError, match=said):
            read_points_ply(path)
    write_ply(path, Ply({"face": np.zeros(1, [("a", "f4")])}))
    with pytest.raises(UsageError, match="without an element named vertex"):
        read_points_ply(path)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    table = np.zeros(1, [("x", "f4")])
    with pytest.raises(UsageError, match="cannot be written"):
        write_ply(tmp_path / "no" / "x.ply", Ply({"vertex": table}))
    with pytest.raises(UsageError, match="one line of ASCII"):
        write_ply(tmp_path / "x.ply", Ply({"vertex": table}, ["a\nend_header"]))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not SPOT.is_dir(), reason="the shared pictures of spot are not on this machine")
def test_it_reads_the_points_of_another_program() -> None:
    points, colors = read_points_ply(SPOT / "points3d.ply")
    assert points.shape == (4000, 3) and colors is not None and colors.shape == (4000, 3)
    assert np.abs(points).max() < 2 and colors.std() > 10
    assert len(read_ply(SPOT / "mesh_normalized.ply").elements["face"]) > 1000
