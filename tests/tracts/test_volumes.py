"""NIfTI files: values, scaling and grids as they are stored, and what damaged ones say."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from treadle.errors import UsageError
from treadle.tracts.space import Space
from treadle.tracts.volumes import read_volume, write_volume

AFFINE = np.array([[0, -2.5, 0.1, 4], [1.5, 0, 0.2, -7], [0, 0.1, -3, 30], [0, 0, 0, 1]])
SPACE = Space(AFFINE, (3, 4, 5))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    values = np.random.default_rng(0).random((3, 4, 5, 2), np.float32)
    write_volume(tmp_path / name, values, SPACE)
    first = (tmp_path / name).read_bytes()
    found, space = read_volume(tmp_path / name)
    np.testing.assert_array_equal(found, values)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_allclose(space.affine, AFFINE, atol=1e-6)
    np.testing.assert_array_equal(nibabel.load(tmp_path / name).get_fdata(dtype=np.float32), values)
    write_volume(tmp_path / name, values, SPACE)
    assert (tmp_path / name).read_bytes() == first


def test_scaled_integers_of_one_value_a_voxel(tmp_path: Path) -> None:
    stored = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    image = nibabel.Nifti1Image(stored, AFFINE)
    image.header.set_slope_inter(0.5, -3)
    nibabel.save(image, tmp_path / "a.nii")
    found, space = read_volume(tmp_path / "a.nii")
    np.testing.assert_array_equal(found[..., 0], stored * 0.5 - 3)
    assert found.shape == (3, 4, 5, 1) and space.shape == (3, 4, 5)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("keep", [0.9, 0.3, 0.02, 0.0])
def test_a_file_that_is_cut_off(tmp_path: Path, name: str, keep: float) -> None:
    write_volume(tmp_path / name, np.random.default_rng(0).random((3, 4, 5, 20)), SPACE)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UsageError, match=rf"{name} cannot be read as NIfTI: .") as caught:
        read_volume(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_damaged_values(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    write_volume(path, np.random.default_rng(0).random((3, 4, 5, 20)), SPACE)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))
    with pytest.raises(UsageError, match=r"a\.nii\.gz cannot be read as NIfTI"):
        read_volume(path)


def test_what_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"b\.nii: no such file"):
        read_volume(tmp_path / "b.nii")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5)), np.eye(4)), tmp_path / "flat.nii")
    with pytest.raises(UsageError, match=r"flat\.nii has the shape \(4, 5\): expected three axes, or four"):
        read_volume(tmp_path / "flat.nii")
    write_volume(tmp_path / "sing.nii", np.zeros((3, 4, 5)), SPACE)
    content = bytearray((tmp_path / "sing.nii").read_bytes())
    content[312:328] = bytes(16)  # srow_z
    (tmp_path / "sing.nii").write_bytes(bytes(content))
    with pytest.raises(UsageError, match=r"sing\.nii: the affine of a volume is no invertible"):
        read_volume(tmp_path / "sing.nii")
    for name, shape, said in (("a.mgz", (3, 4, 5), "ends in .nii"), ("a.nii", (3, 4, 6), "do not fit a grid")):
        with pytest.raises(UsageError, match=said):
            write_volume(tmp_path / name, np.zeros(shape), SPACE)
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        write_volume(tmp_path / "no" / "a.nii", np.zeros((3, 4, 5)), SPACE)
