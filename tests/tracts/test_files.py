"""Streamline files: every format into every other, grids that run any way, and what damaged files say."""

from __future__ import annotations

import sys
import warnings
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest

from treadle.errors import UsageError
from treadle.tracts.files import read_streamlines, write_streamlines
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.volumes import write_volume


def oblique(flips: tuple[int, int, int] = (1, 1, 1), order: tuple[int, int, int] = (0, 1, 2)) -> Space:
    """A grid of 2 x 1.5 x 3 mm, turned by some 20 degrees, whose axes run as asked."""
    turn = np.linalg.qr(np.array([[1, 0.2, -0.1], [-0.25, 1, 0.15], [0.1, -0.2, 1]]))[0]
    turn = turn * np.sign(np.diag(turn))
    affine = np.eye(4)
    affine[:3, :3] = turn[:, order] * (np.array([2.0, 1.5, 3.0]) * flips)
    affine[:3, 3] = (40, -71.5, 12.25)
    return Space(affine, (30, 40, 20))


def some_lines(space: Space, known: bool = True) -> Streamlines:
    generator = np.random.default_rng(3)
    lines = [generator.uniform(0, space.shape, (count, 3)) for count in (5, 2, 1, 40)]
    packed = Streamlines.of(lines)
    if not known:
        return packed
    per_line = {"bundle": np.arange(4, dtype=np.float32)[:, None], "colour": generator.random((4, 3), np.float32)}
    per_point = {"fa": generator.random((48, 1), np.float32), "direction": generator.random((48, 3), np.float32)}
    return Streamlines(packed.points, packed.offsets, per_line, per_point)


SPACES = [oblique(), oblique((-1, 1, 1)), oblique((-1, -1, 1), (1, 0, 2)), oblique((1, -1, -1), (2, 0, 1))]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: "".join(nibabel.aff2axcodes(space.affine)))
def test_every_format_into_every_other(tmp_path: Path, space: Space) -> None:
    lines = some_lines(space)
    world = space.to_world(lines.points)
    write_streamlines(tmp_path / "0.trk", lines, space)
    for count, (before, after) in enumerate([("trk", "trx"), ("trx", "trk"), ("trk", "tck"), ("tck", "trx")]):
        found, grid = read_streamlines(tmp_path / f"{count}.{before}", space)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            write_streamlines(tmp_path / f"{count + 1}.{after}", found, grid)
        assert [str(one.message).partition(":")[2] for one in said] == (
            []
            if after != "tck"
            else [" TCK holds points alone: bundle, colour, direction, fa left out (TRK and TRX keep them)"]
        )
        again, same = read_streamlines(tmp_path / f"{count + 1}.{after}", grid)
        assert same.same(space)
        np.testing.assert_array_equal(again.offsets, lines.offsets)
        assert np.abs(same.to_world(again.points) - world).max() < 1e-4
        assert np.abs((again.points - lines.points) * space.voxel_sizes).max() < 1e-4
        if after != "tck" and before != "tck":
            assert again.per_line.keys() == lines.per_line.keys() and again.per_point.keys() == lines.per_point.keys()
            for name, values in {**lines.per_line, **lines.per_point}.items():
                kept = {**again.per_line, **again.per_point}[name]
                np.testing.assert_array_equal(kept, values)
                assert kept.dtype == np.float32


@pytest.mark.parametrize("ending", ["trk", "tck"])
@pytest.mark.parametrize("space", SPACES, ids=lambda space: "".join(nibabel.aff2axcodes(space.affine)))
def test_nibabel_reads_the_same_places(tmp_path: Path, space: Space, ending: str) -> None:
    lines = some_lines(space, known=False)
    write_streamlines(tmp_path / f"a.{ending}", lines, space)
    found = nibabel.streamlines.load(tmp_path / f"a.{ending}")
    np.testing.assert_allclose(np.concatenate(list(found.streamlines)), space.to_world(lines.points), atol=1e-4)


