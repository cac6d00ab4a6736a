"""Compressed PLY: what is lost is what the bits say, files of another program are read, damaged ones are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from treadle.cameras.ply import Ply, read_ply, write_ply
from treadle.errors import UsageError
from treadle.splats.cloud import Cloud
from treadle.splats.compressed_ply import CHUNK, chunk_order, read_compressed, write_compressed
from treadle.splats.format_loss import losses
from treadle.splats.ply import read_cloud, write_cloud
from treadle.splats.transform import select

FIXTURES = Path(__file__).parents[1] / "fixtures" / "splats"
"""20 splats of ours, and what splat-transform 2.7.1 made of them."""


@pytest.mark.parametrize("degree", range(4))
def test_what_is_lost_is_half_a_step(tmp_path: Path, cloud: Cloud, degree: int) -> None:
    cloud = replace(cloud, rest=cloud.rest[:, : (degree + 1) ** 2 - 1], antialiased=degree == 2)
    path = tmp_path / "x.compressed.ply"
    assert write_compressed(path, cloud) == path.stat().st_size < 300 * (16 + 45) + 2 * 72 + 2500
    found = read_compressed(path)
    assert found.antialiased == cloud.antialiased and found.degree == degree and len(found) == 300
    lost = losses(select(cloud, chunk_order(cloud)), found)
    limits = {"position": 4 / 1023 * 0.75, "scale": 8 / 1023, "rotation": 0.25, "opacity": 0.5 / 255 + 1e-6,
              "colour": 2.5 / 255 / 2, "harmonics": 4 / 256 + 1e-6}  # fmt: skip
    assert lost.keys() == limits.keys() - ({"harmonics"} if degree == 0 else set())
    for name, loss in lost.items():
        assert 0 < loss.rms < loss.largest <= limits[name], name


def test_writing_what_was_read_changes_nothing_more(tmp_path: Path, cloud: Cloud) -> None:
    cloud = select(cloud, torch.arange(CHUNK))  # a chunk of its own keeps its bounds
    write_compressed(tmp_path / "a.compressed.ply", cloud)
    once = read_compressed(tmp_path / "a.compressed.ply")
    write_compressed(tmp_path / "b.compressed.ply", once)
    again = read_compressed(tmp_path / "b.compressed.ply")
    lost = losses(select(once, chunk_order(once)), again)
    assert max(lost[name].largest for name in ("scale", "opacity", "harmonics", "colour")) < 1e-5


def test_harmonics_reach_from_minus_4_to_4(tmp_path: Path, cloud: Cloud) -> None:
    cloud.rest[:] = torch.tensor([-9.0, 0.004, 9.0])
    write_compressed(tmp_path / "x.ply", cloud)
    found = read_compressed(tmp_path / "x.ply").rest
    assert (found == torch.tensor([-4.0, 1 / 64, 4.0])).all()


def test_chunks_are_neighbours(cloud: Cloud) -> None:
    order = chunk_order(cloud)
    assert sorted(order.tolist()) == list(range(300))
    steps = cloud.means[order].diff(dim=0).norm(dim=1).mean()
    assert steps < 0.5 * cloud.means.diff(dim=0).norm(dim=1).mean()


def test_files_of_another_program_are_read() -> None:
    """They differ from the original by no more than what the format loses."""
    original = read_cloud(FIXTURES / "splats.ply")
    found = read_compressed(FIXTURES / "theirs.compressed.ply")
    lost = losses(select(original, chunk_order(original)), found)
    assert lost["position"].largest < 4e-3 and lost["rotation"].largest < 0.25 and lost["scale"].largest < 0.01
    assert lost["opacity"].largest < 0.002 and lost["colour"].largest < 0.01 and lost["harmonics"].largest < 0.016


def test_ours_is_bit_for_bit_what_another_program_writes(tmp_path: Path) -> None:
    write_compressed(tmp_path / "x.ply", read_cloud(FIXTURES / "splats.ply"))
    ours = read_ply(tmp_path / "x.ply").elements
    theirs = read_ply(FIXTURES / "theirs.compressed.ply").elements
    assert list(ours) == list(theirs) == ["chunk", "vertex", "sh"]
    for name in ("vertex", "sh"):
        assert ours[name].dtype == theirs[name].dtype and (ours[name] == theirs[name]).all(), name
    for name in ours["chunk"].dtype.names or ():
        np.testing.assert_allclose(ours["chunk"][name], theirs["chunk"][name], rtol=1e-6, atol=1e-7)


def test_without_bounds_of_colours_they_are_shares(tmp_path: Path, cloud: Cloud) -> None:
    path = tmp_path / "x.ply"
    write_compressed(path, cloud)
    elements = dict(read_ply(path).elements)
    names = list(elements["chunk"].dtype.names or ())[:12]
    elements["chunk"] = np.array(elements["chunk"][names].tolist(), [(name, "f4") for name in names])
    elements["vertex"]["packed_color"][0] = 255 << 24 | 51 << 16 | 0 << 8 | 255
    write_ply(path, Ply(elements))
    found = read_compressed(path)
    assert (0.5 + found.dc[0] * 0.28209479).tolist() == pytest.approx([1, 0.2, 0], abs=1e-6)
    assert found.logits[0].isfinite() and found.logits[0] > 6


def damaged(change: Any, tmp_path: Path, cloud: Cloud) -> Path:
    path = tmp_path / "x.compressed.ply"
    write_compressed(path, cloud)
    elements = dict(read_ply(path).elements)
    change(elements)
    write_ply(path, Ply(elements))
    return path


def drop(name: str, rows: int) -> Any:
    return lambda elements: elements.update({name: elements[name][rows:]})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda elements: elements.pop("chunk"), "without an element named chunk"),
        (drop("vertex", 300), "is empty: its element vertex has 0 rows"),
        (drop("chunk", 1), "300 splats come in 2 chunks of 256, and it has 1"),
        (drop("sh", 1), "has harmonics of 299 splats, and 300 splats"),
        (lambda e: e.update(sh=e["sh"][["f_rest_0", "f_rest_1"]]), "has 2 harmonics a splat"),
        (
            lambda e: e.update(vertex=e["vertex"].view([(name, "f4") for name in e["vertex"].dtype.names])),
            "element vertex has no uint32",
        ),
        (lambda e: e["chunk"].__setitem__("max_x", np.nan), "splat 0 of 300 has a position that is not finite"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, cloud: Cloud, change: Any, said: str) -> None:
    path = damaged(change, tmp_path, cloud)
    with pytest.raises(UsageError) as caught:
        read_compressed(path)
    assert said in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_cut_off_and_other_files_are_named(tmp_path: Path, cloud: Cloud) -> None:
    path = tmp_path / "x.compressed.ply"
    write_compressed(path, cloud)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match="is cut off: its header promises 300 rows of sh"):
        read_compressed(path)
    write_cloud(path, cloud)
    with pytest.raises(UsageError, match="without an element named chunk"):
        read_compressed(path)
