"""Splats as PLY: exact, in the standard's order, in Pointrix's words, and files that are not what they say."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from treadle.cameras.ply import Ply, read_ply, write_ply
from treadle.errors import UsageError
from treadle.splats.cloud import Cloud
from treadle.splats.ply import OPAQUE, read_cloud, write_cloud

STANDARD = (["x", "y", "z", "nx", "ny", "nz"] + [f"f_dc_{i}" for i in range(3)] + [f"f_rest_{i}" for i in range(45)]
            + ["opacity"] + [f"scale_{i}" for i in range(3)] + [f"rot_{i}" for i in range(4)])  # fmt: skip
TENSORS = [entry.name for entry in fields(Cloud) if entry.type == "Tensor"]


def assert_same(found: Cloud, expected: Cloud) -> None:
    for name in TENSORS:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
        assert getattr(found, name).is_contiguous() and getattr(found, name).dtype == torch.float32
    assert found.extra.keys() == expected.extra.keys()
    assert all(torch.equal(found.extra[name], expected.extra[name]) for name in expected.extra)
    assert found.antialiased == expected.antialiased


@pytest.mark.parametrize("degree", range(4))
def test_a_cloud_is_read_back_as_it_was(tmp_path: Path, cloud: Cloud, degree: int) -> None:
    cloud = replace(cloud, rest=cloud.rest[:, : (degree + 1) ** 2 - 1].contiguous(), antialiased=degree == 1)
    path = tmp_path / "splats.ply"
    assert write_cloud(path, cloud) == path.stat().st_size
    found = read_cloud(path)
    assert_same(found, cloud)
    assert found.degree == degree


def test_the_standard_has_62_floats_in_its_order(tmp_path: Path, cloud: Cloud) -> None:
    write_cloud(tmp_path / "splats.ply", cloud)
    table = read_ply(tmp_path / "splats.ply").elements["vertex"]
    assert list(table.dtype.names) == STANDARD and {kind for kind, _ in table.dtype.fields.values()} == {np.dtype("f4")}
    assert table["f_rest_0"][7] == cloud.rest[7, 0, 0] and table["f_rest_14"][7] == cloud.rest[7, 14, 0]
    assert table["f_rest_15"][7] == cloud.rest[7, 0, 1] and table["f_rest_31"][7] == cloud.rest[7, 1, 2]
    assert table["rot_0"][7] == cloud.quaternions[7, 0] and table["opacity"][7] == cloud.logits[7]
    assert table["scale_2"][7] == cloud.log_scales[7, 2] and table["f_dc_1"][7] == cloud.dc[7, 1]
    assert not table["nx"].any()


def test_another_program_reads_every_field(tmp_path: Path, cloud: Cloud) -> None:
    plyfile = pytest.importorskip("plyfile")
    cloud = replace(cloud, antialiased=True, extra={"heat": cloud.logits * 2})
    write_cloud(tmp_path / "splats.ply", cloud, ["up y"])
    found = plyfile.PlyData.read(tmp_path / "splats.ply")
    assert [entry.name for entry in found["vertex"].properties] == [*STANDARD, "heat"]
    assert found.comments == ["SplatRenderMode: mip", "up y"]
    rest = np.stack([found["vertex"][f"f_rest_{i}"] for i in range(45)], 1).reshape(-1, 3, 15).transpose(0, 2, 1)
    assert (rest == cloud.rest.numpy()).all() and (found["vertex"]["heat"] == cloud.extra["heat"].numpy()).all()
    found.write(tmp_path / "again.ply")
    assert_same(read_cloud(tmp_path / "again.ply"), cloud)
    plyfile.PlyData(found.elements, text=True).write(tmp_path / "text.ply")
    assert torch.allclose(read_cloud(tmp_path / "text.ply").rest, cloud.rest, rtol=1e-5)


def test_further_attributes_come_back_in_their_shapes(tmp_path: Path, cloud: Cloud) -> None:
    extra = {"heat": cloud.logits, "feature": cloud.rest[:, :5, 0], "frame": cloud.rest[:, 3:6, :]}
    write_cloud(tmp_path / "x.ply", replace(cloud, extra=extra))
    assert_same(read_cloud(tmp_path / "x.ply"), replace(cloud, extra=extra))


def test_of_a_foreign_file_further_numbers_are_kept_one_by_one(tmp_path: Path, cloud: Cloud) -> None:
    write_cloud(tmp_path / "x.ply", cloud)
    table = read_ply(tmp_path / "x.ply").elements["vertex"]
    names = [name for name in STANDARD if name[0] != "n"]
    other = np.zeros(len(table), [*((name, "f8") for name in names), ("label", "u1"), ("filter_3D", "f4")])
    for name in names:
        other[name] = table[name]
    other["label"], other["filter_3D"] = 7, 0.5
    for comment, antialiased in (("antialiased 1", True), ("SplatRenderMode: default", False)):
        write_ply(tmp_path / "other.ply", Ply({"vertex": other}, [comment]))
        extra = {"label": torch.full((300,), 7.0), "filter_3D": torch.full((300,), 0.5)}
        assert_same(read_cloud(tmp_path / "other.ply"), replace(cloud, extra=extra, antialiased=antialiased))


def test_pointrix_names_are_read(tmp_path: Path, cloud: Cloud) -> None:
    """As its PointCloud.save_ply has them: attributes in the order of their making, harmonics by coefficient."""
    parts = {"x": cloud.means[:, :1], "y": cloud.means[:, 1:2], "z": cloud.means[:, 2:], "n": torch.zeros(300, 3),
             "features": cloud.dc, "features_rest": cloud.rest.flatten(1), "scaling": cloud.log_scales,
             "rotation": cloud.quaternions, "opacity": cloud.logits[:, None]}  # fmt: skip
    names = [name if name in "xyz" else "n" + "xyz"[i] if name == "n" else f"{name}_{i}"
             for name, values in parts.items() for i in range(values.shape[1])]  # fmt: skip
    matrix = torch.cat(list(parts.values()), 1).numpy()
    write_ply(tmp_path / "x.ply", Ply({"vertex": matrix.view([(name, "f4") for name in names])[:, 0]}))
    assert len(names) == 62
    assert_same(read_cloud(tmp_path / "x.ply"), cloud)


def test_infinite_opacities_become_the_nearest(tmp_path: Path, cloud: Cloud) -> None:
    cloud.logits[:3] = torch.tensor([np.inf, -np.inf, 30.0])
    write_cloud(tmp_path / "x.ply", cloud)
    found = read_cloud(tmp_path / "x.ply").logits
    assert found[:3].tolist() == [OPAQUE, -OPAQUE, 30] and torch.equal(found[3:], cloud.logits[3:])


def spoiled(cloud: Cloud, **changes: Any) -> Cloud:
    tensors = {name: getattr(cloud, name).clone() for name in changes}
    for name, value in changes.items():
        tensors[name][5] = value
    return replace(cloud, **tensors)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"means": np.nan}, "splat 5 of 300 has a position that is not finite"),
        ({"logits": np.nan}, "splat 5 of 300 has a opacity that is not finite"),
        ({"log_scales": -np.inf}, "splat 5 of 300 has a scale that is not finite"),
        ({"rest": np.inf}, "splat 5 of 300 has a colour's harmonic that is not finite"),
        ({"quaternions": 0.0}, "splat 5 of 300 has a rotation of length 0"),
    ],
)
def test_numbers_that_are_none_are_named(tmp_path: Path, cloud: Cloud, changes: Any, said: str) -> None:
    write_cloud(tmp_path / "x.ply", spoiled(cloud, **changes))
    with pytest.raises(UsageError, match=said):
        read_cloud(tmp_path / "x.ply")


def test_files_that_hold_no_splats_are_refused(tmp_path: Path, cloud: Cloud) -> None:
    path = tmp_path / "x.ply"
    for said, names in [
        ("no PLY of splats: it has no property 'f_dc_0'", ["x", "y", "z", "red", "green", "blue"]),
        ("no PLY of splats: it has no property 'opacity'", [name for name in STANDARD if name != "opacity"]),
        ("has 44 properties f_rest: expected 0, 9, 24 or 45", [name for name in STANDARD if name != "f_rest_9"]),
        ("is empty: its element vertex has 0 rows", []),
        ("is a compressed PLY", ["packed_position"]),
    ]:
        kinds = [(name, "f4") for name in names or STANDARD]
        write_ply(path, Ply({"vertex": np.zeros(1 if names else 0, kinds)}))
        with pytest.raises(UsageError, match=said):
            read_cloud(path)
    write_cloud(path, cloud)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match="is cut off: its header promises 300 rows of vertex"):
        read_cloud(path)


@pytest.mark.parametrize(("name", "said"), [("a b", "PLY wants letters"), ("opacity", "has a property 'opacity'")])
def test_attributes_that_cannot_be_written_are_named(tmp_path: Path, cloud: Cloud, name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        write_cloud(tmp_path / "x.ply", replace(cloud, extra={name: cloud.logits}))
    assert not list(tmp_path.iterdir())
