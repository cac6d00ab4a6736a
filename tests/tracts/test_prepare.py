"""Preparing: what comes out of files is what was in them, and what does not fit is refused, counted or set right."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treadle.errors import UsageError
from treadle.tracts.files import write_streamlines
from treadle.tracts.prepare import Report, prepare
from treadle.tracts.prepare_config import parse_config
from treadle.tracts.prepare_lines import Points, invalid_lines
from treadle.tracts.prepared import open_prepared
from treadle.tracts.resampling import compress, resample_count, resample_step
from treadle.tracts.signal.harmonics import fit_harmonics
from treadle.tracts.signal.tensor import fit_tensors, normalised
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import Subject
from treadle.tracts.volumes import write_volume

SPACE = Space(np.array([[-2.0, 0, 0, 30], [0, 2, 0.1, -20], [0, -0.1, 2, 5], [0, 0, 0, 1]]), (12, 10, 8))
SUBJECTS = ("sub-01", "sub-02", "sub-03/ses-1")
SPLITS = {"training": SUBJECTS[:1], "validation": SUBJECTS[1:2], "testing": SUBJECTS[2:]}
BVALUES = np.array([0.0, *[1000] * 10])


def generator(name: str, *more: int) -> np.random.Generator:
    return np.random.default_rng([*name.encode(), *more])


def lines_of(name: str, bundle: int) -> Streamlines:
    made = generator(name, bundle)
    lines = Streamlines.of([made.uniform(1, 7, (count, 3)) for count in made.integers(2, 12, 15)])
    weight = made.random((15, 1), np.float32)
    return Streamlines(lines.points, lines.offsets, {"weight": weight, "other": weight + 1}, {})


def volume_of(name: str, features: int) -> np.ndarray:
    found = generator(name, features).normal(5, 2, (*SPACE.shape, features)).astype(np.float32)
    found[:2] = 0
    return found


def mask_of(name: str) -> np.ndarray:
    return generator(name, 99).random(SPACE.shape) > 0.5


def directions() -> np.ndarray:
    found = np.random.default_rng(0).normal(size=(11, 3))
    found[0] = 0
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in SUBJECTS:
        folder = tmp_path / "data" / name
        for below in ("bundles", "anat"):
            (folder / below).mkdir(parents=True)
        prefix = name.partition("/")[0]
        write_volume(folder / "anat" / f"{prefix}__t1.nii.gz", volume_of(name, 1), SPACE)
        write_volume(folder / "anat" / "rgb.nii", volume_of(name, 3), SPACE)
        write_volume(folder / "mask.nii.gz", mask_of(name).astype(np.float32), SPACE)
        write_volume(folder / "dwi.nii.gz", np.abs(volume_of(name, 11)), SPACE)
        vectors = directions()  # the determinant is negative: FSL's frame is the grid's own
        np.savetxt(folder / "dwi.bval", BVALUES[None])
        np.savetxt(folder / "dwi.bvec", vectors.T)
        write_streamlines(folder / "bundles" / f"{prefix}_a.trk", lines_of(name, 0), SPACE)
        write_streamlines(folder / "bundles" / "b.trx", lines_of(name, 1), SPACE)
        bare = Streamlines(lines_of(name, 2).points, lines_of(name, 2).offsets)
        write_streamlines(folder / "c.tck", bare, SPACE)
        (folder / "bundles" / "notes.txt").write_text("no streamlines")
    return tmp_path / "data"


CONFIG: dict[str, Any] = {
    "t1": {"type": "volume", "files": ["anat/*__t1.nii.gz"]},
    "bundles": {"type": "streamlines", "files": ["bundles/*"], "dps_keys": ["weight"]},
    "whole": {"type": "streamlines", "files": ["c.tck", "bundles/b.trx"]},
}


def prepared(root: Path, config: Mapping[str, Any] = CONFIG, **more: Any) -> tuple[list[Subject], Report]:
    report = prepare(root, root.parent / "a.h5", parse_config(config), more.pop("splits", SPLITS), **more)
    data = open_prepared(root.parent / "a.h5")
    return [*data.training, *data.validation, *data.testing], report


def one(root: Path, group: Mapping[str, Any], **more: Any) -> Subject:
    """The first subject, with one group called g."""
    return prepared(root, {"g": group}, splits={"training": SUBJECTS[:1]}, **more)[0][0]


def refused(root: Path, said: str, config: Mapping[str, Any] = CONFIG, **more: Any) -> None:
    """Preparing ends in one line, and leaves nothing."""
    before = sorted(os.listdir(root.parent))
    with pytest.raises(UsageError, match=said) as caught:
        prepared(root, config, **more)
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(root.parent)) == before


def test_everything_is_where_it_belongs(root: Path) -> None:
    subjects, report = prepared(root)
    assert [subject.name for subject in subjects] == ["sub-01", "sub-02", "sub-03_ses-1"]
    for name, subject in zip(SUBJECTS, subjects, strict=True):
        np.testing.assert_array_equal(subject.volume("t1"), volume_of(name, 1))
        assert subject.volumes["t1"].space.same(SPACE) and subject.lines["bundles"].space.same(SPACE)
        for group, parts in (("bundles", (1, 0)), ("whole", (2, 1))):  # b.trx stands before sub-01_a.trk
            expected = Streamlines.concatenate([lines_of(name, part) for part in parts])
            found = subject.streamlines(group)
            np.testing.assert_allclose(found.points, expected.points, atol=1e-5)
            np.testing.assert_array_equal(found.offsets, expected.offsets)
        assert subject.lines["bundles"].per_line == ("weight",) and subject.lines["whole"].per_line == ()
        expected = Streamlines.concatenate([lines_of(name, part) for part in (1, 0)])
        np.testing.assert_array_equal(subject.streamlines("bundles").per_line["weight"], expected.per_line["weight"])
    assert [lines.kept for lines in report.lines.values()] == [30] * 6 and not report.missing


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (Points(step_size=0.7), lambda lines: resample_step(lines, 0.7, SPACE.voxel_sizes)),
        (Points(nb_points=9), lambda lines: resample_count(lines, 9, SPACE.voxel_sizes)),
        (Points(compress=1.5), lambda lines: compress(lines, 1.5, SPACE.voxel_sizes)),
    ],
)
def test_other_points(root: Path, points: Points, expected: Any) -> None:
    found = one(root, {"type": "streamlines", "files": "bundles/*_a.trk"}, points=points).streamlines("g")
    should = expected(lines_of(SUBJECTS[0], 0))
    np.testing.assert_array_equal(found.offsets, should.offsets)
    np.testing.assert_allclose(found.points, should.points, atol=1e-4)
    with pytest.raises(UsageError, match="step_size and compress were given"):
        Points(step_size=1, compress=0.1)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("how", ["all", "independent", "per_file", "none"])
def test_standardization(root: Path, how: str, masked: bool) -> None:
    group = {"type": "volume", "files": ["anat/rgb.nii", "anat/*__t1.nii.gz"], "standardization": how}
    found = one(root, {**group, **({"std_mask": "mask.nii.gz"} if masked else {})}).volume("g").astype(np.float64)
    parts = [volume_of(SUBJECTS[0], 3).astype(np.float64), volume_of(SUBJECTS[0], 1).astype(np.float64)]
    whole = np.concatenate(parts, axis=3)

    def chosen(values: np.ndarray) -> np.ndarray:
        return values[mask_of(SUBJECTS[0]) if masked else (values != 0).all(axis=3)]

    if how == "all":
        whole = (whole - chosen(whole).mean()) / chosen(whole).std()
    elif how == "independent":
        whole = (whole - chosen(whole).mean(axis=0)) / chosen(whole).std(axis=0)
    elif how == "per_file":
        whole = np.concatenate([(part - chosen(part).mean()) / chosen(part).std() for part in parts], axis=3)
    np.testing.assert_allclose(found, whole, atol=1e-5)


def test_a_constant_is_moved_alone(root: Path) -> None:
    write_volume(root / "sub-01" / "flat.nii", np.full(SPACE.shape, 3.0), SPACE)
    found = one(root, {"type": "volume", "files": "flat.nii", "standardization": "all"})
    assert (found.volume("g") == 0).all()
    write_volume(root / "sub-01" / "flat.nii", np.zeros(SPACE.shape), SPACE)
    refused(root, "sub-01: the group 'g' cannot be standardized: there is no voxel without a 0",
            {"g": {"type": "volume", "files": "flat.nii", "standardization": "all"}},
            splits={"training": ["sub-01"]}, overwrite=True)  # fmt: skip


SCAN: dict[str, Any] = {"type": "volume", "dwi": "dwi.nii.gz", "bval": "*.bval", "bvec": "dwi.bvec"}


def test_volumes_made_from_a_scan(root: Path) -> None:
    scan = np.abs(volume_of(SUBJECTS[0], 11))
    config = {
        "sh": {**SCAN, "as": "sh", "order": 4},
        "in mask": {**SCAN, "as": "sh", "order": 4, "mask": "mask.nii.gz"},
        "tensor": {**SCAN, "as": "tensor"},
        "raw tensor": {**SCAN, "as": "tensor", "normalised": False},
        "dwi": {**SCAN, "as": "dwi", "standardization": "none"},
        "moved": {**SCAN, "as": "sh", "order": 4, "standardization": "all"},
    }
    subject = prepared(root, config, splits={"training": SUBJECTS[:1]})[0][0]
    harmonics = fit_harmonics(scan, BVALUES, directions(), 4)
    tensors = fit_tensors(scan, BVALUES, directions())
    np.testing.assert_allclose(subject.volume("sh"), harmonics, atol=1e-6)
    np.testing.assert_allclose(subject.volume("in mask"), harmonics * mask_of(SUBJECTS[0])[..., None], atol=1e-6)
    np.testing.assert_allclose(subject.volume("tensor"), normalised(tensors), atol=1e-5)
    np.testing.assert_allclose(subject.volume("raw tensor"), tensors, atol=1e-7)
    np.testing.assert_array_equal(subject.volume("dwi"), scan)
    kinds = {name: info.kind for name, info in subject.volumes.items()}
    assert kinds == {"sh": "sh", "in mask": "sh", "tensor": "tensor", "raw tensor": "tensor", "dwi": "", "moved": ""}


def test_fsl_and_mrtrix_give_the_same(root: Path) -> None:
    axes = SPACE.affine[:3, :3] / SPACE.voxel_sizes
    np.savetxt(root / "sub-01" / "grad.b", np.column_stack([directions() @ axes.T, BVALUES]))
    fsl = one(root, {**SCAN, "as": "tensor"}).volume("g")
    mrtrix = {"type": "volume", "dwi": "dwi.nii.gz", "gradients": "grad.b", "as": "tensor"}
    found = one(root, mrtrix, overwrite=True).volume("g")
    np.testing.assert_allclose(found, fsl, atol=1e-4)


def test_connectivity(root: Path) -> None:
    folder = root / "sub-01"
    blocs = np.triu(np.random.default_rng(0).integers(0, 5, (8, 8)))
    np.save(folder / "blocs.npy", blocs)
    labels = np.random.default_rng(0).choice([0, 3, 7, 11], SPACE.shape)
    write_volume(folder / "labels.nii.gz", labels, SPACE)
    np.save(folder / "labels.npy", np.arange(9).reshape(3, 3))
    config = {
        "a": {**CONFIG["whole"], "connectivity_matrix": "blocs.npy", "connectivity_nb_blocs": 2},
        "b": {**CONFIG["whole"], "connectivity_matrix": "labels.npy", "connectivity_labels": "labels.nii.gz"},
        "ref": CONFIG["t1"],
    }
    splits = {"training": SUBJECTS[:1]}
    subject = prepared(root, config, splits=splits)[0][0]
    assert set(subject.volumes) == {"ref"}
    first, second = subject.connectivity("a"), subject.connectivity("b")
    assert first is not None and second is not None
    np.testing.assert_array_equal(first.matrix, np.maximum(blocs, blocs.T))
    assert first.blocs == (2, 2, 2) and second.blocs is None
    np.testing.assert_array_equal(subject.volume(second.labels)[..., 0], labels)
    np.save(folder / "labels.npy", np.zeros((4, 4)))
    refused(root, r"labels\.npy links 4 regions, but there are 3", config, splits=splits, overwrite=True)
    np.save(folder / "labels.npy", np.zeros((4, 3)))
    refused(root, r"labels\.npy has the shape \(4, 3\): expected a square", config, splits=splits, overwrite=True)
    np.save(folder / "labels.npy", np.array([None, 1]), allow_pickle=True)
    refused(root, r"labels\.npy cannot be read as a NumPy array", config, splits=splits, overwrite=True)


def bad_lines() -> Streamlines:
    good = [np.full((3, 3), 4.0) + np.arange(3)[:, None] * 0.5] * 3
    outside = np.array([[1.0, 1, 1], [1, 1, -0.5]])
    beyond = np.array([[1.0, 1, 1], [12.2, 1, 1]])
    edge = np.array([[0.0, 0, 0], [12, 10, 8]])
    return Streamlines.of(
        [good[0], outside, np.full((1, 3), 2.0), good[1], beyond, np.full((4, 3), 3.0), edge, good[2]]
    )


def test_what_is_wrong_with_lines() -> None:
    lines = Streamlines.of([*(bad_lines()[k] for k in range(8)), np.full((2, 3), np.nan), np.zeros((0, 3))])
    found = {what: np.flatnonzero(wrong).tolist() for what, wrong in invalid_lines(lines, SPACE).items()}
    assert found == {
        "outside of the volume": [1, 4],
        "of a single point": [2, 9],
        "of no length": [5],
        "not finite": [8],
    }


@pytest.mark.parametrize("ending", ["trk", "tck", "trx"])
def test_invalid_lines_are_refused_removed_or_kept(root: Path, ending: str) -> None:
    write_streamlines(root / "sub-01" / f"bad.{ending}", bad_lines(), SPACE)
    config = {"ref": CONFIG["t1"], "g": {"type": "streamlines", "files": f"bad.{ending}"}}
    splits = {"training": SUBJECTS[:1]}
    said = (
        rf"^sub-01: .*bad\.{ending}: 4 of 8 streamlines are invalid, 1 of a single point, 1 of no length, 2 outside of "
        r"the volume \(--invalid remove leaves them out, --invalid keep keeps them\)$"
    )
    refused(root, said, config, splits=splits)
    subjects, report = prepared(root, config, splits=splits, invalid="remove", points=Points(step_size=1))
    counted = report.lines["sub-01", "g"]
    assert (counted.kept, counted.removed, counted.invalid.total()) == (4, 4, 4)
    assert subjects[0].lines["g"].millimetres.min() > 1
    subjects, report = prepared(root, config, splits=splits, invalid="keep", overwrite=True)
    counted = report.lines["sub-01", "g"]
    assert (counted.kept, counted.removed, counted.invalid.total()) == (8, 0, 4)
    np.testing.assert_array_equal(subjects[0].lines["g"].lengths, bad_lines().lengths)


def test_lines_that_are_not_finite_cannot_be_kept(root: Path) -> None:
    path = root / "sub-01" / "bad.trx"
    write_streamlines(path, bad_lines(), SPACE)
    with zipfile.ZipFile(path) as old:
        parts = {info.filename: old.read(info) for info in old.infolist()}
    parts["positions.3.float32"] = np.float32(np.nan).tobytes() + parts["positions.3.float32"][4:]
    with zipfile.ZipFile(path, "w") as new:
        for name, part in parts.items():
            new.writestr(name, part)
    config = {"ref": CONFIG["t1"], "g": {"type": "streamlines", "files": "bad.trx"}}
    splits = {"training": SUBJECTS[:1]}
    refused(root, r"1 not finite, .*\(--invalid remove leaves them out\)$", config, splits=splits, invalid="keep")
    assert prepared(root, config, splits=splits, invalid="remove")[1].lines["sub-01", "g"].invalid["not finite"] == 1


def test_empty_bundles(root: Path) -> None:
    write_streamlines(root / "sub-01" / "bundles" / "none.trk", Streamlines.of([]), SPACE)
    config = {"g": {"type": "streamlines", "files": "bundles/*"}}
    splits = {"training": SUBJECTS[:1]}
    refused(root, r"none\.trk holds no streamlines \(--invalid remove goes on without it\)", config, splits=splits)
    report = prepared(root, config, splits=splits, invalid="remove")[1]
    assert report.lines["sub-01", "g"].empty == 1 and report.lines["sub-01", "g"].kept == 30
    config = {"g": {"type": "streamlines", "files": "bundles/none.trk"}}
    refused(root, "sub-01: the group 'g' is left without any streamline", config, splits=splits, invalid="remove",
            overwrite=True)  # fmt: skip


@pytest.mark.parametrize("made", [{"files": "anat/rgb.nii"}, {**SCAN, "dwi": "anat/rgb.nii", "as": "dwi"}])
def test_voxels_that_are_not_finite(root: Path, made: dict[str, Any]) -> None:
    values = volume_of(SUBJECTS[0], 3 if "files" in made else 11)
    values[3, 4, 5, 1], values[6, 7, 2, 0:2] = np.nan, np.inf
    write_volume(root / "sub-01" / "anat" / "rgb.nii", values, SPACE)
    splits = {"training": SUBJECTS[:1]}
    config = {"g": {"type": "volume", **made}}
    said = r"rgb\.nii has 2 voxels that are NaN or infinite \(--bad-voxels zero sets them to 0\)"
    refused(root, said, config, splits=splits)
    subjects, report = prepared(root, config, splits=splits, bad_voxels="zero")
    assert report.volumes == {("sub-01", "g"): 2}
    np.testing.assert_array_equal(subjects[0].volume("g"), np.where(np.isfinite(values), values, 0))


def test_grids_that_differ(root: Path) -> None:
    moved = Space(SPACE.affine + np.eye(4)[3][None] * np.array([[0.01], [0], [0], [0]]), SPACE.shape)
    smaller = Space(SPACE.affine, (12, 10, 7))
    for space, said in ((moved, "its affine differs by up to 0.01"), (smaller, "12x10x7 voxels, not 12x10x8")):
        write_streamlines(root / "sub-02" / "bundles" / "sub-02_a.trk", lines_of("sub-02", 0), space)
        refused(root, rf"sub-02: .*sub-02_a\.trk has another grid than .*sub-02__t1\.nii\.gz: {said}")
        write_streamlines(root / "sub-02" / "bundles" / "sub-02_a.trk", lines_of("sub-02", 0), SPACE)
        write_volume(root / "sub-02" / "anat" / "rgb.nii", np.ones(space.shape), space)
        config = {**CONFIG, "t1": {"type": "volume", "files": ["anat/*__t1.nii.gz", "anat/rgb.nii"]}}
        refused(root, rf"sub-02: .*rgb\.nii has another grid than .*: {said}", config)


def test_files_that_do_not_fit(root: Path) -> None:
    lines = {"whole": CONFIG["whole"]}
    refused(root, r"c\.tck: TCK does not say which grid it belongs to: add a group of type volume", lines)
    keys = {"g": {**CONFIG["bundles"], "dps_keys": ["weight", "wieght"]}}
    refused(root, r"b\.trx does not know 'wieght' of its streamlines \(dps_keys\): it knows other, weight", keys)
    refused(root, r"dwi\.bvec holds directions and .*dwi\.bval b-values: the two files are the other way round",
            {"g": {**SCAN, "bval": "dwi.bvec", "bvec": "dwi.bval", "as": "sh"}})  # fmt: skip
    refused(
        root, r"rgb\.nii has 3 volumes, but .*dwi\.bval 11 b-values", {"g": {**SCAN, "dwi": "anat/rgb.nii", "as": "sh"}}
    )
    refused(root, r"dwi\.nii\.gz cannot be fitted: there is no shell at b = 3000",
            {"g": {**SCAN, "as": "sh", "shell": 3000}})  # fmt: skip
    write_volume(root / "sub-02" / "anat" / "sub-02__t1.nii.gz", volume_of("a", 2), SPACE)
    refused(root, "sub-02: 't1' has 2 values in each voxel, but that of sub-01 has 1")


@pytest.mark.parametrize("name", ["anat/sub-02__t1.nii.gz", "bundles/sub-02_a.trk", "bundles/b.trx", "c.tck"])
def test_files_that_are_cut_off(root: Path, name: str) -> None:
    path = root / "sub-02" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    refused(root, rf"^sub-02: {path} cannot be read as ")


def test_files_that_are_missing(root: Path) -> None:
    (root / "sub-02" / "c.tck").unlink()
    (root / "sub-02" / "bundles" / "b.trx").unlink()
    refused(
        root, r"no such file in sub-02: c\.tck of the group 'whole', and 1 more \(--allow-missing goes on without\)"
    )
    (root / "sub-02" / "bundles" / "sub-02_a.trk").unlink()
    subjects, report = prepared(root, allow_missing=True)
    assert [sorted(subject.lines) for subject in subjects] == [["bundles", "whole"], [], ["bundles", "whole"]]
    assert report.missing == [
        "sub-02: bundles/* of the group 'bundles'", "sub-02: c.tck of the group 'whole'",
        "sub-02: bundles/b.trx of the group 'whole'",
    ]  # fmt: skip


def test_brackets_in_names_are_brackets(root: Path) -> None:
    moved = root.rename(root.with_name("data [1]"))
    (moved / "sub-01" / "anat").rename(moved / "sub-01" / "anat[a]")
    found = one(moved, {"type": "volume", "files": "anat[a]/*__t1.nii.gz"}).volume("g")
    np.testing.assert_array_equal(found, volume_of(SUBJECTS[0], 1))


def test_subjects_that_are_missing_or_twice(root: Path) -> None:
    refused(root, r"validation: .*data has no folder 'sub-20'; did you mean 'sub-0", splits={"validation": ["sub-20"]})
    refused(root, "the lists name no subject", splits={"training": []})
    (root / "sub-03_ses-1").symlink_to(root / "sub-01")
    refused(
        root, "two subjects would have the name 'sub-03_ses-1'", splits={"training": ["sub-03_ses-1", "sub-03/ses-1"]}
    )
    with pytest.warns(UserWarning, match="sub-01 is in testing and in a split before it"):
        subjects, _ = prepared(root, {"t1": CONFIG["t1"]}, splits={"training": ["sub-01"], "testing": ["sub-01"]})
    assert [subject.name for subject in subjects] == ["sub-01", "sub-01"]


def test_what_is_there_stays_until_the_new_one_is_whole(root: Path) -> None:
    out = root.parent / "a.h5"
    out.write_text("what was there")
    refused(root, r"a\.h5 is there already: name another file, or replace it with --overwrite")
    (root / "sub-03" / "ses-1" / "c.tck").write_text("damaged")
    refused(root, r"c\.tck cannot be read", overwrite=True)
    assert out.read_text() == "what was there"
    with pytest.raises(UsageError, match=r"no/a\.h5 cannot be written: there is no folder"):
        prepare(root, root / "no" / "a.h5", parse_config(CONFIG), SPLITS)


def test_an_interruption_leaves_nothing(root: Path) -> None:
    def stop(names: Sequence[str]) -> Iterator[str]:
        yield names[0]
        raise KeyboardInterrupt

    before = sorted(os.listdir(root.parent))
    with pytest.raises(KeyboardInterrupt):
        prepared(root, progress=stop)
    assert sorted(os.listdir(root.parent)) == before
