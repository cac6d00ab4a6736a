from __future__ import annotations

import numpy as np
import pytest
import torch

from treadle.errors import UsageError
from treadle.fields.sdf.pool import Mixture, PoolFeed, draw
from treadle.fields.sdf.solid import enclose

pytest.importorskip("igl")


def test_samples_are_uniform_near_and_on_the_surface_in_these_parts(ball):
    solid = enclose(ball(paint=True))
    found = draw(solid, 5000, 1)
    distances = found.distances.numpy()[:, 0]
    assert found.points.shape == (5000, 3) and found.points.dtype == found.distances.dtype == torch.float32
    uniform, near, on = np.split(distances, [1000, 3000])
    assert (on == 0).all()
    assert np.std(near) == pytest.approx(0.01, rel=0.1)  # of a nearly flat surface the deviation along its normal
    assert float(found.points[:1000].mean(0).abs().max()) < 0.1 and uniform.max() > 0.6 and uniform.min() < -0.6
    exact = solid.distances(found.points.double().numpy())
    np.testing.assert_allclose(distances, exact, atol=2e-7)
    red = found.points[:, 0] > 0.05
    torch.testing.assert_close(found.colors[red], torch.tensor([[1.0, 0, 0]]).expand(int(red.sum()), 3))


def test_other_parts_and_spreads(ball):
    solid = enclose(ball())
    alone = draw(solid, 1000, 0, Mixture(0, 1, 0), spread=0.3)
    assert alone.colors.shape == (1000, 0) and alone.points.abs().max() <= 1
    assert (alone.distances.abs() > 0.1).float().mean() > 0.3
    assert (draw(solid, 7, 0, Mixture(1, 1, 1)).distances[-2:] == 0).all()


def test_a_pool_is_a_function_of_seed_and_epoch_and_kept_for_some_epochs(ball):
    solid = enclose(ball())

    def epochs(seed: int, start: int = 0):
        feed = PoolFeed(solid, 300, 100, epochs=2, seed=seed)
        return [torch.cat([batch.points for batch in feed.iterate(epoch)]) for epoch in range(start, 4)]

    first, again = epochs(3), epochs(3)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first[2:], epochs(3, 2), strict=True))
    assert not torch.equal(first[0], epochs(4)[0])

    def rows(points):
        return {tuple(row) for row in points.tolist()}

    assert rows(first[0]) == rows(first[1]) and not torch.equal(first[0], first[1])
    assert not rows(first[1]) & rows(first[2])


def test_every_sample_comes_once_and_an_epoch_can_be_entered_anywhere(ball):
    feed = PoolFeed(enclose(ball()), 250, 100)
    feed.bind(5, "cpu")
    whole = [batch.points for batch in feed.iterate(0)]
    assert [len(points) for points in whole] == [100, 100, 50] and feed.batches == 3
    assert len({tuple(row) for row in torch.cat(whole).tolist()}) == feed.samples == 250
    later = [batch.points for batch in feed.iterate(0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(whole[1:], later, strict=True))


def test_what_does_not_fit_is_refused_and_the_data_is_told_by_its_fingerprint(ball):
    solid = enclose(ball())
    with pytest.raises(UsageError, match="batch_size is 11: expected 1 to 10"):
        PoolFeed(solid, 10, 11)
    with pytest.raises(UsageError, match="one in all"):
        PoolFeed(solid, 10, 1, mixture=Mixture(0, 0, 0))
    assert PoolFeed(solid, 10, 1).fingerprint() == PoolFeed(solid, 99, 9).fingerprint()
    assert PoolFeed(solid, 10, 1).fingerprint() != PoolFeed(enclose(ball(rings=9)), 10, 1).fingerprint()
