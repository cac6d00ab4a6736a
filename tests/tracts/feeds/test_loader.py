from __future__ import annotations

import numpy as np
import pytest
import torch
from lines_cases import SIZES, space, subject, subjects

from treadle.errors import UsageError
from treadle.kernels.trilinear import interpolate
from treadle.tracts.feeds.loader import LineLoader
from treadle.tracts.feeds.settings import LinesSettings
from treadle.tracts.signal import harmonics, tensor
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import MemorySubject


def load(given, *, training=True, ends=False, features=True, **settings):
    return LineLoader(given, LinesSettings(**settings), training, ends, features)


def linear(kind: str, shape=(12, 14, 10), seed=0):
    """A volume that is linear in space, so that interpolation is exact: its array, and what it is at points (n, 3)."""
    features = {"tensor": 6, "sh": 15}[kind]
    rng = np.random.default_rng(seed)
    constant, slope = rng.normal(size=features), 0.1 * rng.normal(size=(3, features))
    centres = np.stack(np.meshgrid(*(np.arange(size) + 0.5 for size in shape), indexing="ij"), axis=-1)
    return (constant + centres @ slope).astype(np.float32), lambda points: constant + points @ slope


@pytest.mark.parametrize("ends", [False, True])
def test_a_batch_holds_lines_as_they_are_in_the_data(ends):
    given = subjects(4, 3)
    batch = load(given, training=False, ends=ends).batch(0, 0, [1, 3, 4, 6])
    assert batch.lines.tolist() == [1, 3, 4, 6] and batch.subject.tolist() == [0, 0, 1, 1]
    assert batch.offsets.dtype == torch.int64 and batch.offsets[-1] == len(batch.points)
    for k, (number, line) in enumerate([(0, 1), (0, 3), (1, 0), (1, 2)]):
        points = given[number].streamlines("bundle")[line]
        rows = slice(batch.offsets[k], batch.offsets[k + 1])
        expected = points if ends else points[:-1]
        np.testing.assert_allclose(batch.points[rows], expected, atol=1e-6)
        steps = np.diff(points, axis=0) * SIZES
        np.testing.assert_allclose(batch.previous[rows], [[0, 0, 0], *steps][: len(expected)], atol=1e-5)
        np.testing.assert_allclose(batch.targets[rows], [*steps, [0, 0, 0]][: len(expected)], atol=1e-5)
        assert batch.last[rows].tolist() == [False] * (len(points) - 1) + [True] * ends
        volume = torch.from_numpy(given[number].volume("dwi"))
        assert torch.equal(batch.features[rows], interpolate(volume, batch.points[rows]))
    assert all(t.dtype == torch.float32 for t in (batch.features, batch.points, batch.previous, batch.targets))


def test_neighbours_are_read_around_each_point():
    given = [subject("a", 5)]
    loader = load(given, training=False, neighbourhood="axes", radius=1.5, radius_units="mm")
    assert loader.inputs == 42
    batch = loader.batch(0, 0, [0, 2])
    volume, offsets = torch.from_numpy(given[0].volume("dwi")), loader.settings.offsets(SIZES)
    assert torch.equal(batch.features, interpolate(volume, batch.points, offsets)) and len(offsets) == 7


@pytest.mark.parametrize("kind", ["tensor", "sh"])
@pytest.mark.parametrize("neighbourhood", ["none", "axes"])
def test_a_turned_line_sees_what_it_would_in_a_turned_world(kind, neighbourhood):
    volume, value = linear(kind)
    lines = subject("a", 30, shortest=5, longest=7).streamlines("bundle")
    given = [MemorySubject("a", space(), {"v": (volume, kind)}, {"l": lines})]
    chosen = {"neighbourhood": neighbourhood, "radius": 0.4, "radius_units": "mm"}
    plain = load(given, training=False, **chosen).batch(5, 2, range(30))
    turned = load(given, rotate=True, **chosen).batch(5, 2, range(30))
    assert torch.equal(turned.points, plain.points) and torch.equal(turned.offsets, plain.offsets)
    offsets = LinesSettings(**chosen).offsets(SIZES).double().numpy() * SIZES
    angles = []
    for k in range(30):
        rows = slice(plain.offsets[k], plain.offsets[k + 1])
        steps, found = plain.targets[rows].double().numpy(), turned.targets[rows].double().numpy()
        # The rotation, from directions before and after; lines bend, so three steps span space.
        left, _, right = np.linalg.svd(found.T @ steps)
        rotation = left @ np.diag([1, 1, np.sign(np.linalg.det(left @ right))]) @ right
        np.testing.assert_allclose(found, steps @ rotation.T, atol=1e-5)
        np.testing.assert_allclose(turned.previous[rows], plain.previous[rows].double().numpy() @ rotation.T, atol=1e-5)
        angles.append(np.trace(rotation))
        # At R p + o of the turned world lies what was at p + R^T o, turned.
        points = plain.points[rows].double().numpy()[:, None] + offsets @ rotation / SIZES
        turn = tensor.rotate if kind == "tensor" else harmonics.rotate
        expected = turn(value(points), rotation).reshape(len(points), -1)
        np.testing.assert_allclose(turned.features[rows], expected, atol=1e-3)
    assert len(set(np.round(angles, 3))) == 30


