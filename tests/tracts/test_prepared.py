"""Prepared files: dwi_ml's are read, ours are read by its logic, few lines cost few bytes, and bad ones are named."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import resource
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from treadle.errors import UsageError
from treadle.tracts.hdf5 import close_handles, handle
from treadle.tracts.prepared import open_prepared
from treadle.tracts.prepared_writer import Origins, write_prepared
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import Connectivity, MemorySubject, Subject, TractData

_specification = importlib.util.spec_from_file_location("by_hand", Path(__file__).with_name("prepared_by_hand.py"))
by_hand: Any = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(by_hand)
SPACE = Space(by_hand.AFFINE, by_hand.SHAPE)


def lines_of(subject: Subject, group: str, indices: np.ndarray | None = None) -> list[np.ndarray]:
    found = subject.streamlines(group, indices)
    return [found[index] for index in range(len(found))]


def same_lines(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert [len(line) for line in found] == [len(line) for line in expected]
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(expected))


def test_a_file_of_dwi_mls(tmp_path: Path) -> None:
    data = open_prepared(by_hand.write_by_hand(tmp_path / "a.h5"))
    assert {split: [subject.name for subject in getattr(data, split)] for split in by_hand.SUBJECTS} == by_hand.SUBJECTS
    assert data.path == tmp_path / "a.h5"
    for subject in (*data.training, *data.validation):
        assert set(subject.volumes) == {"mri input", "a mask"} and set(subject.lines) == {"all fibres", "bad ones"}
        assert subject.volumes["mri input"].features == 6 and subject.volumes["mri input"].kind == ""
        assert subject.volumes["a mask"].space.same(SPACE)
        np.testing.assert_array_equal(subject.volume("mri input"), by_hand.volume_of(subject.name))
        for group, seed in (("all fibres", 0), ("bad ones", 1)):
            expected = by_hand.lines_of(subject.name, seed)
            same_lines(lines_of(subject, group), expected)
            chosen = np.array([5, 3, 3, 40, 0, 1, 2])
            same_lines(lines_of(subject, group, chosen), [expected[index] for index in chosen])
            assert lines_of(subject, group, np.zeros(0, np.int64)) == []
            info = subject.lines[group]
            assert info.space.same(SPACE) and info.lengths.tolist() == [len(line) for line in expected]
            np.testing.assert_allclose(info.millimetres, Streamlines.of(expected).millimetres(SPACE.voxel_sizes), 1e-5)
        assert subject.lines["all fibres"].per_line == ("colour", "weight")
        some = subject.streamlines("all fibres", np.array([7, 2])).per_line
        assert some["weight"].tolist() == [[7], [2]] and some["colour"].tolist() == [[21, 22, 23], [6, 7, 8]]
        assert subject.lines["bad ones"].per_line == ()
        linked = subject.connectivity("all fibres")
        assert linked is not None and linked.blocs == (2, 2, 2)
        upper = np.triu(np.arange(64).reshape(8, 8) % 5 > 2)
        np.testing.assert_array_equal(linked.matrix, upper | upper.T)
        assert subject.connectivity("bad ones") is None


@pytest.mark.parametrize(
    ("space", "origin"),
    [("vox", "nifti"), ("Space.VOXMM", "Origin.TRACKVIS"), ("Space.VOXMM", "center"), ("rasmm", "Origin.NIFTI"),
     ("RASMM", "TRACKVIS")],
)  # fmt: skip
def test_other_spaces_and_origins_of_dipy(tmp_path: Path, space: str, origin: str) -> None:
    dipy = pytest.importorskip("dipy.io.stateful_tractogram")
    lines = by_hand.lines_of("sub-02")
    header = (by_hand.AFFINE, np.array(by_hand.SHAPE), np.linalg.norm(by_hand.AFFINE[:3, :3], axis=0), "LAS")
    stateful = dipy.StatefulTractogram(lines, header, dipy.Space.VOX, origin=dipy.Origin.TRACKVIS)
    stateful.to_space(dipy.Space(space.lower().rpartition(".")[2]))
    if origin in ("nifti", "center", "Origin.NIFTI"):
        stateful.to_center()
    path = by_hand.write_by_hand(tmp_path / "a.h5", space=space, origin=origin)
    with h5py.File(path, "r+") as file:
        group = file["sub-02/all fibres"]
        data = group["data"][()]
        for start, line in zip(group["offsets"], stateful.streamlines, strict=True):
            data[start : start + len(line)] = line
        group["data"][...] = data
    found = lines_of(open_prepared(path).validation[0], "all fibres")
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(lines), atol=2e-5)


def some_data() -> TractData:
    generator = np.random.default_rng(1)

    def subject(name: str, **more: Any) -> MemorySubject:
        lines = Streamlines.of([generator.uniform(0, by_hand.SHAPE, (count, 3)) for count in (4, 9, 2)])
        weight = np.array([[3.0], [1], [2]], np.float32)
        lines = Streamlines(lines.points, lines.offsets, {"weight": weight})
        volumes = {
            "input": (generator.random((*by_hand.SHAPE, 6), np.float32), "tensor"),
            "regions": (generator.integers(0, 3, (*by_hand.SHAPE, 1)).astype(np.float32), ""),
        }
        return MemorySubject(name, SPACE, volumes, {"lines": lines, "none": Streamlines.of([])}, **more)

    blocs = Connectivity(np.arange(64.0).reshape(8, 8) + np.arange(64.0).reshape(8, 8).T, blocs=(2, 2, 2))
    labels = Connectivity(np.array([[1.0, 2], [2, 0]]), labels="regions")
    training = (subject("sub-1_ses-1", regions={"lines": blocs}), subject("sub-1_ses-2", regions={"lines": labels}))
    return TractData(training, (subject("sub-2"),))


def test_ours_by_dwi_mls_logic(tmp_path: Path) -> None:
    data = some_data()
    write_prepared(tmp_path / "a.h5", data, Origins(step_size=0.5))
    found = by_hand.read_as_dwi_ml(tmp_path / "a.h5")
    assert found["training"] == ["sub-1_ses-1", "sub-1_ses-2"] and found["validation"] == ["sub-2"]
    assert found["testing"] == [] and found["step_size"] == 0.5
    for subject in (*data.training, *data.validation):
        read = found[subject.name]
        np.testing.assert_array_equal(read["input"]["data"], subject.volume("input"))
        np.testing.assert_array_equal(read["input"]["affine"], by_hand.AFFINE)
        np.testing.assert_allclose(read["input"]["voxres"], SPACE.voxel_sizes)
        lines = read["lines"]
        same_lines(lines["lines"], lines_of(subject, "lines"))
        np.testing.assert_allclose(lines["mm"], subject.lines["lines"].millimetres)
        np.testing.assert_array_equal(lines["dps"]["weight"], [[3], [1], [2]])
        for value, expected in zip(lines["space"], (by_hand.AFFINE, by_hand.SHAPE, SPACE.voxel_sizes), strict=True):
            np.testing.assert_allclose(value, expected)
        assert lines["order"] == "LAS" and read["none"]["lines"] == []
    assert list(found["sub-1_ses-1"]["lines"]["blocs"]) == [2, 2, 2]
    assert found["sub-2"]["lines"]["matrix"] is None
    labels = found["sub-1_ses-2"]["lines"]["labels"]
    np.testing.assert_array_equal(labels, data.training[1].volume("regions")[..., 0])
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["nb_points"] == file.attrs["compress"] == "Not defined by user"
        assert file.attrs["chosen_subjs"].tolist() == ["sub-1_ses-1", "sub-1_ses-2", "sub-2"]
        assert {"groups_config", "data_and_time"} < set(file.attrs)


def test_ours_come_back_with_the_same_fingerprint(tmp_path: Path) -> None:
    data = some_data()
    write_prepared(tmp_path / "a.h5", data)
    found = open_prepared(tmp_path / "a.h5")
    for before, after in zip((*data.training, *data.validation), (*found.training, *found.validation), strict=True):
        assert after.volumes["input"].kind == "tensor"
        assert before.fingerprint() == after.fingerprint()
        assert len(after.streamlines("none")) == 0 and len(after.streamlines("none", np.zeros(0, int))) == 0
    first: Any = found.training[0]
    assert (first.regions("lines"), first.regions("none")) == (8, 0)
    np.testing.assert_array_equal(first.connectivity("lines").matrix, data.training[0].connectivity("lines").matrix)
    linked = found.training[1].connectivity("lines")
    assert linked is not None and linked.labels == "lines/connectivity_label_volume"
    np.testing.assert_array_equal(found.training[1].volume(linked.labels), data.training[1].volume("regions"))
    assert found.training[0].fingerprint() != found.training[1].fingerprint()
    close_handles()
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["sub-2/lines/data"][3, 1] += 1
    assert open_prepared(tmp_path / "a.h5").validation[0].fingerprint() != found.validation[0].fingerprint()


def read_bytes() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes by Linux's means")
def test_few_lines_cost_few_bytes(tmp_path: Path) -> None:
    points = np.random.default_rng(0).uniform(0, by_hand.SHAPE, (200_000, 3))
    lines = Streamlines(points.astype(np.float32), np.arange(0, 200_001, 50))
    lines = Streamlines(lines.points, lines.offsets, {"weight": np.ones((4000, 1), np.float32)})
    write_prepared(tmp_path / "a.h5", TractData((MemorySubject("a", SPACE, {}, {"lines": lines}),)))
    subject = open_prepared(tmp_path / "a.h5").training[0]
    subject.streamlines("lines", np.array([0]))  # HDF5 reads what describes the datasets once
    before = read_bytes()
    chosen = np.random.default_rng(0).permutation(4000)[:100]
    found = subject.streamlines("lines", chosen)
    assert read_bytes() - before < 1.2 * found.points.nbytes + 8192
    np.testing.assert_array_equal(found.points, lines.select(chosen).points)


@pytest.mark.parametrize("kind", ["chunked", "big-endian", "float64"])
def test_points_stored_in_other_ways(tmp_path: Path, kind: str) -> None:
    path = by_hand.write_by_hand(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        for name in ("data", "data_per_streamline/weight"):
            values = file[f"sub-02/all fibres/{name}"][()]
            del file[f"sub-02/all fibres/{name}"]
            options = {"compression": "gzip", "chunks": (16, values.shape[1])} if kind == "chunked" else {}
            dtype = {"chunked": "<f4", "big-endian": ">f4", "float64": "<f8"}[kind]
            file.create_dataset(f"sub-02/all fibres/{name}", data=values.astype(dtype), **options)
    subject = open_prepared(path).validation[0]
    expected = by_hand.lines_of("sub-02")
    same_lines(lines_of(subject, "all fibres", np.array([30, 2, 3])), [expected[index] for index in (30, 2, 3)])
    some = subject.streamlines("all fibres", np.array([30, 2]))
    assert some.per_line["weight"].tolist() == [[30], [2]]
    assert some.points.dtype == np.float32 and some.per_line["weight"].dtype == np.float32


def check_in_child(subject: Any, expected: np.ndarray, inherited: Any, answers: Any) -> None:
    good = all(np.array_equal(subject.streamlines("lines").points, expected) for _ in range(20))
    answers.put(good and not inherited and bool(handle(subject.path, subject.version)))  # a closed file is false


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
def test_a_subject_in_other_processes(tmp_path: Path) -> None:
    """Each opens the file itself; parent and children read at once."""
    write_prepared(tmp_path / "a.h5", some_data())
    subject: Any = open_prepared(tmp_path / "a.h5").training[0]
    expected = subject.streamlines("lines").points
    inherited = handle(subject.path, subject.version)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    children = [context.Process(target=check_in_child, args=(subject, expected, inherited, answers)) for _ in range(3)]
    for child in children:
        child.start()
    for _ in range(20):
        np.testing.assert_array_equal(subject.streamlines("lines").points, expected)
    assert [answers.get(timeout=60) for _ in children] == [True] * 3
    for child in children:
        child.join()
        assert child.exitcode == 0


def test_a_subject_can_be_sent(tmp_path: Path) -> None:
    """As a process that is spawned gets it: without an open file."""
    write_prepared(tmp_path / "a.h5", some_data())
    subject = open_prepared(tmp_path / "a.h5").training[0]
    before = subject.fingerprint()
    sent = bytes(ForkingPickler.dumps(subject))
    close_handles()
    again = ForkingPickler.loads(sent)
    assert again.fingerprint() == before and again.volumes.keys() == subject.volumes.keys()


def test_a_file_that_is_replaced(tmp_path: Path) -> None:
    """Who has it open goes on with what was there; who opens it now reads the new one; nobody mixes them."""
    write_prepared(tmp_path / "a.h5", some_data())
    before = open_prepared(tmp_path / "a.h5").training[0]
    points = before.streamlines("lines").points
    write_prepared(tmp_path / "a.h5", TractData((MemorySubject("b", SPACE, {}),)))
    assert [subject.name for subject in open_prepared(tmp_path / "a.h5").training] == ["b"]
    np.testing.assert_array_equal(before.streamlines("lines").points, points)
    close_handles()
    with pytest.raises(UsageError, match=r"a\.h5 has been written anew since it was opened"):
        before.streamlines("lines")


@pytest.mark.parametrize("keep", [0.99, 0.5, 0.02, 0.0])
def test_a_file_that_is_cut_off(tmp_path: Path, keep: float) -> None:
    path = by_hand.write_by_hand(tmp_path / "a.h5")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UsageError, match=r"a\.h5 cannot be read as HDF5: .") as caught:
        open_prepared(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_off_while_it_is_open(tmp_path: Path) -> None:
    """No signal ends the process, as it would were the file mapped."""
    write_prepared(tmp_path / "a.h5", some_data())
    subject = open_prepared(tmp_path / "a.h5").training[0]
    os.truncate(tmp_path / "a.h5", 4096)
    with pytest.raises(UsageError, match=r"a\.h5 is cut off"):
        subject.streamlines("lines")
    close_handles()


def breaking(change: str) -> Any:
    def change_it(file: Any) -> None:
        group = file["sub-02/all fibres"]
        match change:
            case "type":
                group.attrs["type"] = "mesh"
            case "offsets":
                group["offsets"][3] = 10**6
            case "lengths":
                del group["lengths"]
                group.create_dataset("lengths", data=[1, 2])
            case "origin":
                del group.attrs["origin"]
            case "space":
                group.attrs["space"] = "Space.MNI"
            case "dps":
                del group["data_per_streamline/weight"]
                group.create_dataset("data_per_streamline/weight", data=[[1.0]])
            case "affine":
                group.attrs["affine"] = np.zeros((4, 4))
            case "shape":
                group.attrs["dimensions"] = np.array([12, 10, 9])
            case "moved":
                group.attrs["affine"] = by_hand.AFFINE + np.array([[0, 0, 0, 0.6]] + 3 * [[0, 0, 0, 0]])
            case "no affine":
                del file["sub-02/a mask"].attrs["affine"]
            case "subject":
                del file["sub-02"]
            case "lists":
                for name in ("training_subjs", "validation_subjs", "testing_subjs"):
                    del file.attrs[name]

    return change_it


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("type", "sub-02/all fibres is of type 'mesh': expected 'volume' or 'streamlines'"),
        ("offsets", r"sub-02/all fibres has lines that reach beyond its \d+ points"),
        ("lengths", r"sub-02/all fibres has points \(\d+, 3\), 43 offsets and 2 lengths"),
        ("origin", "sub-02/all fibres does not say its origin: set its attribute 'origin'"),
        ("space", "sub-02/all fibres has the space 'mni': expected one of vox, voxmm, rasmm"),
        ("dps", r"sub-02/all fibres: 'weight' has \(1,\) rows for 43 lines"),
        ("affine", "sub-02/all fibres: the affine of a volume is no invertible"),
        ("shape", "sub-02/all fibres has another grid than a mask: 12x10x9 voxels, not 12x10x8"),
        ("moved", "sub-02/all fibres has another grid than a mask: its affine differs by up to 0.6"),
        ("no affine", "sub-02/a mask is not as dwi_ml's schema has it: .*affine"),
        ("subject", "lists the subject 'sub-02', but does not hold it"),
        ("lists", "is no prepared data: it has no list of subjects"),
    ],
)
def test_what_does_not_fit_together_is_named(tmp_path: Path, change: str, said: str) -> None:
    path = by_hand.write_by_hand(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        breaking(change)(file)
    with pytest.raises(UsageError, match=rf"a\.h5,? .*{said}|a\.h5, {said}") as caught:
        open_prepared(path)
    assert "\n" not in str(caught.value)


def test_unknown_groups_and_lines(tmp_path: Path) -> None:
    subject = open_prepared(by_hand.write_by_hand(tmp_path / "a.h5")).validation[0]
    with pytest.raises(UsageError, match="sub-02 has no volumes 'mri inptu'; did you mean 'mri input'"):
        subject.volume("mri inptu")
    with pytest.raises(UsageError, match="sub-02 has no lines 'bad one'; did you mean 'bad ones'"):
        subject.streamlines("bad one")
    with pytest.raises(IndexError):
        subject.streamlines("bad ones", np.array([43]))


def test_old_files_counted_lines_that_they_left_out(tmp_path: Path) -> None:
    path = by_hand.write_by_hand(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        group = file["sub-02/all fibres"]
        expected = group["euclidean_lengths"][()]
        del group["euclidean_lengths"]
        group.create_dataset("euclidean_lengths", data=np.ones(99))
    np.testing.assert_allclose(open_prepared(path).validation[0].lines["all fibres"].millimetres, expected, rtol=1e-5)


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from treadle.errors import RunError
from treadle.tracts.prepared_writer import write_prepared
from treadle.tracts.space import Space
from treadle.tracts.subject import MemorySubject, TractData
volume = np.random.default_rng(0).random((20, 20, 20, 3), np.float32)
many = {f"v{k}": (volume, "") for k in range(30)}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (100, 5000, 400_000, 1_000_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
    try:
        write_prepared(Path(sys.argv[1]), TractData((MemorySubject("a", Space(np.eye(4), (20, 20, 20)), many),)))
    except RunError as error:
        print(error)
"""


def test_a_disk_that_fills_leaves_what_was_there(tmp_path: Path) -> None:
    """HDF5 by itself ends the process then: it puts writing off, and cannot put it off for ever."""
    assert resource.RLIM_INFINITY == -1
    path = tmp_path / "a.h5"
    path.write_bytes(b"what was there")
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == f"cannot write {path}: File too large; it is as it was\n" * 4
    assert path.read_bytes() == b"what was there" and os.listdir(tmp_path) == ["a.h5"]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    first, second = some_data().training
    for name in ("a/b", "..", ""):
        with pytest.raises(UsageError, match="cannot have the name"):
            write_prepared(tmp_path / "a.h5", TractData((MemorySubject(name, SPACE, {}),)))
    second.name = first.name
    with pytest.raises(UsageError, match="two subjects have the name 'sub-1_ses-1'"):
        write_prepared(tmp_path / "a.h5", TractData((first, second)))
    assert list(tmp_path.iterdir()) == []