@pytest.mark.parametrize("space", SPACES[1:3], ids=lambda space: "".join(nibabel.aff2axcodes(space.affine)))
def test_trx_python_reads_ours_and_we_read_its(tmp_path: Path, space: Space) -> None:
    trx = pytest.importorskip("trx.trx_file_memmap")
    lines = some_lines(space)
    write_streamlines(tmp_path / "ours.trx", lines, space)
    file = trx.load(str(tmp_path / "ours.trx"))
    np.testing.assert_allclose(file.streamlines.get_data(), space.to_world(lines.points), atol=1e-4)
    np.testing.assert_allclose(file.header["VOXEL_TO_RASMM"], space.affine, atol=1e-5)
    np.testing.assert_array_equal(file.data_per_streamline["colour"], lines.per_line["colour"])
    np.testing.assert_array_equal(file.data_per_vertex["fa"].get_data(), lines.per_point["fa"])
    trx.save(file, str(tmp_path / "theirs.trx"))
    file.close()
    found, grid = read_streamlines(tmp_path / "theirs.trx")
    assert grid.same(space)
    np.testing.assert_array_equal(found.offsets, lines.offsets)
    np.testing.assert_allclose(found.points, lines.points, atol=1e-4)
    np.testing.assert_array_equal(found.per_line["bundle"], lines.per_line["bundle"])
    np.testing.assert_array_equal(found.per_point["direction"], lines.per_point["direction"])


@pytest.mark.parametrize("ending", ["trk", "tck", "trx"])
def test_no_lines_at_all(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"none.{ending}"
    write_streamlines(path, Streamlines.of([]), SPACES[0])
    assert len(read_streamlines(path, SPACES[0])[0]) == 0


def test_a_reference_is_a_file_too(tmp_path: Path) -> None:
    space = SPACES[1]
    write_volume(tmp_path / "v.nii.gz", np.zeros(space.shape), space)
    for name in ("a.tck", "a.trk"):
        write_streamlines(tmp_path / name, some_lines(space, known=False), space)
    for reference in ("v.nii.gz", "a.trk"):
        found, grid = read_streamlines(tmp_path / "a.tck", tmp_path / reference)
        assert grid.same(space)
        np.testing.assert_allclose(found.points, some_lines(space).points, atol=1e-4)


@pytest.mark.parametrize("ending", ["trk", "tck", "trx"])
@pytest.mark.parametrize("keep", [0.999, 0.6, 0.02, 0.0])
def test_a_file_that_is_cut_off(tmp_path: Path, ending: str, keep: float) -> None:
    path = tmp_path / f"cut.{ending}"
    write_streamlines(path, some_lines(SPACES[0], known=ending != "tck"), SPACES[0])
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UsageError, match=rf"cut\.{ending} cannot be read as {ending.upper()}: .") as caught:
        read_streamlines(path, SPACES[0])
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_off_between_two_lines(tmp_path: Path) -> None:
    """Where a reader sees nothing wrong, but that the header has promised more."""
    path = tmp_path / "cut.trk"
    write_streamlines(path, some_lines(SPACES[0], known=False), SPACES[0])
    path.write_bytes(path.read_bytes()[: -(4 + 40 * 12)])
    with pytest.raises(UsageError, match="3 of its 4 streamlines are there: is it cut off"):
        read_streamlines(path)


def test_a_trx_that_holds_less_than_it_says(tmp_path: Path) -> None:
    path = tmp_path / "a.trx"
    write_streamlines(path, some_lines(SPACES[0]), SPACES[0])
    with zipfile.ZipFile(path) as old:
        parts = {info.filename: old.read(info) for info in old.infolist()}
    short = {**parts, "dpv/fa.float32": parts["dpv/fa.float32"][:-4]}
    without = {name: part for name, part in parts.items() if not name.startswith("offsets")}
    for changed, said in (
        (short, "dpv/fa.float32 has 188 bytes, not 48 x 1 float32"),
        (without, "it holds no offsets"),
    ):
        with zipfile.ZipFile(path, "w") as new:
            for name, part in changed.items():
                new.writestr(name, part)
        with pytest.raises(UsageError, match=rf"a\.trx cannot be read as TRX: {said}"):
            read_streamlines(path)


