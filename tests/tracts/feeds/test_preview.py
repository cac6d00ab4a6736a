from __future__ import annotations

import numpy as np
import pytest
from lines_cases import subjects

from treadle.errors import UsageError
from treadle.tracts.feeds.preview import preview
from treadle.tracts.feeds.settings import LinesSettings
from treadle.tracts.feeds.tract_feed import TractFeed
from treadle.tracts.files import read_streamlines

pytest.importorskip("nibabel")


def feed(*counts, **settings):
    made = TractFeed(subjects(*counts), LinesSettings(batch_size=20, **settings), training=True, ends=True)
    made.bind(5, "cpu")
    return made


def test_the_file_holds_the_batch(tmp_path):
    made = feed(30, split=0.5, reverse=0.5, noise=0.2)
    (path,) = preview(made, tmp_path / "batch.trk", epoch=2, batch=1)
    lines, space = read_streamlines(path)
    batch = made.gather(2, made.plan(2)[1])
    assert space.same(made.loader.spaces[0])
    np.testing.assert_array_equal(lines.per_line["line"][:, 0], batch.lines)
    assert {0.0, 1.0} == set(lines.per_line["whole"][:, 0])
    for k in range(len(lines)):
        rows = slice(batch.offsets[k], batch.offsets[k + 1])
        whole = bool(lines.per_line["whole"][k, 0])
        np.testing.assert_allclose(lines[k] if whole else lines[k][:-1], batch.points[rows], atol=1e-4)


def test_each_subject_has_its_file(tmp_path):
    made = feed(10, 10)
    paths = preview(made, tmp_path / "batch.trk")
    assert [path.name for path in paths] == ["batch-sub-0.trk", "batch-sub-1.trk"]
    second, _ = read_streamlines(paths[1], made.loader.spaces[1])
    assert len(second) == 10


def test_a_batch_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="batch 2 of epoch 0: it has 2"):
        preview(feed(40), tmp_path / "batch.trk", batch=2)
