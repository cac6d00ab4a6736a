import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treadle.errors import UsageError
from treadle.tracts.files import write_streamlines
from treadle.tracts.scoring.truth import read_truth, split_ends
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.volumes import write_volume

SPACE = Space(np.diag([2.0, 2.0, 2.0, 1.0]), (6, 5, 4))


def ends(*which: int) -> np.ndarray:
    mask = np.zeros(SPACE.shape, bool)
    mask[list(which), :2, :2] = True
    return mask


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, mask in (("head", ends(0)), ("tail", ends(5)), ("both", ends(0, 5)), ("all", ends(*range(6)))):
        write_volume(tmp_path / f"{name}.nii.gz", mask, SPACE)
    line = np.array([[0.5, 0.5, 0.5], [5.5, 0.5, 0.5]])
    write_streamlines(tmp_path / "lines.trk", Streamlines.of([line]), SPACE)
    return tmp_path


def configured(directory: Path, **entry: Any) -> Path:
    (directory / "config.json").write_text(json.dumps({"arc": {"head": "head.nii.gz", "tail": "tail.nii.gz"} | entry}))
    return directory


def test_everything_that_scilpy_knows_is_read(directory: Path) -> None:
    configured(directory, gt_mask="lines.trk", all_mask="all.nii.gz", any_mask="both.nii.gz", angle=300,
               length=[10, 50], length_y=[1, 2], length_x_abs=[0, 7])  # fmt: skip
    truth = read_truth(directory)
    bundle = truth.bundles["arc"]
    assert truth.space.same(SPACE) and list(truth.regions) == ["head.nii.gz", "tail.nii.gz"]
    assert bundle.mask is not None and np.argwhere(bundle.mask).tolist() == [[x, 0, 0] for x in range(6)]
    assert np.array_equal(bundle.all_mask, ends(*range(6))) and np.array_equal(bundle.any_mask, ends(0, 5))
    assert (bundle.angle, bundle.length) == (300, (10, 50))
    inf = float("inf")
    assert bundle.along == ((-inf, inf), (1, 2), (-inf, inf)) and bundle.along_abs == (
        (0, 7), (-inf, inf), (-inf, inf)
    )  # fmt: skip
    assert read_truth(directory / "config.json").bundles["arc"].angle == 300


def test_masks_may_lie_elsewhere_and_be_all_masks(directory: Path, tmp_path: Path) -> None:
    config = tmp_path / "elsewhere.json"
    config.write_text(json.dumps({"arc": {"endpoints": "both.nii.gz", "gt_mask": "all.nii.gz"}}))
    truth = read_truth(config, directory, gt_as_all=True)
    bundle = truth.bundles["arc"]
    assert bundle.all_mask is bundle.mask is not None
    assert {bool(truth.regions[bundle.head][0, 0, 0]), bool(truth.regions[bundle.tail][0, 0, 0])} == {True, False}
    assert np.array_equal(truth.regions[bundle.head] | truth.regions[bundle.tail], ends(0, 5))


def test_a_mask_of_both_ends_is_split_in_two() -> None:
    first, second = split_ends(ends(0, 1, 4, 5), "arc")
    assert sorted([np.flatnonzero(part.any(axis=(1, 2))).tolist() for part in (first, second)]) == [[0, 1], [4, 5]]
    with pytest.raises(UsageError, match="arc: the mask of its endpoints has 1 voxels"):
        single = np.zeros(SPACE.shape, bool)
        single[0, 0, 0] = True
        split_ends(single, "arc")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"endpoints": "both.nii.gz"}, "either head and tail, or endpoints"),
        ({"tail": None}, "either head and tail, or endpoints"),
        ({"gt_masks": "all.nii.gz"}, "unknown key 'gt_masks'.*gt_mask"),
        ({"length": [1]}, "length is \\[1\\]: expected two numbers"),
        ({"length_z": "long"}, "length_z is 'long'"),
        ({"angle": "wide"}, "angle is 'wide'"),
        ({"gt_mask": 3}, "gt_mask is 3: expected the name of a file"),
        ({"gt_mask": "missing.nii.gz"}, "missing.nii.gz: no such file"),
    ],
)
def test_what_is_wrong_is_named(directory: Path, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_truth(configured(directory, **entry))


def test_configurations_that_are_none(directory: Path) -> None:
    with pytest.raises(UsageError, match="has 0 JSON files"):
        read_truth(directory)
    with pytest.raises(UsageError, match="no such file or directory"):
        read_truth(directory / "nowhere")
    for text in ("[]", "{}", '{"arc": 3}', "{"):
        (directory / "config.json").write_text(text)
        with pytest.raises(UsageError, match=r"config\.json"):
            read_truth(directory)
    write_volume(directory / "tail.nii.gz", ends(5), Space(np.eye(4), SPACE.shape))
    with pytest.raises(UsageError, match="lies in another grid"):
        read_truth(configured(directory))