def test_targets_lead_along_the_clean_line_and_previous_along_the_seen_one():
    given = [subject("a", 40, shortest=5)]
    plain = load(given, training=False).batch(0, 0, range(40))
    noisy = load(given, noise=0.05).batch(0, 0, range(40))
    shaken = load(given, noise_targets=0.05).batch(0, 0, range(40))
    assert torch.equal(noisy.targets, plain.targets) and not torch.equal(noisy.points, plain.points)
    assert torch.equal(shaken.points, plain.points) and not torch.equal(shaken.targets, plain.targets)
    assert torch.equal(shaken.features, plain.features) and not torch.equal(noisy.features, plain.features)
    for k in range(40):
        rows = slice(noisy.offsets[k], noisy.offsets[k + 1])
        expected = np.diff(noisy.points[rows].double(), axis=0) * SIZES
        np.testing.assert_allclose(noisy.previous[rows][1:], expected, atol=2e-5)
        assert not noisy.previous[rows][0].any()


@pytest.mark.parametrize("ends", [False, True])
def test_cut_lines_give_all_their_directions_and_no_false_end(ends):
    given = [subject("a", 60, shortest=3)]
    batch = load(given, ends=ends, split=1, reverse=0.5).batch(0, 0, range(60))
    plain = load(given, training=False, ends=ends).batch(0, 0, range(60))
    assert batch.lines.tolist() == np.repeat(np.arange(60), 2).tolist()
    lines = given[0].streamlines("bundle")
    tips = torch.from_numpy(np.stack([lines[k][[0, -1]] for k in range(60)]))
    for k in range(60):
        rows = slice(batch.offsets[2 * k], batch.offsets[2 * k + 2])
        own = slice(plain.offsets[k], plain.offsets[k + 1])
        lengths = [torch.sort(each.targets[r].norm(dim=1)).values for each, r in ((batch, rows), (plain, own))]
        kept = [each[each > 0] for each in lengths]
        torch.testing.assert_close(*kept)
        # An end is learnt at the line's own ends alone; the cut has none, whichever way the parts run.
        for row in range(rows.start, rows.stop):
            at_end = (batch.points[row] - tips[k]).norm(dim=1).min() < 1e-5
            assert bool(batch.last[row]) <= bool(at_end)
            assert bool(batch.last[row]) == (not batch.targets[row].any())
    assert batch.last.any() == ends


def test_points_are_where_the_settings_ask_for_them():
    given = subjects(12, shortest=4)
    step = load(given, training=False, step_size=0.25).batch(0, 0, range(12))
    inner = step.targets.norm(dim=1)
    assert (inner - 0.25).abs().max() < 0.09 and len(step.points) > len(load(given).batch(0, 0, range(12)).points)
    count = load(given, training=False, ends=True, nb_points=9).batch(0, 0, range(12))
    assert count.offsets.diff().tolist() == [9] * 12
    thin = load(given, training=False, ends=True, compress=0.5).batch(0, 0, range(12))
    assert thin.offsets.diff().max() < 15 and thin.offsets.diff().min() >= 2


@pytest.mark.parametrize("lazy", [False, True])
def test_lines_without_points_are_no_hindrance(lazy):
    lines = Streamlines.of([np.zeros((0, 3)), *[np.random.default_rng(0).uniform(2, 8, (6, 3))] * 2, np.ones((1, 3))])
    volume = np.ones((12, 14, 10, 4), np.float32)
    loader = load([MemorySubject("a", space(), {"v": (volume, "")}, {"l": lines})], nb_points=4, lazy=lazy, ends=True)
    assert loader.batch(0, 0, [1, 2]).offsets.tolist() == [0, 4, 8]


def test_without_a_volume_nothing_is_seen():
    bare = MemorySubject("a", space(), {}, {"l": subject("a", 3).streamlines("bundle")})
    for loader in (load([bare]), load([subject("a", 3)], features=False)):
        assert loader.inputs == 0 and loader.batch(0, 0, [0, 2]).features.shape[1] == 0


def test_one_line_is_a_batch():
    loader = load(subjects(3))
    assert len(loader) == 3 and torch.equal(loader[2].points, loader.batch(0, 0, [2]).points)


def refused():
    elsewhere = Space(np.diag([3.0, 1.0, 1.5, 1.0]), (12, 14, 10))
    lines, one = subject("a", 3).streamlines("bundle"), subject("a", 3)
    volume = one.given_volumes["dwi"]
    broken = Streamlines(np.where(np.arange(len(lines.points))[:, None] == 1, np.nan, lines.points), lines.offsets)
    moved = MemorySubject("a", space(), {"v": volume}, {"l": lines})
    moved.volumes = {"v": type(one.volumes["dwi"])(elsewhere, 6, "tensor")}
    two = MemorySubject("a", space(), {"v": volume, "w": volume}, {"l": lines})
    return [
        ([], {}, "no subject"),
        ([one], {"volume": "dwj"}, "no volumes 'dwj'.*dwi"),
        ([one], {"lines": "bundel"}, "no lines 'bundel'.*bundle"),
        ([two], {}, "a has the volumes v, w: say which"),
        ([one, subject("b", 2, kind="")], {}, "models need the same"),
        ([one, MemorySubject("b", space(), {}, {"l": lines})], {}, "some have none"),
        ([subject("a", 3, kind="")], {"rotate": True}, "rotate: the volume 'dwi' does not say"),
        ([moved], {}, "differ in space"),
        ([MemorySubject("a", space(), {"v": volume}, {"l": broken})], {}, "a: the streamlines 'l' have points .* NaN"),
    ]


@pytest.mark.parametrize(("given", "settings", "words"), refused())
def test_subjects_that_do_not_fit_are_refused(given, settings, words):
    with pytest.raises(UsageError, match=words):
        load(given, **settings).batch(0, 0, [0])
