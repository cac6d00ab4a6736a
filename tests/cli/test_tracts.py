"""`treadle tracts`: what its tools write, say and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from treadle.tracts.files import read_streamlines, write_streamlines
from treadle.tracts.prepared import open_prepared
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.volumes import read_volume, write_volume

SPACE = Space(np.diag([-2.0, 2, 2.5, 1]), (8, 9, 10))


def lines(seed: int, count: int = 6) -> Streamlines:
    made = np.random.default_rng(seed)
    packed = Streamlines.of([made.uniform(1, 7, (length, 3)) for length in made.integers(3, 20, count)])
    return Streamlines(packed.points, packed.offsets, {"weight": np.ones((count, 1), np.float32)})


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two subjects, a config and lists, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for number in (1, 2):
        folder = Path("data") / f"sub-0{number}"
        folder.mkdir(parents=True)
        write_volume(folder / "t1.nii.gz", np.random.default_rng(number).random(SPACE.shape), SPACE)
        write_streamlines(folder / "a.trk", lines(number), SPACE)
        Path(f"{number}.txt").write_text(f"sub-0{number}\n")
    config = {
        "input": {"type": "volume", "files": ["t1.nii.gz"], "standardization": "all"},
        "bundles": {"type": "streamlines", "files": ["*.trk"], "dps_keys": ["weight"]},
    }
    Path("config.json").write_text(json.dumps(config))
    return tmp_path


PREPARE = ("tracts", "prepare", "data", "a.h5", "config.json", "1.txt", "2.txt")


def test_prepare_and_show(treadle: Any) -> None:
    assert treadle(*PREPARE, "--step_size", "0.5") == 0
    assert not treadle.err
    *table, size, train = treadle.out.splitlines()
    assert [line.split() for line in table[:1] + table[2:]] == [
        ["subject", "group", "streamlines", "invalid"],
        ["sub-01", "bundles", "6", "-"],
        ["sub-02", "bundles", "6", "-"],
    ]
    assert size == "a.h5 (0.1 MB): 1 training, 1 validation, 0 testing"
    assert train == "train on it: treadle train tracts --data a.h5"
    assert treadle("tracts", "show", "a.h5") == 0
    text = treadle.out
    assert "steps of 0.5 mm" in text.splitlines()[0]
    assert "training: 1 subject, 6 streamlines" in text and "testing: 0 subjects, 0 streamlines" in text
    assert "8 x 9 x 10 of 2 x 2 x 2.5 mm" in text and "6 lines" in text and "mm, weight" in text
    assert max(map(len, text.splitlines())) <= 100


def test_extract(treadle: Any) -> None:
    assert treadle(*PREPARE) == 0
    for ending in ("trk", "tck", "trx"):
        assert treadle("tracts", "show", "a.h5", "--extract", "sub-02", "bundles", f"out.{ending}") == 0
        assert treadle.out == f"out.{ending}: 6 streamlines of sub-02\n"
        found, space = read_streamlines(Path(f"out.{ending}"), SPACE)
        np.testing.assert_allclose(found.points, lines(2).points, atol=1e-5)
        assert space.same(SPACE) and set(found.per_line) == ({"weight"} if ending != "tck" else set())
    assert treadle("tracts", "show", "a.h5", "--extract", "sub-01", "input", "out.nii.gz") == 0
    values, _ = read_volume(Path("out.nii.gz"))
    np.testing.assert_array_equal(values, open_prepared(Path("a.h5")).training[0].volume("input"))
    for subject, group, out, said in (
        ("sub-03", "input", "b.nii", "a.h5 has no subject 'sub-03'; did you mean 'sub-0"),
        ("sub-01", "inptu", "b.nii", "sub-01 has no group 'inptu'; did you mean 'input'?"),
        ("sub-01", "input", "b.trk", "b.trk: expected a name that ends in .nii or .nii.gz"),
        ("sub-01", "bundles", "b.nii", "b.nii: expected streamlines, a file that ends in .trk, .tck or .trx"),
    ):
        assert treadle("tracts", "show", "a.h5", "--extract", subject, group, out) == 2
        assert said in treadle.err and treadle.err.count("\n") == 1 and not Path(out).exists()


def test_what_policy_says_is_counted(treadle: Any) -> None:
    packed = lines(1, 4)
    points = packed.points.copy()
    points[0] = -3
    bad = Streamlines(points, packed.offsets, packed.per_line)
    write_streamlines(Path("data/sub-01/b.trk"), bad, SPACE)
    single = Streamlines(np.ones((1, 3)), np.array([0, 1]), {"weight": np.ones((1, 1))})
    write_streamlines(Path("data/sub-01/c.trk"), single, SPACE)
    assert treadle(*PREPARE) == 2
    assert treadle.err == (
        "treadle: sub-01: data/sub-01/b.trk: 1 of 4 streamlines are invalid, 1 outside of the volume "
        "(--invalid remove leaves them out, --invalid keep keeps them)\n"
    )
    assert not Path("a.h5").exists()
    for option, kept, said in (
        (("--remove-invalid",), 9, "1 outside of the volume, 1 of a single point (removed)"),
        (("--invalid", "keep", "--overwrite"), 11, "1 outside of the volume, 1 of a single point (kept)"),
    ):
        assert treadle(*PREPARE, *option) == 0
        row = next(line for line in treadle.out.splitlines() if line.startswith("sub-01"))
        assert row.split()[2] == str(kept) and row.endswith(said)


def test_voxels_and_files_that_are_left_out(treadle: Any) -> None:
    values = np.ones(SPACE.shape)
    values[1, 2, 3] = np.nan
    write_volume(Path("data/sub-02/t1.nii.gz"), values, SPACE)
    Path("data/sub-01/a.trk").unlink()
    assert treadle(*PREPARE) == 2 and "no such file in sub-01: *.trk of the group 'bundles'" in treadle.err
    assert treadle(*PREPARE, "--allow-missing") == 2 and "t1.nii.gz has 1 voxels that are NaN or" in treadle.err
    assert treadle(*PREPARE, "--allow-missing", "--bad-voxels", "zero") == 0
    assert "sub-02, input: 1 voxels had NaN or infinite values, now 0\n" in treadle.out
    assert "went on without 1 files:\n  sub-01: *.trk of the group 'bundles'\n" in treadle.out


def cut(path: str) -> None:
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) * 3 // 4])


def test_bad_input_is_one_line_and_exit_2(treadle: Any) -> None:
    assert treadle(*PREPARE) == 0
    cut("data/sub-02/a.trk")
    cut("data/sub-01/t1.nii.gz")
    for arguments, said in (
        ((*PREPARE[:3], "b.h5", *PREPARE[4:]), "sub-01: data/sub-01/t1.nii.gz cannot be read as NIfTI"),
        ((*PREPARE[:3], "b.h5", "config.json", "2.txt"), "sub-02: data/sub-02/a.trk cannot be read as TRK"),
        (PREPARE, "a.h5 is there already"),
        ((*PREPARE[:2], "dat", *PREPARE[3:]), "DATA dat: no such file or directory; did you mean 'data'?"),
        ((*PREPARE[:4], "confg.json", *PREPARE[5:]), "CONFIG confg.json: no such file or directory; did you mean"),
        ((*PREPARE[:5], "3.txt"), "TRAINING 3.txt: no such file"),
        (
            (*PREPARE, "--step-size", "1", "--nb-points", "5"),
            "step_size and nb_points were given: expected one of them",
        ),
        ((*PREPARE[:3], "b.h5", *PREPARE[4:], "--step-size", "-1"), "a step of -1.0 mm: expected a number above 0"),
        ((*PREPARE, "--invalid", "ignore"), "invalid choice: 'ignore'"),
        (("tracts", "show", "config.json"), "config.json cannot be read as HDF5"),
        (("tracts", "show", "a"), "FILE.h5 a: no such file"),
        (("tracts", "prepar"), "treadle tracts: unknown kind 'prepar'; did you mean 'prepare'?"),
    ):
        assert treadle(*arguments) == 2
        assert said in treadle.err and treadle.err.count("\n") == 1, treadle.err
        assert not Path("b.h5").exists()
    cut("a.h5")
    assert treadle("tracts", "show", "a.h5") == 2 and "a.h5 cannot be read as HDF5" in treadle.err


def test_other_programs_files_of_any_axes(treadle: Any) -> None:
    """A volume by nibabel, stored from left to right or right to left, and lines in world coordinates."""
    for folder, sign in (("sub-01", 1), ("sub-02", -1)):
        affine = np.diag([sign * 2.0, 2, 2.5, 1])
        affine[0, 3] = 0 if sign > 0 else 14
        nibabel.save(nibabel.Nifti1Image(np.ones(SPACE.shape, np.float32), affine), f"data/{folder}/t1.nii.gz")
        tractogram = nibabel.streamlines.Tractogram([np.array([[3.0, 4, 5], [5, 6, 7.5]])], affine_to_rasmm=np.eye(4))
        nibabel.streamlines.save(tractogram, f"data/{folder}/a.tck")
    config = {"input": {"type": "volume", "files": "t1.nii.gz"}, "a": {"type": "streamlines", "files": "a.tck"}}
    Path("config.json").write_text(json.dumps(config))
    assert treadle(*PREPARE) == 0
    data = open_prepared(Path("a.h5"))
    np.testing.assert_allclose(data.training[0].streamlines("a").points, [[2, 2.5, 2.5], [3, 3.5, 3.5]], atol=1e-5)
    np.testing.assert_allclose(data.validation[0].streamlines("a").points, [[6, 2.5, 2.5], [5, 3.5, 3.5]], atol=1e-5)


def test_help(treadle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert treadle("tracts") == 2 and treadle.out.startswith("usage: treadle tracts {prepare,")
    for arguments in (("--help",), ("prepare", "--help"), ("show", "--help")):
        assert treadle("tracts", *arguments) == 0
        assert "examples:" in treadle.out and max(map(len, treadle.out.splitlines())) <= 80
