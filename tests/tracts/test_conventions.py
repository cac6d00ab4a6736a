"""Real scans, stored in every way: streamlines and the tensor's direction enclose the same angle.

A wrong sign or order of axes, in the volume, in the gradients or in the streamlines, shows as another angle.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest

from treadle.tracts.files import read_streamlines, write_streamlines
from treadle.tracts.gradients import read_gradients
from treadle.tracts.signal.tensor import fit_tensors, principal
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.volumes import read_volume, write_volume

FLIPS = list(itertools.product((1, -1), repeat=3))
STORED = [*((flips, (0, 1, 2)) for flips in FLIPS), ((-1, 1, -1), (2, 0, 1))]
"""Which way the stored axes run, and which axes of the original they are."""


def angle(volume: Path, first: Path, second: Path | None, tracks: Path) -> tuple[float, float]:
    """Mean angle, in degrees, of the lines' segments with the tensor's principal direction at their midpoints; and with
    a direction whose first axis is turned round."""
    values, space = read_volume(volume)
    gradients = read_gradients(first, second, space)
    lines, _ = read_streamlines(tracks, space)
    inner = np.ones(len(lines.points) - 1, bool)
    inner[lines.offsets[1:-1] - 1] = False
    along = (np.diff(lines.points, axis=0) * space.voxel_sizes)[inner]
    middle = ((lines.points[1:] + lines.points[:-1]) / 2)[inner].astype(np.float64)
    assert space.inside(middle).all()
    corners = np.floor(middle - 0.5).astype(int)[:, None] + np.array(list(np.ndindex(2, 2, 2)))
    weights = np.prod(1 - np.abs(middle[:, None] - 0.5 - corners), axis=2)
    corners = corners.clip(0, np.array(space.shape) - 1).reshape(-1, 3)
    voxels, index = np.unique(corners, axis=0, return_inverse=True)
    tensors = fit_tensors(values[tuple(voxels.T)], gradients.bvalues, gradients.directions)
    axes = principal((weights[:, :, None] * tensors[index.reshape(weights.shape)]).sum(axis=1))
    good = (np.linalg.norm(axes, axis=1) > 0) & (np.linalg.norm(along, axis=1) > 0)
    unit = along[good] / np.linalg.norm(along[good], axis=1, keepdims=True)

    def mean(directions: np.ndarray) -> float:
        cosine = np.abs((unit * directions).sum(1)).clip(0, 1)
        return float(np.degrees(np.arccos(cosine)).mean())

    return mean(axes[good]), mean(axes[good] * (-1, 1, 1))


@pytest.fixture(scope="module")
def scan(canon: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """The values, affine, b-values and scanner's directions of `dwi_canon`, read by nothing of ours, and its lines."""
    image = nibabel.load(canon.with_suffix(".nii.gz"))
    vectors = np.loadtxt(canon.with_suffix(".bvec")).T
    axes = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    vectors = vectors * ([-1, 1, 1] if np.linalg.det(axes) > 0 else [1, 1, 1])
    tracks = nibabel.streamlines.load(f"{canon}_ref_det.trk").streamlines[::12]
    values = np.asarray(image.dataobj)
    return values, image.affine, np.loadtxt(canon.with_suffix(".bval")), vectors @ axes.T, list(tracks)


@pytest.fixture(scope="module")
def as_it_is(canon: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """The angle of the scan as it was stored."""
    lines, space = read_streamlines(Path(f"{canon}_ref_det.trk"))
    path = tmp_path_factory.mktemp("canon") / "some.trk"
    write_streamlines(path, lines.select(np.arange(0, len(lines), 12)), space)
    right, wrong = angle(canon.with_suffix(".nii.gz"), canon.with_suffix(".bval"), canon.with_suffix(".bvec"), path)
    assert right < 5, "these lines follow the tensor"
    assert wrong > 30, "and a wrong sign shows"
    return right


@pytest.mark.parametrize("frame", ["fsl", "mrtrix"])
@pytest.mark.parametrize(("flips", "order"), STORED, ids=str)
def test_a_scan_stored_in_any_way(
    tmp_path: Path,
    scan: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]],
    as_it_is: float,
    flips: tuple[int, int, int],
    order: tuple[int, int, int],
    frame: str,
) -> None:
    values, affine, bvalues, world, tracks = scan
    stored = np.transpose(values, (*order, 3))[:: flips[0], :: flips[1], :: flips[2]]
    # From the index of a stored voxel to that of the original one.
    back = np.zeros((4, 4))
    back[3, 3] = 1
    for new, old in enumerate(order):
        back[old, new] = flips[new]
        back[old, 3] = 0 if flips[new] > 0 else values.shape[old] - 1
    new_affine = affine @ back
    nibabel.save(nibabel.Nifti1Image(stored, new_affine), tmp_path / "dwi.nii")
    if frame == "fsl":
        axes = new_affine[:3, :3] / np.linalg.norm(new_affine[:3, :3], axis=0)
        vectors = world @ axes * ([-1, 1, 1] if np.linalg.det(axes) > 0 else [1, 1, 1])
        np.savetxt(tmp_path / "bval", bvalues[None])
        np.savetxt(tmp_path / "bvec", vectors.T)
        files = (tmp_path / "bval", tmp_path / "bvec")
    else:
        np.savetxt(tmp_path / "grad.b", np.column_stack([world, bvalues]))
        files = (tmp_path / "grad.b", None)
    tractogram = nibabel.streamlines.Tractogram(tracks, affine_to_rasmm=np.eye(4))
    nibabel.streamlines.save(tractogram, tmp_path / "tracks.tck")
    assert abs(angle(tmp_path / "dwi.nii", *files, tmp_path / "tracks.tck")[0] - as_it_is) < 0.1


def test_a_table_in_the_scanners_frame(mrtrix: Path, tmp_path: Path) -> None:
    """The fibres of this phantom run along x, so that wrong signs do not show but a wrong order of axes does."""
    dwi, table = mrtrix / "SIFT_phantom_dwi.nii.gz", mrtrix / "SIFT_phantom_dwi_scanner_grad.txt"
    lines, space = read_streamlines(mrtrix / "SIFT_phantom_tracks.tck", dwi)
    some = tmp_path / "some.trk"
    write_streamlines(some, inside(lines.select(np.arange(0, len(lines), 10)), space), space)
    right = angle(dwi, table, None, some)[0]
    rows = np.loadtxt(table)
    np.savetxt(tmp_path / "turned.b", rows[:, [1, 2, 0, 3]])
    np.savetxt(tmp_path / "bval", rows[None, :, 3])
    axes = space.affine[:3, :3] / space.voxel_sizes
    vectors = rows[:, :3] @ axes * ([-1, 1, 1] if np.linalg.det(axes) > 0 else [1, 1, 1])
    np.savetxt(tmp_path / "bvec", vectors)
    assert right < 25
    assert abs(angle(dwi, tmp_path / "bval", tmp_path / "bvec", some)[0] - right) < 0.1
    assert angle(dwi, tmp_path / "turned.b", None, some)[0] > 60


def inside(lines: Streamlines, space: Space) -> Streamlines:
    good = space.inside(lines.points)
    return lines.select(np.array([good[a:b].all() for a, b in itertools.pairwise(lines.offsets)]))


def test_a_volume_that_is_written_lies_where_it_was(canon: Path, tmp_path: Path) -> None:
    values, space = read_volume(Path(f"{canon}_fa.nii.gz"))
    write_volume(tmp_path / "fa.nii", values[..., 0], space)
    again, same = read_volume(tmp_path / "fa.nii")
    np.testing.assert_array_equal(again, values)
    assert same.same(space)