@pytest.mark.parametrize("ending", ["trk", "tck", "trx"])
def test_a_file_of_another_kind(tmp_path: Path, ending: str) -> None:
    for other in {"trk", "tck", "trx"} - {ending}:
        write_streamlines(tmp_path / f"a.{other}", some_lines(SPACES[0], known=False), SPACES[0])
        path = (tmp_path / f"a.{other}").rename(tmp_path / f"b.{ending}")
        with pytest.raises(UsageError, match=rf"b\.{ending} cannot be read as {ending.upper()}"):
            read_streamlines(path, SPACES[0])


def test_what_is_missing_or_does_not_fit(tmp_path: Path) -> None:
    space = SPACES[0]
    lines = some_lines(space, known=False)
    for name in ("a.tck", "a.trk", "a.trx"):
        write_streamlines(tmp_path / name, lines, space)
    with pytest.raises(UsageError, match=r"a\.tck: TCK does not say which grid it belongs to: give a NIfTI"):
        read_streamlines(tmp_path / "a.tck")
    with pytest.raises(UsageError, match=r"a\.trk has another grid than its volume: its affine differs by up to"):
        read_streamlines(tmp_path / "a.trk", SPACES[1])
    with pytest.raises(UsageError, match=r"a\.trx has another grid than .*b\.nii: 30x40x20 voxels, not 3x4x5"):
        write_volume(tmp_path / "b.nii", np.zeros((3, 4, 5)), Space(space.affine, (3, 4, 5)))
        read_streamlines(tmp_path / "a.trx", tmp_path / "b.nii")
    with pytest.raises(UsageError, match=r"b\.trk: no such file"):
        read_streamlines(tmp_path / "b.trk")
    with pytest.raises(UsageError, match=r"a\.vtk: expected streamlines, a file that ends in"):
        read_streamlines(tmp_path / "a.vtk")
    with pytest.raises(UsageError, match=r"a\.tck has no grid"):
        read_streamlines(tmp_path / "a.tck", tmp_path / "a.tck")


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        ("a.trk", Streamlines.of([np.ones((2, 3)), np.zeros((0, 3))]), "streamline 1 has no points"),
        ("a.trx", Streamlines.of([np.full((2, 3), np.nan)]), "NaN or infinite"),
        ("a.trk", Streamlines(np.ones((2, 3)), np.array([0, 2]), {"n" * 30: np.ones((1, 1))}), "cannot hold these"),
        ("a.trx", Streamlines(np.ones((2, 3)), np.array([0, 2]), {"a/b": np.ones((1, 1))}), "TRX cannot name"),
        ("no/a.trk", Streamlines.of([np.ones((2, 3))]), "cannot be written: No such file"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, name: str, lines: Streamlines, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        write_streamlines(tmp_path / name, lines, SPACES[0])
    assert list(tmp_path.iterdir()) == []


def test_the_same_lines_give_the_same_bytes(tmp_path: Path) -> None:
    for ending in ("trk", "trx"):
        write_streamlines(tmp_path / f"a.{ending}", some_lines(SPACES[0]), SPACES[0])
        write_streamlines(tmp_path / f"b.{ending}", some_lines(SPACES[0]), SPACES[0])
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_streamlines(tmp_path / "a.trk", some_lines(SPACES[0]), SPACES[0])
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(UsageError, match=r"needs nibabel: install it with: pip install 'treadle\[tracts\]'"):
        read_streamlines(tmp_path / "a.trk")
    write_streamlines(tmp_path / "a.trx", some_lines(SPACES[0]), SPACES[0])  # needs no package
