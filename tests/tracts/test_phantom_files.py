from pathlib import Path

import numpy as np

from treadle.tracts.files import read_streamlines
from treadle.tracts.gradients import read_fsl
from treadle.tracts.phantom import make_phantom
from treadle.tracts.phantom_files import write_phantom
from treadle.tracts.scoring.truth import read_truth, truth_of
from treadle.tracts.volumes import read_volume


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    phantom = make_phantom(0, lines=20)
    write_phantom(phantom, tmp_path)
    dwi, space = read_volume(tmp_path / "dwi.nii.gz")
    assert space.same(phantom.space) and np.array_equal(dwi, phantom.dwi)
    gradients = read_fsl(tmp_path / "dwi.bval", tmp_path / "dwi.bvec", space)
    assert np.array_equal(gradients.bvalues, phantom.bvalues)
    assert np.allclose(gradients.directions, phantom.directions, atol=1e-7)
    peaks, _ = read_volume(tmp_path / "peaks.nii.gz")
    assert np.array_equal(peaks.reshape(*space.shape, 3, 3), phantom.ordered_peaks)
    for name in ("tracking_mask", "seeding_mask", "crossing"):
        assert np.array_equal(read_volume(tmp_path / f"{name}.nii.gz")[0][..., 0] > 0, getattr(phantom, name))
    for name, lines in phantom.bundles.items():
        read, grid = read_streamlines(tmp_path / "bundles" / f"{name}.trk")
        assert grid.same(space) and np.abs(read.points - lines.points).max() < 1e-4
    truth, expected = read_truth(tmp_path), truth_of(phantom)
    for name, bundle in expected.bundles.items():
        assert np.array_equal(truth.bundles[name].mask, bundle.mask)
        assert truth.bundles[name].length == bundle.length
        for end in ("head", "tail"):
            region = truth.regions[getattr(truth.bundles[name], end)]
            assert np.array_equal(region, expected.regions[getattr(bundle, end)])
