"""Splats are read as what the file's name says."""

from __future__ import annotations

from pathlib import Path

import pytest

from treadle.errors import UsageError
from treadle.splats.cloud import Cloud
from treadle.splats.compressed_ply import write_compressed
from treadle.splats.files import read_splats
from treadle.splats.ply import write_cloud
from treadle.splats.spz import write_spz
from treadle.splats.transform import select


@pytest.mark.parametrize(
    ("name", "write"), [("a.ply", write_cloud), ("a.b.Compressed.PLY", write_compressed), ("a.SPZ", write_spz)]
)
def test_every_format_is_read(tmp_path: Path, cloud: Cloud, name: str, write: object) -> None:
    assert callable(write)
    write(tmp_path / name, cloud)
    assert len(read_splats(tmp_path / name)) == 300
    with pytest.raises(UsageError, match="there are no splats"):
        write(tmp_path / name, select(cloud, cloud.logits > 1e9))


def test_others_are_named(tmp_path: Path, cloud: Cloud) -> None:
    with pytest.raises(UsageError, match=r"that end in \.compressed\.ply, \.ply, \.spz"):
        read_splats(tmp_path / "a.splat")
    write_compressed(tmp_path / "a.ply", cloud)
    with pytest.raises(UsageError, match=r"is a compressed PLY: name it \.compressed\.ply"):
        read_splats(tmp_path / "a.ply")
