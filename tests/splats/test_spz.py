"""spz: what is lost is what the bits say, its axes are its own, foreign files are read, damaged ones named."""

from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from treadle.errors import UsageError
from treadle.splats.cloud import Cloud
from treadle.splats.format_loss import losses
from treadle.splats.ply import read_cloud
from treadle.splats.spz import read_spz, write_spz

FIXTURES = Path(__file__).parents[1] / "fixtures" / "splats"
"""20 splats of ours, and what splat-transform 2.7.1 made of them."""


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("degree", range(4))
def test_what_is_lost_is_half_a_step(tmp_path: Path, cloud: Cloud, version: int, degree: int) -> None:
    path = tmp_path / "x.spz"
    cloud = replace(cloud, rest=cloud.rest[:, : (degree + 1) ** 2 - 1].clamp(-0.9, 0.9), dc=cloud.dc.clamp(-3, 3),
                    antialiased=degree == 1)  # fmt: skip
    assert write_spz(path, cloud, version) == path.stat().st_size < 300 * 65
    found = read_spz(path)
    assert found.antialiased == cloud.antialiased and found.degree == degree and len(found) == 300
    rotation = 0.3 if version == 3 else 15  # degrees: 8 bits are few where w is near 0
    limits = {"position": 1 / 4096, "scale": 0.0323, "rotation": rotation, "opacity": 0.5 / 255 + 1e-6,
              "colour": 0.5 / 255 / 0.15 * 0.2821 + 1e-6, "harmonics": 8.5 / 128}  # fmt: skip
    lost = losses(cloud, found)
    assert lost.keys() == limits.keys() - ({"harmonics"} if degree == 0 else set())
    for name, loss in lost.items():
        assert 0 < loss.rms < loss.largest <= limits[name], name


def test_its_axes_are_right_up_back(tmp_path: Path, cloud: Cloud) -> None:
    write_spz(tmp_path / "x.spz", cloud)
    plain = gzip.decompress((tmp_path / "x.spz").read_bytes())
    magic, version, count, degree, bits = struct.unpack_from("<4sIIBB", plain)
    assert (magic, version, count, degree) == (b"NGSP", 3, 300, 3)
    first = [int.from_bytes(plain[16 + 3 * i : 19 + 3 * i], "little", signed=True) / 2**bits for i in range(3)]
    np.testing.assert_allclose(first, cloud.means[0] * torch.tensor([1, -1, -1]), atol=1e-3)


def test_files_of_another_program_are_read() -> None:
    lost = losses(read_cloud(FIXTURES / "splats.ply"), read_spz(FIXTURES / "theirs.spz"))
    assert lost["position"].largest < 2.5e-4 and lost["rotation"].largest < 0.3 and lost["scale"].largest < 0.0323
    assert lost["opacity"].largest < 0.002 and lost["harmonics"].largest < 8.5 / 128 and lost["colour"].rms < 0.005


def test_what_we_write_differs_from_another_programs_file_in_no_more_than_the_bits_of_positions(tmp_path: Path) -> None:
    write_spz(tmp_path / "x.spz", read_cloud(FIXTURES / "splats.ply"))
    ours, theirs = (gzip.decompress(path.read_bytes()) for path in (tmp_path / "x.spz", FIXTURES / "theirs.spz"))
    assert len(ours) == len(theirs) and ours[:13] == theirs[:13]
    assert ours[16 + 180 :] == theirs[16 + 180 :]


@pytest.mark.parametrize(("scale", "largest"), [(1e-4, 2e-9), (1.0, 1e-4), (1000.0, 0.1), (4e6, 1.0)])
def test_the_point_stands_where_the_scene_needs_it(tmp_path: Path, cloud: Cloud, scale: float, largest: float) -> None:
    cloud = replace(cloud, means=cloud.means * scale)
    write_spz(tmp_path / "x.spz", cloud)
    assert losses(cloud, read_spz(tmp_path / "x.spz"))["position"].largest <= max(largest, 1e-6)


def test_the_same_cloud_gives_the_same_file(tmp_path: Path, cloud: Cloud) -> None:
    write_spz(tmp_path / "a.spz", cloud)
    write_spz(tmp_path / "b.spz", cloud)
    assert (tmp_path / "a.spz").read_bytes() == (tmp_path / "b.spz").read_bytes()


def header(version: int = 3, count: int = 1, degree: int = 0, bits: int = 12, flags: int = 0) -> bytes:
    return struct.pack("<4sIIBBBx", b"NGSP", version, count, degree, bits, flags)


ONE = header() + bytes(20)
BAD = {
    "empty": (b"", "is no .spz file: it does not begin as gzip does"),
    "a picture": (b"\x89PNG\r\n\x1a\n", "is no .spz file"),
    "other content": (gzip.compress(b"hello, this is no splat"), "does not begin with NGSP"),
    "too short": (gzip.compress(b"NGSP"), "does not begin with NGSP"),
    "version 1": (gzip.compress(header(version=1) + bytes(50)), "is of version 1 of .spz: only versions 2 and 3"),
    "version 4": (header(version=4) + bytes(50), "is of version 4 of .spz or later"),
    "degree": (gzip.compress(header(degree=4) + bytes(200)), "has harmonics of degree 4"),
    "bits": (gzip.compress(header(bits=60) + bytes(20)), "its positions have 60 bits after the point"),
    "no splats": (gzip.compress(header(count=0)), "has no splats"),
    "huge count": (gzip.compress(header(count=2**32 - 1) + bytes(1000)), "cannot hold"),
    "too few": (gzip.compress(header(count=2) + bytes(39)), "is cut off: its header promises 2 splats"),
    "too many": (gzip.compress(ONE + bytes(1)), "it goes on after its 1 splats"),
    "cut off": (gzip.compress(ONE)[:-9], "is cut off"),
    "cut off within the header": (gzip.compress(ONE)[:12], "does not begin with NGSP"),
    "bit flipped": (gzip.compress(ONE)[:-6] + b"\0\0\0\0\0\0", "its gzip cannot be unpacked"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, what: str) -> None:
    content, said = BAD[what]
    path = tmp_path / "bad.spz"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_spz(path)
    assert said in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_follows_under_a_flag_is_left(tmp_path: Path) -> None:
    (tmp_path / "x.spz").write_bytes(gzip.compress(header(flags=2) + bytes(20) + struct.pack("<II4x", 0xADBE0002, 4)))
    assert len(read_spz(tmp_path / "x.spz")) == 1


def test_what_cannot_be_written_is_said(tmp_path: Path, cloud: Cloud) -> None:
    with pytest.raises(UsageError, match="version 4"):
        write_spz(tmp_path / "x.spz", cloud, 4)
    with pytest.raises(UsageError, match="scale the scene down"):
        write_spz(tmp_path / "x.spz", replace(cloud, means=cloud.means * 1e8))
    with pytest.raises(UsageError, match="cannot be written"):
        write_spz(tmp_path / "no" / "x.spz", cloud)
    with pytest.raises(UsageError, match="cannot be read"):
        read_spz(tmp_path / "x.spz")
